"""Revocation lists: version 2, numbered, with reasons, and quick however long."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chalicelib.domain.pki.authorities import Authority
from chalicelib.domain.pki.crl import Revocation, sign_crl
from tests.unit.authorities import DAY, NOW, SECOND, client_ca, rsa_client_ca

BEFORE = NOW - 3 * DAY

# RFC 5280 section 5.3.1, but for those that only delta lists and attribute certificates use.
REASONS = [
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
]


def crl_of(
    *revocations: Revocation, number: int = 1, issuer: Authority | None = None
) -> x509.CertificateRevocationList:
    pem = sign_crl(issuer or client_ca(), number, NOW, revocations)
    return x509.load_pem_x509_crl(pem.encode())


def entry(crl: x509.CertificateRevocationList, serial: int) -> x509.RevokedCertificate:
    found = crl.get_revoked_certificate_by_serial_number(serial)
    assert found is not None
    return found


@pytest.mark.parametrize("issuer", [client_ca(), rsa_client_ca()], ids=["ec", "rsa"])
def test_a_list_is_signed_by_its_issuer(issuer: Authority) -> None:
    crl = crl_of(issuer=issuer)
    key = issuer.key.public_key()
    assert isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey))
    assert crl.is_signature_valid(key)
    assert not crl.is_signature_valid(client_ca(2).key.public_key())
    assert crl.issuer == issuer.certificate.subject
    identifier = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    its = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier.key_identifier == its.digest


def test_a_list_holds_for_7_days_and_already_for_a_host_whose_clock_is_behind() -> None:
    crl = crl_of()
    assert crl.last_update_utc == NOW.replace(microsecond=0) - timedelta(minutes=5)
    assert crl.next_update_utc == crl.last_update_utc + 7 * DAY


@pytest.mark.parametrize("number", [1, 2**63])
def test_the_number_is_the_one_given(number: int) -> None:
    crl = crl_of(number=number)
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == number


def test_nothing_in_a_list_is_critical_for_readers_that_do_not_know_it() -> None:
    critical = {type(extension.value): extension.critical for extension in crl_of().extensions}
    assert critical == {x509.CRLNumber: False, x509.AuthorityKeyIdentifier: False}


def test_an_empty_list_is_a_list() -> None:
    assert len(crl_of()) == 0


def test_a_revoked_serial_is_listed_with_its_time_and_another_is_not() -> None:
    crl = crl_of(Revocation(2**158 + 1, BEFORE, "keyCompromise"))
    assert entry(crl, 2**158 + 1).revocation_date_utc == BEFORE.replace(microsecond=0)
    assert crl.get_revoked_certificate_by_serial_number(2**158) is None


@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_is_given_by_its_code(reason: str) -> None:
    listed = entry(crl_of(Revocation(5, BEFORE, reason)), 5)
    said = listed.extensions.get_extension_for_class(x509.CRLReason)
    assert said.value.reason.value == reason
    assert not said.critical


def test_the_reason_unspecified_is_left_out() -> None:
    """RFC 5280 section 5.3.1: it SHOULD be absent rather than say nothing."""
    assert not list(entry(crl_of(Revocation(5, BEFORE, "unspecified")), 5).extensions)


def test_an_unknown_reason_is_an_error_and_not_dropped() -> None:
    with pytest.raises(ValueError, match="becauseISaidSo"):
        crl_of(Revocation(5, BEFORE, "becauseISaidSo"))


def test_time_grows_with_the_list_and_not_with_its_square() -> None:
    """Looping over the builder's own add method takes seconds for this many, and hours for ten
    times as many."""
    many = [Revocation(n + 1, BEFORE - n * SECOND, "unspecified") for n in range(60_000)]
    started = time.process_time()
    pem = sign_crl(client_ca(), 1, NOW, many)
    assert timedelta(seconds=time.process_time() - started) < timedelta(seconds=1.5)
    assert len(x509.load_pem_x509_crl(pem.encode())) == 60_000
