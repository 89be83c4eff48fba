"""Being refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chalicelib.errors import AppError


def refused(kind: type[AppError], ask: Callable[[], object]) -> str:
    """The code of the error of this kind that asking must end in."""
    with pytest.raises(kind) as caught:
        ask()
    return caught.value.code
