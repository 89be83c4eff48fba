"""The function that follows the table's stream, called as Lambda calls it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib import bootstrap
from chalicelib.entrypoints.streams import announce_certificates
from chalicelib.errors import DependencyFailed
from chalicelib.services.announcing import Change

SERIAL = "5a" * 20


@dataclass
class Announcing:
    """Answers *first*, whatever it is told."""

    first: str | None = None
    told: list[Change] = field(default_factory=list)
    error: Exception | None = None

    def announce(self, changes: Iterable[Change]) -> str | None:
        self.told += changes
        if self.error is not None:
            raise self.error
        return self.first


@pytest.fixture
def announcing(monkeypatch: pytest.MonkeyPatch) -> Announcing:
    made = Announcing()
    monkeypatch.setattr(bootstrap, "services", lambda: SimpleNamespace(announcing=made))
    return made


def stream_record(number: int, **images: Any) -> dict[str, Any]:
    """Of the shape in Lambda Developer Guide, "Using AWS Lambda with Amazon DynamoDB"."""
    return {
        "eventID": f"{number:032x}",
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1767322800.0,
            "Keys": {"serial": {"S": SERIAL}},
            "SequenceNumber": str(number),
            "SizeBytes": 26,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
            **images,
        },
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2026-01-02",
    }


def called_with(*records: dict[str, Any]) -> Any:
    return announce_certificates({"Records": list(records)}, None)


def test_each_record_is_a_change_in_the_streams_order(announcing: Announcing) -> None:
    new, old = {"serial": {"S": SERIAL}, "a": {"S": "1"}}, {"serial": {"S": SERIAL}}

    assert called_with(
        stream_record(1, NewImage=new),
        stream_record(2, OldImage=old, NewImage=new),
        stream_record(3, OldImage=old),
    ) == {"batchItemFailures": []}
    assert announcing.told == [
        Change("1", SERIAL, None, new),
        Change("2", SERIAL, old, new),
        Change("3", SERIAL, old, None),
    ]


def test_the_record_to_come_back_to_is_reported_by_its_number(announcing: Announcing) -> None:
    announcing.first = "2"
    answer = called_with(stream_record(1), stream_record(2), stream_record(3))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "2"}]}


def test_a_failure_of_all_is_an_error_that_lambda_sees(announcing: Announcing) -> None:
    announcing.error = DependencyFailed("bus_unwritable", "the event bus took none of the events")
    with pytest.raises(DependencyFailed):
        called_with(stream_record(1))
