"""What is asked of EventBridge, and what is made of its answers."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from chalicelib.adapters.event_bus import EventBus
from chalicelib.domain.events import DetailType, Event
from chalicelib.errors import DependencyFailed
from tests.unit.certificate_records import ISSUED_AT

THROTTLED = ClientError({"Error": {"Code": "ThrottlingException"}}, "PutEvents")


class Client:
    """Takes events; refuses those that *codes* names by serial; fails at the call *fails_at*."""

    def __init__(self, codes: dict[str, str] | None = None, fails_at: int = 0) -> None:
        self.codes = codes or {}
        self.fails_at = fails_at
        self.error: Exception = THROTTLED
        self.calls: list[list[str]] = []
        self.entries: list[dict[str, Any]] = []

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803
        assert 1 <= len(Entries) <= 10, "EventBridge takes ten entries a request"
        serials = [json.loads(entry["Detail"])["serial"] for entry in Entries]
        self.calls.append(serials)
        if len(self.calls) == self.fails_at:
            raise self.error
        self.entries += Entries
        return {"Entries": [self._result(serial) for serial in serials]}

    def _result(self, serial: str) -> dict[str, str]:
        code = self.codes.get(serial)
        return {"EventId": "e"} if code is None else {"ErrorCode": code}


def events(count: int) -> list[Event]:
    return [
        Event(DetailType.CERTIFICATE_ISSUED, str(n), ISSUED_AT, {"serial": str(n)})
        for n in range(count)
    ]


def bus(client: Any) -> EventBus:
    return EventBus(client)


def test_an_event_is_of_our_source_and_of_the_time_it_happened() -> None:
    client = Client()
    assert bus(client).publish(events(1)) == 1

    (entry,) = client.entries
    assert (entry["Source"], entry["DetailType"]) == ("registry-trust", "CertificateIssued")
    assert entry["Time"] == ISSUED_AT
    assert json.loads(entry["Detail"]) == {"serial": "0"}
    assert "EventBusName" not in entry, "the default bus is the one that goes unnamed"


def test_events_go_in_batches_of_ten_in_order() -> None:
    client = Client()
    assert bus(client).publish(events(23)) == 23

    assert [len(call) for call in client.calls] == [10, 10, 3]
    assert [serial for call in client.calls for serial in call] == [str(n) for n in range(23)]


@pytest.mark.parametrize(
    "code", ["ThrottlingException", "InternalFailure", "NotAuthorizedForSourceException"]
)
def test_the_row_ends_at_the_first_that_was_not_taken(code: str) -> None:
    """The rest of its batch is in the same request; the next batch is not sent."""
    client = Client({"12": code, "14": code})

    assert bus(client).publish(events(25)) == 12
    assert len(client.calls) == 2


def test_a_call_that_fails_keeps_what_was_taken_before() -> None:
    client = Client(fails_at=2)
    assert bus(client).publish(events(25)) == 10
    assert len(client.calls) == 2


@pytest.mark.parametrize("error", [THROTTLED, ConnectTimeoutError(endpoint_url="https://e")])
def test_a_first_call_that_fails_is_a_failure(error: Exception) -> None:
    client = Client(fails_at=1)
    client.error = error
    with pytest.raises(DependencyFailed) as told:
        bus(client).publish(events(2))
    assert told.value.__cause__ is error


def test_a_first_event_that_is_not_taken_is_a_failure() -> None:
    with pytest.raises(DependencyFailed):
        bus(Client({"0": "ThrottlingException"})).publish(events(2))
    assert bus(Client({"1": "ThrottlingException"})).publish(events(2)) == 1


@pytest.mark.parametrize("code", ["MalformedDetail", "InvalidArgument"])
def test_what_will_never_be_taken_is_said_and_keeps_nothing_back(
    code: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert bus(Client({"0": code, "3": code})).publish(events(5)) == 5

    said = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.ERROR]
    assert said == [f"CertificateIssued of {n} is never announced: {code}" for n in (0, 3)]
