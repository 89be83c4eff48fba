"""What a diagnosis says. All times are aware UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from chalicelib.domain.model import Access

# What is asked about: a PEM certificate as it came, or a serial as people paste it.
Evidence = bytes | str


class FindingCode(StrEnum):
    """What may be found.

    The registry refuses for none of not_recorded, record_mismatch, superseded and pull_only, and
    for revoked once the published list says so.
    """

    UNKNOWN_ISSUER = "unknown_issuer"
    BAD_SIGNATURE = "bad_signature"
    RETIRED_ISSUER = "retired_issuer"
    CA_CERTIFICATE = "ca_certificate"
    SERVER_CERTIFICATE = "server_certificate"
    NOT_FOR_CLIENTS = "not_for_clients"
    REVOKED = "revoked"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    ISSUER_NOT_VALID = "issuer_not_valid"
    ISSUER_REVOKED = "issuer_revoked"
    CRL_MISSING = "crl_missing"
    CRL_BAD_SIGNATURE = "crl_bad_signature"
    CRL_NOT_YET_VALID = "crl_not_yet_valid"
    CRL_EXPIRED = "crl_expired"
    NO_ACCESS = "no_access"
    NOT_RECORDED = "not_recorded"
    RECORD_MISMATCH = "record_mismatch"
    SUPERSEDED = "superseded"
    PULL_ONLY = "pull_only"


@dataclass(frozen=True, slots=True)
class Finding:
    """detail: for people, with what to do. refuses: the registry refuses for this alone."""

    code: FindingCode
    detail: str
    refuses: bool = True


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What the certificate says of itself; when our CA did not sign it, what anybody made up.

    serial: lower-case hex, 40 digits, or more in a stranger's. subject, issuer: RFC 4514.
    """

    serial: str
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    fingerprint_sha256: str


@dataclass(frozen=True, slots=True)
class RevocationFacts:
    """published: the published list carries it; crl_number is that list's number, else None.

    reason: an RFC 5280 section 5.3.1 name.
    """

    revoked_at: datetime
    reason: str
    crl_number: int | None
    published: bool


@dataclass(frozen=True, slots=True)
class CrlFacts:
    """The published list of the certificate's issuer. current: nginx goes by it."""

    number: int | None
    this_update: datetime
    next_update: datetime
    current: bool


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """admitted: no finding refuses. at: the moment this is judged for.

    access: what its subject gives it, admitted or not; None also when our CA did not sign it.
    findings: those that refuse first. superseded_by: a serial.
    crl: None when the issuer is not ours or has no list.
    """

    admitted: bool
    access: Access | None
    findings: tuple[Finding, ...]
    certificate: CertificateFacts
    revocation: RevocationFacts | None
    superseded_by: str | None
    crl: CrlFacts | None
    at: datetime
