"""What the clock asks for, and what an operator does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from chalice.app import CloudWatchEvent

from chalicelib import bootstrap
from chalicelib.entrypoints import schedules
from operations.authorities import _AS_SCHEDULED
from tests.unit.stand_ins import World


class Reconciling:
    """As services.enrolling.Reconciling to the clock. everything: what each run was to do."""

    def __init__(self) -> None:
        self.everything: list[bool] = []

    def reconcile(self, *, everything: bool) -> int:
        self.everything.append(everything)
        return 7


@pytest.fixture
def reconciling() -> Reconciling:
    return Reconciling()


@pytest.fixture(autouse=True)
def _services(world: World, reconciling: Reconciling, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(trust=world.trust, reconciling=reconciling)
    monkeypatch.setattr(bootstrap, "services", lambda: made)


def ran(source: str) -> Any:
    event = {**_AS_SCHEDULED, "source": source}
    return schedules.refresh_crl(event, None)


def test_the_clock_publishes_when_it_is_time_to(world: World) -> None:
    assert ran("aws.events") == {"crl_number": 1}
    assert ran("aws.events") == {"crl_number": None}
    assert len(world.bundles.published) == 1


def test_an_operator_has_it_published_at_once() -> None:
    """After a rotation, say, when nobody wants to wait for an hour."""
    assert ran("aws.events") == {"crl_number": 1}
    assert ran(str(_AS_SCHEDULED["source"])) == {"crl_number": 2}
    assert CloudWatchEvent(_AS_SCHEDULED, None).source != "aws.events"


def test_all_instances_are_compared_once_an_hour_and_for_operators(
    reconciling: Reconciling,
) -> None:
    """By the time of the event, which stays the same when Lambda tries again."""
    runs = [
        ("aws.events", "2026-01-02T03:00:59Z"),
        ("aws.events", "2026-01-02T03:01:00Z"),
        ("aws.events", "2026-01-02T03:59:59Z"),
        ("operator", "2026-01-02T03:30:00Z"),
    ]
    for source, time in runs:
        event = {**_AS_SCHEDULED, "source": source, "time": time}
        assert schedules.reconcile_instances(event, None) == {"asked": 7}
    assert reconciling.everything == [True, False, False, True]
