"""Times as sort keys hold them, so that what is written and what is asked for compare."""

from __future__ import annotations

from datetime import datetime


def stored_time(time: datetime) -> str:
    """RFC 3339, UTC, to the second."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
