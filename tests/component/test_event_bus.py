"""Events on a real bus, as a queue behind a rule gets them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib.adapters.event_bus import EventBus
from chalicelib.domain.events import Event, event_of
from chalicelib.errors import DependencyFailed
from localcloud.aws import Key
from localcloud.processes import until
from tests.component.emulated_aws import EmulatedAws, emulated_aws
from tests.unit.certificate_records import record


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture
def heard(aws: EmulatedAws) -> Callable[[int], list[Any]]:
    """heard(count): what a rule on everything of ours passes on, waiting for *count* events."""
    sqs, events = aws.client("sqs"), aws.client("events")
    queue = sqs.create_queue(QueueName="heard")["QueueUrl"]
    name = ["QueueArn"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=name)["Attributes"]["QueueArn"]
    events.put_rule(Name="ours", EventPattern=json.dumps({"source": ["registry-trust"]}))
    events.put_targets(Rule="ours", Targets=[{"Id": "q", "Arn": arn}])
    found: list[Any] = []

    def receive() -> None:
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            found.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])

    def hear(count: int) -> list[Any]:
        def enough() -> bool:
            receive()
            return len(found) >= count

        assert until(enough, 10), f"only {len(found)} of {count}"
        return found

    return hear


def issued(number: int) -> Event:
    event = event_of("prod", None, record(serial=f"{number:040x}"))
    assert event is not None
    return event


def test_more_events_than_a_request_holds_all_arrive_as_they_are(
    aws: EmulatedAws, heard: Callable[[int], list[Any]]
) -> None:
    events = [issued(number) for number in range(23)]

    assert EventBus(aws.client("events")).publish(events) == 23
    envelopes = sorted(heard(23), key=lambda envelope: str(envelope["detail"]["serial"]))
    assert [envelope["detail"] for envelope in envelopes] == [event.detail for event in events]
    assert {(e["source"], e["detail-type"]) for e in envelopes} == {
        ("registry-trust", "CertificateIssued")
    }


def test_who_may_not_put_events_is_told_as_a_failure(aws: EmulatedAws) -> None:
    iam = aws.client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    client = aws.client("events", Key(key["AccessKeyId"], key["SecretAccessKey"]))

    with pytest.raises(DependencyFailed):
        EventBus(client).publish([issued(1)])
