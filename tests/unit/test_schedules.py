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


@pytest.fixture(autouse=True)
def _services(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "services", lambda: SimpleNamespace(trust=world.trust))


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
