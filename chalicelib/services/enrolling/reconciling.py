"""Ask for the advances that are due, and for those that no event asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chalicelib.domain.enrolment.model import Ask, Enrolment, EnrolmentState, Why
from chalicelib.domain.model import InstanceFacts
from chalicelib.services.enrolling.needs import Enrolments, Instances, Queue

log = logging.getLogger(__name__)

# Those that are reminded of by the queue are due here only when the queue did not.
GRACE = timedelta(seconds=30)

# How long until one is asked for again that nothing came of.
AGAIN_AFTER = timedelta(minutes=5)

# How far back to look for launches whose events were lost, and how long to give an event.
LAUNCHES, EVENTS_TAKE = timedelta(hours=1), timedelta(seconds=45)

# What one run asks for is spread over the time until the next.
RUN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Reconciling:
    """trust_version: of what is published. most: how many to ask for in one run."""

    enrolments: Enrolments
    instances: Instances
    queue: Queue
    trust_version: Callable[[], str]
    most: int
    now: Callable[[], datetime]

    def reconcile(self) -> int:
        """How many were asked for. It reads what is due, and what began or ended of late.

        Raises DependencyFailed, Misconfigured (nothing is published yet).
        """
        asked = self._ask([Ask(each, Why.EVENT) for each in self._missed()], 0)
        asked += self._ask([Ask(each, Why.LOOK) for each in self._due(self.most - asked)], asked)
        outdated = self.enrolments.outdated(self.trust_version(), max(0, self.most - asked))
        return asked + self._ask([Ask(each, Why.EVENT) for each in outdated], asked)

    def _due(self, most: int) -> Sequence[str]:
        now = self.now()
        due = self.enrolments.due(now - GRACE, max(0, most))
        return [id_ for id_, seen in due if self.enrolments.postpone(id_, seen, now + AGAIN_AFTER)]

    def _missed(self) -> Sequence[str]:
        """Instances that are not recorded as EC2 shows them: the event was lost, or is late.

        Once an hour all tagged ones are looked at, not those launched of late alone: a change of
        an old one's tag may have been missed.
        """
        now = self.now()
        launched = self.instances.launched_since(now - LAUNCHES if now.minute else None)
        begun = {
            id_: facts
            for id_, facts in launched.items()
            if facts.access is not None and facts.running and facts.launched_at < now - EVENTS_TAKE
        }
        ended = self.instances.ended()
        known = self.enrolments.get_many([*begun, *ended]) if begun or ended else {}
        missed = [id_ for id_ in ended if not _is_gone(known.get(id_))]
        missed += [id_ for id_, facts in begun.items() if not _fits(known.get(id_), facts)]
        return missed[: self.most]

    def _ask(self, asks: Sequence[Ask], before: int) -> int:
        """Ask for these, so that with those *before* they are spread evenly."""
        step = timedelta(seconds=RUN_SECONDS) / self.most
        spread = [
            Ask(ask.instance_id, ask.why, step * place)
            for place, ask in enumerate(asks, start=before)
        ]
        if spread:
            self.queue.ask(spread)
            log.info("asked for %d instances", len(spread))
        return len(spread)


def _is_gone(known: Enrolment | None) -> bool:
    return known is not None and known.state is EnrolmentState.GONE


def _fits(known: Enrolment | None, facts: InstanceFacts) -> bool:
    """Whether its record knows of its start and its tag; what is under way is due by itself."""
    if known is None or known.state in (EnrolmentState.LAUNCHED, EnrolmentState.GONE):
        return False
    if known.state in (EnrolmentState.ENROLLED, EnrolmentState.FAILED):
        return known.launched_at == facts.launched_at and known.access is facts.access
    return True
