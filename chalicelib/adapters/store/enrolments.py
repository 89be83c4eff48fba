"""Enrolments, in DynamoDB."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from pynamodb.exceptions import UpdateError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from chalicelib.adapters.store.enrolment_items import (
    DUE,
    ENROLLED,
    ByDue,
    ByTrust,
    EnrolmentItem,
    enrolment_of,
    item_of,
    time_key,
)
from chalicelib.adapters.store.paging import cursor_of, position_in
from chalicelib.adapters.store.reading import Reading
from chalicelib.adapters.store.tables import Tables, our_errors, readable
from chalicelib.adapters.store.times import stored_time
from chalicelib.domain.enrolment.model import Enrolment, EnrolmentPage, EnrolmentState
from chalicelib.errors import DependencyFailed, InvalidRequest, Misconfigured

log = logging.getLogger(__name__)

# Amazon DynamoDB API Reference, BatchGetItem. What it did not get to is asked for again, and it
# says to wait a little longer each time.
_BATCH = 100
_BATCH_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.05

# '$' comes right after '#', which ends what instance ids follow in a sort key.
_PAST = "$"


class EnrolmentStore:
    """Enrolments by instance, and which of them are to be looked at."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, instance_id: str) -> Enrolment | None:
        """Read consistently. Raises DependencyFailed, Misconfigured (damaged)."""
        with our_errors(), readable(instance_id, _DAMAGED):
            try:
                return enrolment_of(EnrolmentItem.get(instance_id, consistent_read=True))
            except EnrolmentItem.DoesNotExist:
                return None

    def put(self, enrolment: Enrolment) -> Enrolment:
        """Write it, if what is stored still is of its version; returns it as it is stored then.

        Raises Contended when it is not, DependencyFailed.
        """
        stored = replace(enrolment, version=enrolment.version + 1)
        unchanged = (
            EnrolmentItem.version == enrolment.version
            if enrolment.version
            else EnrolmentItem.instance_id.does_not_exist()
        )
        with our_errors():
            item_of(stored).save(condition=unchanged)
        return stored

    def postpone(self, instance_id: str, seen: datetime, until: datetime) -> bool:
        """Have due() name it then, if that still has it at *seen*; else False.

        Both to the second. When it is to be looked at stays as it is, and so does its version.
        Raises DependencyFailed.
        """
        item = EnrolmentItem(instance_id)
        actions: list[Action] = [EnrolmentItem.due_key.set(time_key(until, instance_id))]
        with our_errors():
            try:
                item.update(actions, EnrolmentItem.due_key == time_key(seen, instance_id))
            except UpdateError as error:
                if error.cause_response_code == "ConditionalCheckFailedException":
                    return False
                raise
        return True

    def due(self, now: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        """Up to *limit* that are to be looked at by now, with when: the longest due first.

        It may not know of the last second's changes. Raises DependencyFailed.
        """
        by_now = ByDue.due_key < f"{stored_time(now)}{_PAST}"
        items = self._keys(ByDue.Meta.index_name, DUE, by_now, limit)
        found = ((item["instance_id"]["S"], _time_in(item["due_key"]["S"])) for item in items)
        return [(instance_id, time) for instance_id, time in found if time is not None]

    def outdated(self, trust_version: str, limit: int) -> Sequence[str]:
        """Up to *limit* enrolled ones that hold any other trust. As to changes, and raises, as
        due().
        """
        others = (
            ByTrust.trust_key < f"{trust_version}#",
            ByTrust.trust_key >= f"{trust_version}{_PAST}",
        )
        found: list[str] = []
        for condition in others:
            wanted = limit - len(found)
            items = self._keys(ByTrust.Meta.index_name, ENROLLED, condition, wanted)
            found += [item["instance_id"]["S"] for item in items]
        return found

    def get_many(self, instance_ids: Sequence[str]) -> Mapping[str, Enrolment]:
        """Those that there are, read consistently. Damaged ones are left out, and logged.

        Raises DependencyFailed.
        """
        wanted = list(dict.fromkeys(instance_ids))
        found = {}
        for start in range(0, len(wanted), _BATCH):
            for item in self._batch(wanted[start : start + _BATCH]):
                try:
                    enrolment = _enrolment_in(item)
                except Misconfigured as error:
                    log.error("left out: %s", error)
                else:
                    found[enrolment.instance_id] = enrolment
        return found

    def page(self, state: EnrolmentState | None, limit: int, cursor: str | None) -> EnrolmentPage:
        """Up to *limit*: who came into the state last comes first; of all, one state after another.

        Who changes the state between two pages may be in both or, of all, in neither. Damaged ones
        are left out, and logged. Raises InvalidRequest for a cursor that is not ours,
        DependencyFailed.
        """
        order = _ByState(tuple(EnrolmentState) if state is None else (state,))
        start = None if cursor is None else position_in(cursor, order.name)
        if start is not None and start.partition not in order.states:
            raise InvalidRequest("invalid_cursor", "the cursor is of another state", field="cursor")
        reading = Reading(self._tables, self._tables.instances, order, None, limit, _enrolment_in)
        reading.read(start)
        stopped_at = reading.stopped_at
        return EnrolmentPage(
            tuple(reading.found), None if stopped_at is None else cursor_of(order.name, stopped_at)
        )

    def _keys(
        self, index: str, partition: str, condition: Condition, limit: int
    ) -> Iterator[dict[str, Any]]:
        """The first items of an index, in DynamoDB's own form."""
        start = None
        while limit > 0:
            answer = self._tables.query(
                self._tables.instances,
                partition,
                index_name=index,
                range_key_condition=condition,
                limit=limit,
                exclusive_start_key=start,
            )
            yield from answer["Items"]
            limit -= len(answer["Items"])
            start = answer.get("LastEvaluatedKey")
            if start is None:
                return

    def _batch(self, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        table, pause = self._tables.instances, _FIRST_PAUSE_SECONDS
        for _ in range(_BATCH_TRIES):
            answer = self._tables.batch_get(table, [{"instance_id": id_} for id_ in ids])
            yield from answer["Responses"].get(table, [])
            left = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
            if not left:
                return
            ids = [key["instance_id"]["S"] for key in left]
            time.sleep(pause)
            pause *= 2
        raise DependencyFailed("table_unreadable", "the table did not answer in full")


@dataclass(frozen=True, slots=True)
class _ByState:
    """Instances in these states, the latest first."""

    states: tuple[EnrolmentState, ...]
    name: ClassVar[str] = "state"
    index: ClassVar[str] = "by_state"
    sort_key: ClassVar[str] = "state_key"
    forward: ClassVar[bool] = False

    def partitions(self, start: str | None) -> Iterator[tuple[str, str]]:
        begin = 0 if start is None else self.states.index(EnrolmentState(start))
        for state in self.states[begin:]:
            yield state.value, state.value

    def after(self, key: str | None) -> Condition | None:
        return None if key is None else EnrolmentItem.state_key < key


_DAMAGED = "unreadable_enrolment"


def _time_in(key: str) -> datetime | None:
    """None for a damaged key, which must not hide the others."""
    try:
        return datetime.fromisoformat(key.partition("#")[0]).astimezone(UTC)
    except ValueError:
        log.error("left out of what is due: %r is no time", key)
        return None


def _enrolment_in(item: dict[str, Any]) -> Enrolment:
    with readable(item["instance_id"]["S"], _DAMAGED):
        return enrolment_of(EnrolmentItem.from_raw_data(item))
