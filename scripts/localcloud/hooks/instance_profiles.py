"""Instance profiles in policies.

MiniStack evaluates what is asked about an instance profile against the resource `*`, so a policy
that names profiles never allows it. AWS evaluates the profile's ARN. Service Authorization
Reference, "Actions, resources, and condition keys for AWS Identity and Access Management (IAM)".
"""

from __future__ import annotations

from localcloud.hooks.rebinding import attribute, module
from localcloud.hooks.resource_arns import Request, name_resources


def apply() -> None:
    """Judge calls that name an instance profile by its ARN."""
    parameter = attribute(module("core.iam_actions"), "_param")

    def profile(request: Request) -> str | None:
        if request.service != "iam":
            return None
        name = parameter(request.body, request.query, "InstanceProfileName")
        return f"arn:aws:iam::{request.account}:instance-profile/{name}" if name else None

    name_resources(profile)
