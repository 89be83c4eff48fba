"""Media types, and the choice of the form of an answer by the Accept header."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chalicelib.errors import NotAcceptable

JSON = "application/json"
PEM = "application/x-pem-file"
GZIP = "application/gzip"
SHELL = "text/x-shellscript"
PROBLEM = "application/problem+json"

PKCS10 = "application/pkcs10"
# What curl says of a body when nothing else is said.
FORM = "application/x-www-form-urlencoded"


def choose_form(accept: str | None, offered: Sequence[str]) -> str:
    """The offered form that the Accept header ranks first (RFC 9110 section 12.5.1).

    Of equal weights the one named first; of those named by one range, the one offered first.
    Raises NotAcceptable.
    """
    ranges = _ranges(accept or "*/*")
    ranked = []
    for order, form in enumerate(offered):
        weight, position = _place(form, ranges)
        if weight > 0:
            ranked.append((-weight, position, order, form))
    if not ranked:
        raise NotAcceptable(
            "not_acceptable", f"choose with the Accept header one of: {', '.join(offered)}"
        )
    return min(ranked)[-1]


def _place(form: str, ranges: Mapping[str, tuple[float, int]]) -> tuple[float, int]:
    """Weight and position of the most specific range that holds *form*; weight 0 without one.

    The gzip form counts only where it is named first: API Gateway turns the answer into bytes only
    if the first type named is a binary one (AWS "Return binary media from a Lambda proxy
    integration in API Gateway").
    """
    if form == GZIP:
        weight, position = ranges.get(GZIP, (0.0, 0))
        return (weight, 0) if position == 0 else (0.0, position)
    kind = form.partition("/")[0]
    held_by = next((each for each in (form, f"{kind}/*", "*/*") if each in ranges), None)
    return (0.0, 0) if held_by is None else ranges[held_by]


def _ranges(accept: str) -> dict[str, tuple[float, int]]:
    """Each media range with its weight and its place in the header."""
    found: dict[str, tuple[float, int]] = {}
    for position, part in enumerate(accept.lower().split(",")):
        media_range, *parameters = [piece.strip() for piece in part.split(";")]
        found.setdefault(media_range, (_weight(parameters), position))
    return found


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
