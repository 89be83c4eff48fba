"""What of a batch of changes is announced, and where the stream is to be taken up again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.domain.events import Event
from chalicelib.domain.model import CertificateRecord
from chalicelib.errors import DependencyFailed, InvalidRequest
from chalicelib.services.announcing import Announcing, Change, Image
from tests.unit.certificate_records import ISSUED_AT, record


@dataclass
class MemoryBus:
    """Takes as many events as it has *room* for."""

    room: int = 1000
    taken: list[Event] = field(default_factory=list)

    def publish(self, events: Sequence[Event]) -> int:
        assert events, "a call for nothing is a call too many"
        taken = events[: self.room]
        if not taken:
            raise DependencyFailed("bus_unwritable", "the event bus took none of the events")
        self.taken += taken
        return len(taken)

    @property
    def serials(self) -> list[str]:
        return [event.serial for event in self.taken]


def read(image: Image) -> CertificateRecord:
    """Images are keyword arguments here."""
    if "bad" in image:
        raise InvalidRequest("malformed_image", "there is no owner", field="owner")
    return record(**image)


def issue(number: int, **more: Any) -> Change:
    serial = f"{number:040x}"
    return Change(f"at-{number}", serial, None, {"serial": serial, **more})


def supersede(number: int) -> Change:
    serial = f"{number:040x}"
    image = {"serial": serial}
    return Change(f"at-{number}", serial, image, {**image, "superseded_by": "0c" * 20})


def serials(*numbers: int) -> list[str]:
    return [f"{number:040x}" for number in numbers]


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def announcing(bus: MemoryBus) -> Announcing:
    return Announcing("prod", read, bus)


def test_events_go_out_in_the_order_of_the_changes(announcing: Announcing, bus: MemoryBus) -> None:
    assert announcing.announce([issue(1), supersede(7), issue(2), issue(3)]) is None
    assert bus.serials == serials(1, 2, 3)


def test_it_is_to_be_taken_up_at_the_first_change_whose_event_was_not_taken(
    announcing: Announcing, bus: MemoryBus
) -> None:
    """The changes before it that make no event are done with."""
    bus.room = 2
    changes = [issue(1), issue(2), supersede(7), issue(3), issue(4)]

    assert announcing.announce(changes) == "at-3"
    assert bus.serials == serials(1, 2)


def test_a_bus_that_takes_nothing_fails_the_whole_batch(
    announcing: Announcing, bus: MemoryBus
) -> None:
    bus.room = 0
    with pytest.raises(DependencyFailed):
        announcing.announce([issue(1)])


def test_changes_that_make_no_event_do_not_ask_the_bus(
    announcing: Announcing, bus: MemoryBus
) -> None:
    bus.room = 0
    assert announcing.announce([supersede(1), issue(2, access=None)]) is None
    assert announcing.announce([]) is None


def test_an_image_that_is_no_certificates_is_named_and_holds_nobody_back(
    announcing: Announcing, bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    changes = [issue(1), issue(2, bad=True), issue(3)]

    assert announcing.announce(changes) is None
    assert bus.serials == serials(1, 3)
    (said,) = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert serials(2)[0] in said.getMessage()


def test_a_revocation_follows_the_issue_it_undoes(announcing: Announcing, bus: MemoryBus) -> None:
    issued = issue(1)
    revoked_at = ISSUED_AT + timedelta(hours=1)
    revoked = Change(
        "at-2", issued.serial, issued.after, {**issued.after, "revoked_at": revoked_at}
    )

    assert announcing.announce([issued, revoked]) is None
    told = [event.detail_type for event in bus.taken]
    assert told == ["CertificateIssued", "CertificateRevoked"]


def test_each_announcement_leaves_a_line_and_what_was_not_taken_leaves_none(
    announcing: Announcing, bus: MemoryBus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bus.room = 1
    announcing.announce([issue(1), issue(2)])

    assert f"announced CertificateIssued of {serials(1)[0]}" in caplog.text
    assert serials(2)[0] not in caplog.text
