"""Listing certificates: pages of bounded work, by queries alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol

from pynamodb.expressions.condition import Condition

from chalicelib.adapters.store.items import CertificateItem, record_of
from chalicelib.adapters.store.paging import Position, cursor_of, position_in
from chalicelib.adapters.store.tables import Tables, readable, stored_time
from chalicelib.domain.model import CertificatePage, CertificateRecord, Selection, Status
from chalicelib.domain.policy import LONGEST_LIFETIME
from chalicelib.errors import Misconfigured

log = logging.getLogger(__name__)

# No certificate of ours is older.
_FIRST_MONTH = (2026, 1)

# How much one page may read before it is given out, full or not.
_MOST_ITEMS = 1000
_MOST_QUERIES = 100
_ITEMS_A_QUERY = 250


class _Order(Protocol):
    """One way through the certificates: an index, and its partitions as they are to be read.

    Where in a partition to go on is said by a condition on the sort key, not by DynamoDB's own
    ExclusiveStartKey, which it refuses once the key lies outside of the condition.
    """

    name: ClassVar[str]
    index: ClassVar[str]
    sort_key: ClassVar[str]
    forward: ClassVar[bool]

    def partitions(self, start: str | None) -> Iterator[tuple[str, str]]:
        """The name of each in cursors, and its key; from *start* on, or all."""

    def after(self, key: str | None) -> Condition | None:
        """Which sort keys to read."""


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
        reading = _Reading(self._tables, order, _filter(selection, now), limit)
        reading.read(start)
        stopped_at = reading.stopped_at
        return CertificatePage(
            tuple(reading.found), None if stopped_at is None else cursor_of(order.name, stopped_at)
        )


def _order(selection: Selection, now: datetime) -> _Order:
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


@dataclass
class _Reading:
    """One page in the making. stopped_at: where there may be more; None at the end of all."""

    tables: Tables
    order: _Order
    filter: Condition | None
    limit: int
    found: list[CertificateRecord] = field(default_factory=list)
    stopped_at: Position | None = None
    _items: int = 0
    _queries: int = 0

    def read(self, start: Position | None) -> None:
        for name, partition in self.order.partitions(None if start is None else start.partition):
            key = start.key if start is not None and start.partition == name else None
            self.stopped_at = self._read_partition(name, partition, key)
            if self.stopped_at is not None:
                return

    def _read_partition(self, name: str, partition: str, key: str | None) -> Position | None:
        """Where it had to stop; None when the partition was read to its end."""
        while self._items < _MOST_ITEMS and self._queries < _MOST_QUERIES:
            answer = self._query(partition, key)
            for item in answer["Items"]:
                if len(self.found) == self.limit:
                    return Position(name, key)
                key = item[self.order.sort_key]["S"]
                self._add(item)
            last = answer.get("LastEvaluatedKey")
            if last is None:
                return None
            key = last[self.order.sort_key]["S"]
        return Position(name, key)

    def _add(self, item: dict[str, Any]) -> None:
        """One damaged item must not hide the others."""
        serial = item["serial"]["S"]
        try:
            with readable(serial):
                self.found.append(record_of(CertificateItem.from_raw_data(item)))
        except Misconfigured:
            log.error("the record of %s is broken and left out of a list", serial)

    def _query(self, partition: str, key: str | None) -> Any:
        wanted = self.limit - len(self.found) + 1  # one more shows that there is more
        self._queries += 1
        answer = self.tables.query(
            self.tables.certificates,
            partition,
            index_name=self.order.index,
            range_key_condition=self.order.after(key),
            filter_condition=self.filter,
            scan_index_forward=self.order.forward,
            limit=wanted if self.filter is None else _ITEMS_A_QUERY,
        )
        self._items += answer["ScannedCount"]
        return answer
