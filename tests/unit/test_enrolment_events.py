"""The functions that enrol instances, called as Lambda calls them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

import app
from chalicelib import bootstrap
from chalicelib.adapters.queue import EnrolmentQueue
from chalicelib.domain.enrolment.model import Ask, Why
from chalicelib.entrypoints import enrolment
from chalicelib.errors import DependencyFailed

INSTANCE, OLD_INSTANCE, OTHER = "i-0123456789abcdef0", "i-0123abcd", "i-0fedcba9876543210"
NO_INSTANCES = [
    "",
    "i-",
    "i-0123456789abcdef",
    "I-0123456789abcdef0",
    "i-0123456789ABCDEF0",
    "i-0123456789abcdef0\n",
    "mi-0123456789abcdef0",
    "i-0123456789abcdef0/../x",
    "i-０123abcd",  # noqa: RUF001  # a digit to str.isdigit, to EC2 none
    None,
    7,
    ["i-0123abcd"],
]


@dataclass
class Services:
    """As bootstrap.Services to these functions; fails of *failing* are told to come again."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    advanced: list[tuple[str, Ask]] = field(default_factory=list)
    failing: Sequence[str] = ()
    error: Exception | None = None

    @property
    def asking(self) -> Any:
        return SimpleNamespace(
            instance_changed=lambda instance_id: self._ask("instance", instance_id),
            tag_changed=lambda instance_id: self._ask("tag", instance_id),
            command_ended=lambda instance_id: self._ask("command", instance_id),
        )

    @property
    def enrolling(self) -> Any:
        return SimpleNamespace(advance_all=self._advance_all)

    def _ask(self, kind: str, instance_id: str) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append((kind, instance_id))

    def _advance_all(self, asks: Sequence[tuple[str, Ask]]) -> Sequence[str]:
        if self.error is not None:
            raise self.error
        self.advanced += asks
        return [message_id for message_id, _ in asks if message_id in self.failing]


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Services:
    made = Services()
    monkeypatch.setattr(bootstrap, "services", lambda: made)
    return made


def event_of(source: str, kind: str, detail: dict[str, Any], *resources: object) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": kind,
        "source": source,
        "account": "123456789012",
        "time": "2026-01-02T03:04:05Z",
        "region": "us-east-1",
        "resources": list(resources),
        "detail": detail,
    }


def arn_of(instance_id: object) -> str:
    return f"arn:aws:ec2:us-east-1:123456789012:instance/{instance_id}"


def state_event(instance_id: object, state: str = "running") -> dict[str, Any]:
    """As in Amazon EC2 User Guide, "Amazon EC2 instance state changes"."""
    detail = {"instance-id": instance_id, "state": state}
    return event_of(
        "aws.ec2", "EC2 Instance State-change Notification", detail, arn_of(instance_id)
    )


def tag_event(*resources: object) -> dict[str, Any]:
    """As in EventBridge User Guide, "Tag change events on AWS resources"."""
    detail = {
        "changed-tag-keys": ["registry-trust"],
        "service": "ec2",
        "resource-type": "instance",
        "version": 3,
        "tags": {"registry-trust": "push"},
    }
    return event_of("aws.tag", "Tag Change on Resource", detail, *resources)


def command_event(instance_id: object) -> dict[str, Any]:
    """As in AWS Systems Manager User Guide, "Monitoring Systems Manager status changes"."""
    detail = {
        "command-id": "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b",
        "document-name": "AWS-RunShellScript",
        "instance-id": instance_id,
        "requested-date-time": "2026-01-02T03:04:05Z",
        "status": "Success",
    }
    return event_of("aws.ssm", "EC2 Command Invocation Status-change Notification", detail)


def message(message_id: str, body: object) -> dict[str, Any]:
    """As in Lambda Developer Guide, "Using Lambda with Amazon SQS"."""
    return {
        "messageId": message_id,
        "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {},
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:queue",
        "awsRegion": "us-east-1",
    }


def advanced(*messages: dict[str, Any]) -> Any:
    return enrolment.advance_instance({"Records": list(messages)}, None)


class TestEvents:
    @pytest.mark.parametrize("instance_id", [INSTANCE, OLD_INSTANCE])
    def test_the_instance_is_asked_for_that_changed(
        self, services: Services, instance_id: str
    ) -> None:
        enrolment.on_instance_state(state_event(instance_id), None)
        enrolment.on_instance_state(state_event(instance_id, "terminated"), None)
        assert services.asked == [("instance", instance_id)] * 2

    @pytest.mark.parametrize("instance_id", [INSTANCE, OLD_INSTANCE])
    def test_the_instance_is_asked_for_whose_tag_changed(
        self, services: Services, instance_id: str
    ) -> None:
        enrolment.on_instance_state(tag_event(arn_of(instance_id)), None)
        assert services.asked == [("tag", instance_id)]

    def test_the_instance_is_asked_for_whose_command_ended(self, services: Services) -> None:
        enrolment.on_command_state(command_event(INSTANCE), None)
        assert services.asked == [("command", INSTANCE)]

    @pytest.mark.parametrize("instance_id", NO_INSTANCES, ids=ascii)
    def test_what_names_no_instance_is_logged_and_passed_by(
        self, services: Services, caplog: pytest.LogCaptureFixture, instance_id: object
    ) -> None:
        caplog.set_level(logging.INFO)
        enrolment.on_instance_state(state_event(instance_id), None)
        enrolment.on_instance_state(tag_event(arn_of(instance_id)), None)
        enrolment.on_command_state(command_event(instance_id), None)
        assert services.asked == []
        assert len(caplog.records) == 3
        assert ascii(instance_id) in caplog.text

    def test_an_event_that_lacks_what_it_is_about_is_passed_by(self, services: Services) -> None:
        for event in (state_event(INSTANCE), command_event(INSTANCE)):
            del event["detail"]["instance-id"]
            enrolment.on_instance_state(event, None)
            enrolment.on_command_state(event, None)
        enrolment.on_instance_state(tag_event(), None)
        assert services.asked == []

    def test_the_tag_of_something_else_asks_for_nothing(self, services: Services) -> None:
        volume = "arn:aws:ec2:us-east-1:123456789012:volume/vol-0123456789abcdef0"
        enrolment.on_instance_state(tag_event(volume), None)
        assert services.asked == []

    def test_the_log_holds_no_more_than_a_printable_start_of_it(
        self, services: Services, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        enrolment.on_instance_state(state_event("\x1b[2J" + "x" * 5000), None)
        (line,) = caplog.messages
        assert line.isprintable()
        assert len(line) < 150

    def test_a_failure_is_an_error_that_lambda_sees(self, services: Services) -> None:
        services.error = DependencyFailed("ec2_unreadable", "EC2 did not answer")
        for function, event in (
            (enrolment.on_instance_state, state_event(INSTANCE)),
            (enrolment.on_command_state, command_event(INSTANCE)),
        ):
            with pytest.raises(DependencyFailed):
                function(event, None)

    def test_the_rules_take_in_what_may_matter_and_no_more(self) -> None:
        """In each state that is left out there is nothing to do, or nothing that can be done."""
        patterns = {
            source.name: source.event_pattern
            for source in app.app.event_sources
            if hasattr(source, "event_pattern")
        }
        assert patterns == {
            "on_instance_state": {
                "source": ["aws.ec2"],
                "detail-type": ["EC2 Instance State-change Notification"],
                "detail": {"state": ["running", "shutting-down", "terminated"]},
            },
            "on_command_state": {
                "source": ["aws.ssm"],
                "detail-type": ["EC2 Command Invocation Status-change Notification"],
                "detail": {
                    "status": ["Success", "Failed", "TimedOut", "Cancelled"],
                    "document-name": ["AWS-RunShellScript"],
                },
            },
        }


BAD_BODIES = {
    "no JSON": "{",
    "nothing": "",
    "no object": "[]",
    "null": "null",
    "no instance": {"why": "event"},
    "no reason": {"instance_id": INSTANCE},
    "a reason there is not": {"instance_id": INSTANCE, "why": "because"},
    "more than there is": {"instance_id": INSTANCE, "why": "event", "force": True},
    "a number": {"instance_id": 7, "why": "event"},
    "a bad id": {"instance_id": "i-0123", "why": "event"},
    "an id and a line": {"instance_id": f"{INSTANCE}\n", "why": "event"},
    "half a character": "\ud800",
    "deep": "[" * 100_000,
    "deep inside": '{"instance_id":' * 100_000,
}


class TestTheQueue:
    def test_each_message_is_an_ask_with_its_id(self, services: Services) -> None:
        bodies = [{"instance_id": INSTANCE, "why": why.value} for why in Why]
        answer = advanced(*(message(f"m{n}", body) for n, body in enumerate(bodies)))
        assert answer == {"batchItemFailures": []}
        assert services.advanced == [(f"m{n}", Ask(INSTANCE, why)) for n, why in enumerate(Why)]

    def test_what_is_asked_for_comes_out_as_it_was_put_in(self, services: Services) -> None:
        sent: list[str] = []

        def take(**batch: Any) -> dict[str, Any]:
            sent.extend(entry["MessageBody"] for entry in batch["Entries"])
            return {}

        sqs: Any = SimpleNamespace(send_message_batch=take)
        asks = [Ask(INSTANCE, why) for why in Why] + [Ask(OLD_INSTANCE, Why.EVENT)]
        EnrolmentQueue(lambda: sqs, "https://queue").ask(asks)
        advanced(*(message("m", body) for body in sent))
        assert [ask for _, ask in services.advanced] == asks

    def test_only_what_failed_comes_again(self, services: Services) -> None:
        services.failing = ["b", "d"]
        answer = advanced(*(message(n, {"instance_id": OTHER, "why": "look"}) for n in "abcd"))
        assert answer == {"batchItemFailures": [{"itemIdentifier": "b"}, {"itemIdentifier": "d"}]}

    @pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
    def test_what_is_no_message_of_ours_is_done_with_and_fails_no_other(
        self, services: Services, caplog: pytest.LogCaptureFixture, body: object
    ) -> None:
        services.failing = ["good"]
        good = {"instance_id": INSTANCE, "why": "event"}
        answer = advanced(message("bad", body), message("good", good), message("fine", good))
        assert answer == {"batchItemFailures": [{"itemIdentifier": "good"}]}
        assert [message_id for message_id, _ in services.advanced] == ["good", "fine"]
        (line,) = caplog.messages
        assert line.startswith("dropped a message")
        assert line.isprintable()
        assert len(line) < 150

    def test_a_failure_of_all_is_an_error_that_lambda_sees(self, services: Services) -> None:
        services.error = DependencyFailed("table_unreadable", "the table did not answer")
        with pytest.raises(DependencyFailed):
            advanced(message("a", {"instance_id": INSTANCE, "why": "event"}))
