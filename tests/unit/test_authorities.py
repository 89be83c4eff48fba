"""The two CAs: what they may sign is in their certificates, for everybody to enforce."""

from __future__ import annotations

import hashlib
from ipaddress import ip_address, ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from chalicelib.domain.pki.authorities import (
    Authority,
    authority_id,
    load_authority,
    parse_address,
    refuse_authority_key,
)
from chalicelib.domain.pki.keys import private_key_pem
from chalicelib.domain.pki.leaves import certificate_pem
from chalicelib.errors import InvalidRequest, Misconfigured
from tests.unit.authorities import HOST, TEN_YEARS, client_ca, rsa_client_ca, server_ca

BOTH = [client_ca(), server_ca()]


def constraints(host: str) -> x509.NameConstraints:
    extensions = server_ca(host).certificate.extensions
    extension = extensions.get_extension_for_class(x509.NameConstraints)
    assert extension.critical
    return extension.value


def pems(authority: Authority) -> tuple[str, str]:
    return certificate_pem(authority.certificate), private_key_pem(authority.key).decode()


@pytest.mark.parametrize("authority", BOTH, ids=["client", "server"])
def test_a_ca_signs_leaves_and_crls_and_no_further_ca(authority: Authority) -> None:
    extensions = authority.certificate.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value) == (True, x509.BasicConstraints(True, 0))
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    allowed = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    assert (usage.critical, usage.value) == (True, allowed)


@pytest.mark.parametrize("authority", BOTH, ids=["client", "server"])
def test_a_ca_is_self_signed_and_holds_the_dates_given(authority: Authority) -> None:
    certificate = authority.certificate
    certificate.verify_directly_issued_by(certificate)
    assert certificate.public_key() == authority.key.public_key()
    assert certificate.not_valid_before_utc == TEN_YEARS.not_before
    assert certificate.not_valid_after_utc == TEN_YEARS.not_after
    assert certificate.serial_number == 1


def test_each_ca_is_for_its_own_kind_of_leaf_alone() -> None:
    usages = [
        list(ca.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        for ca in BOTH
    ]
    assert usages == [[ExtendedKeyUsageOID.CLIENT_AUTH], [ExtendedKeyUsageOID.SERVER_AUTH]]


def test_the_id_is_16_digits_of_the_hash_of_the_key() -> None:
    spki = (
        client_ca().key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    assert client_ca().id == hashlib.sha256(spki).hexdigest()[:16]
    assert authority_id(client_ca().certificate) == client_ca().id


def test_no_two_cas_share_a_name() -> None:
    """Else a chain could be built to the wrong one while both are trusted, in a rotation."""
    names = {ca.certificate.subject for ca in (client_ca(1), client_ca(2), server_ca())}
    assert len(names) == 3
    for ca, kind in ((client_ca(), "client"), (server_ca(), "server")):
        common, organization = ca.certificate.subject
        assert common.value == f"registry-trust {kind} CA {ca.id}"
        assert organization.value == "registry-trust"


def test_only_what_bounds_a_ca_is_critical() -> None:
    """The rest is for chain builders and may be unknown to one."""
    for ca in (client_ca(), server_ca()):
        assert {type(each.value): each.critical for each in ca.certificate.extensions} == {
            x509.BasicConstraints: True,
            x509.KeyUsage: True,
            x509.SubjectKeyIdentifier: False,
            x509.ExtendedKeyUsage: False,
        } | ({x509.NameConstraints: True} if ca is server_ca() else {})


def test_the_server_ca_is_bound_to_the_hosts_name_and_to_no_address() -> None:
    held = constraints(HOST)
    assert held.permitted_subtrees == [x509.DNSName(HOST)]
    everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
    assert held.excluded_subtrees == [x509.IPAddress(each) for each in everything]


@pytest.mark.parametrize(
    ("host", "own", "other"),
    [("192.0.2.7", "192.0.2.7/32", "::/0"), ("2001:db8::7", "2001:db8::7/128", "0.0.0.0/0")],
)
def test_the_server_ca_of_an_address_is_bound_to_it_and_to_no_usable_name(
    host: str, own: str, other: str
) -> None:
    held = constraints(host)
    assert held.permitted_subtrees == [
        x509.IPAddress(ip_network(own)),
        x509.DNSName("registry-trust.invalid"),
    ]
    assert held.excluded_subtrees == [x509.IPAddress(ip_network(other))]


def test_the_client_ca_is_bound_to_no_name() -> None:
    """Its leaves' names are ARNs; nothing to constrain."""
    with pytest.raises(x509.ExtensionNotFound):
        client_ca().certificate.extensions.get_extension_for_class(x509.NameConstraints)


@pytest.mark.parametrize("authority", [client_ca(), rsa_client_ca()], ids=["ec", "rsa"])
def test_an_authority_is_read_back_from_its_pem(authority: Authority) -> None:
    read = load_authority(*pems(authority))
    assert read.id == authority.id
    assert read.certificate == authority.certificate
    assert read.key.public_key() == authority.key.public_key()


def test_a_key_that_is_not_the_certificates_is_refused() -> None:
    certificate, _ = pems(client_ca(1))
    _, key = pems(client_ca(2))
    with pytest.raises(Misconfigured, match="do not match") as caught:
        load_authority(certificate, key)
    assert caught.value.code == "unusable_authority"


def test_what_cannot_be_read_is_refused_without_quoting_it() -> None:
    certificate, key = pems(client_ca())
    for broken in (
        (certificate, key[:-40]),
        (certificate[:-40], key),
        ("", key),
        (certificate, ""),
    ):
        with pytest.raises(Misconfigured, match="cannot be read") as caught:
            load_authority(*broken)
        assert caught.value.code == "unusable_authority"
        assert caught.value.__suppress_context__
        assert "BEGIN" not in str(caught.value)


def test_a_key_of_a_kind_we_do_not_sign_with_is_refused() -> None:
    odd = private_key_pem(ed25519.Ed25519PrivateKey.generate())  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match="unknown kind") as caught:
        load_authority(pems(client_ca())[0], odd.decode())
    assert caught.value.code == "unusable_authority"


def test_a_certificate_of_a_key_of_another_kind_has_no_id() -> None:
    key, name = ed25519.Ed25519PrivateKey.generate(), client_ca().certificate.subject
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    dated = builder.not_valid_before(TEN_YEARS.not_before).not_valid_after(TEN_YEARS.not_after)
    with pytest.raises(Misconfigured, match="unknown kind") as caught:
        authority_id(dated.sign(key, None))
    assert caught.value.code == "unusable_authority"


def test_a_cas_key_is_told_from_others() -> None:
    certificates = [client_ca().certificate, server_ca().certificate]
    refuse_authority_key(client_ca(2).key.public_key(), certificates)
    for ca in (client_ca(), server_ca()):
        with pytest.raises(InvalidRequest) as caught:
            refuse_authority_key(ca.key.public_key(), certificates)
        assert (caught.value.code, caught.value.field) == ("key_is_ca", "csr")


def test_the_key_is_not_shown_when_an_authority_is_printed() -> None:
    assert repr(client_ca()) == f"Authority({client_ca().id})"


def test_addresses_are_told_from_names() -> None:
    assert parse_address("192.0.2.7") == ip_address("192.0.2.7")
    assert parse_address("::1") == ip_address("::1")
    for name in ("192.0.2.7.example.com", "192.0.2", "localhost"):
        assert parse_address(name) is None
