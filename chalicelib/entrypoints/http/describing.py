"""The description of the API (OpenAPI 3.1.1), made of what its operations declare."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from chalicelib.domain.identity import INSTANCE_ID
from chalicelib.entrypoints.http import codes
from chalicelib.entrypoints.http.forms import FORM, GZIP, JSON, PEM, PROBLEM, SHELL
from chalicelib.entrypoints.http.operations import Accepts, Answers, Nothing, Operation
from chalicelib.entrypoints.http.problems import TITLES, GatewayRefusal, Problem, problem

Json = dict[str, Any]
Routes = Mapping[tuple[str, str], tuple[Operation[Any, Any], Callable[..., Any]]]

_REF = "#/components/schemas/{name}"
_FROM_CURL = " This type is what curl --data-binary @FILE says by itself."
_FORMS: Mapping[str, Json] = {
    PEM: {"type": "string", "description": "Private key, if we made it; certificate; its CA."},
    # What OpenAPI 3.1 says of bytes is that there is no type for them.
    GZIP: {"description": "tar.gz: REGISTRY/ca.crt, client.cert and, if we made it, client.key."},
    SHELL: {"type": "string", "description": "A POSIX sh script that installs it, run as root."},
}
_HEADERS: Mapping[str, Json] = {
    "x-request-id": {
        "description": "Names the request in our logs; tell it when you ask for help.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "Path of the new certificate.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
}
_IN_PATH: Mapping[str, Json] = {
    "serial": {
        "name": "serial",
        "in": "path",
        "required": True,
        "description": "Up to 40 hexadecimal digits, without colons.",
        "schema": {"type": "string", "pattern": "^[0-9A-Fa-f]{1,40}$"},
    },
    "instance_id": {
        "name": "instance_id",
        "in": "path",
        "required": True,
        "description": "EC2's id of the instance: i- and 8 or 17 lower-case hexadecimal digits.",
        "schema": {"type": "string", "pattern": f"^{INSTANCE_ID}$"},
    },
}
_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Chosen by the caller, for 24 hours: the same request with the same key gets "
    "the same certificate again, never a second one.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,64}$"},
}


def paths_and_schemas(routes: Routes) -> tuple[Json, Json]:
    """OpenAPI's Paths Object, and the schemas it refers to by their names."""
    types = list(dict.fromkeys(_types(routes)))
    references, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = _tidied(schemas)
    described = _Describing(routes, dict(zip(types, references, strict=True)), schemas)
    paths: Json = {}
    for (path, method), (operation, view) in routes.items():
        paths.setdefault(path, {})[method.lower()] = described.operation(path, operation, view)
    # Their fields stand among the parameters.
    queries = {operation.query.__name__ for operation, _ in routes.values()}
    return paths, {name: schema for name, schema in schemas.items() if name not in queries}


def _tidied(schema: Any) -> Any:
    """As generators of clients want it: enums with their type, and texts without the line breaks
    and the indentation of docstrings."""
    if isinstance(schema, list):
        return [_tidied(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    tidied = {name: _tidied(value) for name, value in schema.items()}
    if isinstance(tidied.get("description"), str):
        tidied["description"] = _prose(tidied["description"])
    if isinstance(tidied.get("enum"), list):  # all of ours are of texts
        tidied["type"] = "string"
    return tidied


def _prose(text: str) -> str:
    """Its paragraphs, each in one line."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(each.split()) for each in paragraphs)


def _types(routes: Routes) -> Iterable[type[msgspec.Struct]]:
    yield from (Problem, GatewayRefusal)
    for operation, _ in routes.values():
        yield from (operation.query, operation.accepts.shape)
        yield from (answer.document for answer in operation.successes.values())


class _Describing:
    def __init__(
        self, routes: Routes, references: Mapping[type[msgspec.Struct], Json], schemas: Json
    ) -> None:
        self._routes = routes
        self._references = references
        self._schemas = schemas

    def operation(
        self, path: str, operation: Operation[Any, Any], view: Callable[..., Any]
    ) -> Json:
        summary, _, description = inspect.cleandoc(view.__doc__ or "").partition("\n\n")
        told: Json = {
            "operationId": operation_id(view),
            "tags": [path.split("/")[1]],
            "summary": " ".join(summary.split()).rstrip("."),
            "description": _prose(description) or summary,
            "parameters": self._parameters(path, operation),
            "responses": {**self._successes(path, operation), **self._problems(path, operation)},
        }
        if operation.accepts.shape is not Nothing:
            told["requestBody"] = self._body(operation.accepts)
        return told

    def _parameters(self, path: str, operation: Operation[Any, Any]) -> list[Json]:
        found = [_IN_PATH[name] for name in _parameters_in(path)]
        if operation.idempotent:
            found.append(_IDEMPOTENCY_KEY)
        queried = self._schemas[operation.query.__name__]["properties"]
        # In the order that signatures want them in, for clients that do not see to it themselves.
        for name, schema in sorted(queried.items()):
            own = {key: value for key, value in schema.items() if key != "description"}
            found.append(
                {"name": name, "in": "query", "description": schema["description"], "schema": own}
            )
        return found

    def _body(self, accepts: Accepts[Any]) -> Json:
        as_json: Json = {"schema": {**self._references[accepts.shape], **accepts.rules}}
        if accepts.examples:
            as_json["examples"] = {name: {"value": v} for name, v in accepts.examples.items()}
        content = {JSON: as_json}
        if accepts.pem_field is not None:
            of_field = self._schemas[accepts.shape.__name__]["properties"][accepts.pem_field]
            for kind in accepts.pem_types:
                about = accepts.pem_description + (_FROM_CURL if kind == FORM else "")
                content[kind] = {"schema": {**of_field, "description": about}}
        return {"required": not accepts.optional, "content": content}

    def _successes(self, path: str, operation: Operation[Any, Any]) -> Json:
        told: Json = {}
        for status, answers in operation.successes.items():
            told[str(status)] = {
                "description": answers.description,
                "headers": _headers("x-request-id", *answers.headers),
                "content": {form: {"schema": self._form(form, answers)} for form in answers.forms},
            }
            if links := self._links(path, operation, answers):
                told[str(status)]["links"] = links
        return told

    def _form(self, form: str, answers: Answers) -> Json:
        return self._references[answers.document] if form == JSON else dict(_FORMS[form])

    def _links(self, path: str, operation: Operation[Any, Any], answers: Answers) -> Json:
        """What can be asked next with what was answered."""
        if "cursor" in operation.query.__struct_fields__:
            view = self._routes[path, operation.method][1]
            return {"next": _link(view, "cursor", "$response.body#/next_cursor")}
        if "Location" not in answers.headers:
            return {}
        below = f"{path.removesuffix('/{serial}/renew')}/{{serial}}"
        return {
            operation_id(view): _link(view, "serial", "$response.body#/serial")
            for (other, _), (_, view) in self._routes.items()
            if other.startswith(below)
        }

    def _problems(self, path: str, operation: Operation[Any, Any]) -> Json:
        by_status: dict[int, list[str]] = {}
        for code in _codes(path, operation):
            by_status.setdefault(codes.STATUSES[code], []).append(code)
        return {
            str(status): self._problem(status, some) for status, some in sorted(by_status.items())
        }

    def _problem(self, status: int, some: Sequence[str]) -> Json:
        lines = [f"- `{code}`: {codes.MEANINGS[code]}" for code in some]
        code = {"type": "string", "enum": list(some)}
        narrowed: Json = {"properties": {"status": {"const": status}, "code": code}}
        schema: Json = {"allOf": [self._references[Problem], narrowed]}
        if status == 403:
            schema = {"anyOf": [schema, self._references[GatewayRefusal]]}
        return {
            "description": "\n".join([f"{TITLES[status]}:", "", *lines]),
            "headers": _headers("x-request-id"),
            "content": {PROBLEM: {"schema": schema, "example": _example(status, some[0])}},
        }


def operation_id(view: Callable[..., Any]) -> str:
    """issue_certificate is issueCertificate to the API's readers."""
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), view.__name__)


def _codes(path: str, operation: Operation[Any, Any]) -> list[str]:
    """Each once, in alphabetical order."""
    found = {*codes.EVERYWHERE, *codes.CALLER, *operation.problems}
    for name in _parameters_in(path):
        found |= {*codes.PATH[name]}
    if operation.accepts.shape is not Nothing:
        found |= {*codes.BODY}
    return sorted(found)


def _parameters_in(path: str) -> list[str]:
    return re.findall(r"{([a-z_]+)}", path)


def _example(status: int, code: str) -> Json:
    told = problem(status, code, codes.MEANINGS[code])
    return {
        name: value
        for name, value in msgspec.structs.asdict(told).items()
        if value is not msgspec.UNSET
    }


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _link(view: Callable[..., Any], parameter: str, expression: str) -> Json:
    return {"operationId": operation_id(view), "parameters": {parameter: expression}}


def headers() -> Json:
    """What _headers() refers to."""
    return dict(_HEADERS)
