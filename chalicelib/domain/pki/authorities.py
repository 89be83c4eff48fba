"""The two certificate authorities: making them, and reading them back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chalicelib.domain.model import Validity
from chalicelib.domain.pki.keys import LeafPublicKey, PrivateKey, key_id, signing_hash
from chalicelib.errors import InvalidRequest, Misconfigured

ORGANIZATION = "registry-trust"

_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def key_usage(*granted: str) -> x509.KeyUsage:
    """The extension that grants these uses alone (RFC 5280 section 4.2.1.3)."""
    return x509.KeyUsage(**{use: use in granted for use in _KEY_USAGES})


class AuthorityKind(StrEnum):
    """Which certificates an authority signs."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that can sign: its certificate and its key. The key is left out of repr()."""

    certificate: x509.Certificate
    key: PrivateKey

    def __repr__(self) -> str:
        return f"Authority({self.id})"

    @property
    def id(self) -> str:
        """The first 16 hex digits of SHA-256 over its SubjectPublicKeyInfo."""
        return authority_id(self.certificate)


def authority_id(certificate: x509.Certificate) -> str:
    """The id of the CA that this is the certificate of."""
    return key_id(_public_key(certificate))[:16]


def ids_in(bundle: str) -> Sequence[str]:
    """The ids of the CAs whose certificates are in *bundle*, PEM, in its order.

    Raises Misconfigured for what is no such bundle.
    """
    try:
        certificates = x509.load_pem_x509_certificates(bundle.encode())
    except ValueError as error:
        raise Misconfigured("unreadable_trust", "a published CA certificate is broken") from error
    return [authority_id(certificate) for certificate in certificates]


def _public_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    key = certificate.public_key()
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise Misconfigured("unusable_authority", "a CA certificate holds a key of an unknown kind")
    return key


def refuse_authority_key(key: LeafPublicKey, certificates: Iterable[x509.Certificate]) -> None:
    """Raises InvalidRequest if *key*, from a CSR, is that of one of these CA certificates."""
    if any(ca.public_key() == key for ca in certificates):
        raise InvalidRequest("key_is_ca", "this is a CA's key; make one of your own", field="csr")


def load_authority(certificate_pem: str, key_pem: str) -> Authority:
    """The authority from its PEM parts. Raises Misconfigured if they do not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    except ValueError:
        # Without its cause: a parser's message may quote what it could not read.
        raise Misconfigured("unusable_authority", "a CA's parameters cannot be read") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise Misconfigured("unusable_authority", "a CA's key is of an unknown kind")
    if key.public_key() != certificate.public_key():
        raise Misconfigured("unusable_authority", "a CA's key and certificate do not match")
    return Authority(certificate, key)


def make_client_authority(key: PrivateKey, serial: int, validity: Validity) -> Authority:
    """A self-signed CA for client certificates alone: EKU clientAuth, pathLen 0."""
    extensions = [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]
    return _make(AuthorityKind.CLIENT, key, serial, validity, extensions, None)


def make_server_authority(key: PrivateKey, serial: int, validity: Validity, host: str) -> Authority:
    """A self-signed CA for the certificate of the one registry *host* alone.

    host: a DNS name or an IP address, without port. Machines that trust this CA thereby trust it
    for this name, and names below it, only: name constraints (RFC 5280 section 4.2.1.10, which can
    say no less), EKU serverAuth, pathLen 0.
    """
    extensions = [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])]
    return _make(AuthorityKind.SERVER, key, serial, validity, extensions, _only(host))


def _make(
    kind: AuthorityKind,
    key: PrivateKey,
    serial: int,
    validity: Validity,
    extensions: Sequence[x509.ExtensionType],
    constraints: x509.NameConstraints | None,
) -> Authority:
    name = _name(kind, key_id(key.public_key())[:16])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return Authority(builder.sign(key, signing_hash(key)), key)


def _name(kind: AuthorityKind, identifier: str) -> x509.Name:
    """Unlike for each authority, so that a chain is never built to the wrong one in a rotation."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"registry-trust {kind} CA {identifier}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
        ]
    )


_EVERY_ADDRESS = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def _only(host: str) -> x509.NameConstraints:
    """Permit *host*, and shut the other kinds of name out.

    A kind that is not mentioned is unconstrained, so a DNS name excludes every address. An address
    excludes those of the other version, which GnuTLS takes for another kind, and permits DNS names
    only below .invalid, which nobody can have (RFC 2606 section 2).
    """
    address = parse_address(host)
    if address is None:
        everything = [x509.IPAddress(network) for network in _EVERY_ADDRESS.values()]
        return x509.NameConstraints([x509.DNSName(host)], everything)
    network: IPv4Network | IPv6Network = ip_network(address)
    return x509.NameConstraints(
        [x509.IPAddress(network), x509.DNSName("registry-trust.invalid")],
        [x509.IPAddress(_EVERY_ADDRESS[6 if address.version == 4 else 4])],
    )


def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """*host* as an IP address; None when it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
