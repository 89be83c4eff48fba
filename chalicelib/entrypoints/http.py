"""The edge of the HTTP API: callers in, problems out, and the choice of a form."""

from __future__ import annotations

import functools
import json
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chalice import Blueprint, IAMAuthorizer, Response
from chalice.app import MultiDict

from chalicelib.domain.identity import identify
from chalicelib.domain.model import Caller
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

log = logging.getLogger(__name__)

JSON = "application/json"
PEM = "application/x-pem-file"
GZIP = "application/gzip"
SHELL = "text/x-shellscript"

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

_TITLES = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    406: "Not acceptable",
    409: "Conflict",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Internal server error",
    503: "Service unavailable",
}


class ApiBlueprint(Blueprint):
    """A blueprint whose every route is signed by IAM, answers problems, and carries the request id.

    A view's exception never reaches Chalice's own middleware, so it is caught here.
    """

    def route(self, path: str, **kwargs: Any) -> Callable[[Callable[..., Response]], Any]:
        """As Chalice's, but IAM-authorised, and open to every content type: we judge that."""
        register = super().route(path, authorizer=IAMAuthorizer(), content_types=[], **kwargs)

        def decorate(view: Callable[..., Response]) -> Any:
            @functools.wraps(view)
            def guarded(*args: Any, **view_kwargs: Any) -> Response:
                return self._answer(functools.partial(view, *args, **view_kwargs))

            return register(guarded)

        return decorate

    def caller(self) -> Caller:
        """Who signed the current request. Raises Forbidden."""
        return identify(str(self.current_request.context["identity"].get("userArn") or ""))

    def header(self, name: str) -> str | None:
        """A header of the current request; names are compared without case."""
        value = self.current_request.headers.get(name)
        return None if value is None else str(value)

    def query(self, allowed: Sequence[str]) -> dict[str, str]:
        """The query parameters. Raises InvalidRequest for one unknown or given twice."""
        given = self.current_request.query_params or MultiDict({})
        for name in given:
            if name not in allowed:
                raise InvalidRequest(
                    "unknown_parameter",
                    f"there is no such parameter; there are: {', '.join(allowed) or 'none'}",
                    field=name,
                )
            if len(given.getlist(name)) > 1:
                raise InvalidRequest("repeated_parameter", "give it once", field=name)
        return dict(given)

    def _answer(self, view: Callable[[], Response]) -> Response:
        try:
            response = view()
        except AppError as error:
            response = _problem_of(error)
        except Exception as error:  # the edge: nothing of it may reach the caller
            _log_without_message(error)
            response = problem(500, "internal_error", "something went wrong on our side")
        if "Location" in response.headers:
            mount = _mount(self.current_request.context)
            response.headers["Location"] = f"{mount}{response.headers['Location']}"
        response.headers["x-request-id"] = str(self.current_request.context.get("requestId", ""))
        response.headers["x-content-type-options"] = "nosniff"
        return response


def _mount(context: Mapping[str, Any]) -> str:
    """What stands before our paths in the address: the stage, or a custom domain's base path."""
    depth = str(context["resourcePath"]).count("/")
    return str(context["path"]).rstrip("/").rsplit("/", depth)[0]


def _problem_of(error: AppError) -> Response:
    status = STATUS_OF[type(error)]
    level = logging.ERROR if status >= 500 else logging.INFO
    cause = _cause_of(error) if status >= 500 else ""
    log.log(level, "answered %d %s: %s%s", status, error.code, error, cause)
    if isinstance(error, Misconfigured):
        # Its text is for the operator, and may name what is of no concern to a caller.
        return problem(status, error.code, "this service is not set up; tell who operates it")
    return problem(status, error.code, str(error), error.field)


def _cause_of(error: AppError) -> str:
    """What the operator looks for: the SDK's error and AWS's code, not its message."""
    cause = error.__cause__
    if cause is None:
        return ""
    of_pynamodb = getattr(cause, "cause_response_code", None)
    of_botocore = getattr(cause, "response", {}).get("Error", {}).get("Code")
    return f" ({type(cause).__name__} {of_pynamodb or of_botocore or 'without a code'})"


def _log_without_message(error: Exception) -> None:
    """Where and what kind, but not the message: it may quote a request, and with it a secret."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("unexpected %s\n%s", type(error).__qualname__, frames)


def problem(status: int, code: str, detail: str, field: str | None = None) -> Response:
    """An answer in the form of RFC 9457, with our extension members code and field."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES[status],
        "status": status,
        "detail": detail,
        "code": code,
    }
    if field is not None:
        body["field"] = field
    return Response(
        body=json.dumps(body),
        status_code=status,
        headers={"Content-Type": "application/problem+json", "Cache-Control": "no-store"},
    )


def json_answer(document: Mapping[str, Any], status: int = 200, **headers: str) -> Response:
    """A JSON answer that no cache keeps: most of them are about one caller alone."""
    return Response(
        body=json.dumps(document),
        status_code=status,
        headers={"Content-Type": JSON, "Cache-Control": "no-store", **headers},
    )


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
