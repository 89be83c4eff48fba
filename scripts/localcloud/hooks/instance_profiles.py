"""Instance profiles in policies.

MiniStack evaluates what is asked about an instance profile against the resource `*`, so a policy
that names profiles never allows it. AWS evaluates the profile's ARN. Service Authorization
Reference, "Actions, resources, and condition keys for AWS Identity and Access Management (IAM)".
"""

from __future__ import annotations

from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind


def apply() -> None:
    """Judge calls that name an instance profile by its ARN."""
    actions = module("core.iam_actions")
    parameter = attribute(actions, "_param")

    def wrap(inner: Any) -> Any:
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
            name = parameter(body, query, "InstanceProfileName") if service == "iam" else ""
            if name:
                return f"arn:aws:iam::{account}:instance-profile/{name}"
            found: str = inner(service, method, path, headers, body, query, region, account)
            return found

        return extract

    rebind(actions, "extract_resource_arn", wrap)
