"""Turning texts of a request into the types that describe it, with a word for each thing wrong.

A field's type may say, by refusal(), how a value is refused that is of its kind but out of bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec
from chalice.app import Request
from msgspec import inspect

from chalicelib.entrypoints.http.forms import FORM, JSON
from chalicelib.entrypoints.http.operations import Accepts, Body
from chalicelib.errors import InvalidRequest, UnsupportedMediaType

_Shape = TypeVar("_Shape", bound=msgspec.Struct)

_PATH = " - at `$."
_FIELD = re.compile(r"[a-z_]+")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>[a-z_]+)`")
_WRONG_KIND = re.compile(r"Expected `[^`]*`, got `")
_WHOLE_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")


def refusal(code: str, detail: str) -> dict[str, Any]:
    """What a field's Meta takes as *extra*: how its values that are out of bounds are refused."""
    return {"refusal": (code, detail)}


def read_body(request: Request, accepts: Accepts[Body]) -> Body:
    """Raises InvalidRequest, UnsupportedMediaType."""
    text = _text(request)
    if accepts.optional and not text.strip():
        return accepts.shape()
    if _is_json(request, text, accepts):
        return decode_json(text, accepts.shape)
    return msgspec.convert({accepts.pem_field: text}, accepts.shape)


def _text(request: Request) -> str:
    body = request.raw_body
    try:
        text = body.decode() if isinstance(body, bytes) else str(body)
    except UnicodeDecodeError as error:
        raise _not_utf8() from error
    # API Gateway hands text on with each undecodable byte replaced by this character.
    if "\ufffd" in text:
        raise _not_utf8()
    return text


def _not_utf8() -> InvalidRequest:
    return InvalidRequest("body_not_utf8", "the body must be UTF-8 text")


def _is_json(request: Request, text: str, accepts: Accepts[Any]) -> bool:
    """JSON, or else PEM. Who leaves the type out, or to curl, is told apart by the first line."""
    content_type = str(request.headers.get("content-type") or "")
    media_type = content_type.partition(";")[0].strip().lower()
    is_pem = accepts.pem_field is not None and text.lstrip().startswith("-----BEGIN")
    if media_type == JSON or (not media_type and not is_pem):
        return True
    if media_type in accepts.pem_types and (is_pem or media_type != FORM):
        return False
    if not media_type:
        return False
    if media_type == FORM:
        detail = "for JSON say so: curl -H 'content-type: application/json'"
    else:
        *most, last = [JSON, *(kind for kind in accepts.pem_types if kind != FORM)]
        detail = f"send {', '.join(most)} or {last}" if most else f"send {last}"
    raise UnsupportedMediaType("unsupported_media_type", detail, field="content-type")


def decode_json(text: str, shape: type[_Shape]) -> _Shape:
    """Raises InvalidRequest."""
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), shape, typed=True) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest("malformed_json", "the body is not JSON") from error


def convert_texts(given: Mapping[str, str], shape: type[_Shape]) -> _Shape:
    """The same for values that come as texts. Raises InvalidRequest.

    Only whole numbers are converted: msgspec, left to convert them all, would take seconds since
    1970 for a time and 1e1 for 10.
    """
    numbers = _whole_numbers(shape)
    values = {
        name: int(value) if name in numbers and _WHOLE_NUMBER.fullmatch(value) else value
        for name, value in given.items()
    }
    try:
        return msgspec.convert(values, shape)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), shape, typed=False) from error


@cache
def _whole_numbers(shape: type[msgspec.Struct]) -> frozenset[str]:
    types = _types(shape).items()
    return frozenset(name for name, (kind, _) in types if isinstance(kind, inspect.IntType))


@cache
def _types(shape: type[msgspec.Struct]) -> dict[str, tuple[inspect.Type, dict[str, Any]]]:
    """Each field's type, and what its Meta says beside."""
    described = inspect.type_info(shape)
    assert isinstance(described, inspect.StructType)  # noqa: S101  # as its bound says
    found: dict[str, tuple[inspect.Type, dict[str, Any]]] = {}
    for field in described.fields:
        kind = field.type
        if isinstance(kind, inspect.Metadata):
            found[field.encode_name] = (kind.type, kind.extra or {})
        else:
            found[field.encode_name] = (kind, {})
    return found


def _invalid(message: str, shape: type[msgspec.Struct], *, typed: bool) -> InvalidRequest:
    """typed: the sender could choose a value's type, so a wrong one is a mistake of its own."""
    if unknown := _UNKNOWN.match(message):
        detail = f"there is no such field; there are: {', '.join(shape.__struct_fields__)}"
        return InvalidRequest("unknown_field", detail, field=unknown["field"][:64])
    if missing := _MISSING.match(message):
        needed = missing["field"]
        return InvalidRequest("missing_field", f"the body needs a field {needed}", field=needed)
    text, field = _apart(message)
    kind, extra = _types(shape).get(field or "", (None, {}))
    if "refusal" in extra and not (typed and _WRONG_KIND.match(message)):
        code, detail = extra["refusal"]
        return InvalidRequest(code, detail, field=field)
    if isinstance(kind, inspect.EnumType) and message.startswith("Invalid enum value"):
        allowed = ", ".join(str(each.value) for each in kind.cls)
        return InvalidRequest("unknown_value", f"it must be one of: {allowed}", field=field)
    return InvalidRequest("wrong_type", text.replace("`", ""), field=field)


def _apart(message: str) -> tuple[str, str | None]:
    """msgspec's message without its path, and the field that the path leads to.

    The path comes last. Before it the message may quote the request, which may hold anything, what
    looks like a path included.
    """
    text, _, path = message.rpartition(_PATH)
    field = _FIELD.match(path) if text else None
    return (text, field[0]) if field else (message, None)
