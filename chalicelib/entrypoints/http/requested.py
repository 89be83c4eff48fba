"""From the bodies of requests to what services take. All of it may raise InvalidRequest and
UnsupportedMediaType: a body is read when somebody asks for it."""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from chalicelib.domain.model import IssueRequest, KeyType, NamedRequest, RenewRequest
from chalicelib.entrypoints.http import bodies
from chalicelib.entrypoints.http.asked import Asked
from chalicelib.entrypoints.http.operations import Query
from chalicelib.errors import InvalidRequest

_Value = TypeVar("_Value")


def issue_request(asked: Asked[Query, bodies.IssueBody]) -> IssueRequest:
    """What the caller wants certified."""
    return _issue_request(asked, asked.body)


def named_request(asked: Asked[Query, bodies.NamedBody]) -> NamedRequest:
    """For a service of a name."""
    body = asked.body
    return NamedRequest(body.name, _given(body.owner), _issue_request(asked, body))


def _issue_request(asked: Asked[Query, Any], body: bodies.IssueBody) -> IssueRequest:
    if body.csr is not UNSET and body.key_type is not UNSET:
        raise InvalidRequest(
            "csr_and_key_type", "a CSR brings its own key: leave key_type out", field="key_type"
        )
    return IssueRequest(
        csr_pem=_encoded(body.csr),
        key_type=KeyType.EC_P256 if body.key_type is UNSET else body.key_type,
        access=_given(body.access),
        days=_given(body.days),
        label=body.label,
        idempotency_key=asked.idempotency_key,
        digest=asked.digest,
    )


def renew_request(asked: Asked[Query, bodies.RenewBody]) -> RenewRequest:
    """For a successor."""
    body = asked.body
    return RenewRequest(
        csr_pem=_encoded(body.csr),
        days=_given(body.days),
        revoke_old=body.revoke_old,
        idempotency_key=asked.idempotency_key,
        digest=asked.digest,
    )


def evidence(asked: Asked[Query, bodies.DiagnoseBody]) -> bytes | str:
    """The certificate as it came, or the serial as it was pasted."""
    certificate, serial = asked.body.certificate, asked.body.serial
    if certificate is not UNSET and serial is UNSET:
        return certificate.encode()
    if serial is not UNSET and certificate is UNSET:
        return serial
    raise InvalidRequest("certificate_or_serial", "give one of the two: certificate or serial")


def _given(value: _Value | UnsetType) -> _Value | None:
    return None if isinstance(value, UnsetType) else value


def _encoded(pem: str | UnsetType) -> bytes | None:
    return None if isinstance(pem, UnsetType) else pem.encode()
