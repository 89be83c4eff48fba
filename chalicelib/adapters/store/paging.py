"""Opaque cursors: where in an owner's certificates the next page starts."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from chalicelib.errors import InvalidRequest

_POSITION = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z#(?P<serial>[0-9a-f]{40})")


def cursor_after(issued_key: str) -> str:
    """The cursor of the page that follows the certificate with this key."""
    return base64.urlsafe_b64encode(issued_key.encode()).decode().rstrip("=")


def start_key(owner: str, cursor: str) -> dict[str, dict[str, Any]]:
    """The index key to go on from. The owner is the caller's, whoever the cursor was made for.

    Raises InvalidRequest for a cursor that is not ours.
    """
    position = _POSITION.fullmatch(_decoded(cursor))
    if position is None:
        raise _not_ours()
    return {
        "owner": {"S": owner},
        "issued_key": {"S": position[0]},
        "serial": {"S": position["serial"]},
    }


def _decoded(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError) as error:
        raise _not_ours() from error


def _not_ours() -> InvalidRequest:
    return InvalidRequest(
        "invalid_cursor", "use next_cursor of an earlier answer as it is", field="cursor"
    )
