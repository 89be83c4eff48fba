"""SSM calls that name several resources, or name them otherwise than by `Name`.

MiniStack evaluates them against the resource `*`, so a policy that names a parameter, a path, a
document or an instance never allows them, and one that allows `*` allows everything. AWS evaluates
each resource by ARN: of SendCommand the document and every instance, with the instance's tags for
conditions. GetCommandInvocation and DescribeInstanceInformation have no resource but `*`, there as
here.
https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssystemsmanager.html
"Actions, resources, and condition keys for AWS Systems Manager"
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind
from localcloud.hooks.resource_arns import Request, name_resources

OF_AWS = ("AWS-", "AWSSupport-")  # documents that belong to no account

# What the request at hand names; set while its resource is looked for, read when it is judged.
named_resources: ContextVar[list[str] | None] = ContextVar("named_resources", default=None)


def apply() -> None:
    """Judge each of the resources that such a call names; all must be allowed."""
    actions, evaluator = module("core.iam_actions"), module("core.iam_evaluator")
    action_of = attribute(actions, "_action_from_target")
    tags = attribute(module("services.ec2"), "_tags")
    name_resources(_naming(action_of))
    rebind(evaluator, "enforce", lambda inner: _enforcing(inner, tags))


def resource_arns(action: str, body: bytes, region: str, account: str) -> list[str]:
    """ARNs of what an SSM call names; none for calls that name one parameter by `Name`."""
    try:
        request = json.loads(body or b"{}")
    except ValueError:
        return []  # the service will say what is wrong with it
    prefix = f"arn:aws:ssm:{region}:{account}:parameter/"
    if action in ("GetParameters", "DeleteParameters"):
        return [prefix + str(name).lstrip("/") for name in request.get("Names") or []]
    if action == "GetParametersByPath":
        return [prefix + str(request.get("Path", "/")).strip("/")]
    if action == "SendCommand":
        return _of_command(request, region, account)
    return []


def _of_command(request: dict[str, Any], region: str, account: str) -> list[str]:
    document = str(request.get("DocumentName", ""))
    owner = "" if document.startswith(OF_AWS) else account
    instances = [str(each) for each in request.get("InstanceIds") or []]
    for target in request.get("Targets") or []:
        by_id = str(target.get("Key")).lower() == "instanceids"
        instances += target.get("Values") or [] if by_id else ["*"]
    return [
        f"arn:aws:ssm:{region}:{owner}:document/{document}",
        *(f"arn:aws:ec2:{region}:{account}:instance/{each}" for each in instances),
    ]


def _naming(
    action_of: Callable[[Mapping[str, str]], str | None],
) -> Callable[[Request], str | None]:
    """The first ARN stands for all that are named; _enforcing judges each of them."""

    def first(request: Request) -> str | None:
        arns = []
        if request.service == "ssm":
            action = action_of(request.headers) or ""
            arns = resource_arns(action, request.body, request.region, request.account)
        named_resources.set(arns or None)
        return arns[0] if arns else None

    return first


def _enforcing(inner: Any, tags: Any) -> Any:
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
            context = {**(service_context or {}), **(_tag_keys(arn, tags) if arns else {})}
            denied = inner(access_key, action, service, region, arn, context)
            if denied:
                return denied
        return None

    return enforce


def _tag_keys(arn: str, tags: Any) -> dict[str, str]:
    """The condition keys that an instance's tags make."""
    _, is_instance, name = arn.partition(":instance/")
    found = (tags.get(name) or []) if is_instance else []
    return {
        f"{prefix}/{tag['Key']}": tag["Value"]
        for tag in found
        for prefix in ("aws:ResourceTag", "ssm:resourceTag")
    }
