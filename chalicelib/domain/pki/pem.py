"""What pasted text may hold, before anybody reads it as PEM (RFC 7468)."""

from __future__ import annotations

import re

# In whatever shape a paste or the encoding of a form has left it.
_PRIVATE_KEY = re.compile(rb"PRIVATE.{0,3}KEY", re.DOTALL)


def holds_private_key(text: bytes) -> bool:
    """Whether a private key is in it, alone or beside something else, encrypted or not."""
    return _PRIVATE_KEY.search(text) is not None
