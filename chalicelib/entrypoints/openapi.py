"""GET /openapi.json: the API's own description."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from msgspec import Meta, Struct

from chalicelib.entrypoints import admin, certs, instances, trust
from chalicelib.entrypoints.http.asked import Asked
from chalicelib.entrypoints.http.blueprint import Answer, ApiBlueprint, json_answer
from chalicelib.entrypoints.http.describing import headers, paths_and_schemas
from chalicelib.entrypoints.http.operations import NO_BODY, Answers, Nothing, Operation

blueprint = ApiBlueprint(__name__)

_ABOUT = """\
Certificates for the clients of a private Docker registry.

Every request is signed with AWS Signature Version 4 for the service execute-api; curl does it with
`--aws-sigv4`. IAM decides by path and method who may ask: what is under /admin is for admins, the
rest for developers, and there everybody sees and touches only what is their own. What is somebody
else's is answered like what does not exist.

Texts are UTF-8, times RFC 3339 in UTC to the second, serials lower-case hexadecimal digits without
0x. Fields that there are not are refused in bodies, and may be added to answers.

Where there are several forms of an answer, the Accept header chooses; application/json is the
first. application/gzip has to be named alone: beside others API Gateway may hand it out as text, in
base64.

Problems have the form of RFC 9457, with a `code` that programs may act on, and the `field` that is
to blame where one is. A request that was answered with 429, 503 or 504 may be made again; with the
same Idempotency-Key it never makes a second certificate.
"""
_TAGS = {
    "certs": "Certificates of the caller",
    "admin": "Everybody's certificates, and the instances that enrol themselves, for admins",
    "trust": "What clients and the registry trust",
    "registry": "For the registry's host",
    "openapi.json": "This description",
}


class Description(Struct):
    """An OpenAPI description."""

    openapi: Annotated[str, Meta(pattern=r"^3\.1\.")]
    info: dict[str, Any]
    servers: list[dict[str, Any]]
    security: list[dict[str, Any]]
    tags: list[dict[str, Any]]
    paths: dict[str, Any]
    components: dict[str, Any]


@blueprint.route(
    "/openapi.json",
    Operation(
        method="GET",
        query=Nothing,
        accepts=NO_BODY,
        successes={200: Answers(description="OpenAPI 3.1.", document=Description)},
    ),
)
def describe_api(asked: Asked[Nothing, Nothing]) -> Answer:
    """Get this description."""
    # Relative to where the description was fetched from, so it is right under every domain.
    return json_answer({**description(), "servers": [{"url": asked.mount or "/"}]})


@cache
def description() -> dict[str, Any]:
    """The description without its servers; made when first asked for, since few ever ask."""
    registered = (certs, admin, instances, trust)
    operations = [*(module.blueprint.operations for module in registered), blueprint.operations]
    routes = {key: route for each in operations for key, route in each.items()}
    paths, schemas = paths_and_schemas(routes)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "registry-trust",
            "version": "1",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "security": [{"sigv4": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": headers(),
            "securitySchemes": {
                "sigv4": {
                    "type": "apiKey",
                    "name": "Authorization",
                    "in": "header",
                    "description": "AWS Signature Version 4 for the service execute-api.",
                    "x-amazon-apigateway-authtype": "awsSigv4",
                }
            },
        },
    }
