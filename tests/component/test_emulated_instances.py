"""Instances on the emulated AWS, with our hooks: what is told of them, and how they are found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.component.emulated_aws import EmulatedAws, emulated_aws
from tests.component.queues import Ear, Event, listen

ACCOUNT = "000000000000"
TAG = "registry-trust"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture(scope="module")
def states(aws: EmulatedAws) -> Ear:
    kind = "EC2 Instance State-change Notification"
    return listen(aws, "states", {"source": ["aws.ec2"], "detail-type": [kind]})


def launch(aws: EmulatedAws, count: int = 1, **tags: str) -> list[str]:
    named = [{"Key": key, "Value": value} for key, value in tags.items()]
    more = {"TagSpecifications": [{"ResourceType": "instance", "Tags": named}]} if tags else {}
    launched = aws.client("ec2").run_instances(
        ImageId="ami-1", MinCount=count, MaxCount=count, **more
    )
    return [each["InstanceId"] for each in launched["Instances"]]


def found(aws: EmulatedAws, *filters: tuple[str, str], **asked: Any) -> list[dict[str, Any]]:
    """What DescribeInstances finds, on all pages."""
    named = [{"Name": name, "Values": [value]} for name, value in filters]
    pages = aws.client("ec2").get_paginator("describe_instances").paginate(Filters=named, **asked)
    return [one for page in pages for group in page["Reservations"] for one in group["Instances"]]


def told(events: list[Event], instance_id: str) -> list[str]:
    details = (event["detail"] for event in events)
    return [each["state"] for each in details if each["instance-id"] == instance_id]


def test_each_state_of_an_instance_is_told_in_order_and_in_aws_form(
    aws: EmulatedAws, states: Ear
) -> None:
    ec2 = aws.client("ec2")
    (instance_id,) = launch(aws)
    heard = states.hear(lambda e: told(e, instance_id) == ["pending", "running"])
    for act, way in (
        (ec2.stop_instances, ["stopping", "stopped"]),
        (ec2.start_instances, ["pending", "running"]),
        (ec2.terminate_instances, ["shutting-down", "terminated"]),
    ):
        act(InstanceIds=[instance_id])
        states.hear(lambda e, way=way: told(e, instance_id) == way)

    event = next(each for each in heard if each["detail"]["instance-id"] == instance_id)
    assert {key: event[key] for key in ("version", "source", "account", "region", "resources")} == {
        "version": "0",
        "source": "aws.ec2",
        "account": ACCOUNT,
        "region": "us-east-1",
        "resources": [f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/{instance_id}"],
    }
    assert event["detail"] == {"instance-id": instance_id, "state": "pending"}


def test_what_changes_no_state_tells_nothing(aws: EmulatedAws, states: Ear) -> None:
    (instance_id,) = launch(aws)
    states.hear(lambda e: told(e, instance_id) == ["pending", "running"])

    aws.client("ec2").start_instances(InstanceIds=[instance_id])

    assert told(states.rest(), instance_id) == []


def test_a_start_renews_the_launch_time(aws: EmulatedAws) -> None:
    ec2 = aws.client("ec2")
    (instance_id,) = launch(aws)

    def launched() -> Any:
        return found(aws, ("instance-id", instance_id))[0]["LaunchTime"]

    first = launched()
    time.sleep(1.1)  # it is told to the second
    ec2.stop_instances(InstanceIds=[instance_id])
    assert launched() == first
    ec2.start_instances(InstanceIds=[instance_id])
    assert launched() > first


def test_a_changed_tag_of_an_instance_is_told_with_the_tags_it_now_has(aws: EmulatedAws) -> None:
    pattern = {
        "source": ["aws.tag"],
        "detail-type": ["Tag Change on Resource"],
        "detail": {"service": ["ec2"], "resource-type": ["instance"], "changed-tag-keys": [TAG]},
    }
    tags, ec2 = listen(aws, "tags", pattern), aws.client("ec2")
    (instance_id,) = launch(aws, Name="n", **{TAG: "pull"})

    ec2.create_tags(Resources=[instance_id], Tags=[{"Key": TAG, "Value": "push"}])
    ec2.delete_tags(Resources=[instance_id], Tags=[{"Key": TAG}])

    changed, removed = tags.hear(lambda e: len(e) == 2)
    assert changed["resources"] == [f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/{instance_id}"]
    assert changed["detail"] == {
        "changed-tag-keys": [TAG],
        "service": "ec2",
        "resource-type": "instance",
        "version": 1,
        "tags": {"Name": "n", TAG: "push"},
    }
    assert (removed["detail"]["version"], removed["detail"]["tags"]) == (2, {"Name": "n"})
    # The twins: the value that it has already, and another key.
    ec2.create_tags(Resources=[instance_id], Tags=[{"Key": TAG, "Value": "pull"}])
    tags.hear(lambda e: len(e) == 1)
    ec2.create_tags(Resources=[instance_id], Tags=[{"Key": TAG, "Value": "pull"}])
    ec2.create_tags(Resources=[instance_id], Tags=[{"Key": "other", "Value": "x"}])
    assert tags.rest() == []


def test_instances_are_found_by_id_and_by_the_hour_of_their_launch(aws: EmulatedAws) -> None:
    one, other = launch(aws, 2)
    hour = found(aws, ("instance-id", one))[0]["LaunchTime"].strftime("%Y-%m-%dT%H*")

    def ids(*filters: tuple[str, str]) -> set[str]:
        return {each["InstanceId"] for each in found(aws, *filters)}

    assert ids(("instance-id", one)) == {one}
    assert {one, other} <= ids(("launch-time", hour))
    assert ids(("launch-time", hour), ("instance-id", other)) == {other}
    assert ids(("launch-time", "2001-01-01T00*")) == set()


def test_what_is_found_comes_in_pages_and_whole(aws: EmulatedAws) -> None:
    launched = set(launch(aws, 7, of="pages"))
    ec2 = aws.client("ec2")
    asked = [{"Name": "tag:of", "Values": ["pages"]}]

    first = ec2.describe_instances(Filters=asked, MaxResults=5)
    everything = found(aws, ("tag:of", "pages"), PaginationConfig={"PageSize": 5})

    assert len(first["Reservations"]) == 5
    assert first["NextToken"]
    assert [each["InstanceId"] for each in everything] == list(
        dict.fromkeys(each["InstanceId"] for each in everything)
    )
    assert {each["InstanceId"] for each in everything} == launched
    assert "NextToken" not in ec2.describe_instances(Filters=asked)


def test_a_terminated_instance_is_still_shown_with_its_tags(aws: EmulatedAws) -> None:
    (instance_id,) = launch(aws, **{TAG: "pull"})
    aws.client("ec2").terminate_instances(InstanceIds=[instance_id])

    (shown,) = found(aws, ("tag-key", TAG), ("instance-state-name", "terminated"))

    assert shown["InstanceId"] == instance_id
    assert shown["Tags"] == [{"Key": TAG, "Value": "pull"}]


def test_nobody_answers_for_the_metadata_of_a_terminated_instance(aws: EmulatedAws) -> None:
    (instance_id,) = launch(aws)
    assert (aws.metadata / instance_id).exists()

    aws.client("ec2").terminate_instances(InstanceIds=[instance_id])

    assert not (aws.metadata / instance_id).exists()
