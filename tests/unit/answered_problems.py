"""Problems as the API answers them (RFC 9457)."""

from __future__ import annotations

import json

from chalice.test import HTTPResponse

TITLES = {
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


def assert_problem(answer: HTTPResponse, status: int, code: str, field: str | None = None) -> str:
    """By RFC 9457, with our members. Answers the detail."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    document = json.loads(answer.body)
    detail = document.pop("detail")
    expected = {"type": "about:blank", "title": TITLES[status], "status": status, "code": code}
    assert document == (expected if field is None else {**expected, "field": field})
    assert answer.status_code == status
    assert isinstance(detail, str)
    assert 8 <= len(detail) <= 200
    return detail
