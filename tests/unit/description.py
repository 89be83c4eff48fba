"""Holds answers against the description that the API gives of itself."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import jsonschema_rs
from chalice.test import HTTPResponse

from chalicelib.entrypoints.openapi import description


def assert_described(request: str, answer: HTTPResponse) -> None:
    """request: "METHOD /path". Status, media type, headers and document are as described."""
    method, path = request.split(" ", 1)
    operation = description()["paths"][_described_path(path, method.lower())][method.lower()]
    assert str(answer.status_code) in operation["responses"], request
    told = operation["responses"][str(answer.status_code)]
    kind = answer.headers["Content-Type"]
    assert kind in told["content"], request
    assert set(told["headers"]) <= set(answer.headers), request
    if kind.endswith("json"):
        schema = json.dumps(told["content"][kind]["schema"])
        _validator(schema).validate(json.loads(answer.body))


def _described_path(path: str, method: str) -> str:
    """As API Gateway chooses: a path spelled out comes before one with a variable."""
    asked = path.partition("?")[0]
    fitting = [
        template
        for template, methods in description()["paths"].items()
        if re.fullmatch(re.sub("{[a-z_]+}", "[^/]*", template), asked) and method in methods
    ]
    return min(fitting, key=lambda template: "{" in template)


@cache
def _validator(schema: str) -> Any:
    whole = {**json.loads(schema), "components": description()["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
