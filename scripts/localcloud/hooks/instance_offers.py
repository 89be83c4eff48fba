"""DescribeInstanceTypeOfferings: which zones have machines of a type.

MiniStack does not know the action. On AWS zones differ: an old one lacks new types. Here the third
zone of a region is such a one. Of the filters only `instance-type` is looked at, and of places only
zones.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypeOfferings.html
"DescribeInstanceTypeOfferings"
"""

from __future__ import annotations

from typing import Any

from localcloud.hooks.rebinding import attribute, module

ACTION = "DescribeInstanceTypeOfferings"
NEW = ("t3.micro", "t3.small", "t3.medium", "t4g.small", "t4g.medium")
OLD = ("t2.micro", "t2.small", "t2.medium")
OFFERS = {"a": OLD + NEW, "b": OLD + NEW, "c": OLD}


class AlreadyThere(Exception):
    """MiniStack answers the action itself: this hook is to go."""


def apply() -> None:
    """Answer it. Raises AlreadyThere."""
    machines = module("services.ec2")
    actions = attribute(machines, "_ACTION_MAP")
    if ACTION in actions:
        raise AlreadyThere(ACTION)
    filters_in, answer = attribute(machines, "_parse_filters"), attribute(machines, "_xml")
    region = attribute(module("core.responses"), "get_region")

    def describe(request: Any) -> Any:
        wanted = filters_in(request).get("instance-type")
        items = "".join(
            f"<item><instanceType>{each}</instanceType><location>{region()}{zone}</location>"
            "<locationType>availability-zone</locationType></item>"
            for zone, offered in OFFERS.items()
            for each in offered
            if wanted is None or each in wanted
        )
        offers = f"<instanceTypeOfferingSet>{items}</instanceTypeOfferingSet>"
        return answer(200, f"{ACTION}Response", offers)

    actions[ACTION] = describe
