"""Reading request bodies: the types here validate, and describe the API."""

from __future__ import annotations

import hashlib
import re
from typing import Any, TypeVar

import msgspec
from chalice.app import Request

from chalicelib.domain.model import Access, IssueRequest, KeyType
from chalicelib.entrypoints.http import JSON, PEM
from chalicelib.errors import InvalidRequest, UnsupportedMediaType

_Body = TypeVar("_Body", bound=msgspec.Struct)

PKCS10 = "application/pkcs10"
FORM = "application/x-www-form-urlencoded"

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,64}")
_PATH = " - at `$."
_FIELD = re.compile(r"[a-z_]+")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*)`", re.DOTALL)


class IssueBody(msgspec.Struct, forbid_unknown_fields=True):
    """POST /certs as application/json. Every field may be left out."""

    csr: str | msgspec.UnsetType = msgspec.UNSET
    key_type: KeyType | msgspec.UnsetType = msgspec.UNSET
    access: Access | msgspec.UnsetType = msgspec.UNSET
    days: int | msgspec.UnsetType = msgspec.UNSET
    label: str = ""


class CsrBody(msgspec.Struct, forbid_unknown_fields=True):
    """POST /registry/cert as application/json."""

    csr: str


def read_issue_request(request: Request, idempotency_key: str | None) -> IssueRequest:
    """What POST /certs asks for, in any form. Raises InvalidRequest, UnsupportedMediaType."""
    text = _text(request)
    if not text.strip():
        body = IssueBody()
    elif _form(request, text) == JSON:
        body = _decode(text, IssueBody)
    else:
        body = IssueBody(csr=text)
    if body.csr is not msgspec.UNSET and body.key_type is not msgspec.UNSET:
        raise InvalidRequest(
            "csr_and_key_type", "a CSR brings its own key: leave key_type out", field="key_type"
        )
    return IssueRequest(
        csr_pem=None if body.csr is msgspec.UNSET else body.csr.encode(),
        key_type=KeyType.EC_P256 if body.key_type is msgspec.UNSET else body.key_type,
        access=None if body.access is msgspec.UNSET else body.access,
        days=None if body.days is msgspec.UNSET else body.days,
        label=body.label,
        idempotency_key=_checked(idempotency_key),
        digest=hashlib.sha256(msgspec.json.encode(body)).hexdigest(),
    )


def read_csr(request: Request) -> bytes:
    """The CSR that the body is, or holds. Raises InvalidRequest, UnsupportedMediaType."""
    text = _text(request)
    if _form(request, text) == JSON:
        return _decode(text, CsrBody).csr.encode()
    return text.encode()


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


def _form(request: Request, text: str) -> str:
    """JSON, or PEM for anything that stands for a CSR as it is."""
    content_type = str(request.headers.get("content-type") or "")
    media_type = content_type.partition(";")[0].strip().lower()
    is_pem = text.lstrip().startswith("-----BEGIN")
    if media_type == JSON or (not media_type and not is_pem):
        return JSON
    if media_type in (PKCS10, PEM) or (media_type in (FORM, "") and is_pem):
        return PEM
    if media_type == FORM:
        detail = "for JSON say so: curl -H 'content-type: application/json'"
    else:
        detail = f"send {JSON}, {PKCS10} or {PEM}"
    raise UnsupportedMediaType("unsupported_media_type", detail, field="content-type")


def _decode(text: str, shape: type[_Body]) -> _Body:
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), shape) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest("malformed_json", "the body is not JSON") from error


def _invalid(message: str, shape: type[msgspec.Struct]) -> InvalidRequest:
    if unknown := _UNKNOWN.match(message):
        detail = f"there is no such field; there are: {', '.join(shape.__struct_fields__)}"
        return InvalidRequest("unknown_field", detail, field=unknown["field"][:64])
    text, field = _apart(message)
    if message.startswith("Invalid enum value"):
        return InvalidRequest("unknown_value", _allowed(field), field=field)
    if message.startswith("Object missing required field"):
        return InvalidRequest("missing_field", "the body needs a csr", field="csr")
    return InvalidRequest("wrong_type", text.replace("`", ""), field=field)


def _apart(message: str) -> tuple[str, str | None]:
    """msgspec's message without its path, and the field that the path leads to.

    The path comes last. Before it the message may quote the request, which may hold anything, what
    looks like a path included.
    """
    text, _, path = message.rpartition(_PATH)
    field = _FIELD.match(path) if text else None
    return (text, field[0]) if field else (message, None)


def _allowed(field: str | None) -> str:
    kinds: dict[str | None, Any] = {"key_type": KeyType, "access": Access}
    return f"it must be one of: {', '.join(kinds[field])}"


def _checked(idempotency_key: str | None) -> str | None:
    if idempotency_key is None or _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        return idempotency_key
    raise InvalidRequest(
        "bad_idempotency_key",
        "an Idempotency-Key has 1 to 64 visible ASCII characters",
        field="Idempotency-Key",
    )
