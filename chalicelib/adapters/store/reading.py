"""Pages of a list, of bounded work, by queries alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pynamodb.expressions.condition import Condition

from chalicelib.adapters.store.paging import Position
from chalicelib.adapters.store.tables import Tables
from chalicelib.errors import Misconfigured

log = logging.getLogger(__name__)

# How much one page may read before it is given out, full or not.
_MOST_ITEMS = 1000
_MOST_QUERIES = 100
_ITEMS_A_QUERY = 250

Found = TypeVar("Found")


class Order(Protocol):
    """One way through what a table holds: an index, and its partitions as they are to be read.

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


@dataclass
class Reading(Generic[Found]):
    """One page in the making. stopped_at: where there may be more; None at the end of all.

    value_of: what an item, in DynamoDB's own form, keeps; raises Misconfigured if it is damaged.
    """

    tables: Tables
    table: str
    order: Order
    filter: Condition | None
    limit: int
    value_of: Callable[[dict[str, Any]], Found]
    found: list[Found] = field(default_factory=list)
    stopped_at: Position | None = None
    _items: int = 0
    _queries: int = 0

    def read(self, start: Position | None) -> None:
        """Up to *limit*, from there on. Raises DependencyFailed."""
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
        try:
            self.found.append(self.value_of(item))
        except Misconfigured as error:
            log.error("left out of a list: %s", error)

    def _query(self, partition: str, key: str | None) -> Mapping[str, Any]:
        wanted = self.limit - len(self.found) + 1  # one more shows that there is more
        self._queries += 1
        answer = self.tables.query(
            self.table,
            partition,
            index_name=self.order.index,
            range_key_condition=self.order.after(key),
            filter_condition=self.filter,
            scan_index_forward=self.order.forward,
            limit=wanted if self.filter is None else _ITEMS_A_QUERY,
        )
        self._items += answer["ScannedCount"]
        return answer
