"""What is told of a CloudFormation operation that failed."""

from __future__ import annotations

from typing import Any

import pytest

from operations import stack
from operations.cloud import CommandError


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(stack, "_POLL_SECONDS", 0)


class Cloudformation:
    """One stack whose operations all end in *status*, each with one failure in its events."""

    def __init__(self, status: str) -> None:
        self.status = status
        self.events: list[dict[str, str]] = []

    def client(self, service: str) -> Cloudformation:
        assert service == "cloudformation"
        return self

    def delete_stack(self, **arguments: str) -> None:
        self.fail("Policy", arguments["ClientRequestToken"])

    def update_stack(self, **arguments: Any) -> None:
        self.fail("Table", arguments["ClientRequestToken"])

    def fail(self, resource: str, operation: str) -> None:
        self.events.insert(
            0,
            {
                "LogicalResourceId": resource,
                "ResourceType": "AWS::Some::Type",
                "ResourceStatus": "UPDATE_FAILED",
                "ResourceStatusReason": "in use",
                "ClientRequestToken": operation,
            },
        )

    def describe_stacks(self, **arguments: str) -> dict[str, Any]:
        return {"Stacks": [{"StackStatus": self.status}]}

    def get_template_summary(self, **arguments: str) -> dict[str, Any]:
        return {"Parameters": []}

    def get_paginator(self, name: str) -> Cloudformation:
        return self

    def paginate(self, **arguments: str) -> list[dict[str, Any]]:
        return [{"StackEvents": self.events}]


def deploy(cloudformation: Cloudformation) -> str:
    aws: Any = cloudformation
    return stack.Stack(aws, "registry-trust-t").deploy({"TemplateBody": "{}"}, {})


def test_remains_that_cannot_be_deleted_are_told_at_once():
    with pytest.raises(CommandError, match=r"DELETE_FAILED\n  Policy .*: in use"):
        deploy(Cloudformation("DELETE_FAILED"))


def test_failures_of_earlier_operations_are_not_told_whatever_the_clocks_say():
    cloudformation = Cloudformation("UPDATE_ROLLBACK_COMPLETE")
    cloudformation.fail("Earlier", "another-operation")

    with pytest.raises(CommandError) as told:
        deploy(cloudformation)
    assert "Table" in str(told.value)
    assert "Earlier" not in str(told.value)
