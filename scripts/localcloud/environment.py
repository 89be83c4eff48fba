"""The file of variables for people and tests: `. .local/env`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from localcloud.aws import Key

NAME = re.compile(r"[A-Z][A-Z0-9_]*")
HEAD = """\
# Made by scripts/local up; sh can source it. It holds access keys of the local cloud, which open
# nothing but that. AWS_ACCESS_KEY_ID is the operator's (may do all); DEV_ and DEV2_ are two
# developers, ADMIN_ an admin of registry-trust. LOCAL is scripts/local, which is then about this
# cloud.
"""


def as_shell(variables: Mapping[str, str]) -> str:
    """A text that sh can source and that exports each variable with exactly this value."""
    for name in variables:
        if not NAME.fullmatch(name):
            raise ValueError(f"not a name for a variable: {name!r}")
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    return HEAD + "".join(lines)


def from_shell(text: str) -> dict[str, str]:
    """The variables in a text that as_shell made."""
    words = shlex.split(text, comments=True)
    return dict(word.split("=", 1) for word in words if "=" in word)


def key_variables(prefix: str, key: Key) -> dict[str, str]:
    """PREFIX_ACCESS_KEY_ID and PREFIX_SECRET_ACCESS_KEY."""
    return {
        f"{prefix}_ACCESS_KEY_ID": key.access_key_id,
        f"{prefix}_SECRET_ACCESS_KEY": key.secret_access_key,
    }
