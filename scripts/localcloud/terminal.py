"""Output for people: colour on a terminal only, and plain text that can be read without it."""

from __future__ import annotations

import os
import sys
from typing import TextIO

STYLES = {"good": "32", "bad": "31", "command": "36", "faint": "2", "strong": "1"}


def styled(text: str, style: str, out: TextIO | None = None) -> str:
    """The text in colour when *out* (standard output by default) is a terminal."""
    out = out or sys.stdout
    if not out.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\033[{STYLES[style]}m{text}\033[0m"


def note(text: str) -> None:
    """Progress, which goes to standard error so that output stays output."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """An error, with the command's name before it."""
    note(styled("scripts/local: ", "bad", sys.stderr) + text)
