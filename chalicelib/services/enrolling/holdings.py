"""What an instance holds, and what it is to trust."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from chalicelib.domain.enrolment.model import Enrolment
from chalicelib.domain.model import (
    CertificatePage,
    CertificateRecord,
    InstanceFacts,
    Selection,
    Status,
)
from chalicelib.domain.trust import Trust
from chalicelib.errors import Misconfigured
from chalicelib.services.enrolling.needs import Records
from chalicelib.services.enrolling.plane import PLANE

log = logging.getLogger(__name__)

# An instance that is given a trust this old is given the new one soon after.
TRUST_KEPT = timedelta(minutes=1)

_PAGE = 100


class Listing(Protocol):
    """The records in order."""

    def page(
        self, selection: Selection, limit: int, cursor: str | None, now: datetime
    ) -> CertificatePage:
        """Up to *limit* of those selected; of what was issued in the last second, perhaps not."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """The certificates of instances, whichever of its roles one had when they were issued."""

    records: Records
    listing: Listing
    now: Callable[[], datetime]

    def own(
        self, enrolment: Enrolment, instance: InstanceFacts | None
    ) -> Sequence[CertificateRecord]:
        """Those of its own that stand: not what an admin had issued to it for a service.

        Raises DependencyFailed.
        """
        id_ = enrolment.instance_id
        held = self.all_of(enrolment, instance)
        return [each for each in held if each.name == id_ and each.issued_by is None]

    def all_of(
        self, enrolment: Enrolment, instance: InstanceFacts | None
    ) -> Sequence[CertificateRecord]:
        """All client certificates of it that stand. Raises DependencyFailed."""
        owners = list(enrolment.owners)
        if instance is not None and instance.session_arn is not None:
            owners.append(instance.session_arn)
        now = self.now()
        found = {
            record.serial: record
            for owner in dict.fromkeys(owners)
            for record in self._active_of(owner, now)
        }
        if enrolment.serial is not None and enrolment.serial not in found:
            record = readable_record(self.records, enrolment.serial)
            if record is not None and record.status(now) is Status.ACTIVE:
                found[record.serial] = record
        return [record for record in found.values() if record.access is not None]

    def _active_of(self, owner: str, now: datetime) -> Sequence[CertificateRecord]:
        selection, found, cursor = Selection(owner, Status.ACTIVE), list[CertificateRecord](), None
        while True:
            page = self.listing.page(selection, _PAGE, cursor, now)
            found += page.records
            cursor = page.cursor
            if cursor is None:
                return found


def readable_record(records: Records, serial: str | None) -> CertificateRecord | None:
    """The record; None without one, and for one that is damaged, which nothing can be done with."""
    try:
        return None if serial is None else records.get(serial)
    except Misconfigured as error:
        log.error("%s", error)
        return None


def taken_back_by_hand(record: CertificateRecord | None) -> bool:
    """Whether somebody revoked it, rather than the plane as things went."""
    return record is not None and record.revoked_at is not None and record.revoked_by != PLANE


@dataclass(slots=True)
class CurrentTrust:
    """The published trust, read again once what was read is a minute old."""

    read: Callable[[], Trust]
    now: Callable[[], datetime]
    _kept: Trust | None = field(default=None, init=False)
    _until: datetime | None = field(default=None, init=False)

    def __call__(self) -> Trust:
        """Raises Misconfigured when none was ever published, DependencyFailed."""
        now = self.now()
        if self._kept is None or self._until is None or now >= self._until:
            self._kept = self.read()
            self._until = now + TRUST_KEPT
        return self._kept
