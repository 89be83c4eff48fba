"""What a machine for the registry needs of the emulated AWS, with our hooks: an Elastic IP address
in a stack, who may move one, and which zones have machines of a type."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.aws import Key
from tests.component.emulated_aws import EmulatedAws, emulated_aws

ARN = "arn:aws:ec2:us-east-1:000000000000"
OURS = {"StringEquals": {"aws:ResourceTag/team:host": "ours"}}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


def template(tag: str) -> str:
    address = {"Domain": "vpc", "Tags": [{"Key": "Name", "Value": tag}]}
    outputs = {"Address": {"Ref": "Ip"}, "Allocation": {"Fn::GetAtt": ["Ip", "AllocationId"]}}
    return json.dumps(
        {
            "Resources": {"Ip": {"Type": "AWS::EC2::EIP", "Properties": address}},
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
    )


def outputs(formation: Any) -> dict[str, str]:
    (stack,) = formation.describe_stacks(StackName="s")["Stacks"]
    return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}


def test_a_stack_has_an_address_keeps_it_and_gives_it_back(aws: EmulatedAws) -> None:
    formation, ec2 = aws.client("cloudformation"), aws.client("ec2")
    quick = {"Delay": 1, "MaxAttempts": 20}

    formation.create_stack(StackName="s", TemplateBody=template("first"))
    formation.get_waiter("stack_create_complete").wait(StackName="s", WaiterConfig=quick)
    made = outputs(formation)
    (address,) = ec2.describe_addresses(AllocationIds=[made["Allocation"]])["Addresses"]
    assert (address["PublicIp"], address["Tags"][0]["Value"]) == (made["Address"], "first")

    formation.update_stack(StackName="s", TemplateBody=template("second"))
    formation.get_waiter("stack_update_complete").wait(StackName="s", WaiterConfig=quick)
    (address,) = ec2.describe_addresses(AllocationIds=[made["Allocation"]])["Addresses"]
    assert (address["PublicIp"], address["Tags"][0]["Value"]) == (made["Address"], "second")

    formation.delete_stack(StackName="s")
    formation.get_waiter("stack_delete_complete").wait(StackName="s", WaiterConfig=quick)
    assert ec2.describe_addresses()["Addresses"] == []


def test_without_the_hooks_it_would_not() -> None:
    """Once it would, they refuse to start and are to go. Asked in a process without hooks."""
    ask = (
        "from ministack.services.cloudformation.provisioners import _RESOURCE_HANDLERS as types;"
        "from ministack.services.ec2 import _ACTION_MAP as actions;"
        "print('AWS::EC2::EIP' in types, 'AWS::EC2::LaunchTemplate' in types,"
        "'DescribeInstanceTypeOfferings' in actions, 'DescribeInstanceTypes' in actions)"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "True"]


def test_an_old_zone_lacks_new_types(aws: EmulatedAws) -> None:
    def zones(instance_type: str) -> list[str]:
        offers = aws.client("ec2").describe_instance_type_offerings(
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [instance_type]}],
        )["InstanceTypeOfferings"]
        return [offer["Location"] for offer in offers if offer["InstanceType"] == instance_type]

    assert zones("t3.small") == ["us-east-1a", "us-east-1b"]
    assert zones("t2.small") == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert zones("t9.tiny") == []


def allow(resource: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "ec2:AssociateAddress", "Resource": resource, **more}


def user(aws: EmulatedAws, name: str, *statements: dict[str, Any]) -> Key:
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return Key(made["AccessKeyId"], made["SecretAccessKey"])


def instance(aws: EmulatedAws, tag: str) -> str:
    tags = {"ResourceType": "instance", "Tags": [{"Key": "team:host", "Value": tag}]}
    launched = aws.client("ec2").run_instances(
        ImageId="ami-plain", MinCount=1, MaxCount=1, TagSpecifications=[tags]
    )
    return str(launched["Instances"][0]["InstanceId"])


def moves(aws: EmulatedAws, key: Key, allocation: str, machine: str) -> bool:
    """Whether who has the key may give the machine the address."""
    try:
        aws.client("ec2", key).associate_address(AllocationId=allocation, InstanceId=machine)
    except ClientError as error:
        if error.response["Error"]["Code"] != "UnauthorizedOperation":
            raise
        return False
    return True


def test_an_address_is_moved_by_who_may_move_it_to_a_machine_that_may_have_it(
    aws: EmulatedAws,
) -> None:
    ours, other = (
        aws.client("ec2").allocate_address(Domain="vpc")["AllocationId"] for _ in range(2)
    )
    host, stranger = instance(aws, "ours"), instance(aws, "theirs")
    address = allow(f"{ARN}:elastic-ip/{ours}")
    machines = allow(f"{ARN}:instance/*", Condition=OURS)
    both, no_machine, no_address = (
        user(aws, "both", address, machines),
        user(aws, "no-machine", address),
        user(aws, "no-address", machines),
    )

    assert moves(aws, both, ours, host)
    assert not moves(aws, both, ours, stranger)
    assert not moves(aws, both, other, host)
    assert not moves(aws, no_machine, ours, host)
    assert not moves(aws, no_address, ours, host)
