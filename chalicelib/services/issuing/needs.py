"""What issuing relies on, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.model import (
    BundleLink,
    CertificateRecord,
    InstanceFacts,
    QuotaSlot,
    StoredRequest,
    Succession,
)
from chalicelib.domain.pki.authorities import Authority


class Records(Protocol):
    """Where certificates are recorded."""

    def slots(self, owner: str) -> Sequence[QuotaSlot]:
        """The owner's taken quota slots, read consistently."""

    def add(
        self,
        record: CertificateRecord,
        request: StoredRequest | None,
        now: datetime,
        succession: Succession | None = None,
    ) -> StoredRequest | None:
        """Write it all, or nothing and answer what the idempotency key was used for before.

        Raises Contended when another request won the slot or changed the predecessor;
        InvalidRequest for a key that is revoked or another owner's.
        """

    def earlier_request(
        self, caller: str, idempotency_key: str, now: datetime
    ) -> StoredRequest | None:
        """What the caller's key was used for in the last 24 hours."""

    def get(self, serial: str) -> CertificateRecord | None:
        """The record, read consistently."""


class Bundles(Protocol):
    """Where bundles are kept."""

    def put(self, serial: str, tar_gz: bytes, *, holds_key: bool) -> None:
        """Store it."""

    def get(self, serial: str) -> bytes | None:
        """It, or None when it is not, or no longer, there."""

    def delete(self, serial: str) -> None:
        """Have it gone, whether it was there or not."""

    def link(self, serial: str, now: datetime) -> BundleLink:
        """A link to it; makes no call."""


class Authorities(Protocol):
    """The CAs in force."""

    def reread(self) -> None:
        """Read which there are now: what is known of them may be a minute old."""

    def client(self) -> Authority:
        """The one that signs client certificates."""

    def client_certificates(self) -> Sequence[x509.Certificate]:
        """Those the registry admits clients of."""

    def server_certificates(self) -> Sequence[x509.Certificate]:
        """Those clients trust the registry by."""


class InstanceCallers(Protocol):
    """What is known of callers that are EC2 instances."""

    def facts(self, instance_id: str) -> InstanceFacts | None:
        """What EC2 says of it. Raises Forbidden for one that may have no certificate."""

    def was_issued(self, instance_id: str) -> None:
        """It got a certificate."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with all its owner needs. link: None when the bundle could not be stored.

    crl_pending: its predecessor is revoked, but no published list says so yet.
    """

    record: CertificateRecord
    bundle: Bundle
    link: BundleLink | None
    crl_pending: bool = False
