"""Asking through the queue, on a real emulator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib.adapters.queue import EnrolmentQueue
from chalicelib.domain.enrolment.model import Ask, Why
from chalicelib.errors import DependencyFailed
from localcloud.processes import until
from tests.component.emulated_aws import EmulatedAws, emulated_aws


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture
def sqs(aws: EmulatedAws) -> Any:
    return aws.client("sqs")


@pytest.fixture
def url(sqs: Any) -> Iterator[str]:
    """Of an empty queue."""
    made = sqs.create_queue(QueueName="enrolment")["QueueUrl"]
    yield made
    sqs.delete_queue(QueueUrl=made)


@pytest.fixture
def queue(sqs: Any, url: str) -> EnrolmentQueue:
    return EnrolmentQueue(lambda: sqs, url)


def asks(count: int, **more: Any) -> list[Ask]:
    return [Ask(f"i-{number:017x}", Why.EVENT, **more) for number in range(count)]


def received(sqs: Any, url: str) -> list[dict[str, str]]:
    """What can be received now, each once."""
    found: list[dict[str, str]] = []
    while True:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        messages = answer.get("Messages", [])
        found += [json.loads(message["Body"]) for message in messages]
        if not messages:
            return found


def test_a_message_names_the_instance_and_why(queue: EnrolmentQueue, sqs: Any, url: str) -> None:
    queue.ask([Ask("i-0123456789abcdef0", why) for why in Why])
    bodies = sorted(received(sqs, url), key=lambda body: body["why"])
    assert bodies == [
        {"instance_id": "i-0123456789abcdef0", "why": why}
        for why in ("admin", "certificates", "event", "look")
    ]


@pytest.mark.parametrize("count", [0, 1, 10, 11, 35])
def test_all_are_asked_for_ten_in_a_request(
    queue: EnrolmentQueue, sqs: Any, url: str, count: int
) -> None:
    calls = []
    sqs.meta.events.register("before-call", lambda model, **_: calls.append(model.name))
    queue.ask(asks(count))
    assert calls == ["SendMessageBatch"] * (-(-count // 10))
    assert sorted(body["instance_id"] for body in received(sqs, url)) == [
        ask.instance_id for ask in asks(count)
    ]


def test_a_delayed_ask_comes_later(queue: EnrolmentQueue, sqs: Any, url: str) -> None:
    queue.ask(asks(1, delay=timedelta(seconds=2)))
    assert received(sqs, url) == []
    assert until(lambda: len(received(sqs, url)) == 1, 10)


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [(timedelta(seconds=-1), 0), (timedelta(minutes=15), 900), (timedelta(days=1), 900)],
)
def test_no_delay_is_longer_than_sqs_takes(
    queue: EnrolmentQueue, sqs: Any, delay: timedelta, seconds: int
) -> None:
    """A longer one would be refused, and with it the other nine."""
    sent: list[Any] = []
    event = "provide-client-params.sqs.SendMessageBatch"
    sqs.meta.events.register(event, lambda params, **_: sent.extend(params["Entries"]))
    queue.ask(asks(1, delay=delay))
    assert [entry["DelaySeconds"] for entry in sent] == [seconds]


def failing(first: bool) -> Callable[..., None]:
    """Has SQS refuse one message of the first batch, or of the last."""
    calls: list[int] = []

    def fail(parsed: dict[str, Any], **_: Any) -> None:
        calls.append(1)
        if (len(calls) == 1) == first and parsed.get("Successful"):
            refused = parsed["Successful"].pop()
            error = {"Id": refused["Id"], "Code": "InternalError", "SenderFault": False}
            parsed["Failed"] = [error]

    return fail


@pytest.mark.parametrize("first", [True, False])
def test_one_that_was_not_taken_is_told_and_keeps_none_back(
    queue: EnrolmentQueue, sqs: Any, url: str, first: bool
) -> None:
    """The emulator refuses none of a batch alone, so its answer is changed on the way."""
    sqs.meta.events.register("after-call.sqs.SendMessageBatch", failing(first))
    with pytest.raises(DependencyFailed) as caught:
        queue.ask(asks(15))
    assert caught.value.code == "queue_unwritable"
    assert len(received(sqs, url)) == 15


def test_a_queue_that_is_not_there_is_a_dependency_that_failed(sqs: Any, url: str) -> None:
    with pytest.raises(DependencyFailed):
        EnrolmentQueue(lambda: sqs, url + "-not").ask(asks(1))


def test_a_queue_that_cannot_be_reached_is_a_dependency_that_failed(sqs: Any, url: str) -> None:
    def unreachable(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url=url)

    sqs.meta.events.register("before-call.sqs.SendMessageBatch", unreachable)
    with pytest.raises(DependencyFailed):
        EnrolmentQueue(lambda: sqs, url).ask(asks(1))


def test_nothing_to_ask_makes_no_client() -> None:
    def no_client() -> Any:
        raise AssertionError("a client was made")

    EnrolmentQueue(no_client, "https://queue.invalid").ask([])
