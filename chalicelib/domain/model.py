"""The values that travel between the layers. All times are aware UTC.

They are in whole seconds, but for issued_at, which orders an owner's certificates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class Access(StrEnum):
    """What the registry lets a certificate do; push includes pull. In the subject's OU."""

    PULL = "pull"
    PUSH = "push"


class KeyType(StrEnum):
    """The keys we make."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"


class Status(StrEnum):
    """What a certificate is at a moment; a revoked one stays revoked after its end."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class RevocationReason(StrEnum):
    """Why a certificate is revoked: the names of RFC 5280 section 5.3.1 that fit a leaf of ours.

    The others are for CAs and attribute authorities, for a hold, which nothing of ours lifts, and
    for lists that only tell changes.
    """

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate holds, both ends inclusive (RFC 5280 section 4.1.2.5)."""

    not_before: datetime
    not_after: datetime

    @classmethod
    def starting(cls, now: datetime, lifetime: timedelta, backdate: timedelta) -> Validity:
        """*lifetime* from *now* on; begins *backdate* earlier, for clocks that run slow."""
        start = now.replace(microsecond=0)
        return cls(start - backdate, start + lifetime)

    def ending_by(self, latest: datetime) -> Validity:
        """The same, cut at *latest*: a certificate never outlives its issuer."""
        return replace(self, not_after=min(self.not_after, latest))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who signed the HTTP request.

    arn: as API Gateway's IAM authorizer reports it; it is also what owns certificates.
    name: the IAM user's or the session's name, at most 64 characters.
    role: the assumed role's name; None for an IAM user.
    instance_id: set when the session is named like an EC2 instance; a claim until EC2 confirms it.
    """

    arn: str
    name: str
    role: str | None = None
    instance_id: str | None = None


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """What a caller asks for. Values are well formed; whether they are allowed is policy's word.

    csr_pem: the certificate signing request; None asks us to make a key of *key_type*.
    days: lifetime in days; None means the default.
    idempotency_key: chosen by the caller; with *digest*, the SHA-256 over all that was asked.
    """

    csr_pem: bytes | None = None
    key_type: KeyType = KeyType.EC_P256
    access: Access | None = None
    days: int | None = None
    label: str = ""
    idempotency_key: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class NamedRequest:
    """A certificate for a service of this *name*. owner: its ARN; None means who asks."""

    name: str
    owner: str | None
    request: IssueRequest


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """A successor. csr_pem: for a new key; None: the same key again, or a new one if we made it.

    revoke_old: the predecessor is revoked with the same stroke. The rest: as in IssueRequest.
    """

    csr_pem: bytes | None = None
    days: int | None = None
    revoke_old: bool = False
    idempotency_key: str | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """What policy allows for one request."""

    name: str
    owner: str
    access: Access
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """One issued certificate, as the table keeps it.

    serial: 40 lower-case hex digits.
    access: None in the registry's own server certificate.
    key_id: SHA-256 over the SubjectPublicKeyInfo, lower-case hex.
    made_key: we made the private key, so a bundle held it for a day.
    slot: which of its owner's quota slots it occupies while active; None outside the quota.
    issued_by: the admin who had it issued, an ARN; None: its owner asked.
    revoked_by: an ARN, or registry-trust for this service itself.
    renews, superseded_by: serials of its predecessor and successor.
    line: the serial of the first that it descends from by renewal; None: it renews none.
    granted_days: the lifetime that the admin gave; for what is renewed of it, too.
    """

    serial: str
    owner: str
    name: str
    access: Access | None
    issued_at: datetime
    validity: Validity
    fingerprint_sha256: str
    issuer_id: str
    key_id: str
    certificate_pem: str
    made_key: bool = False
    label: str = ""
    slot: int | None = None
    issued_by: str | None = None
    renews: str | None = None
    superseded_by: str | None = None
    line: str | None = None
    granted_days: int | None = None
    revoked_at: datetime | None = None
    revocation_reason: RevocationReason | None = None
    revoked_by: str | None = None

    def status(self, now: datetime) -> Status:
        """What it is at *now*."""
        if self.revoked_at is not None:
            return Status.REVOKED
        return Status.ACTIVE if now <= self.validity.not_after else Status.EXPIRED


@dataclass(frozen=True, slots=True)
class Succession:
    """The predecessor as it was when last read, and whether its successor's issue revokes it."""

    old: CertificateRecord
    revoke: bool


@dataclass(frozen=True, slots=True)
class QuotaSlot:
    """One of an owner's places for an active certificate; free once *not_after* has passed."""

    number: int
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Selection:
    """Which certificates to list; None: whichever.

    expires_before: those that have not ended yet and end before then.
    """

    owner: str | None = None
    status: Status | None = None
    expires_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class CertificatePage:
    """Some certificates; *cursor* is where the next page starts, None after the last.

    It may hold fewer than asked for, even none, before the last: the work for one page is bounded.
    """

    records: tuple[CertificateRecord, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """What an Idempotency-Key was used for: the digest of the request, and the serial it got.

    caller: the ARN of whose key it is; an admin's certificate may have another owner.
    """

    caller: str
    idempotency_key: str
    digest: str
    serial: str


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What a public key is certified for.

    serials: of the certificates of it that have neither ended nor been revoked.
    version: changes whenever it is certified; None for a key that never was.
    """

    version: int | None
    serials: tuple[str, ...]


class InstanceState(StrEnum):
    """EC2's own names (Amazon EC2 User Guide, "Amazon EC2 instance state changes")."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


# From these it does not come back.
ENDED = frozenset({InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED})


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What EC2 says of an instance.

    role: the role in its instance profile, None without one. session_arn: whom its own requests
    are signed by, then. access: what its registry-trust tag says, None without a tag that is an
    access. launched_at: when it was launched, or last started.
    """

    instance_id: str
    state: InstanceState
    role: str | None
    access: Access | None
    session_arn: str | None
    launched_at: datetime

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.state is InstanceState.RUNNING

    @property
    def ended(self) -> bool:
        """Whether it will never run again."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class BundleLink:
    """Where a stored bundle is. The url needs no credentials and works until *expires_at*."""

    uri: str
    url: str
    expires_at: datetime
