"""Tell the rest of the account what became of certificates.

The table's stream is the outbox: a certificate that was recorded is announced, if not at once then
later, and perhaps more than once. Nothing that issues or revokes waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chalicelib.domain.events import Event, event_of
from chalicelib.domain.model import CertificateRecord
from chalicelib.errors import InvalidRequest

log = logging.getLogger(__name__)

Image = Mapping[str, Any]  # an item as the table's stream shows it


class Bus(Protocol):
    """Where events go."""

    def publish(self, events: Sequence[Event]) -> int:
        """How many it took, an unbroken row from the first. Raises DependencyFailed: not one."""


@dataclass(frozen=True, slots=True)
class Change:
    """One item before and after, None where there is none; *position*: its place in the stream."""

    position: str
    serial: str
    before: Image | None
    after: Image | None


@dataclass(frozen=True, slots=True)
class Announcing:
    """read: what an image holds; raises InvalidRequest for one that is no certificate's."""

    stage: str
    read: Callable[[Image], CertificateRecord]
    bus: Bus

    def announce(self, changes: Iterable[Change]) -> str | None:
        """The position to come back to, of the first change not announced; None when all are.

        *changes* are in the stream's order, and what follows that position counts as not
        announced, though it may be. Raises DependencyFailed when nothing was announced.
        """
        found = [(change, self._event_of(change)) for change in changes]
        telling = [(change.position, event) for change, event in found if event is not None]
        told = self.bus.publish([event for _, event in telling]) if telling else 0
        for _, event in telling[:told]:
            log.info("announced %s of %s", event.detail_type, event.serial)
        return telling[told][0] if told < len(telling) else None

    def _event_of(self, change: Change) -> Event | None:
        """An image that is no certificate's would be none the next time either: pass over it."""
        try:
            before, after = self._record_of(change.before), self._record_of(change.after)
            return event_of(self.stage, before, after)
        except InvalidRequest as error:
            log.error("the change of %s is not announced: %s", change.serial, error)
            return None

    def _record_of(self, image: Image | None) -> CertificateRecord | None:
        return None if image is None else self.read(image)
