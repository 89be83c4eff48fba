"""The one map from errors to HTTP, and the form that problems are answered in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from chalicelib.errors import (
    AppError,
    Conflict,
    Contended,
    DependencyFailed,
    Forbidden,
    InvalidRequest,
    Misconfigured,
    NotAcceptable,
    NotFound,
    QuotaExceeded,
    UnsupportedMediaType,
)

STATUS_OF: Mapping[type[AppError], int] = {
    InvalidRequest: 400,
    Forbidden: 403,
    NotFound: 404,
    NotAcceptable: 406,
    Conflict: 409,
    UnsupportedMediaType: 415,
    QuotaExceeded: 429,
    Misconfigured: 500,
    Contended: 503,
    DependencyFailed: 503,
}

TITLES: Mapping[int, str] = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    406: "Not acceptable",
    409: "Conflict",
    413: "Content too large",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Internal server error",
    503: "Service unavailable",
    504: "Gateway timeout",
}


class Problem(Struct):
    """Why there is no other answer (RFC 9457), with a code and the field to blame."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | UnsetType = UNSET


class GatewayRefusal(Struct):
    """What API Gateway refuses for a reason of its own, such as a signature cut short."""

    type: str
    title: str
    detail: str
    code: Literal["refused"]


def problem(status: int, code: str, detail: str, field: str | None = None) -> Problem:
    """One of ours, of the type that says no more than its status does."""
    blamed = UNSET if field is None else field
    return Problem("about:blank", TITLES[status], status, detail, code, blamed)


def problem_of(error: AppError) -> Problem:
    """What the caller is told of *error*."""
    status = STATUS_OF[type(error)]
    if isinstance(error, Misconfigured):
        # Its text is for the operator, and may name what is of no concern to a caller.
        return problem(status, error.code, "this service is not set up; tell who operates it")
    return problem(status, error.code, str(error), error.field)
