"""What the deployed template says of a part, so that it can be made again as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import boto3

from operations.cloud import CommandError

# Logical id and output have the same name.
TABLES = {
    "certificates": "CertificatesTable",
    "state": "StateTable",
    "instances": "InstancesTable",
}
BUCKETS = {"config": "ConfigBucket", "registry": "RegistryBucket"}

_PLACE = re.compile(r"\$\{([A-Za-z0-9:.]+)\}")


class Template:
    """The template of a stage's stack. values: of its references, as far as parts need them."""

    def __init__(self, resources: Mapping[str, Any], values: Mapping[str, str]) -> None:
        self._resources = resources
        self._values = values

    @classmethod
    def of_stage(cls, aws: boto3.Session, stage: str, outputs: Mapping[str, str]) -> Template:
        """As it is deployed."""
        answer = aws.client("cloudformation").get_template(StackName=f"registry-trust-{stage}")
        body = answer["TemplateBody"]
        document = json.loads(body) if isinstance(body, str) else body
        resources = document["Resources"]
        keys = [id_ for id_, each in resources.items() if each["Type"] == "AWS::KMS::Key"]
        values = {f"{logical_id}.Arn": outputs["KeyArn"] for logical_id in keys}
        for logical_id in BUCKETS.values():
            values[logical_id] = outputs[logical_id]
            values[f"{logical_id}.Arn"] = f"arn:{partition(outputs)}:s3:::{outputs[logical_id]}"
        return cls(resources, values)

    def properties(self, logical_id: str) -> dict[str, Any]:
        """A resource's, with the references in them replaced. Raises CommandError."""
        if logical_id not in self._resources:
            raise CommandError(f"the deployed stack has no {logical_id}: run scripts/deploy first")
        return dict(self._resolved(self._resources[logical_id]["Properties"]))

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function == "Ref":
                return self._value(str(argument))
            if function == "Fn::GetAtt":
                return self._value(".".join(argument) if isinstance(argument, list) else argument)
            if function == "Fn::Sub":
                return _PLACE.sub(lambda place: self._value(place[1]), argument)
        return {name: self._resolved(each) for name, each in value.items()}

    def _value(self, reference: str) -> str:
        if reference not in self._values:
            raise CommandError(f"the template refers to {reference}, which is not understood here")
        return self._values[reference]


def partition(outputs: Mapping[str, str]) -> str:
    """aws, or that of another part of the world."""
    return outputs["KeyArn"].split(":")[1]
