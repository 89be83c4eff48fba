"""The composition root: the one place that reads the environment and puts the parts together."""

from __future__ import annotations

import os
from functools import cache

from chalicelib.bootstrap.use_cases import Services
from chalicelib.config import Settings

__all__ = ["Services", "services"]


@cache
def services() -> Services:
    """Those of this process, from its environment. Raises Misconfigured."""
    return Services(Settings.from_variables(os.environ))
