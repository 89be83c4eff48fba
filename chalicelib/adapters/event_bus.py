"""The account's default event bus."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.events import SOURCE, Event
from chalicelib.errors import DependencyFailed

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef

log = logging.getLogger(__name__)

# EventBridge API Reference, PutEvents: at most 10 entries a request.
_BATCH = 10

# EventBridge API Reference, PutEventsResultEntry. The entry itself is at fault, and would be again;
# a permission that is missing can be given, and the rest is retryable.
_REFUSED_FOR_GOOD = frozenset({"InvalidArgument", "MalformedDetail"})


class EventBus:
    """Events of ours on it have the source `registry-trust`."""

    def __init__(self, events: EventBridgeClient) -> None:
        self._events = events

    def publish(self, events: Sequence[Event]) -> int:
        """How many it took, an unbroken row from the first: ends with the batch that had a failure.

        What will never be taken is logged and counts as taken: it must not keep back the rest.
        Raises DependencyFailed when not one was taken.
        """
        for start in range(0, len(events), _BATCH):
            batch = events[start : start + _BATCH]
            try:
                taken = self._put(batch)
            except (ClientError, BotoCoreError) as error:
                if start == 0:
                    raise _not_one() from error
                log.warning("%d events are kept back: %s", len(events) - start, error)
                return start
            if start + taken == 0:
                raise _not_one()
            if taken < len(batch):
                return start + taken
        return len(events)

    def _put(self, batch: Sequence[Event]) -> int:
        answer = self._events.put_events(Entries=[_entry(event) for event in batch])
        for place, (event, result) in enumerate(zip(batch, answer["Entries"], strict=True)):
            code = result.get("ErrorCode")
            if code in _REFUSED_FOR_GOOD:
                log.error("%s of %s is never announced: %s", event.detail_type, event.serial, code)
            elif code is not None:
                log.warning("%s of %s is kept back: %s", event.detail_type, event.serial, code)
                return place
        return len(batch)


def _entry(event: Event) -> PutEventsRequestEntryTypeDef:
    return {
        "Source": SOURCE,
        "DetailType": event.detail_type,
        "Time": event.time,
        "Detail": json.dumps(event.detail),
    }


def _not_one() -> DependencyFailed:
    return DependencyFailed("bus_unwritable", "the event bus took none of the events")
