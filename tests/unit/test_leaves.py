"""Leaf certificates: every field that the registry and its clients go by."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.model import Access, Grant, KeyType, Validity
from chalicelib.domain.pki.authorities import Authority, make_client_authority
from chalicelib.domain.pki.keys import make_key
from chalicelib.domain.pki.leaves import (
    SERIAL_BITS,
    certificate_pem,
    fingerprint,
    serial_hex,
    sign_client_leaf,
    sign_server_leaf,
)
from tests.unit.authorities import DAY, HOST, NOW, TEN_YEARS, client_ca, rsa_client_ca, server_ca
from tests.unit.signing_requests import ec_key, rsa_key

OWNER = "arn:aws:iam::123456789012:user/team/ann"
GRANT = Grant("ann", OWNER, Access.PULL, 90 * DAY)
VALIDITY = Validity.starting(NOW, 90 * DAY, timedelta(minutes=5))
KEY = ec_key().public_key()

Extension = TypeVar("Extension", bound=x509.ExtensionType)


def client_leaf(
    issuer: Authority | None = None,
    grant: Grant = GRANT,
    serial: int = 7,
    validity: Validity = VALIDITY,
) -> x509.Certificate:
    return sign_client_leaf(issuer or client_ca(), grant, KEY, serial, validity)


def server_leaf(host: str = HOST) -> x509.Certificate:
    return sign_server_leaf(server_ca(host), host, KEY, 7, VALIDITY)


def of(certificate: x509.Certificate, kind: type[Extension]) -> Extension:
    return certificate.extensions.get_extension_for_class(kind).value


def test_the_subject_is_the_name_the_access_and_us_in_this_order() -> None:
    assert [part.rfc4514_string() for part in client_leaf().subject.rdns] == [
        "CN=ann",
        "OU=pull",
        "O=registry-trust",
    ]
    pushing = client_leaf(grant=Grant("ann", OWNER, Access.PUSH, DAY))
    assert pushing.subject.rfc4514_string() == "O=registry-trust,OU=push,CN=ann"


@given(st.text("+=,.@_-abcXYZ019", min_size=1, max_size=64))
@settings(max_examples=40, deadline=None)
def test_no_name_can_pass_for_the_access(name: str) -> None:
    """As nginx prints it, the access is read from the front, where no name can reach."""
    subject = client_leaf(grant=Grant(name, OWNER, Access.PULL, DAY)).subject
    assert subject.rfc4514_string().startswith("O=registry-trust,OU=pull,CN=")
    assert [part.value for part in subject] == [name, "pull", "registry-trust"]


def test_the_owner_is_in_the_certificate_as_a_uri() -> None:
    alternative = of(client_leaf(), x509.SubjectAlternativeName)
    assert list(alternative) == [x509.UniformResourceIdentifier(OWNER)]


def test_an_owner_with_a_path_of_odd_characters_is_still_a_uri() -> None:
    """IAM lets a user's path hold all of ASCII from ! on, which a URI does not (RFC 3986)."""
    odd = Grant("ann", 'arn:aws:iam::123456789012:user/a"#%<b>/ann', Access.PULL, DAY)
    (uri,) = of(client_leaf(grant=odd), x509.SubjectAlternativeName)
    assert uri.value == "arn:aws:iam::123456789012:user/a%22%23%25%3Cb%3E/ann"
    session = Grant("a+=,.@_-b", "arn:aws:sts::1:assumed-role/r/a+=,.@_-b", Access.PULL, DAY)
    (uri,) = of(client_leaf(grant=session), x509.SubjectAlternativeName)
    assert uri.value == session.owner


def test_a_client_certificate_is_for_clients_and_a_server_certificate_for_servers() -> None:
    """Each alone: a client's certificate can never serve, nor the registry's act as a client."""
    assert list(of(client_leaf(), x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert list(of(server_leaf(), x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.parametrize("leaf", [client_leaf(), server_leaf()], ids=["client", "server"])
def test_a_leaf_may_sign_handshakes_and_nothing_else(leaf: x509.Certificate) -> None:
    assert of(leaf, x509.KeyUsage) == x509.KeyUsage(True, *[False] * 8)
    critical = {type(extension.value): extension.critical for extension in leaf.extensions}
    assert critical == {
        x509.KeyUsage: True,
        x509.SubjectKeyIdentifier: False,
        x509.AuthorityKeyIdentifier: False,
        x509.SubjectAlternativeName: False,
        x509.ExtendedKeyUsage: False,
    }


def test_a_leaf_names_its_own_key_and_its_issuers() -> None:
    issuer = client_ca()
    leaf = client_leaf(issuer)
    own = x509.SubjectKeyIdentifier.from_public_key(KEY)
    its = of(issuer.certificate, x509.SubjectKeyIdentifier)
    assert of(leaf, x509.SubjectKeyIdentifier) == own
    assert of(leaf, x509.AuthorityKeyIdentifier).key_identifier == its.digest
    assert leaf.issuer == issuer.certificate.subject
    assert leaf.public_key() == KEY


@pytest.mark.parametrize("issuer", [client_ca(), rsa_client_ca()], ids=["ec", "rsa"])
def test_a_leaf_is_signed_by_its_issuer_and_no_other(issuer: Authority) -> None:
    leaf = client_leaf(issuer)
    leaf.verify_directly_issued_by(issuer.certificate)
    with pytest.raises((ValueError, InvalidSignature)):
        leaf.verify_directly_issued_by(client_ca(2).certificate)


def test_the_hash_fits_the_issuers_key() -> None:
    p384 = make_client_authority(make_key(KeyType.EC_P384), 1, TEN_YEARS)
    assert isinstance(client_leaf().signature_hash_algorithm, hashes.SHA256)
    assert isinstance(client_leaf(rsa_client_ca()).signature_hash_algorithm, hashes.SHA256)
    assert isinstance(client_leaf(p384).signature_hash_algorithm, hashes.SHA384)


def test_the_ends_of_the_validity_are_the_ones_given() -> None:
    leaf = client_leaf()
    assert leaf.not_valid_before_utc == NOW.replace(microsecond=0) - timedelta(minutes=5)
    assert leaf.not_valid_after_utc == NOW.replace(microsecond=0) + 90 * DAY


@pytest.mark.parametrize("serial", [1, 2**64, 2**159 - 1])
def test_a_serial_stays_positive_within_20_octets(serial: int) -> None:
    assert SERIAL_BITS == 159
    leaf = client_leaf(serial=serial)
    assert x509.load_pem_x509_certificate(certificate_pem(leaf).encode()).serial_number == serial


def test_a_serial_is_written_with_40_lower_case_digits() -> None:
    assert serial_hex(0xABC) == "abc".rjust(40, "0")
    assert serial_hex(2**159 - 1) == "7" + "f" * 39


@pytest.mark.parametrize("host", [HOST, "localhost"])
def test_a_host_name_is_certified_as_a_name(host: str) -> None:
    leaf = server_leaf(host)
    assert list(of(leaf, x509.SubjectAlternativeName)) == [x509.DNSName(host)]
    assert leaf.subject.rfc4514_string() == "O=registry-trust"


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_an_address_is_certified_as_an_address(host: str) -> None:
    """Clients do not compare addresses with DNS names (RFC 6125 section 1.7.2)."""
    alternative = of(server_leaf(host), x509.SubjectAlternativeName)
    assert list(alternative) == [x509.IPAddress(ip_address(host))]


def test_pem_and_fingerprint_are_the_usual_ones() -> None:
    leaf = client_leaf()
    assert certificate_pem(leaf).startswith("-----BEGIN CERTIFICATE-----\n")
    assert certificate_pem(leaf).endswith("-----END CERTIFICATE-----\n")
    assert fingerprint(leaf) == leaf.fingerprint(hashes.SHA256()).hex()


def test_an_rsa_key_is_certified_like_an_ec_key() -> None:
    key = rsa_key(2048).public_key()
    leaf = sign_client_leaf(client_ca(), GRANT, key, 7, VALIDITY)
    assert leaf.public_key() == key
    leaf.verify_directly_issued_by(client_ca().certificate)
