"""The functions' log is told line by line, each line once."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.function_log import LATE_MS, FunctionLog


class Logs:
    """CloudWatch Logs with one group; two events a page, and none from before startTime."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.asked: list[int] = []

    def write(self, when: int, message: str, stream: str = "one") -> None:
        self.events.append({"timestamp": when, "logStreamName": stream, "message": message})

    def get_paginator(self, operation: str) -> Logs:
        assert operation == "filter_log_events"
        return self

    def paginate(self, **asked: Any) -> list[dict[str, Any]]:
        assert asked["logGroupName"] == "group"
        self.asked.append(asked["startTime"])
        found = [each for each in self.events if each["timestamp"] >= asked["startTime"]]
        return [{"events": found[at : at + 2]} for at in range(0, len(found), 2)]


@pytest.fixture
def logs() -> Logs:
    return Logs()


@pytest.fixture
def log(logs: Logs) -> FunctionLog:
    return FunctionLog(logs, "group")


def test_every_line_is_told_once_in_its_order(logs: Logs, log: FunctionLog) -> None:
    for when, message in ((3, "d"), (1, "a\n"), (2, "c"), (2, "b")):
        logs.write(when, message)

    assert list(log.new_lines()) == ["a", "c", "b", "d"]
    assert list(log.new_lines()) == []
    logs.write(4, "e")
    assert list(log.new_lines()) == ["e"]


@pytest.mark.parametrize("stream", ["one", "two"])
def test_what_comes_late_or_at_the_same_moment_is_told_too(
    logs: Logs, log: FunctionLog, stream: str
) -> None:
    logs.write(LATE_MS * 3, "first")
    assert list(log.new_lines()) == ["first"]

    logs.write(LATE_MS * 3, "same moment", stream)
    logs.write(LATE_MS * 3 - LATE_MS // 2, "late", stream)
    assert list(log.new_lines()) == ["late", "same moment"]


def test_what_was_told_long_ago_is_not_asked_for_again(logs: Logs, log: FunctionLog) -> None:
    logs.write(1, "old")
    logs.write(LATE_MS * 3, "new")

    list(log.new_lines())
    assert list(log.new_lines()) == []
    assert logs.asked == [0, LATE_MS * 2]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("START RequestId: 1 Version: $LATEST", []),
        ("REPORT RequestId: 1\tDuration: 2 ms", []),
        ('{"audit": true}', ['{"audit": true}']),
        ("RESTART RequestId", ["RESTART RequestId"]),
    ],
)
def test_lambdas_own_lines_are_left_out_and_ours_are_not(
    logs: Logs, log: FunctionLog, message: str, told: list[str]
) -> None:
    logs.write(1, message)

    assert list(log.new_lines()) == told
