"""Elastic IP addresses: made by a stack, and given to machines by those who may.

MiniStack has their API, but CloudFormation there does not know the type AWS::EC2::EIP; it evaluates
AssociateAddress by the instance alone, of whose tags conditions learn nothing. On AWS the address
and the instance must both be allowed, by ARN, with the tags of each for conditions; of an instance
its network interface too, which no instance here has.
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"Actions, resources, and condition keys for Amazon EC2"
"""

from __future__ import annotations

from typing import Any

from localcloud.hooks.rebinding import attribute, module
from localcloud.hooks.resource_arns import Request, judge_each, tag_facts

TYPE = "AWS::EC2::EIP"
KINDS = {"AllocationId": "elastic-ip", "InstanceId": "instance"}

Properties = dict[str, Any]


class AlreadyThere(Exception):
    """MiniStack makes Elastic IP addresses itself: this hook is to go."""


def apply() -> None:
    """Let stacks have them, and judge who associates one. Raises AlreadyThere."""
    handlers = attribute(module("services.cloudformation.provisioners"), "_RESOURCE_HANDLERS")
    if TYPE in handlers:
        raise AlreadyThere(TYPE)
    addresses = Addresses()
    handlers[TYPE] = {
        "create": addresses.create,
        "update": addresses.update,
        "delete": addresses.delete,
    }
    _judge_associations()


class Addresses:
    """As CloudFormation handles them: known by the address, with the allocation's id beside it."""

    def __init__(self) -> None:
        """Find what is needed of the emulator's EC2; raises Missing."""
        machines = module("services.ec2")
        self._allocate = attribute(machines, "_allocate_address")
        self._release = attribute(machines, "_release_address")
        self._records = attribute(machines, "_addresses")
        self._tags = attribute(machines, "_tags")

    def create(self, logical_id: str, properties: Properties, stack: str) -> tuple[str, Properties]:
        """Allocate one; its address, and what GetAtt gives."""
        before = set(self._records.keys())
        self._allocate({"Domain": properties.get("Domain", "vpc")})
        (allocation,) = set(self._records.keys()) - before
        self._tag(allocation, properties)
        return self._made(allocation)

    def update(
        self, address: str, old: Properties, new: Properties, stack: str
    ) -> tuple[str, Properties]:
        """Its tags are all that may change of ours."""
        allocation = self._allocation(address)
        self._tag(allocation, new)
        return self._made(allocation)

    def delete(self, address: str, properties: Properties) -> None:
        """Release it."""
        self._release({"AllocationId": self._allocation(address)})

    def _made(self, allocation: str) -> tuple[str, Properties]:
        address = str(self._records[allocation]["PublicIp"])
        return address, {"PublicIp": address, "AllocationId": allocation}

    def _allocation(self, address: str) -> str:
        (found,) = (a for a in self._records.values() if a["PublicIp"] == address)
        return str(found["AllocationId"])

    def _tag(self, allocation: str, properties: Properties) -> None:
        self._tags[allocation] = list(properties.get("Tags", []))


def _judge_associations() -> None:
    parameter = attribute(module("core.iam_actions"), "_param")
    tags = attribute(module("services.ec2"), "_tags")

    def named(request: Request) -> list[str]:
        def given(name: str) -> str:
            return str(parameter(request.body, request.query, name) or "")

        if given("Action") != "AssociateAddress":
            return []
        prefix = f"arn:aws:ec2:{request.region}:{request.account}"
        return [f"{prefix}:{kind}/{given(name)}" for name, kind in KINDS.items() if given(name)]

    judge_each("ec2", named, lambda arn: tag_facts(tags, arn, "aws:ResourceTag", "ec2:ResourceTag"))
