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
from typing import Any

from localcloud.hooks.rebinding import attribute, module
from localcloud.hooks.resource_arns import Request, judge_each, tag_facts

OF_AWS = ("AWS-", "AWSSupport-")  # documents that belong to no account


def apply() -> None:
    """Judge each of the resources that such a call names; all must be allowed."""
    action_of = attribute(module("core.iam_actions"), "_action_from_target")
    tags = attribute(module("services.ec2"), "_tags")

    def named(request: Request) -> list[str]:
        action = action_of(request.headers) or ""
        return resource_arns(action, request.body, request.region, request.account)

    def facts(arn: str) -> dict[str, str]:
        if ":instance/" not in arn:
            return {}
        return tag_facts(tags, arn, "aws:ResourceTag", "ssm:resourceTag")

    judge_each("ssm", named, facts)


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
