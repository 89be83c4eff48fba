"""SSM calls that name several resources, or name them otherwise than by `Name`.

MiniStack evaluates them against the resource `*`, so a policy that names a parameter or a path
never allows them, and one that allows `*` allows everything. AWS evaluates each resource by ARN.
https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssystemsmanager.html
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind

# What the request at hand names; set while its resource is looked for, read when it is judged.
named_resources: ContextVar[list[str] | None] = ContextVar("named_resources", default=None)


def apply() -> None:
    """Judge each of the resources that such a call names; all must be allowed."""
    actions, evaluator = module("core.iam_actions"), module("core.iam_evaluator")
    action_of = attribute(actions, "_action_from_target")
    rebind(actions, "extract_resource_arn", lambda inner: _extracting(inner, action_of))
    rebind(evaluator, "enforce", _enforcing)


def resource_arns(action: str, body: bytes, region: str, account: str) -> list[str]:
    """ARNs of the parameters that an SSM call names; none for calls that name them by `Name`."""
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        return []  # the service will say what is wrong with it
    prefix = f"arn:aws:ssm:{region}:{account}:parameter/"
    if action in ("GetParameters", "DeleteParameters"):
        return [prefix + str(name).lstrip("/") for name in request.get("Names") or []]
    if action == "GetParametersByPath":
        return [prefix + str(request.get("Path", "/")).strip("/")]
    return []


def _extracting(inner: Any, action_of: Callable[[dict[str, str]], str | None]) -> Any:
    def extract(
        service: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query: dict[str, Any],
        region: str,
        account: str,
    ) -> str:
        arns = []
        if service == "ssm":
            arns = resource_arns(action_of(headers) or "", body, region, account)
        named_resources.set(arns or None)
        if arns:
            return arns[0]
        found: str = inner(service, method, path, headers, body, query, region, account)
        return found

    return extract


def _enforcing(inner: Any) -> Any:
    def enforce(
        access_key: str,
        action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: dict[str, Any] | None = None,
    ) -> Any:
        arns = named_resources.get() if service == "ssm" else None
        for arn in arns or [resource_arn]:
            denied = inner(access_key, action, service, region, arn, service_context)
            if denied:
                return denied
        return None

    return enforce
