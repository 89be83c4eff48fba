"""Wait for what DynamoDB does with a table by itself: make it, restore it, delete it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from operations.cloud import CommandError

_POLL_SECONDS = 2.0
_DEADLINE_SECONDS = 6 * 3600  # DynamoDB takes minutes for a small table and hours for a large one
_UNSEEN_SECONDS = 60.0  # DynamoDB API Reference, DescribeTable: one just made may not be seen yet


def described(dynamodb: Any, name: str) -> dict[str, Any] | None:
    """What DynamoDB says of it; None when there is no such table."""
    try:
        return dict(dynamodb.describe_table(TableName=name)["Table"])
    except dynamodb.exceptions.ResourceNotFoundException:
        return None


def stays(found: Mapping[str, Any] | None) -> bool:
    """Whether one described like that is there and is not being deleted."""
    return found is not None and found["TableStatus"] != "DELETING"


def wait_for_the_end(dynamodb: Any, name: str) -> None:
    """Of a deletion that is under way: only then the name can be had again.

    Raises CommandError after some hours.
    """
    for again in until_deadline():
        found = described(dynamodb, name)
        if found is None or stays(found):
            return
        if not again:
            raise CommandError(f"{name} is still {found['TableStatus']}: run this again later")


def wait(dynamodb: Any, name: str) -> None:
    """Until it can be used, with its indexes. Raises CommandError after some hours."""
    seen_by = time.monotonic() + _UNSEEN_SECONDS
    for again in until_deadline():
        found = described(dynamodb, name)
        if found is None and time.monotonic() < seen_by:
            continue
        if found is None or not stays(found):
            raise CommandError(f"{name} was deleted meanwhile: run this again")
        if _is_ready(found):
            return
        if not again:
            raise CommandError(f"{name} is still {found['TableStatus']}: run this again later")


def _is_ready(found: Mapping[str, Any]) -> bool:
    indexes = found.get("GlobalSecondaryIndexes", [])
    ready = {index.get("IndexStatus", "ACTIVE") for index in indexes}
    return bool(found["TableStatus"] == "ACTIVE") and ready <= {"ACTIVE"}


def until_deadline() -> Iterator[bool]:
    """Whether there is time for another try; it waits before each but the first."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        yield True
        time.sleep(_POLL_SECONDS)
    yield False
