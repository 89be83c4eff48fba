"""Opaque cursors: where in a list the next page starts."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from chalicelib.errors import InvalidRequest

_CURSOR = re.compile(
    r"(?P<order>[a-z]+)\|(?P<partition>(?:\d{4}-\d\d(?:-\d\d)?|[a-z_]{1,32})?)\|"
    r"(?P<key>(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z#(?:[0-9a-f]{40}|i-[0-9a-f]{8,17}))?)"
)


@dataclass(frozen=True, slots=True)
class Position:
    """After *key* in this partition; from the partition's beginning without one.

    partition: a month or a day, or an instance's state; empty in an owner's certificates, so that
    a cursor leads nobody to another owner's.
    """

    partition: str
    key: str | None


def cursor_of(order: str, position: Position) -> str:
    """The cursor of the page that starts here, in the order of this name."""
    text = f"{order}|{position.partition}|{position.key or ''}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def position_in(cursor: str, order: str) -> Position:
    """Where to go on. Raises InvalidRequest for a cursor that is not ours, or of another order."""
    found = _CURSOR.fullmatch(_decoded(cursor))
    if found is None or found["order"] != order:
        raise _not_ours()
    return Position(found["partition"], found["key"] or None)


def _decoded(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError) as error:
        raise _not_ours() from error


def _not_ours() -> InvalidRequest:
    return InvalidRequest(
        "invalid_cursor",
        "use next_cursor of an earlier answer as it is, with the same filters",
        field="cursor",
    )
