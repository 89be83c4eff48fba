"""Listing certificates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from pynamodb.expressions.condition import Condition

from chalicelib.adapters.store.items import CertificateItem, record_of
from chalicelib.adapters.store.paging import cursor_of, position_in
from chalicelib.adapters.store.reading import Order, Reading
from chalicelib.adapters.store.tables import Tables, readable
from chalicelib.adapters.store.times import stored_time
from chalicelib.domain.model import CertificatePage, CertificateRecord, Selection, Status
from chalicelib.domain.policy import LONGEST_LIFETIME

# No certificate of ours is older.
_FIRST_MONTH = (2026, 1)


@dataclass(frozen=True, slots=True)
class _OfOwner:
    """One owner's, newest first."""

    owner: str
    name: ClassVar[str] = "owner"
    index: ClassVar[str] = "by_owner"
    sort_key: ClassVar[str] = "issued_key"
    forward: ClassVar[bool] = False

    def partitions(self, start: str | None) -> Iterator[tuple[str, str]]:
        yield "", self.owner

    def after(self, key: str | None) -> Condition | None:
        return None if key is None else CertificateItem.issued_key < key


@dataclass(frozen=True, slots=True)
class _Newest:
    """Everybody's, newest first."""

    now: datetime
    name: ClassVar[str] = "newest"
    index: ClassVar[str] = "by_month"
    sort_key: ClassVar[str] = "issued_key"
    forward: ClassVar[bool] = False

    def partitions(self, start: str | None) -> Iterator[tuple[str, str]]:
        # Another process's clock may be ahead of ours, and a month with it.
        latest = self.now + timedelta(days=1)
        year, month = latest.year, latest.month
        while (year, month) >= _FIRST_MONTH:
            partition = f"{year:04}-{month:02}"
            if start is None or partition <= start:
                yield partition, partition
            year, month = (year, month - 1) if month > 1 else (year - 1, 12)

    def after(self, key: str | None) -> Condition | None:
        return None if key is None else CertificateItem.issued_key < key


@dataclass(frozen=True, slots=True)
class _EndingSoonest:
    """Everybody's that end from now on and before a time, the soonest first."""

    now: datetime
    before: datetime
    name: ClassVar[str] = "ending"
    index: ClassVar[str] = "by_expiry"
    sort_key: ClassVar[str] = "expiry_key"
    forward: ClassVar[bool] = True

    def partitions(self, start: str | None) -> Iterator[tuple[str, str]]:
        if self.before <= self.now:
            return
        day, last = self.now.date(), min(self.before, self.now + LONGEST_LIFETIME).date()
        while day <= last:
            if start is None or day.isoformat() >= start:
                yield day.isoformat(), day.isoformat()
            day += timedelta(days=1)

    def after(self, key: str | None) -> Condition | None:
        earliest, end = stored_time(self.now), stored_time(self.before)
        # All keys are of one length: a space after one stands right behind it.
        lower = max(earliest, f"{key} ") if key is not None else earliest
        return CertificateItem.expiry_key.between(min(lower, end), end)


class CertificateListing:
    """Certificates of one owner or of everybody."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def page(
        self, selection: Selection, limit: int, cursor: str | None, now: datetime
    ) -> CertificatePage:
        """Up to *limit*: newest first, or, of everybody's with an end, those that end soonest.

        The cursor names a place in that order, so what is issued between two pages moves nothing.
        Raises InvalidRequest for a cursor that is not ours, DependencyFailed.
        """
        order = _order(selection, now)
        start = None if cursor is None else position_in(cursor, order.name)
        tables, wanted = self._tables, _filter(selection, now)
        reading = Reading(tables, tables.certificates, order, wanted, limit, _record_in)
        reading.read(start)
        stopped_at = reading.stopped_at
        return CertificatePage(
            tuple(reading.found), None if stopped_at is None else cursor_of(order.name, stopped_at)
        )


def _order(selection: Selection, now: datetime) -> Order:
    if selection.owner is not None:
        return _OfOwner(selection.owner)
    if selection.expires_before is not None:
        return _EndingSoonest(now, selection.expires_before)
    return _Newest(now)


def _filter(selection: Selection, now: datetime) -> Condition | None:
    """What the order does not see to by itself."""
    conditions: list[Condition] = []
    if selection.status is Status.REVOKED:
        conditions.append(CertificateItem.revoked_at.exists())
    elif selection.status is not None:
        conditions.append(CertificateItem.revoked_at.does_not_exist())
    if selection.status is Status.EXPIRED:
        conditions.append(CertificateItem.not_after < now)
    elif selection.status is Status.ACTIVE and selection.expires_before is None:
        conditions.append(CertificateItem.not_after >= now)
    if selection.expires_before is not None and selection.owner is not None:
        conditions.append(CertificateItem.not_after >= now)
        conditions.append(CertificateItem.not_after < selection.expires_before)
    if not conditions:
        return None
    whole = conditions[0]
    for condition in conditions[1:]:
        whole &= condition
    return whole


def _record_in(item: dict[str, Any]) -> CertificateRecord:
    with readable(item["serial"]["S"]):
        return record_of(CertificateItem.from_raw_data(item))
