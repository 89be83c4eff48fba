"""Take certificates back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from chalicelib.domain import policy
from chalicelib.domain.model import Caller, CertificateRecord, RevocationReason, Status
from chalicelib.domain.ownership import existing, owned
from chalicelib.errors import (
    Conflict,
    Contended,
    DependencyFailed,
    Misconfigured,
)

log = logging.getLogger(__name__)

ATTEMPTS = 8


class Records(Protocol):
    """Where certificates are recorded."""

    def get(self, serial: str) -> CertificateRecord | None:
        """The record, read consistently."""


class Revocations(Protocol):
    """What is revoked."""

    def serials_of_key(self, record: CertificateRecord) -> Sequence[str]:
        """Every serial that this record's key was certified under."""

    def revoke(
        self,
        record: CertificateRecord,
        reason: RevocationReason,
        by: str,
        now: datetime,
        retire_key_of: Sequence[str] | None,
    ) -> None:
        """Mark it, list it, free its slot, or nothing. Raises Contended.

        retire_key_of: have its key refused from now on, if it was certified for these alone.
        """

    def retire_key(self, record: CertificateRecord, now: datetime) -> None:
        """Have its key refused from now on."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """also_revoked: serials of older certificates of the same key, which fell with it.

    crl_number: of a published list that shows what has to be shown; None when there is nothing to
    show, and when crl_pending: what was revoked is not published yet.
    """

    record: CertificateRecord
    also_revoked: tuple[str, ...]
    crl_number: int | None
    crl_pending: bool


@dataclass(frozen=True, slots=True)
class Revoking:
    """withdraw: has a stored private key gone, if it can.

    publish_revoked: has a published list show these serials, and returns its number.
    """

    records: Records
    revocations: Revocations
    withdraw: Callable[[CertificateRecord], None]
    publish_revoked: Callable[[Sequence[str]], int]
    now: Callable[[], datetime]

    def revoke(self, serial: str, reason: RevocationReason, caller: Caller) -> Revoked:
        """Revoke the caller's own certificate; again changes nothing.

        With it go older certificates of the same key, as policy.falls_with() says.
        Raises NotFound, also for anybody else's; Conflict for the registry's own; DependencyFailed.
        """
        return self._revoke(owned(self.records.get(serial), caller), reason, caller.arn)

    def revoke_any(self, serial: str, reason: RevocationReason, caller: Caller) -> Revoked:
        """As revoke(), whose it may be; for admins."""
        return self._revoke(existing(self.records.get(serial)), reason, caller.arn)

    def _revoke(self, record: CertificateRecord, reason: RevocationReason, by: str) -> Revoked:
        if record.access is None:
            raise Conflict(
                "not_revocable",
                "clients read no revocation list for the registry's own certificate; if its key "
                "is lost to somebody, the server CA has to be replaced",
            )
        for _ in range(ATTEMPTS):
            try:
                return self._publish(*self._mark(record, reason, by))
            except Contended:
                record = self.records.get(record.serial) or record
        raise DependencyFailed("busy", "too many requests at once; ask again")

    def _mark(
        self, record: CertificateRecord, reason: RevocationReason, by: str
    ) -> tuple[CertificateRecord, Sequence[CertificateRecord]]:
        """Revoke it, and then what falls with it; both as they are now."""
        now = self.now()
        if record.revoked_at is not None and reason is RevocationReason.KEY_COMPROMISE:
            self.revocations.retire_key(record, now)  # before looking: no sibling comes after it
        serials = self.revocations.serials_of_key(record)
        others = [serial for serial in serials if serial != record.serial]
        siblings = [each for each in map(self.records.get, others) if each]
        falling = policy.falls_with(record, siblings, reason)
        if record.revoked_at is None:
            retires = policy.retires_key(reason, siblings, falling, now)
            record = self._mark_one(record, reason, by, serials if retires else None)
        older = [
            self._mark_one(each, reason, by, None) if each.status(now) is Status.ACTIVE else each
            for each in falling
        ]
        return record, [each for each in older if each.revoked_at is not None]

    def _mark_one(
        self,
        record: CertificateRecord,
        reason: RevocationReason,
        by: str,
        retire_key_of: Sequence[str] | None,
    ) -> CertificateRecord:
        now = self.now()
        self.revocations.revoke(record, reason, by, now, retire_key_of)
        log.info("revoked %s, %s, by %s", record.serial, reason, by)
        self.withdraw(record)
        at = now.replace(microsecond=0)
        return replace(record, revoked_at=at, revocation_reason=reason, revoked_by=by)

    def _publish(self, record: CertificateRecord, others: Sequence[CertificateRecord]) -> Revoked:
        """Should publishing fail, the record stands, and the schedule finishes the job."""
        now = self.now()
        listed = [each.serial for each in (record, *others) if now <= each.validity.not_after]
        number, pending = None, False
        try:
            number = self.publish_revoked(listed) if listed else None
        except (DependencyFailed, Misconfigured) as error:
            log.error("%s: the revocation of %s is not published yet", error.code, record.serial)
            pending = True
        return Revoked(record, tuple(each.serial for each in others), number, pending)
