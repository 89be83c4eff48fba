"""Revoking: at once, for good, and with all that the key was certified for before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.model import (
    Caller,
    CertificateRecord,
    IssueRequest,
    RenewRequest,
    RevocationReason,
    Status,
)
from chalicelib.errors import Conflict, DependencyFailed, InvalidRequest, NotFound
from chalicelib.services.revoking import Revoked
from tests.unit.authorities import DAY, NOW, client_ca
from tests.unit.refusals import refused
from tests.unit.signing_requests import csr, ec_key, rsa_key
from tests.unit.stand_ins import World

ANN = Caller("arn:aws:iam::123456789012:user/ann", "ann")
BOB = Caller("arn:aws:iam::123456789012:user/bob", "bob")
ADMIN = Caller("arn:aws:iam::123456789012:user/root-of-it", "root-of-it")
CSR = csr(ec_key())
OWN_KEY = IssueRequest(csr_pem=CSR)
UNSPECIFIED = RevocationReason.UNSPECIFIED
SUPERSEDED = RevocationReason.SUPERSEDED
COMPROMISED = RevocationReason.KEY_COMPROMISE


def revoke(
    world: World, record: CertificateRecord, reason: RevocationReason = UNSPECIFIED
) -> Revoked:
    return world.revoking.revoke(record.serial, reason, ANN)


def statuses(world: World, *records: CertificateRecord) -> list[Status]:
    return [world.records.by_serial[each.serial].status(world.time) for each in records]


class TestOne:
    def test_it_says_when_why_and_by_whom(self, world: World) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        done = revoke(world, record, RevocationReason.CESSATION_OF_OPERATION)
        assert done.record == world.records.by_serial[record.serial]
        assert done.record.revoked_at == NOW.replace(microsecond=0)
        assert done.record.revocation_reason == "cessationOfOperation"
        assert done.record.revoked_by == ANN.arn

    def test_a_published_list_shows_it_before_the_answer(self, world: World) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        done = revoke(world, record)
        assert (done.crl_number, done.crl_pending) == (1, False)
        assert world.journal.done[-2:] == ["revoke", "publish"]
        assert [row["serial"] for row in world.records.rows[client_ca().id]] == [record.serial]
        assert world.records.unpublished == []

    def test_its_place_in_the_quota_is_free_again(self, world: World) -> None:
        records = [world.issuing.issue(IssueRequest(), ANN).record for _ in range(3)]
        revoke(world, records[0])
        assert world.issuing.issue(IssueRequest(), ANN).record.slot == records[0].slot

    def test_its_key_is_certified_no_more(self, world: World) -> None:
        revoke(world, world.issuing.issue(OWN_KEY, ANN).record)
        ask = lambda: world.issuing.issue(OWN_KEY, ANN)  # noqa: E731
        assert refused(InvalidRequest, ask) == "key_revoked"

    def test_a_stored_private_key_goes(self, world: World) -> None:
        record = world.issuing.issue(IssueRequest(), ANN).record
        revoke(world, record)
        assert world.bundles.stored == {}
        ask = lambda: world.issuing.bundle_again(record.serial, ANN)  # noqa: E731
        assert refused(Conflict, ask) == "certificate_revoked"

    def test_the_request_that_it_came_of_is_not_answered_with_it_again(self, world: World) -> None:
        asked = IssueRequest(csr_pem=CSR, idempotency_key="once", digest="d1")
        revoke(world, world.issuing.issue(asked, ANN).record)
        ask = lambda: world.issuing.issue(asked, ANN)  # noqa: E731
        assert refused(Conflict, ask) == "certificate_revoked"

    def test_an_expired_one_needs_no_list(self, world: World) -> None:
        record = world.issuing.issue(IssueRequest(csr_pem=CSR, days=1), ANN).record
        world.time = NOW + 2 * DAY
        done = revoke(world, record)
        assert (done.crl_number, done.crl_pending) == (None, False)
        assert world.bundles.published == []
        assert done.record.status(world.time) is Status.REVOKED
        ask = lambda: world.issuing.issue(OWN_KEY, ANN)  # noqa: E731
        assert refused(InvalidRequest, ask) == "key_revoked"


class TestAgain:
    def test_the_first_time_and_reason_stand(self, world: World) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        first = revoke(world, record)
        world.time = NOW + DAY
        again = revoke(world, record, RevocationReason.PRIVILEGE_WITHDRAWN)
        assert again.record == first.record
        assert world.journal.done.count("revoke") == 1

    def test_what_is_published_is_not_published_again(self, world: World) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        revoke(world, record)
        assert revoke(world, record).crl_number == 1
        assert len(world.bundles.published) == 1

    def test_what_was_not_published_is(self, world: World) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        world.bundles.publishing_fails = True
        assert revoke(world, record).crl_pending
        world.bundles.publishing_fails = False
        done = revoke(world, record)
        assert (done.crl_pending, done.crl_number) == (False, 2)

    def test_of_two_at_once_both_are_told_it_is_done(self, world: World) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record

        def another(_: CertificateRecord) -> None:
            world.records.before_revoke = lambda _: None
            world.revoking.revoke_any(record.serial, COMPROMISED, ADMIN)

        world.records.before_revoke = another
        done = revoke(world, record)
        assert (done.record.revocation_reason, done.record.revoked_by) == (COMPROMISED, ADMIN.arn)
        assert not done.crl_pending


class TestPrivateKeys:
    def test_they_go_once_the_list_is_published_and_not_before(self, world: World) -> None:
        """A bucket that hangs must not cost the answer that says it is pending."""
        record = world.issuing.issue(IssueRequest(), ANN).record
        world.bundles.publishing_fails = True
        revoke(world, record)
        assert world.journal.done[-1] == "revoke"
        world.bundles.publishing_fails = False
        revoke(world, record)
        assert world.journal.done[-2:] == ["publish", "delete"]


class TestPending:
    def test_a_list_that_cannot_be_published_is_told_and_the_schedule_does_it(
        self, world: World
    ) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        world.bundles.publishing_fails = True
        done = revoke(world, record)
        assert (done.crl_pending, done.crl_number) == (True, None)
        assert statuses(world, record) == [Status.REVOKED]
        world.bundles.publishing_fails = False
        kept = world.trust.keep()
        assert kept is not None
        assert revoke(world, record).crl_number == kept.crl_number

    def test_without_a_record_nothing_is_done_at_all(self, world: World) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        world.records.fails = True
        ask = lambda: revoke(world, record)  # noqa: E731
        assert refused(DependencyFailed, ask) == "table_unwritable"
        assert statuses(world, record) == [Status.ACTIVE]
        assert world.bundles.published == []


class TestTheKey:
    """What else a key was certified for."""

    def chain(self, world: World) -> list[CertificateRecord]:
        records = [world.issuing.issue(OWN_KEY, ANN).record]
        for _ in range(2):
            world.time += DAY
            serial = records[-1].serial
            records.append(world.issuing.renew(serial, RenewRequest(), ANN).record)
        return records

    def test_older_ones_fall_with_it(self, world: World) -> None:
        """Who found the laptop has the certificates of before, too."""
        first, second, third = self.chain(world)
        done = revoke(world, third)
        assert done.also_revoked == (first.serial, second.serial)
        assert statuses(world, first, second, third) == [Status.REVOKED] * 3
        rows = world.records.rows[client_ca().id]
        assert {row["serial"] for row in rows} == {each.serial for each in (first, second, third)}
        assert len(world.bundles.published) == 1
        ask = lambda: world.issuing.issue(OWN_KEY, ANN)  # noqa: E731
        assert refused(InvalidRequest, ask) == "key_revoked"

    def test_a_newer_one_stays(self, world: World) -> None:
        """Who renews and then deletes the old one is tidying up, and must not be locked out."""
        first, second, third = self.chain(world)
        done = revoke(world, first)
        assert done.also_revoked == ()
        assert statuses(world, first, second, third) == [
            Status.REVOKED,
            Status.ACTIVE,
            Status.ACTIVE,
        ]
        assert world.issuing.renew(third.serial, RenewRequest(revoke_old=True), ANN)

    def test_one_of_the_same_moment_falls_too(self, world: World) -> None:
        """Of two that cannot be told apart by age neither is left to a thief."""
        first = world.issuing.issue(OWN_KEY, ANN).record
        second = world.issuing.issue(OWN_KEY, ANN).record
        assert first.issued_at == second.issued_at
        assert revoke(world, first).also_revoked == (second.serial,)

    def test_a_newer_one_that_has_expired_does_not_keep_the_key_in_use(self, world: World) -> None:
        first = world.issuing.issue(OWN_KEY, ANN).record
        world.time += DAY
        world.issuing.renew(first.serial, RenewRequest(days=1), ANN)
        world.time += 2 * DAY
        revoke(world, first)
        ask = lambda: world.issuing.issue(OWN_KEY, ANN)  # noqa: E731
        assert refused(InvalidRequest, ask) == "key_revoked"

    def test_a_key_said_to_be_compromised_takes_all_with_it(self, world: World) -> None:
        records = self.chain(world)
        done = revoke(world, records[0], COMPROMISED)
        assert set(done.also_revoked) == {each.serial for each in records[1:]}
        assert statuses(world, *records) == [Status.REVOKED] * 3
        ask = lambda: world.issuing.issue(OWN_KEY, ANN)  # noqa: E731
        assert refused(InvalidRequest, ask) == "key_revoked"

    def test_and_does_so_when_that_is_found_out_later(self, world: World) -> None:
        first, second, third = self.chain(world)
        revoke(world, first, SUPERSEDED)
        done = revoke(world, first, COMPROMISED)
        assert set(done.also_revoked) == {second.serial, third.serial}
        assert world.records.by_serial[first.serial].revocation_reason is SUPERSEDED
        ask = lambda: world.issuing.issue(OWN_KEY, ANN)  # noqa: E731
        assert refused(InvalidRequest, ask) == "key_revoked"

    def test_being_superseded_says_nothing_about_the_key(self, world: World) -> None:
        first, second, third = self.chain(world)
        assert revoke(world, third, SUPERSEDED).also_revoked == ()
        assert statuses(world, first, second, third)[:2] == [Status.ACTIVE, Status.ACTIVE]
        assert world.issuing.issue(OWN_KEY, ANN)

    def test_one_certified_meanwhile_is_seen(self, world: World) -> None:
        """Else a thief who renews at the right moment keeps a certificate of the key."""
        first = world.issuing.issue(OWN_KEY, ANN).record

        def renew(_: CertificateRecord) -> None:
            world.records.before_revoke = lambda _: None
            world.issuing.renew(first.serial, RenewRequest(), ANN)

        world.records.before_revoke = renew
        revoke(world, first, COMPROMISED)
        assert statuses(world, *world.records.by_serial.values()) == [Status.REVOKED] * 2

    @pytest.mark.parametrize("failing", [1, 2, 3])
    def test_a_crash_on_the_way_leaves_it_visibly_undone_and_asking_again_does_it(
        self, world: World, failing: int
    ) -> None:
        """Else its owner believes that the key is locked out, while an older certificate lives."""
        records = self.chain(world)
        asked: list[str] = []

        def fail(record: CertificateRecord) -> None:
            asked.append(record.serial)
            world.records.fails = len(asked) == failing

        world.records.before_revoke = fail
        with pytest.raises(DependencyFailed):
            revoke(world, records[2])
        assert statuses(world, records[2]) == [Status.ACTIVE]
        world.records.fails, world.records.before_revoke = False, lambda _: None
        done = revoke(world, records[2])
        assert not done.crl_pending
        assert statuses(world, *records) == [Status.REVOKED] * 3
        assert world.records.unpublished == []

    def test_what_fell_before_is_not_told_of_again(self, world: World) -> None:
        first = world.issuing.issue(OWN_KEY, ANN).record
        second = world.issuing.renew(first.serial, RenewRequest(revoke_old=True), ANN).record
        assert revoke(world, second).also_revoked == ()

    def test_a_damaged_record_of_the_key_keeps_no_other_from_being_revoked(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, second, third = self.chain(world)
        world.records.damaged = {second.serial}
        assert revoke(world, third).also_revoked == (first.serial,)
        assert any(second.serial in line for line in caplog.messages)

    def test_a_key_without_any_certificate_left_is_refused_however_that_came(
        self, world: World
    ) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        revoke(world, record, SUPERSEDED)
        revoke(world, record, UNSPECIFIED)
        ask = lambda: world.issuing.issue(OWN_KEY, ANN)  # noqa: E731
        assert refused(InvalidRequest, ask) == "key_revoked"


class TestALine:
    """A certificate, what it renews and what renews it, each with a key of its own."""

    def line(self, world: World) -> list[CertificateRecord]:
        records = [world.issuing.issue(IssueRequest(), ANN).record]
        for _ in range(2):
            world.time += DAY
            serial = records[-1].serial
            records.append(world.issuing.renew(serial, RenewRequest(), ANN).record)
        return records

    @pytest.mark.parametrize("admin", [ADMIN, ANN])  # who may be the owner, too
    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_an_admin_takes_all_of_it_back(self, world: World, which: int, admin: Caller) -> None:
        records = self.line(world)
        done = world.revoking.revoke_any(records[which].serial, UNSPECIFIED, admin)
        others = {each.serial for each in records} - {records[which].serial}
        assert set(done.also_revoked) == others
        assert statuses(world, *records) == [Status.REVOKED] * 3

    def test_the_keys_of_all_that_falls_are_refused(self, world: World) -> None:
        first = world.issuing.issue(OWN_KEY, ANN).record
        other_key = RenewRequest(csr_pem=csr(rsa_key(2048)), revoke_old=True)
        world.issuing.renew(first.serial, other_key, ANN)
        world.revoking.revoke_any(first.serial, UNSPECIFIED, ADMIN)
        for pem in (CSR, csr(rsa_key(2048))):
            ask = lambda pem=pem: world.issuing.issue(IssueRequest(csr_pem=pem), ANN)  # noqa: E731
            assert refused(InvalidRequest, ask) == "key_revoked"

    def test_a_table_that_fails_after_the_revocation_does_not_keep_it_from_the_list(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        looks: list[str] = []

        def fails_later(*_: object) -> list[str]:
            looks.append("")
            if len(looks) > 1:
                raise DependencyFailed("table_unreadable", "the table did not answer")
            return []

        monkeypatch.setattr(world.records, "standing_in_line", fails_later)
        done = world.revoking.revoke_any(record.serial, UNSPECIFIED, ADMIN)
        assert done.crl_number is not None

    def test_a_renewal_at_the_last_moment_does_not_get_away(self, world: World) -> None:
        records = self.line(world)
        renewals = 2

        def renew(record: CertificateRecord) -> None:
            nonlocal renewals
            newest = list(world.records.by_serial.values())[-1]
            if renewals and newest.revoked_at is None:
                renewals -= 1
                world.issuing.renew(newest.serial, RenewRequest(), ANN)

        world.limits = replace(world.limits, certificates_per_owner=9)
        world.records.before_revoke = renew
        done = world.revoking.revoke_any(records[1].serial, UNSPECIFIED, ADMIN)
        everything = world.records.by_serial.values()
        assert len(everything) == 5
        assert len(done.also_revoked) == 4
        assert statuses(world, *everything) == [Status.REVOKED] * 5

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_its_owner_takes_back_the_one(self, world: World, which: int) -> None:
        """A renewal whose key got lost must not cost the certificate that is in use."""
        records = self.line(world)
        assert revoke(world, records[which]).also_revoked == ()

    def test_superseded_is_about_the_one(self, world: World) -> None:
        records = self.line(world)
        assert world.revoking.revoke_any(records[1].serial, SUPERSEDED, ADMIN).also_revoked == ()


class TestWhose:
    def test_another_owners_does_not_exist(self, world: World) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        ask = lambda: world.revoking.revoke(record.serial, UNSPECIFIED, BOB)  # noqa: E731
        assert refused(NotFound, ask) == "certificate_not_found"
        assert statuses(world, record) == [Status.ACTIVE]

    def test_an_admin_revokes_whose_it_may_be(self, world: World) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        done = world.revoking.revoke_any(record.serial, UNSPECIFIED, ADMIN)
        assert done.record.revoked_by == ADMIN.arn
        with pytest.raises(NotFound):
            world.revoking.revoke_any("0" * 40, UNSPECIFIED, ADMIN)

    def test_the_registrys_own_is_not_revoked_since_nobody_would_notice(self, world: World) -> None:
        host = Caller(
            "arn:aws:sts::123456789012:assumed-role/registry-host/i-1", "i-1", "registry-host"
        )
        record = world.serving.issue(CSR, host).record
        ask = lambda: world.revoking.revoke_any(record.serial, UNSPECIFIED, ADMIN)  # noqa: E731
        assert refused(Conflict, ask) == "not_revocable"
