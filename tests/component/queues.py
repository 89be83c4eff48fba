"""A queue that hears what a rule lets through, on the emulated AWS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.component.emulated_aws import EmulatedAws

Event = dict[str, Any]


@dataclass(frozen=True)
class Ear:
    """What came to the queue, in order, since it was last asked."""

    sqs: Any
    url: str

    def hear(self, enough: Callable[[list[Event]], bool], seconds: float = 10) -> list[Event]:
        """The events until there are enough of them; fails when they do not come in time."""
        heard: list[Event] = []
        deadline = time.monotonic() + seconds
        while not enough(heard):
            assert time.monotonic() < deadline, heard
            heard += self._received()
        return heard

    def rest(self, seconds: float = 0.5) -> list[Event]:
        """What comes within so many seconds."""
        time.sleep(seconds)
        return self._received()

    def _received(self) -> list[Event]:
        asked = {"QueueUrl": self.url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 1}
        messages = self.sqs.receive_message(**asked).get("Messages", [])
        for message in messages:
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in messages]


def listen(aws: EmulatedAws, name: str, pattern: dict[str, Any]) -> Ear:
    """A queue, and a rule of this name on the default bus that sends it what fits the pattern."""
    sqs, events = aws.client("sqs"), aws.client("events")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, Targets=[{"Id": "q", "Arn": arn["QueueArn"]}])
    return Ear(sqs, url)
