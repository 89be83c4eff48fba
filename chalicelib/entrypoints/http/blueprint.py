"""The edge of the HTTP API: callers in, answers and problems out, and a line for the audit."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from chalice import Blueprint, IAMAuthorizer, Response

from chalicelib.entrypoints.http import audit
from chalicelib.entrypoints.http.asked import Asked
from chalicelib.entrypoints.http.forms import JSON, PROBLEM
from chalicelib.entrypoints.http.operations import Body, Operation, Query
from chalicelib.entrypoints.http.problems import Problem, problem, problem_of
from chalicelib.errors import AppError, NotFound

log = logging.getLogger(__name__)


class Answer(Response):
    """A response that says what its request was granted, or which problem it tells of."""

    def __init__(
        self,
        body: str | bytes,
        media_type: str,
        status: int = 200,
        *,
        headers: Mapping[str, str] | None = None,
        granted: audit.Granted | audit.EnrolmentAsked | None = None,
        code: str | None = None,
    ) -> None:
        # No cache keeps it: most answers are about one caller alone.
        own: dict[str, str | list[str]] = {"Content-Type": media_type, "Cache-Control": "no-store"}
        own.update(headers or {})
        super().__init__(body=body, headers=own, status_code=status)
        self.outcome = audit.Outcome(status, code, granted)


def json_answer(document: object, status: int = 200, **kwargs: Any) -> Answer:
    """*document*, of one of the types that describe the API. kwargs: as Answer takes them."""
    return Answer(msgspec.json.encode(document).decode(), JSON, status, **kwargs)


class ApiBlueprint(Blueprint):
    """A blueprint whose every route is signed by IAM and declares what it takes and answers.

    operations: all that were registered, by path and method, with the functions that serve them.
    A view's exception never reaches Chalice's own middleware, so it is caught here.
    """

    def __init__(self, import_name: str) -> None:
        super().__init__(import_name)
        self.operations: dict[tuple[str, str], tuple[Operation[Any, Any], Callable[..., Answer]]]
        self.operations = {}

    def route(  # type: ignore[override]  # Chalice's would take a route that declares nothing
        self, path: str, operation: Operation[Query, Body]
    ) -> Callable[[Callable[[Asked[Query, Body]], Answer]], Any]:
        """As Chalice's, but IAM-authorised, and open to every content type: we judge that."""
        register = super().route(
            path, methods=[operation.method], authorizer=IAMAuthorizer(), content_types=[]
        )

        def decorate(view: Callable[[Asked[Query, Body]], Answer]) -> Any:
            self.operations[path, operation.method] = (operation, view)

            @functools.wraps(view)
            def guarded(**_: str) -> Response:
                return _serve(view, Asked(self.current_request, operation))

            return register(guarded)

        return decorate


def _serve(view: Callable[[Asked[Query, Body]], Answer], asked: Asked[Query, Body]) -> Answer:
    try:
        answer = _checked_first(view, asked)
    except AppError as error:
        answer = _told(problem_of(error))
        _log_problem(error, answer.status_code)
    except Exception as error:  # the edge: nothing of it may reach the caller
        _log_without_message(error)
        answer = _told(problem(500, "internal_error", "something went wrong on our side"))
    context = asked.request.context
    line = audit.trail(context, view.__name__, answer.outcome, _named(asked))
    if line is not None:
        audit.write(line)
    if "Location" in answer.headers:
        answer.headers["Location"] = f"{asked.mount}{answer.headers['Location']}"
    answer.headers["x-request-id"] = str(context.get("requestId", ""))
    answer.headers["x-content-type-options"] = "nosniff"
    return answer


def _checked_first(
    view: Callable[[Asked[Query, Body]], Answer], asked: Asked[Query, Body]
) -> Answer:
    """What every route refuses is refused before its view is called."""
    _ = asked.form
    _ = asked.caller
    _ = asked.query
    return view(asked)


def _named(asked: Asked[Query, Body]) -> Mapping[str, str]:
    try:
        return asked.named
    except NotFound:
        return {}


def _told(what: Problem) -> Answer:
    body = msgspec.json.encode(what).decode()
    return Answer(body, PROBLEM, what.status, code=what.code)


def _log_problem(error: AppError, status: int) -> None:
    level = logging.ERROR if status >= 500 else logging.INFO
    cause = _cause_of(error) if status >= 500 else ""
    log.log(level, "answered %d %s: %s%s", status, error.code, error, cause)


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
