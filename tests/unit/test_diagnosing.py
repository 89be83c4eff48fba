"""Diagnosing: what is found, and who may be told. That the verdicts are nginx's is shown in
tests/component/test_diagnosis.py."""

from __future__ import annotations

import base64
import functools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.diagnosis import Diagnosis, FindingCode, RevocationFacts
from chalicelib.domain.model import (
    Access,
    Caller,
    CertificateRecord,
    Grant,
    RevocationReason,
    Validity,
)
from chalicelib.domain.pki import keys
from chalicelib.domain.pki.authorities import Authority
from chalicelib.domain.pki.crl import LIFETIME, Revocation, sign_crl
from chalicelib.domain.pki.leaves import (
    certificate_pem,
    fingerprint,
    serial_hex,
    sign_client_leaf,
    sign_server_leaf,
)
from chalicelib.domain.trust import Trust
from chalicelib.errors import AppError, InvalidRequest, Misconfigured, NotFound
from chalicelib.services.diagnosing import Diagnosing
from tests.unit.authorities import DAY, HOST, NOW, client_ca, server_ca
from tests.unit.signing_requests import ec_key

CA, OTHER_CA, RETIRED_CA, SERVERS = client_ca(1), client_ca(2), client_ca(3), server_ca()
ANN = Caller("arn:aws:iam::123456789012:user/ann", "ann")
BOB = Caller("arn:aws:iam::123456789012:user/bob", "bob")
HOST_ROLE = Caller("arn:aws:sts::123456789012:assumed-role/registry-host/i-1", "i-1")
SERIAL = 0xABC << 140
HEX = serial_hex(SERIAL)
SUCCESSOR = serial_hex(SERIAL + 1)
HOUR = timedelta(hours=1)
MONTH = Validity.starting(NOW, 30 * DAY, timedelta(minutes=5))


@dataclass
class World:
    """Records by serial, and the trust of two client CAs, signed now, with these revocations."""

    records: dict[str, CertificateRecord] = field(default_factory=dict)
    revoked: list[Revocation] = field(default_factory=list)
    time: datetime = NOW

    def get(self, serial: str) -> CertificateRecord | None:
        assert len(serial) == 40
        return self.records.get(serial)

    def read_trust(self) -> Trust:
        return Trust(
            registry=HOST,
            registry_address="",
            ca_bundle=certificate_pem(SERVERS.certificate),
            client_ca=certificate_pem(CA.certificate) + certificate_pem(OTHER_CA.certificate),
            crl=sign_crl(CA, 41, NOW, self.revoked) + sign_crl(OTHER_CA, 42, NOW, []),
            crl_number=42,
        )

    @property
    def service(self) -> Diagnosing:
        return Diagnosing(records=self, publication=self, now=lambda: self.time)

    def record(self, certificate: x509.Certificate, owner: Caller = ANN, **changes: object) -> None:
        known = replace(record_of(certificate, owner), **changes)  # type: ignore[arg-type]
        self.records[known.serial] = known


@dataclass
class Published:
    trust: Trust

    def read_trust(self) -> Trust:
        return self.trust


@pytest.fixture
def world() -> World:
    return World()


@functools.cache
def leaf(
    owner: Caller = ANN,
    access: Access = Access.PUSH,
    ca: Authority = CA,
    serial: int = SERIAL,
    validity: Validity = MONTH,
) -> x509.Certificate:
    """As issued. What *ca* signs is signed by its key, whatever its certificate."""
    grant = Grant(owner.name, owner.arn, access, 30 * DAY)
    return sign_client_leaf(ca, grant, ec_key().public_key(), serial, validity)


@functools.cache
def registrys() -> x509.Certificate:
    return sign_server_leaf(SERVERS, HOST, ec_key().public_key(), SERIAL, MONTH)


def forged(owner: Caller = ANN, serial: int = SERIAL) -> x509.Certificate:
    """It names our CA; another key signed it."""
    impostor = Authority(CA.certificate, ec_key(ec.SECP384R1))
    return leaf(owner, ca=impostor, serial=serial)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate_pem(certificate).encode()


def record_of(certificate: x509.Certificate, owner: Caller) -> CertificateRecord:
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return CertificateRecord(
        serial=serial_hex(certificate.serial_number),
        owner=owner.arn,
        name=owner.name,
        access=Access.PUSH,
        issued_at=NOW,
        validity=Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc),
        fingerprint_sha256=fingerprint(certificate),
        issuer_id=CA.id,
        key_id=keys.key_id(key),
        made_key=False,
        label="",
        slot=1,
        certificate_pem=certificate_pem(certificate),
    )


def codes(said: Diagnosis) -> list[str]:
    return [finding.code.value for finding in said.findings]


def detail(said: Diagnosis, code: str) -> str:
    return next(finding.detail for finding in said.findings if finding.code == code)


# --- what is found --------------------------------------------------------------------------------


def test_a_good_certificate_is_admitted_and_all_facts_are_told(world: World) -> None:
    world.record(leaf())
    by_serial, by_pem = world.service.diagnose(HEX, ANN), world.service.diagnose(pem(leaf()), ANN)
    assert by_serial == by_pem
    assert (by_pem.admitted, by_pem.access, by_pem.findings) == (True, Access.PUSH, ())
    assert (by_pem.revocation, by_pem.superseded_by, by_pem.at) == (None, None, NOW)
    facts = by_pem.certificate
    assert (facts.serial, facts.subject) == (HEX, "O=registry-trust,OU=push,CN=ann")
    assert facts.issuer == CA.certificate.subject.rfc4514_string()
    assert facts.fingerprint_sha256 == fingerprint(leaf())
    assert (facts.not_before, facts.not_after) == (MONTH.not_before, MONTH.not_after)
    assert by_pem.crl is not None
    assert (by_pem.crl.number, by_pem.crl.current) == (41, True)
    assert by_pem.crl.next_update - by_pem.crl.this_update == LIFETIME


def test_a_pull_certificate_is_admitted_and_told_what_it_may(world: World) -> None:
    world.record(leaf(access=Access.PULL))
    said = world.service.diagnose(HEX, ANN)
    assert (said.admitted, said.access, codes(said)) == (True, Access.PULL, ["pull_only"])
    assert "GET and HEAD" in detail(said, "pull_only")


WHEN = NOW - DAY
REVOKED = {"revoked_at": WHEN, "revocation_reason": RevocationReason.KEY_COMPROMISE}


def test_a_revoked_certificate_is_told_when_and_why_and_by_which_list(world: World) -> None:
    world.record(leaf(), **REVOKED)
    world.revoked = [Revocation(SERIAL, WHEN, "keyCompromise")]
    said = world.service.diagnose(HEX, ANN)
    assert said.revocation == RevocationFacts(WHEN, "keyCompromise", 41, published=True)
    assert (said.admitted, codes(said)) == (False, ["revoked"])
    for word in ("2026-03-03 05:06:07 UTC", "keyCompromise", "number 41", "new key"):
        assert word in detail(said, "revoked")


def test_while_the_list_is_pending_it_is_admitted_and_told_so(world: World) -> None:
    world.record(leaf(), **REVOKED)
    said = world.service.diagnose(HEX, ANN)
    assert said.revocation == RevocationFacts(WHEN, "keyCompromise", None, published=False)
    assert (said.admitted, codes(said)) == (True, ["revoked"])
    assert "does not name it yet" in detail(said, "revoked")


def test_a_revoked_one_that_expired_since_is_not_pending(world: World) -> None:
    world.record(leaf(), **REVOKED)
    world.time = MONTH.not_after
    said = world.service.diagnose(HEX, ANN)
    assert "expired" in codes(said)
    assert "no list needs" in detail(said, "revoked")
    assert "does not name it yet" not in detail(said, "revoked")


def test_what_only_the_list_knows_to_be_revoked_is_refused(world: World) -> None:
    world.record(leaf())
    world.revoked = [Revocation(SERIAL, WHEN, "superseded")]
    said = world.service.diagnose(HEX, ANN)
    at = WHEN.replace(microsecond=0)
    assert said.revocation == RevocationFacts(at, "superseded", 41, published=True)
    assert not said.admitted


def test_a_revocation_by_another_ca_is_none(world: World) -> None:
    world.record(leaf(ca=OTHER_CA))
    world.revoked = [Revocation(SERIAL, WHEN, "superseded")]
    said = world.service.diagnose(HEX, ANN)
    assert (said.admitted, said.revocation) == (True, None)
    assert said.crl is not None
    assert said.crl.number == 42


def test_a_renewed_one_is_admitted_and_told_its_successor(world: World) -> None:
    world.record(leaf(), superseded_by=SUCCESSOR)
    said = world.service.diagnose(HEX, ANN)
    assert (said.admitted, codes(said), said.superseded_by) == (True, ["superseded"], SUCCESSOR)
    assert SUCCESSOR in detail(said, "superseded")


def test_a_revoked_one_with_a_successor_is_sent_there_and_not_for_a_new_key(world: World) -> None:
    world.record(leaf(), **REVOKED, superseded_by=SUCCESSOR)
    world.revoked = [Revocation(SERIAL, WHEN, "superseded")]
    said = world.service.diagnose(HEX, ANN)
    assert (said.admitted, codes(said)) == (False, ["revoked", "superseded"])
    assert "new key" not in detail(said, "revoked")


def test_what_refuses_is_told_first(world: World) -> None:
    world.record(leaf(access=Access.PULL), **REVOKED, superseded_by=SUCCESSOR)
    world.time = MONTH.not_after
    said = world.service.diagnose(HEX, ANN)
    assert codes(said) == ["expired", "crl_expired", "revoked", "superseded", "pull_only"]


WEEK = Validity.starting(NOW, 5 * DAY, timedelta(minutes=2))


@pytest.mark.parametrize(
    ("moment", "admitted"),
    [
        (WEEK.not_before - timedelta(microseconds=1), False),
        (WEEK.not_before, True),
        (WEEK.not_after - timedelta(microseconds=1), True),
        (WEEK.not_after, False),
    ],
)
def test_it_holds_from_its_first_second_to_the_one_before_its_last(
    world: World, moment: datetime, admitted: bool
) -> None:
    """The very last second is the certificate's by RFC 5280, but not for OpenSSL."""
    world.record(leaf(validity=WEEK))
    world.time = moment
    assert world.service.diagnose(HEX, ANN).admitted == admitted


def test_one_from_the_future_is_told_how_long_to_wait_and_by_whose_clock(world: World) -> None:
    world.record(leaf(validity=Validity(NOW + 3 * HOUR, NOW + DAY)))
    said = world.service.diagnose(HEX, ANN)
    assert codes(said) == ["not_yet_valid"]
    assert "2 hours from now" in detail(said, "not_yet_valid")
    assert "2026-03-04 05:06:07 UTC" in detail(said, "not_yet_valid")


def test_an_expired_one_is_told_since_when(world: World) -> None:
    world.record(leaf(validity=Validity(NOW - 9 * DAY, NOW - DAY)))
    said = world.service.diagnose(HEX, ANN)
    assert codes(said) == ["expired"]
    assert "1 day ago" in detail(said, "expired")


def test_when_the_list_has_expired_everybody_is_refused_and_sent_to_the_operators(
    world: World,
) -> None:
    world.record(leaf())
    world.time = NOW + LIFETIME
    said = world.service.diagnose(HEX, ANN)
    assert (said.admitted, codes(said)) == (False, ["crl_expired"])
    assert said.crl is not None
    assert not said.crl.current
    assert "operators" in detail(said, "crl_expired")


def test_the_registrys_own_certificate_and_the_cas_are_known_for_what_they_are(
    world: World,
) -> None:
    for certificate, code in [
        (registrys(), "server_certificate"),
        (SERVERS.certificate, "ca_certificate"),
        (CA.certificate, "ca_certificate"),
    ]:
        said = world.service.diagnose(pem(certificate), ANN)
        assert (said.admitted, codes(said), said.access) == (False, [code], None)
        assert "client.cert" in said.findings[0].detail


def test_a_certificate_of_a_retired_ca_is_known_by_its_record(world: World) -> None:
    retired = leaf(ca=RETIRED_CA)
    world.record(retired, superseded_by=SUCCESSOR)
    for said in (world.service.diagnose(HEX, ANN), world.service.diagnose(pem(retired), ANN)):
        assert (said.admitted, codes(said)) == (False, ["retired_issuer", "superseded"])
        assert (said.access, said.crl) == (None, None)


def test_what_our_ca_signed_without_a_record_is_a_matter_for_the_operators(world: World) -> None:
    """nginx admits it, and so the verdict says."""
    for said in (
        world.service.diagnose(pem(leaf()), ANN),
        world.service.diagnose_any(pem(leaf())),
    ):
        assert (said.admitted, codes(said)) == (True, ["not_recorded"])
        assert "operators" in detail(said, "not_recorded")


def test_another_certificate_of_a_recorded_serial_is_a_matter_for_the_operators(
    world: World,
) -> None:
    world.record(leaf(), superseded_by=SUCCESSOR)
    twin = leaf(access=Access.PULL)
    said = world.service.diagnose(pem(twin), ANN)
    assert (said.admitted, codes(said)) == (True, ["record_mismatch", "pull_only"])
    assert said.superseded_by is None


def test_a_revocation_counts_for_whatever_our_ca_signed_with_the_serial(world: World) -> None:
    world.record(leaf(), **REVOKED)
    assert "revoked" in codes(world.service.diagnose(pem(leaf(access=Access.PULL)), ANN))
    assert "revoked" not in codes(world.service.diagnose(pem(forged()), ANN))


# --- who may be told ------------------------------------------------------------------------------


def refusal(world: World, evidence: bytes | str, caller: Caller = BOB) -> tuple[str, str]:
    with pytest.raises(NotFound) as caught:
        world.service.diagnose(evidence, caller)
    return caught.value.code, str(caught.value)


def test_somebody_elses_is_refused_in_the_very_words_for_what_is_not_there(world: World) -> None:
    world.record(leaf())
    absent = refusal(world, serial_hex(5))
    assert absent[0] == "certificate_not_found"
    assert refusal(world, HEX) == absent
    assert refusal(world, pem(leaf())) == absent
    assert refusal(world, pem(leaf(serial=5))) == absent, "nor has this one a record"
    assert refusal(World(), pem(leaf())) == absent


def test_an_admin_is_told_of_anybodys_and_that_there_is_none(world: World) -> None:
    world.record(leaf())
    for evidence in (HEX, pem(leaf())):
        assert world.service.diagnose_any(evidence).admitted
    with pytest.raises(NotFound, match="there is no such certificate"):
        world.service.diagnose_any(serial_hex(5))


def test_a_strangers_certificate_may_be_anybodys(world: World) -> None:
    stranger = leaf(ca=client_ca(9))
    for caller in (ANN, BOB):
        said = world.service.diagnose(pem(stranger), caller)
        assert (said.admitted, codes(said)) == (False, ["unknown_issuer"])


@pytest.mark.parametrize(
    "stranger", [lambda serial: leaf(ca=client_ca(9), serial=serial), lambda s: forged(ANN, s)]
)
def test_a_made_up_certificate_does_not_tell_whether_its_serial_is_somebodys(
    world: World, stranger: object
) -> None:
    """The answers differ in what the caller made up alone."""
    assert callable(stranger)
    world.record(leaf(), **REVOKED, superseded_by=SUCCESSOR)
    told = [world.service.diagnose(pem(stranger(serial)), BOB) for serial in (SERIAL, 5)]
    assert told[0].certificate.serial == HEX
    assert replace(told[0], certificate=told[1].certificate) == told[1]


def test_the_very_certificate_of_a_retired_ca_tells_a_stranger_nothing_either(
    world: World,
) -> None:
    world.record(leaf(ca=RETIRED_CA), superseded_by=SUCCESSOR)
    said = world.service.diagnose(pem(leaf(ca=RETIRED_CA)), BOB)
    assert (codes(said), said.superseded_by) == (["unknown_issuer"], None)


def test_whose_serial_was_forged_is_told_so_and_an_admin_too(world: World) -> None:
    world.record(leaf())
    for said in (
        world.service.diagnose(pem(forged()), ANN),
        world.service.diagnose_any(pem(forged(BOB))),
    ):
        assert codes(said) == ["bad_signature", "record_mismatch"]


def test_without_a_record_the_owner_in_the_certificate_counts(world: World) -> None:
    world.record(leaf(BOB), BOB)
    assert codes(world.service.diagnose(pem(leaf(ANN)), ANN)) == ["not_recorded"]
    refusal(world, pem(leaf(ANN)), BOB)


def test_the_registrys_certificate_is_public_but_its_record_is_its_owners(world: World) -> None:
    world.record(registrys(), HOST_ROLE, access=None)
    refusal(world, HEX, ANN)
    assert codes(world.service.diagnose(pem(registrys()), ANN)) == ["server_certificate"]
    assert codes(world.service.diagnose(HEX, HOST_ROLE)) == ["server_certificate"]
    assert codes(world.service.diagnose_any(HEX)) == ["server_certificate"]


def test_no_detail_names_an_owner(world: World) -> None:
    world.record(leaf(), **REVOKED, superseded_by=SUCCESSOR)
    for evidence in (HEX, pem(leaf()), pem(forged()), pem(leaf(access=Access.PULL))):
        for finding in world.service.diagnose_any(evidence).findings:
            assert "arn:" not in finding.detail


# --- evidence -------------------------------------------------------------------------------------

PRINTED = {
    "as we print it": HEX,
    "as openssl and nginx print it": HEX.lstrip("0").upper(),
    "with colons, as openssl's text has it": ":".join(HEX[i : i + 2] for i in range(0, 40, 2)),
    "with white space around": f" {HEX}\n",
}


@pytest.mark.parametrize("serial", PRINTED.values(), ids=PRINTED)
def test_a_serial_is_read_as_it_is_printed(world: World, serial: str) -> None:
    world.record(leaf())
    assert world.service.diagnose(serial, ANN).certificate.serial == HEX


@pytest.mark.parametrize("serial", ["", ":", "xyz", "0x12", f"{HEX}0", "-1", "\uff11\uff12"])
def test_what_is_no_serial_is_refused(world: World, serial: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        world.service.diagnose(serial, ANN)
    assert (caught.value.code, caught.value.field) == ("invalid_serial", "serial")


def test_a_chain_behind_the_certificate_does_no_harm_and_a_key_is_refused(world: World) -> None:
    world.record(leaf())
    answered = pem(leaf()) + pem(CA.certificate)
    assert world.service.diagnose(answered, ANN).certificate.serial == HEX
    with pytest.raises(InvalidRequest) as caught:
        world.service.diagnose(keys.private_key_pem(ec_key()) + answered, ANN)
    assert caught.value.code == "private_key_sent"


def test_a_serial_longer_than_any_of_ours_is_looked_for_nowhere(world: World) -> None:
    der = leaf().public_bytes(Encoding.DER)
    at = der.index(SERIAL.to_bytes(20, "big"))
    longer = b"\x7f" + bytes(29)
    # The serial grows by 10 bytes, and so do the two sequences around it.
    grown = der[: at - 1] + bytes([len(longer)]) + longer + der[at + 20 :]
    grown = _lengthened(_lengthened(grown, 2, 10), 6, 10)
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(grown)
    said = world.service.diagnose(text + b"-----END CERTIFICATE-----\n", ANN)
    assert said.certificate.serial == longer.hex()
    assert codes(said) == ["bad_signature"]


def _lengthened(der: bytes, at: int, more: int) -> bytes:
    """With the two-byte length at *at* greater by *more*."""
    return (
        der[:at]
        + (int.from_bytes(der[at : at + 2], "big") + more).to_bytes(2, "big")
        + der[at + 2 :]
    )


@settings(deadline=None)
@given(st.binary() | st.text() | st.text("0123456789abcdefABCDEF:x", max_size=45))
def test_any_evidence_is_answered_or_refused_by_errors_of_ours(evidence: bytes | str) -> None:
    for ask in (lambda e: World().service.diagnose(e, ANN), World().service.diagnose_any):
        with pytest.raises(AppError):
            ask(evidence)


# --- what is broken -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["client_ca", "ca_bundle", "crl"])
def test_a_trust_that_cannot_be_read_is_a_matter_for_the_operators(world: World, part: str) -> None:
    label = "X509 CRL" if part == "crl" else "CERTIFICATE"
    broken = f"-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n"
    trust = replace(world.read_trust(), **{part: broken})  # type: ignore[arg-type]
    world.record(leaf())
    with pytest.raises(Misconfigured):
        replace(world.service, publication=Published(trust)).diagnose(HEX, ANN)


def test_a_record_whose_certificate_cannot_be_read_is_not_the_callers_fault(world: World) -> None:
    world.record(leaf(), certificate_pem="x")
    with pytest.raises(Misconfigured):
        world.service.diagnose(HEX, ANN)


def test_a_trust_without_lists_admits_nobody(world: World) -> None:
    world.record(leaf())
    trust = replace(world.read_trust(), crl="")
    said = replace(world.service, publication=Published(trust)).diagnose(HEX, ANN)
    assert (said.admitted, codes(said), said.crl) == (False, ["crl_missing"], None)


def test_times_are_utc_and_codes_are_words(world: World) -> None:
    world.record(leaf())
    said = world.service.diagnose(HEX, ANN)
    assert said.certificate.not_after.tzinfo is UTC
    assert all(code.value == code.value.lower() for code in FindingCode)
