"""Create or update one CloudFormation stack, and say what went wrong when it did."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

from operations.cloud import CommandError

_POLL_SECONDS = 1.0
_DEADLINE_SECONDS = 1800
_CAPABILITIES = ("CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND")

# A stack whose first creation failed can only be deleted (AWS "Stack status codes").
_NEVER_SERVED = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")


def of_stage(aws: boto3.Session, stage: str) -> Stack:
    """The stack of a stage, be it deployed or not."""
    return Stack(aws, f"registry-trust-{stage}")


class Stack:
    """A stack by its name; whether it exists is looked up at each call."""

    def __init__(self, aws: boto3.Session, name: str) -> None:
        self._cloudformation: Any = aws.client("cloudformation")
        self._name = name

    def deploy(self, template: Mapping[str, str], parameters: Mapping[str, str]) -> str:
        """Create or update; 'created', 'updated' or 'unchanged'.

        template: TemplateBody or TemplateURL. parameters: those not given keep their value.
        Raises CommandError with the resource that failed and why; the old stack is back then.
        """
        existing = self._describe()
        if existing and existing["StackStatus"] in _NEVER_SERVED:
            self._delete()
            existing = None
        if existing and not existing["StackStatus"].endswith("_COMPLETE"):
            raise CommandError(
                f"the stack is {existing['StackStatus']}: let that end, or mend it in the "
                "CloudFormation console, then deploy again"
            )
        if existing is None:
            return self._create(template, parameters)
        return self._update(template, parameters, existing)

    def parameters(self) -> dict[str, str]:
        """The values in force; empty when there is no stack."""
        existing = self._describe() or {}
        return {p["ParameterKey"]: p["ParameterValue"] for p in existing.get("Parameters", [])}

    def outputs(self) -> dict[str, str]:
        """What the stack tells of itself. Raises CommandError when there is no stack."""
        existing = self._describe()
        if existing is None:
            raise CommandError(f"{self._name} is not deployed: run scripts/deploy")
        return {o["OutputKey"]: o["OutputValue"] for o in existing.get("Outputs", [])}

    def _create(self, template: Mapping[str, str], parameters: Mapping[str, str]) -> str:
        operation = _new_operation()
        self._cloudformation.create_stack(
            StackName=self._name,
            ClientRequestToken=operation,
            Capabilities=_CAPABILITIES,
            Parameters=_as_list(parameters),
            **template,
        )
        self._wait("CREATE_COMPLETE", operation)
        return "created"

    def _update(
        self, template: Mapping[str, str], parameters: Mapping[str, str], existing: dict[str, Any]
    ) -> str:
        operation = _new_operation()
        summary = self._cloudformation.get_template_summary(**template)
        known = {p["ParameterKey"] for p in summary["Parameters"]}
        kept = [
            {"ParameterKey": p["ParameterKey"], "UsePreviousValue": True}
            for p in existing.get("Parameters", [])
            if p["ParameterKey"] in known and p["ParameterKey"] not in parameters
        ]
        try:
            self._cloudformation.update_stack(
                StackName=self._name,
                ClientRequestToken=operation,
                Capabilities=_CAPABILITIES,
                Parameters=_as_list(parameters) + kept,
                **template,
            )
        except ClientError as error:
            if "No updates are to be performed" in str(error):
                return "unchanged"
            raise
        self._wait("UPDATE_COMPLETE", operation)
        return "updated"

    def _delete(self) -> None:
        operation = _new_operation()
        self._cloudformation.delete_stack(StackName=self._name, ClientRequestToken=operation)
        self._wait("DELETE_COMPLETE", operation)

    def _wait(self, wanted: str, operation: str) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while True:
            time.sleep(_POLL_SECONDS)
            status = (self._describe() or {"StackStatus": "DELETE_COMPLETE"})["StackStatus"]
            if status == wanted:
                return
            if not status.endswith("_IN_PROGRESS"):
                raise CommandError(f"the stack is {status}\n{self._failures(operation)}")
            if time.monotonic() > deadline:
                raise CommandError(f"the stack is still {status}; look into the console")

    def _failures(self, operation: str) -> str:
        """The resources that failed in *operation*, first one first: that is the cause."""
        pages = self._cloudformation.get_paginator("describe_stack_events")
        told = []
        for page in pages.paginate(StackName=self._name):
            for event in page["StackEvents"]:
                ours = event.get("ClientRequestToken") == operation
                if ours and event["ResourceStatus"].endswith("_FAILED"):
                    reason = event.get("ResourceStatusReason", "no reason given")
                    told.append(
                        f"  {event['LogicalResourceId']} ({event['ResourceType']}): {reason}"
                    )
        return "\n".join(reversed(told)) or "  CloudFormation names no resource"

    def _describe(self) -> dict[str, Any] | None:
        try:
            found = self._cloudformation.describe_stacks(StackName=self._name)["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise
        return dict(found[0]) if found else None


def _new_operation() -> str:
    """CloudFormation marks every event of an operation with the token it was begun with."""
    return f"registry-trust-{uuid.uuid4()}"


def _as_list(parameters: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
