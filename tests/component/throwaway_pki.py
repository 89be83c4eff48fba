"""CAs, certificates and CRLs made for one test, by `cryptography` and not by our own code."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey
DAY = timedelta(days=1)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)  # the tests talk to programs with real clocks


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def certificate_pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def crl_pem(*crls: x509.CertificateRevocationList) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in crls)


def subject(name: str, access: str, organisation: str = "registry-trust") -> x509.Name:
    """In the order that our API gives: CN, OU, O."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, access),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
        ]
    )


@dataclass(frozen=True)
class Leaf:
    certificate: x509.Certificate
    key: Key

    @property
    def serial(self) -> int:
        return self.certificate.serial_number


@dataclass
class ThrowawayCa:
    """A CA that signs whatever a test asks for."""

    name: str
    key: Key = field(default_factory=new_key)
    is_ca: bool = True

    def __post_init__(self) -> None:
        own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self.certificate = (
            self._builder(own, self.key.public_key(), now() - DAY, now() + 3650 * DAY)
            .add_extension(x509.BasicConstraints(self.is_ca, 0 if self.is_ca else None), True)
            .add_extension(usage, True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return certificate_pem(self.certificate)

    @property
    def authority_id(self) -> str:
        info = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(info).hexdigest()

    def client(
        self,
        name: str = "ann",
        access: str = "pull",
        *,
        subject_name: x509.Name | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        key: Key | None = None,
    ) -> Leaf:
        key = key or new_key()
        certificate = self.certify(
            key.public_key(),
            subject(name, access) if subject_name is None else subject_name,
            usage=usage,
            not_before=not_before,
            not_after=not_after,
        )
        return Leaf(certificate, key)

    def certify(
        self,
        public_key: ec.EllipticCurvePublicKey,
        name: x509.Name,
        *,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        """A client certificate for a key that somebody else has."""
        start, end = not_before or now() - DAY, not_after or now() + 30 * DAY
        builder = self._builder(name, public_key, start, end)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        return builder.sign(self.key, hashes.SHA256())

    def server(
        self,
        public_key: ec.EllipticCurvePublicKey,
        host: str,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> x509.Certificate:
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")])
        start, end = not_before or now() - DAY, not_after or now() + 90 * DAY
        return (
            self._builder(own, public_key, start, end)
            .add_extension(x509.SubjectAlternativeName([alternative]), False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
            .sign(self.key, hashes.SHA256())
        )

    def crl(
        self,
        number: int = 1,
        revoked: Sequence[int] = (),
        *,
        last_update: datetime | None = None,
        next_update: datetime | None = None,
        signed_by: Key | None = None,
    ) -> x509.CertificateRevocationList:
        entries = [
            x509.RevokedCertificateBuilder().serial_number(s).revocation_date(now() - DAY).build()
            for s in revoked
        ]
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            x509.CertificateRevocationListBuilder(self.certificate.subject, None, None, [], entries)
            .last_update(last_update or now() - timedelta(minutes=5))
            .next_update(next_update or now() + 7 * DAY)
            .add_extension(issuer_key, False)
            .add_extension(x509.CRLNumber(number), False)
            .sign(signed_by or self.key, hashes.SHA256())
        )

    def _builder(
        self, name: x509.Name, public_key: ec.EllipticCurvePublicKey, start: datetime, end: datetime
    ) -> x509.CertificateBuilder:
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        own_id = x509.SubjectKeyIdentifier.from_public_key(public_key)
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            x509.CertificateBuilder(issuer, name, public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(own_id, False)
            .add_extension(issuer_id, False)
        )
