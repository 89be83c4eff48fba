"""Rebinding an attribute of the emulator, and refusing one that is not there."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


class Missing(Exception):
    """MiniStack has no attribute of that name: another version, or it moved."""


def module(name: str) -> Any:
    """The module of that name below `ministack`. It is untyped, so what it holds is Any."""
    return importlib.import_module(f"ministack.{name}")


def attribute(owner: Any, name: str) -> Any:
    """The attribute; raises Missing instead of AttributeError, saying where it was looked for."""
    try:
        return getattr(owner, name)
    except AttributeError:
        raise Missing(f"{getattr(owner, '__name__', owner)} has no {name}") from None


def rebind(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """Put wrap(what is there now) in its place."""
    setattr(owner, name, wrap(attribute(owner, name)))


def rebind_entry(table: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """The same for an entry of a table of handlers; raises Missing."""
    if name not in table:
        raise Missing(f"there is no handler for {name}")
    table[name] = wrap(table[name])
