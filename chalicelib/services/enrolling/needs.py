"""What enrolling relies on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from chalicelib.domain.enrolment.model import Ask, CommandOutcome, Enrolment
from chalicelib.domain.model import CertificateRecord, InstanceFacts


class Enrolments(Protocol):
    """Where enrolments are recorded."""

    def get(self, instance_id: str) -> Enrolment | None:
        """It, read consistently."""

    def get_many(self, instance_ids: Sequence[str]) -> Mapping[str, Enrolment]:
        """Those that there are."""

    def put(self, enrolment: Enrolment) -> Enrolment:
        """Write it, and return it as it is now. Raises Contended if another was there first."""

    def due(self, now: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        """Up to *limit* that are to be asked for by now, with when that is."""

    def outdated(self, trust_version: str, limit: int) -> Sequence[str]:
        """Up to *limit* enrolled ones that hold another trust."""

    def postpone(self, instance_id: str, seen: datetime, until: datetime) -> bool:
        """Have due() name it then, if it still does so at *seen*; else False."""


class Instances(Protocol):
    """What EC2 says of instances."""

    def facts(self, instance_id: str) -> InstanceFacts | None:
        """Of one; None when there is no such instance."""

    def facts_of_all(self, instance_ids: Sequence[str]) -> Mapping[str, InstanceFacts]:
        """Of those that there are, in one call."""

    def glance(self, instance_id: str) -> InstanceFacts | None:
        """Of one, without its role, in one call."""

    def launched_since(self, since: datetime) -> Mapping[str, InstanceFacts]:
        """Tagged ones that were launched or started since then; as glance() tells of them."""

    def ended(self) -> Mapping[str, InstanceFacts]:
        """Tagged ones that ended of late; as glance() tells of them."""

    def tagged(self) -> Mapping[str, InstanceFacts]:
        """All that carry the tag, with whatever value; as glance() tells of them."""


class Commands(Protocol):
    """Commands on instances."""

    def online(self, instance_ids: Sequence[str]) -> frozenset[str]:
        """Those whose agent can be sent commands."""

    def send(self, instance_id: str, script: str, comment: str) -> str:
        """The id of the command that runs *script* there as root."""

    def outcome(self, command_id: str, instance_id: str) -> CommandOutcome:
        """What became of it."""


class Queue(Protocol):
    """Where advances are asked for."""

    def ask(self, asks: Sequence[Ask]) -> None:
        """Ask for these."""


class Records(Protocol):
    """Where certificates are recorded."""

    def get(self, serial: str) -> CertificateRecord | None:
        """The record, read consistently."""


class Holder(Protocol):
    """What instances hold."""

    def own(
        self, enrolment: Enrolment, instance: InstanceFacts | None
    ) -> Sequence[CertificateRecord]:
        """Those of its own that stand."""

    def all_of(
        self, enrolment: Enrolment, instance: InstanceFacts | None
    ) -> Sequence[CertificateRecord]:
        """These, and those that admins had issued to it for services."""


class Issuer(Protocol):
    """What issues certificates to instances."""

    def certify(
        self,
        instance: InstanceFacts,
        csr_pem: bytes,
        old: CertificateRecord | None,
        request_key: str,
    ) -> CertificateRecord:
        """Of the CSR's key; *old* itself if that is good for it."""

    def renew(
        self, instance: InstanceFacts, old: CertificateRecord, request_key: str
    ) -> CertificateRecord:
        """Of the same key."""

    def is_good(self, record: CertificateRecord, instance: InstanceFacts) -> bool:
        """Whether the instance may go on with it."""
