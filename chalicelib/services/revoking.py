"""Take certificates back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from chalicelib.domain.model import Caller, CertificateRecord, KeyUse, RevocationReason, Status
from chalicelib.domain.ownership import existing, owned
from chalicelib.domain.revocation import falls_with, retires_key
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

    def use_of_key(self, record: CertificateRecord, now: datetime) -> KeyUse:
        """What the record's key is certified for at *now*."""

    def standing_in_line(self, record: CertificateRecord, now: datetime) -> Sequence[str]:
        """Serials of those that descend from the same first certificate and stand at *now*."""

    def revoke(
        self,
        record: CertificateRecord,
        reason: RevocationReason,
        by: str,
        now: datetime,
        retire: KeyUse | None,
    ) -> None:
        """Mark it, list it, free its slot, or nothing. Raises Contended.

        retire: have its key refused from now on, if this is still what it is certified for.
        """

    def retire_key(self, record: CertificateRecord, now: datetime) -> None:
        """Have its key refused from now on."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """also_revoked: serials of others, which fell with it.

    crl_number: of a published list that shows what has to be shown; None when there is nothing to
    show, and when crl_pending: what was revoked is not published yet.
    """

    record: CertificateRecord
    also_revoked: tuple[str, ...]
    crl_number: int | None
    crl_pending: bool


@dataclass(frozen=True, slots=True)
class _Order:
    """by: an ARN. whole_line: with all that it renews and that renews it."""

    reason: RevocationReason
    by: str
    whole_line: bool


@dataclass(frozen=True, slots=True)
class Revoking:
    """withdraw: has a stored private key gone, if it can. told: of what an admin revoked.

    publish_revoked: has a published list show these, and returns its number, if it is to.
    """

    records: Records
    revocations: Revocations
    withdraw: Callable[[CertificateRecord], None]
    publish_revoked: Callable[[Sequence[CertificateRecord]], int | None]
    told: Callable[[CertificateRecord], None]
    now: Callable[[], datetime]

    def revoke(self, serial: str, reason: RevocationReason, caller: Caller) -> Revoked:
        """Revoke the caller's own certificate; again changes nothing about it.

        With it go others, as falls_with() says, also if it was revoked before.
        Raises NotFound, also for anybody else's; Conflict for the registry's own; DependencyFailed.
        """
        record = owned(self.records.get(serial), caller)
        return self._revoke(record, _Order(reason, caller.arn, whole_line=False))

    def revoke_any(self, serial: str, reason: RevocationReason, caller: Caller) -> Revoked:
        """As revoke(), whose it may be, and with the line that it stands in; for admins."""
        record = existing(self.records.get(serial))
        whole_line = reason is not RevocationReason.SUPERSEDED
        revoked = self._revoke(record, _Order(reason, caller.arn, whole_line))
        self.told(revoked.record)
        return revoked

    def take_back(
        self, records: Sequence[CertificateRecord], reason: RevocationReason, by: str
    ) -> None:
        """Revoke these of one owner, and have it published once for all of them.

        by: an ARN, or who else. Raises DependencyFailed when some could not be revoked, once the
        others are; it is to be called again.
        """
        order, fallen = _Order(reason, by, whole_line=False), list[CertificateRecord]()
        failed: DependencyFailed | None = None
        for record in records:
            if record.serial in {each.serial for each in fallen}:
                continue
            try:
                fallen.append(self._mark_all(record, order, fallen))
            except DependencyFailed as error:
                failed = error
        if fallen:
            self._publish(fallen[0], fallen[1:])
        if failed is not None:
            raise failed

    def _revoke(self, record: CertificateRecord, order: _Order) -> Revoked:
        if record.access is None:
            raise Conflict(
                "not_revocable",
                "clients read no revocation list for the registry's own certificate; if its key "
                "is lost to somebody, the server CA has to be replaced",
            )
        fallen: list[CertificateRecord] = []
        return self._publish(self._mark_all(record, order, fallen), fallen)

    def _mark_all(
        self, record: CertificateRecord, order: _Order, fallen: list[CertificateRecord]
    ) -> CertificateRecord:
        """Revoke it and what falls with it, whoever else changes these meanwhile."""
        for _ in range(ATTEMPTS):
            try:
                record = self._mark(record, order, fallen)
                if not self._grew(record, order):
                    return record
            except Contended:
                record = self.records.get(record.serial) or record
        raise DependencyFailed("busy", "too many requests at once; ask again")

    def _mark(
        self, record: CertificateRecord, order: _Order, fallen: list[CertificateRecord]
    ) -> CertificateRecord:
        """Revoke what falls with it, adding that to *fallen*, and then the record itself.

        It comes last, so that a revocation broken off half-way is still to be seen as undone, and
        asked for again.
        """
        now, reason = self.now(), order.reason
        retired = record.revoked_at is not None and reason is RevocationReason.KEY_COMPROMISE
        if retired:
            self.revocations.retire_key(record, now)  # before looking: no sibling comes after it
        use, siblings = None, []
        if reason is not RevocationReason.SUPERSEDED:
            use = self.revocations.use_of_key(record, now)
            siblings = list(self._found(use.serials, record))
        falling = falls_with(record, siblings, self._line(record, order, now), reason)
        gone = {record.serial, *(each.serial for each in falling)}
        for each in falling:
            if each.status(now) is Status.ACTIVE:
                fallen.append(self._mark_one(each, order, self._retired_with(each, record, gone)))
        retires = retires_key(reason, siblings, falling, now)
        if record.revoked_at is None:
            return self._mark_one(record, order, use if retires else None)
        if retires and not retired and use is not None and use.version is not None:
            self.revocations.retire_key(record, now)
        return record

    def _retired_with(
        self, fallen: CertificateRecord, record: CertificateRecord, gone: Set[str]
    ) -> KeyUse | None:
        """The key of one that falls is refused, too, if no other certificate of it stands."""
        if fallen.key_id == record.key_id:
            return None  # which the record's own revocation sees to
        use = self.revocations.use_of_key(fallen, self.now())
        return use if gone >= set(use.serials) else None

    def _grew(self, record: CertificateRecord, order: _Order) -> bool:
        """Whether something was renewed just before it was marked, so that the line has more now.

        If that cannot be seen the record's revocation stands, and is published all the same.
        """
        try:
            now = self.now()
            return any(each.status(now) is Status.ACTIVE for each in self._line(record, order, now))
        except DependencyFailed:
            log.error("whether %s was renewed meanwhile could not be seen", record.serial)
            return False

    def _line(
        self, record: CertificateRecord, order: _Order, now: datetime
    ) -> Sequence[CertificateRecord]:
        """What it stands in line with, if that goes too."""
        if not order.whole_line:
            return ()
        return list(self._found(self.revocations.standing_in_line(record, now), record))

    def _found(self, serials: Iterable[str], but: CertificateRecord) -> Iterator[CertificateRecord]:
        """Their records. A damaged one must not keep others from being revoked."""
        for serial in serials:
            try:
                found = None if serial == but.serial else self.records.get(serial)
            except Misconfigured as error:
                log.error("%s is not revoked with others: %s", serial, error)
                continue
            if found is not None:
                yield found

    def _mark_one(
        self, record: CertificateRecord, order: _Order, retire: KeyUse | None
    ) -> CertificateRecord:
        now, reason = self.now(), order.reason
        self.revocations.revoke(record, reason, order.by, now, retire)
        log.info("revoked %s, %s, by %s", record.serial, reason, order.by)
        at = now.replace(microsecond=0)
        return replace(record, revoked_at=at, revocation_reason=reason, revoked_by=order.by)

    def _publish(self, record: CertificateRecord, fallen: Sequence[CertificateRecord]) -> Revoked:
        """Should publishing fail, the record stands, and the schedule finishes the job."""
        now, revoked = self.now(), (record, *fallen)
        also = tuple(each.serial for each in fallen)
        try:
            listed = [each for each in revoked if now <= each.validity.not_after]
            number = self.publish_revoked(listed) if listed else None
        except (DependencyFailed, Misconfigured) as error:
            log.error("%s: the revocation of %s is not published yet", error.code, record.serial)
            return Revoked(record, also, None, crl_pending=True)
        # Not before, nor when publishing failed: the same bucket would have us wait once more.
        for each in revoked:
            self.withdraw(each)
        return Revoked(record, also, number, crl_pending=False)
