"""Certificate revocation lists, version 2 (RFC 5280 section 5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from chalicelib.domain.pki.authorities import Authority
from chalicelib.domain.pki.keys import signing_hash

# nginx refuses every client once a CRL has expired, so an outage of ours must have days, not
# hours, before it matters. The list is replaced every hour all the same.
LIFETIME = timedelta(days=7)

# OpenSSL takes a list whose thisUpdate lies ahead of the host's clock for not yet valid, and nginx
# then refuses everyone; a host's clock may run a little behind ours.
BACKDATE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry. reason: an RFC 5280 section 5.3.1 name, such as keyCompromise."""

    serial: int
    revoked_at: datetime
    reason: str


def sign_crl(
    issuer: Authority, number: int, now: datetime, revocations: Iterable[Revocation]
) -> str:
    """The CRL in PEM. Time grows linearly with *revocations*, which need not be sorted.

    number: must be greater than that of any list *issuer* signed before.
    """
    start = now.replace(microsecond=0) - BACKDATE
    identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    # Given all at once: the builder's own add method copies the list each time it is called.
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=issuer.certificate.subject,
        last_update=start.replace(tzinfo=None),
        next_update=(start + LIFETIME).replace(tzinfo=None),
        revoked_certificates=[_entry(revocation) for revocation in revocations],
    )
    crl = (
        builder.add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value),
            critical=False,
        )
        .sign(issuer.key, signing_hash(issuer.key))
    )
    return crl.public_bytes(serialization.Encoding.PEM).decode()


def _entry(revocation: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(revocation.serial)
        .revocation_date(revocation.revoked_at)
    )
    # "unspecified" is said by leaving the reason out (RFC 5280 section 5.3.1).
    if revocation.reason != x509.ReasonFlags.unspecified.value:
        reason = x509.CRLReason(x509.ReasonFlags(revocation.reason))
        builder = builder.add_extension(reason, critical=False)
    return builder.build()
