"""Keeping the published trust current."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from chalicelib.domain.model import CertificateRecord
from chalicelib.domain.pki.crl import Revocation, sign_crl
from chalicelib.domain.pki.leaves import certificate_pem
from chalicelib.domain.trust import PublishedTrust, Trust
from chalicelib.errors import DependencyFailed, Misconfigured
from tests.unit.authorities import DAY, HOST, NOW, SECOND, client_ca, server_ca
from tests.unit.certificate_records import record
from tests.unit.stand_ins import MemoryRecords, World

BOTH = [client_ca(1), client_ca(2)]
HOUR = timedelta(hours=1)


def lists(pem: str) -> list[x509.CertificateRevocationList]:
    end = "-----END X509 CRL-----\n"
    return [x509.load_pem_x509_crl((part + end).encode()) for part in pem.split(end) if part]


def test_nothing_published_is_told_as_such(world: World) -> None:
    with pytest.raises(Misconfigured) as caught:
        world.trust.current()
    assert caught.value.code == "no_trust"


def test_what_a_refresh_publishes_is_what_is_current(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    refreshed = world.trust.refresh()
    assert caplog.messages == [f"published trust {refreshed.version} with CRL number 1"]
    assert world.trust.current() == refreshed
    assert world.journal.done == ["publish"]


def test_the_trust_names_the_registry_and_holds_every_ca(world: World) -> None:
    world.authorities.clients, servers = BOTH, [server_ca(), server_ca("other." + HOST)]
    world.authorities.servers = servers
    trust = world.trust.refresh()
    assert (trust.registry, trust.registry_address) == (f"{HOST}:8443", "192.0.2.7")
    assert trust.client_ca == "".join(certificate_pem(ca.certificate) for ca in BOTH)
    assert trust.ca_bundle == "".join(certificate_pem(ca.certificate) for ca in servers)


def test_each_client_ca_signs_a_list_of_its_own_revocations(world: World) -> None:
    """nginx refuses every client of a CA whose list is missing."""
    world.authorities.clients = BOTH
    for serial, ca in enumerate(BOTH, 101):
        world.records.rows[ca.id] = [row(serial)]
    found = lists(world.trust.refresh().crl)
    assert [crl.issuer for crl in found] == [ca.certificate.subject for ca in BOTH]
    assert [[entry.serial_number for entry in crl] for crl in found] == [[101], [102]]
    for crl, ca in zip(found, BOTH, strict=True):
        assert crl.is_signature_valid(ca.key.public_key())
        assert crl.last_update_utc == NOW.replace(microsecond=0) - timedelta(minutes=5)


def test_the_number_grows_with_every_refresh_and_is_in_every_list(world: World) -> None:
    world.authorities.clients = BOTH
    for expected in (1, 2, 3):
        trust = world.trust.refresh()
        numbers = [
            crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            for crl in lists(trust.crl)
        ]
        assert [trust.crl_number, *numbers] == [expected] * 3


def test_the_number_is_taken_before_the_revocations_are_read(world: World) -> None:
    """So a list of a greater number never knows less than one of a smaller."""
    seen: list[int] = []

    class Watched(MemoryRecords):
        def revocations(self, issuer_id: str, now: object) -> list[dict[str, str]]:
            seen.append(self.number)
            return []

    world.records = Watched(world.journal, number=41)
    world.trust.refresh()
    assert seen == [42]


def test_what_the_cas_are_is_read_anew_for_each_publication(world: World) -> None:
    """A process that lives through a rotation must not publish the trust of before it."""
    for times in (1, 2):
        world.trust.refresh()
        assert world.authorities.reread_times == times


class TestOrder:
    """Publications that run at once."""

    def test_an_older_one_does_not_replace_a_newer(self, world: World) -> None:
        interfere_once(world, lambda: world.trust.refresh())
        assert world.trust.refresh().crl_number == 3
        assert [trust.crl_number for trust in world.bundles.published] == [2, 3]

    def test_the_loser_sees_what_was_revoked_before_it_began(self, world: World) -> None:
        issuer = client_ca().id

        def another() -> None:
            world.trust.refresh()
            world.records.rows[issuer] = [row(101)]

        interfere_once(world, another)
        (crl,) = lists(world.trust.refresh().crl)
        assert [entry.serial_number for entry in crl] == [101]

    def test_who_finds_its_revocation_published_by_another_leaves_it_at_that(
        self, world: World
    ) -> None:
        world.records.rows[client_ca().id] = [row(101)]
        interfere_once(world, lambda: world.trust.refresh())
        assert world.trust.show_revoked([of(101)]) == 2
        assert len(world.bundles.published) == 1

    def test_but_not_at_what_was_broken_off(self, world: World) -> None:
        """The list in the document may not be the one that the registry reads."""
        world.records.rows[client_ca().id] = [row(101)]
        world.trust.refresh()
        world.bundles.whole = False
        assert world.trust.show_revoked([of(101)]) == 2

    def test_one_that_is_being_written_is_waited_for_but_not_for_ever(self, world: World) -> None:
        world.trust.refresh()
        assert world.pauses == []
        world.bundles.whole = False
        world.trust.refresh()
        assert 1 <= sum(world.pauses) <= 3

    def test_it_begins_once_however_slowly_the_bucket_answers(self, world: World) -> None:
        """Else a publication that was broken off would keep every other from healing it."""
        world.trust.refresh()
        world.bundles.whole = False
        look = world.bundles.published_trust

        def slowly() -> PublishedTrust:
            world.time += 15 * SECOND
            return look()

        world.bundles.published_trust = slowly  # type: ignore[method-assign]
        assert world.trust.refresh().crl_number == 2

    def test_it_gives_up_while_there_is_time_to_say_so(self, world: World) -> None:
        """API Gateway waits for 29 seconds, and then nobody is told what was done."""

        def another(trust: Trust) -> None:
            world.bundles.published.append(trust)
            world.time += 7 * SECOND

        world.bundles.before_publish = another
        with pytest.raises(DependencyFailed):
            world.trust.refresh()
        assert len(world.bundles.published) == 2

    def test_a_revocation_that_the_others_lack_is_published_all_the_same(
        self, world: World
    ) -> None:
        def another() -> None:
            world.trust.refresh()
            world.records.rows[client_ca().id] = [row(101)]

        interfere_once(world, another)
        assert world.trust.show_revoked([of(101)]) == 3

    def test_who_always_loses_gives_up_and_says_so(self, world: World) -> None:
        def another(trust: Trust) -> None:
            world.bundles.published.append(trust)

        world.bundles.before_publish = another
        with pytest.raises(DependencyFailed) as caught:
            world.trust.refresh()
        assert caught.value.code == "busy"

    def test_many_at_once_lose_no_revocation_and_numbers_only_grow(self, world: World) -> None:
        issuer, together = client_ca().id, threading.Barrier(6)
        world.records.rows[issuer] = []

        def revoke(number: int) -> int | None:
            together.wait()
            world.records.rows[issuer].append(row(number))
            return world.trust.show_revoked([of(number)])

        with ThreadPoolExecutor(6) as threads:
            numbers = list(threads.map(revoke, range(101, 107)))
        published = [trust.crl_number for trust in world.bundles.published]
        assert published == sorted(set(published))
        assert max(filter(None, numbers)) == published[-1]
        (crl,) = lists(world.trust.current().crl)
        assert {entry.serial_number for entry in crl} == set(range(101, 107))

    def test_of_a_ca_that_was_retired_no_list_shows_anything(self, world: World) -> None:
        world.authorities.clients = [client_ca(2)]
        assert world.trust.show_revoked([of(101)]) is None
        assert world.trust.show_revoked([of(101)]) is None
        assert len(world.bundles.published) == 1

    @pytest.mark.parametrize("part", ["crl", "client_ca"])
    def test_what_is_broken_is_replaced_at_once(self, world: World, part: str) -> None:
        world.records.rows[client_ca().id] = [row(101)]
        kind = {"crl": "X509 CRL", "client_ca": "CERTIFICATE"}[part]
        broken = f"-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n"
        world.bundles.published.append(replace(world.trust.refresh(), **{part: broken}))
        assert world.trust.show_revoked([of(101)]) == 2

    def test_a_counter_that_fell_behind_is_brought_forward(self, world: World) -> None:
        """After the table was restored; registry hosts take no list older than theirs."""
        for _ in range(3):
            world.trust.refresh()
        world.records.number = 1
        assert world.trust.refresh().crl_number > 3


class TestKeeping:
    """What the schedule does, every few minutes."""

    def test_lists_that_are_fresh_and_whole_are_left_alone(self, world: World) -> None:
        world.trust.refresh()
        world.time = NOW + HOUR - SECOND
        assert world.trust.keep() is None
        assert len(world.bundles.published) == 1

    def test_lists_are_renewed_every_hour(self, world: World) -> None:
        world.trust.refresh()
        world.time = NOW + HOUR
        kept = world.trust.keep()
        assert kept is not None
        assert kept.crl_number == 2

    def test_a_revocation_that_was_not_published_is(self, world: World) -> None:
        world.trust.refresh()
        world.records.rows[client_ca().id] = [row(101)]
        world.records.unpublished = [f"{101:040x}"]
        assert world.trust.keep() is not None
        assert world.records.unpublished == []
        assert world.trust.keep() is None

    def test_what_became_pending_meanwhile_stays_so(self, world: World) -> None:
        world.records.unpublished = ["a"]
        world.bundles.before_publish = lambda _: world.records.unpublished.append("b")
        world.trust.refresh()
        assert world.records.unpublished == ["b"]

    def test_a_failure_leaves_it_pending(self, world: World) -> None:
        world.records.unpublished = ["a"]
        world.bundles.publishing_fails = True
        with pytest.raises(DependencyFailed):
            world.trust.keep()
        assert world.records.unpublished == ["a"]

    def test_a_publication_that_was_broken_off_is_finished(self, world: World) -> None:
        world.trust.refresh()
        world.bundles.whole = False
        assert world.trust.keep() is not None

    def test_nothing_published_is_published(self, world: World) -> None:
        assert world.trust.keep() is not None

    def test_a_broken_publication_is_replaced(self, world: World) -> None:
        broken = replace(
            world.trust.refresh(), crl="-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
        )
        world.bundles.published.append(broken)
        assert world.trust.keep() is not None


def test_a_row_that_cannot_be_read_is_told_of_and_hides_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    far = f"{NOW + DAY:%Y-%m-%dT%H:%M:%SZ}"
    world.records.rows[client_ca().id] = [{"sk": f"{far}#what"}, row(101), {"sk": row(102)["sk"]}]
    (crl,) = lists(world.trust.refresh().crl)
    assert {entry.serial_number for entry in crl} == {101, 102}
    told = [line for line in caplog.messages if line.startswith("UNREADABLE_REVOCATION")]
    assert len(told) == 2
    assert "#what" in told[0]
    assert f"{102:040x}" in told[1]


class TestRowsThatAreLost:
    """As when the table was restored from a backup, or made anew."""

    @pytest.fixture
    def revoked(self, world: World) -> World:
        world.records.rows[client_ca().id] = [row(101), row(102)]
        world.trust.refresh()
        return world

    def test_what_a_list_shows_the_next_one_shows_too(self, revoked: World) -> None:
        before = entries(revoked)
        revoked.records.rows = {client_ca().id: [row(102), row(103)]}
        revoked.trust.refresh()
        assert entries(revoked) == before | {103: entries(revoked)[103]}
        revoked.records.rows = {}
        for _ in range(2):
            revoked.trust.refresh()
            assert set(entries(revoked)) == {101, 102, 103}

    def test_somebody_is_told(self, revoked: World, caplog: pytest.LogCaptureFixture) -> None:
        revoked.trust.refresh()
        assert caplog.messages == []
        revoked.records.rows = {client_ca().id: [row(102)]}
        revoked.trust.refresh()
        (told,) = caplog.messages
        assert told.startswith("UNREADABLE_REVOCATION 1 rows")
        assert f"{101:040x}" in told

    def test_an_entry_goes_when_its_row_says_that_the_certificate_ended(
        self, revoked: World
    ) -> None:
        revoked.records.rows = {client_ca().id: [row(101)]}
        revoked.time = NOW + 30 * DAY + HOUR
        revoked.trust.refresh()
        assert set(entries(revoked)) == {102}

    def test_also_after_days_in_which_none_was_published(
        self, revoked: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        revoked.time = NOW + 36 * DAY
        revoked.trust.refresh()
        assert (entries(revoked), caplog.messages) == ({}, [])

    def test_or_when_no_certificate_of_before_its_date_can_stand(self, revoked: World) -> None:
        """The longest is of 825 days; these were revoked a day ago."""
        revoked.records.rows = {}
        for days, expected in ((824, {101, 102}), (827, set())):
            revoked.time = NOW + days * DAY
            revoked.trust.refresh()
            assert set(entries(revoked)) == expected

    def test_one_of_an_unknown_date_stays(self, world: World) -> None:
        world.records.rows[client_ca().id] = [{"sk": row(101)["sk"]}]
        world.trust.refresh()
        world.records.rows, world.time = {}, NOW + 900 * DAY
        world.trust.refresh()
        assert set(entries(world)) == {101}

    def test_what_somebody_else_signed_is_no_list_of_ours(self, world: World) -> None:
        """Whoever may write to the bucket must not have anybody revoked by that."""
        other = client_ca(2)
        planted = sign_crl(other, 9, NOW, [Revocation(101, NOW, "superseded")])
        world.bundles.published.append(replace(world.trust.refresh(), crl=planted))
        world.trust.refresh()
        assert entries(world) == {}

    def test_each_ca_keeps_its_own(self, world: World) -> None:
        world.authorities.clients = BOTH
        for serial, ca in enumerate(BOTH, 101):
            world.records.rows[ca.id] = [row(serial)]
        world.trust.refresh()
        world.records.rows = {}
        found = lists(world.trust.refresh().crl)
        assert [[entry.serial_number for entry in each] for each in found] == [[101], [102]]

    def test_of_one_that_was_retired_nothing_is_kept(self, revoked: World) -> None:
        revoked.authorities.clients = [client_ca(2)]
        assert len(lists(revoked.trust.refresh().crl)) == 1
        assert entries(revoked) == {}

    def test_one_broken_list_does_not_hide_another(self, revoked: World) -> None:
        last = revoked.bundles.published[-1]
        broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
        revoked.bundles.published.append(replace(last, crl=broken + last.crl))
        revoked.records.rows = {}
        revoked.trust.refresh()
        assert set(entries(revoked)) == {101, 102}


def entries(world: World) -> dict[int, datetime]:
    """What the only list that is published shows: serial to date."""
    (only,) = lists(world.trust.current().crl)
    return {entry.serial_number: entry.revocation_date_utc for entry in only}


def test_a_certificate_is_listed_for_as_long_as_a_slow_clock_admits_it(world: World) -> None:
    world.records.rows[client_ca().id] = [row(101)]
    for late, expected in ((timedelta(minutes=5), {101}), (timedelta(minutes=5, seconds=1), set())):
        world.time = (NOW + 30 * DAY).replace(microsecond=0) + late
        (crl,) = lists(world.trust.refresh().crl)
        assert {entry.serial_number for entry in crl} == expected


def test_an_alarm_listens_for_what_is_told_of_it() -> None:
    stack = (Path(__file__).parents[2] / ".chalice" / "stack.yaml").read_text()
    assert """'{ $.level = "ERROR" && $.message = "UNREADABLE_REVOCATION*" }'""" in stack


def of(serial: int) -> CertificateRecord:
    """The record of it."""
    return record(serial=f"{serial:040x}", issuer_id=client_ca().id)


def row(serial: int) -> dict[str, str]:
    """As the store gives it."""
    end = f"{NOW + 30 * DAY:%Y-%m-%dT%H:%M:%SZ}"
    return {
        "sk": f"{end}#{serial:040x}",
        "serial": f"{serial:040x}",
        "revoked_at": (NOW - DAY).isoformat(),
        "reason": "superseded",
    }


def interfere_once(world: World, do: Callable[[], object]) -> None:
    """Have something happen just before the next publication is written."""

    def once(_: Trust) -> None:
        world.bundles.before_publish = lambda _: None
        do()

    world.bundles.before_publish = once


def test_a_failed_refresh_leaves_what_was_published(world: World) -> None:
    before = world.trust.refresh()
    world.bundles.fails = True
    with pytest.raises(DependencyFailed):
        world.trust.refresh()
    assert world.trust.current() == before
