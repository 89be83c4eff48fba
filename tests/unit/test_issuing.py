"""Issuing: refusals first, then record, then bundle; the same request is answered the same."""

from __future__ import annotations

import io
import logging
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chalicelib.domain.bundle import private_key_in
from chalicelib.domain.model import (
    Access,
    Caller,
    CertificateRecord,
    IssueRequest,
    KeyType,
    RevocationReason,
    StoredRequest,
    Validity,
)
from chalicelib.domain.pki.leaves import certificate_pem
from chalicelib.errors import (
    AppError,
    Conflict,
    DependencyFailed,
    Forbidden,
    InvalidRequest,
    Misconfigured,
    NotFound,
    QuotaExceeded,
)
from chalicelib.services.issuing import Issued
from chalicelib.services.issuing.recording import ATTEMPTS
from tests.unit.authorities import DAY, HOST, NOW, SECOND, client_ca, server_ca
from tests.unit.instances import facts_of
from tests.unit.refusals import refused
from tests.unit.signing_requests import csr, ec_key
from tests.unit.stand_ins import Crash, FixedAuthorities, World

ANN = Caller("arn:aws:iam::123456789012:user/ann", "ann")
BOB = Caller("arn:aws:iam::123456789012:user/bob", "bob")
CSR = csr(ec_key())
MADE_KEY = IssueRequest()
OWN_KEY = IssueRequest(csr_pem=CSR)
REPEATABLE = IssueRequest(csr_pem=CSR, idempotency_key="once", digest="d1")
REPEATABLE_MADE = IssueRequest(idempotency_key="once", digest="d1")
WHOLE = NOW.replace(microsecond=0)


def certificate(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.record.certificate_pem.encode())


class TestWhatIsIssued:
    def test_a_key_we_made_comes_with_its_certificate_once(self, world: World) -> None:
        issued = world.issuing.issue(MADE_KEY, ANN)
        assert issued.bundle.private_key is not None
        key = load_pem_private_key(issued.bundle.private_key.encode(), None)
        assert key.public_key() == certificate(issued).public_key()
        assert issued.record.made_key
        assert world.bundles.with_key == {issued.record.serial}

    @pytest.mark.parametrize("key_type", [KeyType.EC_P384, KeyType.RSA_2048])
    def test_the_key_is_of_the_type_asked_for(self, world: World, key_type: KeyType) -> None:
        issued = world.issuing.issue(IssueRequest(key_type=key_type), ANN)
        size = {KeyType.EC_P384: 384, KeyType.RSA_2048: 2048}[key_type]
        assert certificate(issued).public_key().key_size == size  # type: ignore[union-attr]

    def test_a_csrs_key_is_certified_and_no_private_key_is_anywhere(self, world: World) -> None:
        issued = world.issuing.issue(OWN_KEY, ANN)
        assert certificate(issued).public_key() == ec_key().public_key()
        assert issued.bundle.private_key is None
        assert not issued.record.made_key
        assert world.bundles.with_key == set()
        assert b"PRIVATE" not in world.bundles.stored[issued.record.serial]

    def test_the_record_says_what_the_certificate_says(self, world: World) -> None:
        record = world.issuing.issue(replace(OWN_KEY, label="laptop"), ANN).record
        leaf = x509.load_pem_x509_certificate(record.certificate_pem.encode())
        assert int(record.serial, 16) == leaf.serial_number
        assert len(record.serial) == 40
        assert record.validity == Validity(leaf.not_valid_before_utc, leaf.not_valid_after_utc)
        assert record.validity == Validity(WHOLE - timedelta(minutes=5), WHOLE + 90 * DAY)
        assert (record.owner, record.name, record.access) == (ANN.arn, "ann", Access.PUSH)
        assert (record.label, record.issued_at) == ("laptop", NOW)
        assert record.issuer_id == client_ca().id
        assert record == world.records.by_serial[record.serial]

    def test_the_bundle_holds_every_server_ca_and_the_one_issuer(self, world: World) -> None:
        """While a CA is replaced, clients must trust both; the chain is still the signer's."""
        old, new = server_ca(HOST), server_ca("new." + HOST)
        world.authorities = FixedAuthorities([client_ca(2), client_ca(1)], [new, old])
        bundle = world.issuing.issue(MADE_KEY, ANN).bundle
        assert bundle.ca_bundle == certificate_pem(new.certificate) + certificate_pem(
            old.certificate
        )
        assert bundle.issuer == certificate_pem(client_ca(2).certificate)
        assert bundle.registry == f"{HOST}:8443"

    def test_the_stored_bundle_is_the_one_answered(self, world: World) -> None:
        issued = world.issuing.issue(MADE_KEY, ANN)
        stored = world.bundles.stored[issued.record.serial]
        assert stored == issued.bundle.tar_gz(issued.record.issued_at)
        assert private_key_in(stored) == issued.bundle.private_key
        assert issued.link == world.bundles.link(issued.record.serial, NOW)
        with tarfile.open(fileobj=io.BytesIO(stored)) as archive:
            assert archive.getnames()[0] == f"{HOST}:8443/ca.crt"

    def test_a_leaf_never_outlives_its_issuer(self, world: World) -> None:
        end = WHOLE + 10 * DAY
        world.authorities.clients = [client_ca(9, Validity(WHOLE - DAY, end))]
        assert world.issuing.issue(IssueRequest(days=9), ANN).record.validity.not_after < end
        issued = world.issuing.issue(IssueRequest(days=30), ANN)
        assert issued.record.validity.not_after == end
        assert certificate(issued).not_valid_after_utc == end

    def test_an_expired_ca_signs_nothing(self, world: World) -> None:
        world.authorities.clients = [client_ca(9, Validity(WHOLE - DAY, WHOLE - SECOND))]
        ask = lambda: world.issuing.issue(MADE_KEY, ANN)  # noqa: E731
        assert refused(Misconfigured, ask) == "authority_expired"
        assert world.untouched

    def test_one_line_of_the_log_tells_of_it_and_no_key(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        record = world.issuing.issue(MADE_KEY, ANN).record
        told = [line.getMessage() for line in caplog.records]
        assert told == [f"issued {record.serial}, push, to {ANN.arn}"]


class TestTheOrderOfEffects:
    def test_the_record_comes_before_the_bundle(self, world: World) -> None:
        world.issuing.issue(MADE_KEY, ANN)
        assert world.journal.done == ["record", "bundle"]

    @pytest.mark.parametrize("request_", [MADE_KEY, OWN_KEY, REPEATABLE], ids=["made", "own", "re"])
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    @pytest.mark.parametrize("step", [1, 2])
    def test_a_crash_at_any_step_leaves_no_certificate_without_a_record(
        self, world: World, step: int, after: bool, request_: IssueRequest
    ) -> None:
        world.journal.crash_at, world.journal.after = step, after
        with pytest.raises(Crash):
            world.issuing.issue(request_, ANN)
        assert set(world.bundles.stored) <= set(world.records.by_serial)
        assert len(world.records.by_serial) == (0 if (step, after) == (1, False) else 1)

    def test_a_record_that_cannot_be_written_leaves_nothing_and_releases_nothing(
        self, world: World
    ) -> None:
        world.records.fails = True
        ask = lambda: world.issuing.issue(MADE_KEY, ANN)  # noqa: E731
        assert refused(DependencyFailed, ask) == "table_unwritable"
        assert world.untouched

    def test_a_bundle_that_cannot_be_stored_costs_the_link_and_not_the_certificate(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.bundles.fails = True
        issued = world.issuing.issue(MADE_KEY, ANN)
        assert issued.link is None
        assert issued.bundle.private_key is not None
        assert issued.record.serial in world.records.by_serial
        assert "was not stored" in caplog.text


REFUSED = {
    "csr_not_pem": IssueRequest(csr_pem=b"-"),
    "days_out_of_range": IssueRequest(days=0),
    "label_too_long": IssueRequest(label="x" * 65),
}


class TestRefusals:
    @pytest.mark.parametrize(("code", "request_"), REFUSED.items())
    def test_a_refused_request_leaves_no_record(
        self, world: World, code: str, request_: IssueRequest
    ) -> None:
        assert refused(InvalidRequest, lambda: world.issuing.issue(request_, ANN)) == code
        assert world.untouched

    @pytest.mark.parametrize("kind", ["client", "server"])
    def test_the_key_of_a_ca_is_refused(self, world: World, kind: str) -> None:
        ca = client_ca(2) if kind == "client" else server_ca()
        world.authorities.clients.append(client_ca(2))
        request = IssueRequest(csr_pem=csr(ca.key))
        assert refused(InvalidRequest, lambda: world.issuing.issue(request, ANN)) == "key_is_ca"
        assert world.untouched

    def test_a_revoked_key_is_refused_and_a_renewed_one_is_not(self, world: World) -> None:
        record = world.issuing.issue(OWN_KEY, ANN).record
        assert world.issuing.issue(OWN_KEY, ANN).record.key_id == record.key_id
        world.records.revoked_keys.add(record.key_id)
        assert refused(InvalidRequest, lambda: world.issuing.issue(OWN_KEY, ANN)) == "key_revoked"
        assert len(world.records.by_serial) == 2

    def test_anothers_key_is_refused(self, world: World) -> None:
        world.issuing.issue(OWN_KEY, ANN)
        assert refused(InvalidRequest, lambda: world.issuing.issue(OWN_KEY, BOB)) == "key_in_use"
        assert len(world.records.by_serial) == 1

    def test_a_session_that_is_no_instance_is_refused_and_the_instance_is_not(
        self, world: World
    ) -> None:
        arn = "arn:aws:sts::123456789012:assumed-role/docker-instance/i-0123abcd"
        instance = Caller(arn, "i-0123abcd", "docker-instance", "i-0123abcd")
        ask = lambda: world.issuing.issue(IssueRequest(access=Access.PUSH), instance)  # noqa: E731
        assert refused(Forbidden, ask) == "not_that_instance"
        assert world.untouched
        world.instances["i-0123abcd"] = facts_of("i-0123abcd")
        assert ask().record.access is Access.PULL


class TestQuota:
    def test_an_owner_is_refused_the_certificate_after_the_last_of_the_quota(
        self, world: World
    ) -> None:
        for _ in range(3):
            world.issuing.issue(MADE_KEY, ANN)
        ask = lambda: world.issuing.issue(MADE_KEY, ANN)  # noqa: E731
        assert refused(QuotaExceeded, ask) == "quota_exceeded"
        assert len(world.records.by_serial) == 3
        assert world.issuing.issue(MADE_KEY, BOB)

    def test_an_expired_certificate_makes_room(self, world: World) -> None:
        for days in (1, 2, 3):
            world.issuing.issue(IssueRequest(days=days), ANN)
        world.time = WHOLE + DAY
        assert refused(QuotaExceeded, lambda: world.issuing.issue(MADE_KEY, ANN))
        world.time = WHOLE + DAY + SECOND
        assert world.issuing.issue(MADE_KEY, ANN)

    def test_certificates_of_a_ca_that_is_not_trusted_any_more_make_room(
        self, world: World
    ) -> None:
        old = [world.issuing.issue(MADE_KEY, ANN).record for _ in range(3)]
        world.authorities.clients = [client_ca(2)]
        assert world.issuing.issue(MADE_KEY, ANN).record.issuer_id == client_ca(2).id
        found = [world.records.by_serial[each.serial] for each in old]
        assert {(each.revoked_by, each.revocation_reason) for each in found} == {
            ("registry-trust", RevocationReason.SUPERSEDED)
        }

    def test_those_of_a_former_ca_that_is_trusted_on_do_not(self, world: World) -> None:
        old = [world.issuing.issue(MADE_KEY, ANN).record for _ in range(3)]
        world.authorities.clients = [client_ca(2), client_ca()]
        ask = lambda: world.issuing.issue(MADE_KEY, ANN)  # noqa: E731
        assert refused(QuotaExceeded, ask) == "quota_exceeded"
        assert [world.records.by_serial[each.serial] for each in old] == old

    def test_room_is_made_by_what_is_known_of_the_cas_now(self, world: World) -> None:
        """What was known may be of before the certificates' CA was made."""
        for _ in range(3):
            world.issuing.issue(MADE_KEY, ANN)
        world.authorities.clients = [client_ca(2)]
        world.authorities.reread = lambda: setattr(world.authorities, "clients", [client_ca()])  # type: ignore[method-assign]
        assert refused(QuotaExceeded, lambda: world.issuing.issue(MADE_KEY, ANN))
        assert not any(each.revoked_at for each in world.records.by_serial.values())

    def test_no_value_on_the_way_shows_its_private_key_when_printed(self, world: World) -> None:
        """Whoever logs one, or a traceback that shows locals, must not publish it."""
        key = world.issuing._made_key(KeyType.EC_P256)
        assert key.private_pem is not None
        issued = world.issuing.issue(MADE_KEY, ANN)
        assert issued.bundle.private_key is not None
        for value in (key, issued, issued.bundle, world.issuing):
            assert "PRIVATE KEY" not in repr(value)

    def test_a_place_lost_to_another_request_is_tried_for_again(self, world: World) -> None:
        lost: list[str] = []

        def win(record: CertificateRecord) -> None:
            if len(lost) < 2:
                lost.append(record.serial)
                world.records.taken[ANN.arn, record.slot or 0] = ("other", NOW + DAY)

        world.records.before_add = win
        issued = world.issuing.issue(MADE_KEY, ANN)
        assert issued.record.serial not in lost
        assert set(world.records.by_serial) == {issued.record.serial}

    def test_no_key_is_made_for_an_owner_whose_quota_is_full(self, world: World) -> None:
        """An RSA key costs seconds; who is refused shall not have us spend them."""
        for _ in range(3):
            world.issuing.issue(MADE_KEY, ANN)
        before = world.keys_made
        assert refused(QuotaExceeded, lambda: world.issuing.issue(MADE_KEY, ANN))
        assert world.keys_made == before == 3

    def test_a_quota_that_others_filled_meanwhile_is_told_as_such(self, world: World) -> None:
        def win(record: CertificateRecord) -> None:
            for slot in range(3):
                world.records.taken[ANN.arn, slot] = ("other", NOW + DAY)

        world.records.before_add = win
        assert refused(QuotaExceeded, lambda: world.issuing.issue(MADE_KEY, ANN))
        assert world.untouched

    def test_a_request_that_always_loses_is_asked_to_come_again(self, world: World) -> None:
        tries: list[str] = []

        def win(record: CertificateRecord) -> None:
            tries.append(record.serial)
            world.records.by_serial[record.serial] = record

        world.records.before_add = win
        assert refused(DependencyFailed, lambda: world.issuing.issue(MADE_KEY, ANN)) == "busy"
        assert len(set(tries)) == ATTEMPTS

    def test_requests_at_once_never_exceed_the_quota_and_use_it_up(self, world: World) -> None:
        world.limits = replace(world.limits, certificates_per_owner=5)
        together = threading.Barrier(16)

        def ask(_: int) -> Issued | AppError:
            together.wait()
            try:
                return world.issuing.issue(MADE_KEY, ANN)
            except (QuotaExceeded, DependencyFailed) as error:
                return error

        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(ask, range(16)))
        issued = {answer.record.serial for answer in answers if isinstance(answer, Issued)}
        assert issued == set(world.records.by_serial)
        assert len(issued) == 5

    def test_a_serial_that_is_taken_is_replaced(self, world: World) -> None:
        world.serials = [7, 7, 8]
        first = world.issuing.issue(MADE_KEY, ANN).record
        second = world.issuing.issue(MADE_KEY, BOB).record
        assert (int(first.serial, 16), int(second.serial, 16)) == (7, 8)
        assert world.records.by_serial[first.serial] == first


class TestIdempotency:
    def test_the_same_request_gets_the_same_certificate(self, world: World) -> None:
        first = world.issuing.issue(REPEATABLE, ANN)
        again = world.issuing.issue(REPEATABLE, ANN)
        assert again.record == first.record
        assert again.bundle == first.bundle
        assert again.link == first.link
        assert len(world.records.by_serial) == 1

    def test_the_same_request_gets_the_same_key(self, world: World) -> None:
        first = world.issuing.issue(REPEATABLE_MADE, ANN)
        again = world.issuing.issue(REPEATABLE_MADE, ANN)
        assert first.bundle.private_key is not None
        assert again.bundle == first.bundle
        assert world.journal.done == ["record", "bundle"]

    def test_without_a_key_each_request_gets_its_own(self, world: World) -> None:
        one, two = (world.issuing.issue(OWN_KEY, ANN).record.serial for _ in range(2))
        assert one != two

    def test_another_request_under_the_same_key_is_a_conflict(self, world: World) -> None:
        world.issuing.issue(REPEATABLE, ANN)
        other = replace(REPEATABLE, digest="d2")
        ask = lambda: world.issuing.issue(other, ANN)  # noqa: E731
        assert refused(Conflict, ask) == "idempotency_key_reused"
        assert len(world.records.by_serial) == 1

    def test_the_same_request_does_not_bring_what_no_registry_admits(self, world: World) -> None:
        first = world.issuing.issue(REPEATABLE, ANN)
        world.authorities.clients = [client_ca(2), client_ca()]
        assert world.issuing.issue(REPEATABLE, ANN).record == first.record
        world.authorities.clients = [client_ca(2)]
        ask = lambda: world.issuing.issue(REPEATABLE, ANN)  # noqa: E731
        assert refused(Conflict, ask) == "certificate_revoked"

    def test_nor_is_it_refused_for_a_ca_that_is_newer_than_what_is_known(
        self, world: World
    ) -> None:
        first = world.issuing.issue(REPEATABLE, ANN)
        world.authorities.clients = [client_ca(2)]
        world.authorities.reread = lambda: setattr(world.authorities, "clients", [client_ca()])  # type: ignore[method-assign]
        assert world.issuing.issue(REPEATABLE, ANN).record == first.record

    def test_owners_do_not_share_keys(self, world: World) -> None:
        ann = world.issuing.issue(REPEATABLE_MADE, ANN).record
        bob = world.issuing.issue(REPEATABLE_MADE, BOB).record
        assert (ann.owner, bob.owner) == (ANN.arn, BOB.arn)
        assert ann.serial != bob.serial

    def test_the_answer_is_the_same_when_the_quota_has_been_used_up_since(
        self, world: World
    ) -> None:
        first = world.issuing.issue(REPEATABLE, ANN)
        for _ in range(2):
            world.issuing.issue(MADE_KEY, ANN)
        assert world.issuing.issue(REPEATABLE, ANN).record == first.record
        new = replace(REPEATABLE, idempotency_key="another")
        assert refused(QuotaExceeded, lambda: world.issuing.issue(new, ANN))

    def test_after_a_day_the_key_is_free_again(self, world: World) -> None:
        first = world.issuing.issue(REPEATABLE, ANN).record
        world.time = NOW + DAY - SECOND
        assert world.issuing.issue(REPEATABLE, ANN).record == first
        world.time = NOW + DAY
        assert world.issuing.issue(REPEATABLE, ANN).record != first

    def test_a_request_made_again_after_a_crash_gets_what_was_recorded(self, world: World) -> None:
        world.journal.crash_at = 2
        with pytest.raises(Crash):
            world.issuing.issue(REPEATABLE, ANN)
        world.journal.crash_at = -1
        again = world.issuing.issue(REPEATABLE, ANN)
        assert set(world.records.by_serial) == {again.record.serial}
        assert set(world.bundles.stored) == {again.record.serial}

    def test_a_key_lost_in_a_crash_is_told_with_what_to_revoke(self, world: World) -> None:
        world.journal.crash_at = 2
        with pytest.raises(Crash):
            world.issuing.issue(REPEATABLE_MADE, ANN)
        (serial,) = world.records.by_serial
        world.time = NOW + 30 * SECOND
        with pytest.raises(Conflict, match=serial) as caught:
            world.issuing.issue(REPEATABLE_MADE, ANN)
        assert caught.value.code == "key_lost"

    def test_a_request_made_again_while_the_first_is_at_work_is_asked_to_wait(
        self, world: World
    ) -> None:
        """Its key is not lost: the first is about to store it. Telling the caller to revoke would
        have him revoke a good certificate."""
        world.journal.crash_at = 2  # stands for a first request that has not come to its bundle
        with pytest.raises(Crash):
            world.issuing.issue(REPEATABLE_MADE, ANN)
        world.time = NOW + 29.999 * SECOND  # API Gateway lets no request live for 30
        ask = lambda: world.issuing.issue(REPEATABLE_MADE, ANN)  # noqa: E731
        assert refused(DependencyFailed, ask) == "busy"

    def test_requests_at_once_under_one_key_get_one_certificate(self, world: World) -> None:
        together = threading.Barrier(8)

        def ask(_: int) -> str:
            together.wait()
            return world.issuing.issue(REPEATABLE, ANN).record.serial

        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(ask, range(8)))) == 1
        assert len(world.records.by_serial) == 1

    def test_a_request_whose_record_is_not_to_be_seen_yet_is_asked_to_come_again(
        self, world: World
    ) -> None:
        stored = StoredRequest(ANN.arn, "once", "d1", "0" * 40)
        world.records.requests[ANN.arn, "once"] = (stored, NOW + DAY)
        assert refused(DependencyFailed, lambda: world.issuing.issue(REPEATABLE, ANN)) == "busy"


class TestBundlesAgain:
    def test_a_bundle_of_the_callers_own_key_can_be_had_for_ever(self, world: World) -> None:
        issued = world.issuing.issue(OWN_KEY, ANN)
        world.bundles.stored.clear()
        world.time = NOW + 400 * DAY
        again = world.issuing.bundle_again(issued.record.serial, ANN)
        assert again.bundle == issued.bundle
        assert set(world.bundles.stored) == {issued.record.serial}
        assert again.link == world.bundles.link(issued.record.serial, world.time)

    def test_a_bundle_with_a_key_can_be_had_for_a_day(self, world: World) -> None:
        issued = world.issuing.issue(MADE_KEY, ANN)
        world.time = NOW + DAY - SECOND
        assert world.issuing.bundle_again(issued.record.serial, ANN).bundle == issued.bundle
        world.time = NOW + DAY  # S3's lifecycle deletes it some time after this
        ask = lambda: world.issuing.bundle_again(issued.record.serial, ANN)  # noqa: E731
        assert refused(NotFound, ask) == "bundle_expired"

    def test_a_bundle_with_a_key_that_is_not_there_has_expired(self, world: World) -> None:
        issued = world.issuing.issue(MADE_KEY, ANN)
        world.bundles.stored.clear()
        ask = lambda: world.issuing.bundle_again(issued.record.serial, ANN)  # noqa: E731
        assert refused(NotFound, ask) == "bundle_expired"
        assert world.bundles.stored == {}

    def test_a_bundle_is_its_owners_alone(self, world: World) -> None:
        issued = world.issuing.issue(MADE_KEY, ANN)
        ask = lambda: world.issuing.bundle_again(issued.record.serial, BOB)  # noqa: E731
        assert refused(NotFound, ask) == "certificate_not_found"

    def test_a_bundle_whose_issuer_has_been_retired_comes_without_it(self, world: World) -> None:
        issued = world.issuing.issue(OWN_KEY, ANN)
        world.authorities.clients = [client_ca(2)]
        assert world.issuing.bundle_again(issued.record.serial, ANN).bundle.issuer == ""
