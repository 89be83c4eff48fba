"""Turning texts of a request into the types that describe it, with a word for each thing wrong.

A field's type may say, by refusal(), how a value is refused that is of its kind but out of bounds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec
from chalice.app import Request
from msgspec import inspect

from chalicelib.entrypoints.http.forms import FORM, JSON, PEM, PKCS10
from chalicelib.entrypoints.http.operations import Accepts, Body
from chalicelib.errors import InvalidRequest, UnsupportedMediaType

_Shape = TypeVar("_Shape", bound=msgspec.Struct)

_OF_FILES = (FORM, PEM, PKCS10)
_UNDECODABLE = "\ufffd"
_DER_SEQUENCE = "0"  # its tag, 0x30
_OPENSSL = {"certificate": "x509", "csr": "req"}  # which command reads a field's DER
_PEM = "-----BEGIN"

_PATH = " - at `$."
_FIELD = re.compile(r"[a-z_]+")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>[a-z_]+)`")
_WRONG_KIND = re.compile(r"Expected `[^`]*`, got `")
_WORDS: Mapping[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.DateTimeType: "a time",
    inspect.IntType: "a whole number",
    inspect.StrType: "text",
}
_WHOLE_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")


def refusal(code: str, detail: str) -> dict[str, Any]:
    """What a field's Meta takes as *extra*: how its values that are out of bounds are refused."""
    return {"refusal": (code, detail)}


def read_body(request: Request, accepts: Accepts[Body]) -> Body:
    """Raises InvalidRequest, UnsupportedMediaType."""
    content_type = str(request.headers.get("content-type") or "")
    media_type = content_type.partition(";")[0].strip().lower()
    text = _text(request, accepts)
    if not text.strip():
        return _nothing(media_type, accepts)
    if _is_json(media_type, text, accepts):
        return decode_json(text, accepts.shape)
    return msgspec.convert({accepts.pem_field: text}, accepts.shape)


def _text(request: Request, accepts: Accepts[Any]) -> str:
    body = request.raw_body
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    # API Gateway hands text on like this, with each undecodable byte replaced by this character.
    if _UNDECODABLE not in text:
        return text
    if accepts.pem_field is not None and text.startswith(_DER_SEQUENCE):
        tool = _OPENSSL[accepts.pem_field]
        detail = f"this looks like DER; for PEM: openssl {tool} -inform der -in FILE"
        raise InvalidRequest("body_not_utf8", detail)
    raise InvalidRequest("body_not_utf8", "the body must be UTF-8 text")


def _nothing(media_type: str, accepts: Accepts[Body]) -> Body:
    """No body at all. Who sends one of a file's types meant to send a file: where curl finds none
    it warns, sends nothing in its place, and says that type of it."""
    if media_type in _OF_FILES:
        said = f"the body is empty: does the file after @ exist? {accepts.if_empty}"
        raise InvalidRequest("empty_body", said.rstrip())
    if not accepts.optional:
        raise InvalidRequest("empty_body", f"the body is empty. {accepts.if_empty}")
    return accepts.shape()


def _is_json(media_type: str, text: str, accepts: Accepts[Any]) -> bool:
    """JSON, or else PEM. Who leaves the type out, or to curl, is told apart by what is there: text
    may stand before PEM, as openssl's -text puts it, but no JSON."""
    is_pem = accepts.pem_field is not None and _PEM in text and text.lstrip()[0] not in '{["'
    if media_type == JSON or (not media_type and not is_pem):
        return True
    if not media_type or (media_type in accepts.pem_types and (is_pem or media_type != FORM)):
        return False
    said = _say_json(accepts) if media_type == FORM else _say_types(accepts)
    raise UnsupportedMediaType("unsupported_media_type", said, field="content-type")


def _say_json(accepts: Accepts[Any]) -> str:
    """To who leaves the type to curl. Of what was sent nothing is repeated: it may be a secret."""
    start = "send JSON and" if accepts.pem_field is None else "this is not PEM; for JSON"
    example = next((json.dumps(each) for each in accepts.examples.values() if each), None)
    data = "" if example is None else f" --data '{example}'"
    return f"{start} say so: curl -H 'content-type: application/json'{data}"


def _say_types(accepts: Accepts[Any]) -> str:
    *most, last = [JSON, *(kind for kind in accepts.pem_types if kind != FORM)]
    return f"send {', '.join(most)} or {last}" if most else f"send {last}"


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
        fields = ", ".join(sorted(shape.__struct_fields__))
        detail = f"there is no such field; there are: {fields}" if fields else "there are no fields"
        return InvalidRequest("unknown_field", detail, field=unknown["field"][:64])
    if missing := _MISSING.match(message):
        needed = missing["field"]
        return InvalidRequest("missing_field", f"the body needs a field {needed}", field=needed)
    field = _field_in(message)
    kind, extra = _types(shape).get(field or "", (None, {}))
    if "refusal" in extra and not (typed and _WRONG_KIND.match(message)):
        code, detail = extra["refusal"]
        return InvalidRequest(code, detail, field=field)
    if isinstance(kind, inspect.EnumType) and message.startswith("Invalid enum value"):
        return InvalidRequest("unknown_value", f"it {_must_be(kind)}", field=field)
    return InvalidRequest("wrong_type", f"{field or 'the body'} {_must_be(kind)}", field=field)


def _must_be(kind: inspect.Type | None) -> str:
    """Of a field of *kind*; None: of the whole body."""
    if isinstance(kind, inspect.EnumType):
        return f"must be one of: {', '.join(str(each.value) for each in kind.cls)}"
    return "must be an object" if kind is None else f"must be {_WORDS[type(kind)]}"


def _field_in(message: str) -> str | None:
    """The field that the path in msgspec's message leads to.

    The path comes last. Before it the message may quote the request, which may hold anything, what
    looks like a path included.
    """
    text, _, path = message.rpartition(_PATH)
    field = _FIELD.match(path) if text else None
    return field[0] if field else None
