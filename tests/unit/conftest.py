"""A fresh world in memory for each test, and the API on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import app
from chalicelib import bootstrap
from tests.unit.description import assert_described
from tests.unit.signed_gateway import REQUEST_ID, Api
from tests.unit.stand_ins import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def api(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """Whatever a test asks, no answer may lack the request id, let itself be cached, or be another
    than the API's description says."""
    monkeypatch.setattr(bootstrap, "services", lambda: world)
    made = Api(app.app)
    yield made
    for request, answer in made.exchanges:
        assert_described(request, answer)
        assert answer.headers["x-request-id"] == REQUEST_ID
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
