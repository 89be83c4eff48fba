"""Text files with @NAME@ places: reading them, and filling them so that nothing slips in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from chalicelib.errors import Misconfigured

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
PLACE = re.compile(r"@([A-Z][A-Z0-9_]*)@")

# The forms that values may have, for `checked`.
# Whitespace other than a space, quotes, $, \, ;, braces, & and | never mean themselves everywhere.
PATH = r"(?!.*//)/[\w .,+=~:%@/-]*[\w.,+=~:%@-]"
HOST = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
PORT = r"[1-9][0-9]{0,4}"
ADDRESS = rf"({HOST}|\[[0-9A-Fa-f:]+\]):{PORT}"
URL = rf"https?://({HOST}|\[[0-9A-Fa-f:]+\])(:{PORT})?"
REGION = r"[a-z0-9-]{4,32}"
BUCKET = r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"


def read(name: str) -> str:
    """The template *name*, a path below chalicelib/templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def fill(template: str, values: Mapping[str, str]) -> str:
    """*template* with every @NAME@ replaced by its value, in one pass.

    What a value holds is never looked at for places again. A line that holds nothing but a place
    whose value is empty goes away whole. Does not quote: the caller knows what each place allows.
    Raises Misconfigured for a place without a value and for a value without a place.
    """
    places = set(PLACE.findall(template))
    if odd := sorted(places ^ set(values)):
        raise Misconfigured("template_mismatch", f"template and values differ in {', '.join(odd)}")
    empty = "|".join(name for name in sorted(places) if not values[name])
    if empty:
        template = re.sub(rf"^[ \t]*@(?:{empty})@[ \t]*\n", "", template, flags=re.MULTILINE)
    return PLACE.sub(lambda place: values[place[1]], template)


def checked(name: str, value: str, pattern: str) -> str:
    """*value* again, if it matches *pattern* from its first character to its last.

    Raises Misconfigured with *name* as its field; the value itself is not repeated.
    """
    if re.fullmatch(pattern, value) is None:
        raise Misconfigured("unsafe_value", f"{name} has a form that is not allowed", field=name)
    return value
