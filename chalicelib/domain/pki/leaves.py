"""Leaf certificates: what registry clients and the registry show each other."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chalicelib.domain.model import CertificateRecord, Grant, Validity
from chalicelib.domain.pki.authorities import ORGANIZATION, Authority, key_usage, parse_address
from chalicelib.domain.pki.keys import LeafPublicKey, accept_public_key, key_id, signing_hash

# 159 bits keep the DER integer positive within 20 octets, the most RFC 5280 section 4.1.2.2
# allows, with far more than the 64 random bits that the CA/Browser Forum asks for.
SERIAL_BITS = 159

# What may follow the scheme of a URI unquoted (RFC 3986 section 3.3).
_URI_CHARACTERS = ":/@!$&'()*+,;=-._~"


def new_serial() -> int:
    """A serial from the operating system's random source: positive, below 2**159."""
    return secrets.randbits(SERIAL_BITS) or 1


def serial_hex(serial: int) -> str:
    """40 lower-case hex digits, the form a serial has everywhere but in a certificate."""
    return format(serial, "040x")


def sign_client_leaf(
    issuer: Authority, grant: Grant, key: LeafPublicKey, serial: int, validity: Validity
) -> x509.Certificate:
    """A client certificate for *key*. Takes the facts as given; a leaf must not outlive *issuer*.

    The subject is, in this order, CN=name, OU=access, O=registry-trust. nginx prints it in
    reverse (RFC 2253 section 2.1), so what the caller may choose, the name, comes last there and
    no name can stand where the access is read.
    serial: positive, below 2**159, unique per issuer.
    """
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, grant.name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, grant.access.value),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
        ]
    )
    builder = _leaf(issuer, subject, key, serial, validity)
    owner = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_as_uri(grant.owner))])
    return (
        builder.add_extension(owner, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(issuer.key, signing_hash(issuer.key))
    )


def _as_uri(arn: str) -> str:
    """An ARN is a URI as it stands, but for what the path of an IAM user may hold besides."""
    return quote(arn, safe=_URI_CHARACTERS)


def sign_server_leaf(
    issuer: Authority, host: str, key: LeafPublicKey, serial: int, validity: Validity
) -> x509.Certificate:
    """The registry's certificate for *host*: a DNS name or an IP address, without port."""
    address = parse_address(host)
    name: x509.GeneralName = x509.DNSName(host) if address is None else x509.IPAddress(address)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION)])
    return (
        _leaf(issuer, subject, key, serial, validity)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(issuer.key, signing_hash(issuer.key))
    )


def _leaf(
    issuer: Authority, subject: x509.Name, key: LeafPublicKey, serial: int, validity: Validity
) -> x509.CertificateBuilder:
    identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(key_usage("digital_signature"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(authority_key, critical=False)
    )


def certificate_pem(certificate: x509.Certificate) -> str:
    """The certificate in PEM, with its final line break."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def public_key_in(pem: str) -> LeafPublicKey:
    """The key that a certificate of ours certifies."""
    return accept_public_key(x509.load_pem_x509_certificate(pem.encode()).public_key)


def record_of(
    certificate: x509.Certificate, issuer: Authority, grant: Grant, issued_at: datetime
) -> CertificateRecord:
    """What is to be kept of a client certificate that *grant* allowed."""
    return CertificateRecord(
        owner=grant.owner,
        name=grant.name,
        access=grant.access,
        issued_at=issued_at,
        **_facts(certificate, issuer),
    )


def record_of_server(
    certificate: x509.Certificate, issuer: Authority, host: str, owner: str, issued_at: datetime
) -> CertificateRecord:
    """What is to be kept of the registry's own certificate."""
    return CertificateRecord(
        owner=owner, name=host, access=None, issued_at=issued_at, **_facts(certificate, issuer)
    )


def _facts(certificate: x509.Certificate, issuer: Authority) -> dict[str, Any]:
    return {
        "serial": serial_hex(certificate.serial_number),
        "validity": Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc),
        "fingerprint_sha256": fingerprint(certificate),
        "issuer_id": issuer.id,
        "key_id": key_id(accept_public_key(certificate.public_key)),
        "certificate_pem": certificate_pem(certificate),
    }


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the whole certificate, 64 lower-case hex digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()
