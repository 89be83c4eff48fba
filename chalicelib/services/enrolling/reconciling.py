"""Ask for the advances that are due, and for those that no event asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chalicelib.domain.enrolment.changes import REVOKED_BY_HAND
from chalicelib.domain.enrolment.model import Ask, Enrolment, EnrolmentState, Why
from chalicelib.domain.model import InstanceFacts
from chalicelib.errors import DependencyFailed
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

# More than one stack looks after; of those that EC2 does not name, the rest is named an hour later.
_FLEET = 100_000

# A stack that is given another tag's name, by mistake, must not take every certificate back.
_FEW, _MOST_UNTAGGED = 10, 0.25

_NOT_BEGUN = frozenset({EnrolmentState.LAUNCHED, EnrolmentState.GONE})


@dataclass(frozen=True, slots=True)
class Reconciling:
    """trust_version: of what is published. most: how many to ask for in one run."""

    enrolments: Enrolments
    instances: Instances
    queue: Queue
    trust_version: Callable[[], str]
    most: int
    now: Callable[[], datetime]

    def reconcile(self, *, everything: bool) -> int:
        """How many were asked for. It reads what is due, and what began or ended of late.

        everything: all that carries the tag is compared with its record; seldom, as it reads all.
        Raises DependencyFailed, Misconfigured (nothing is published yet); when EC2 does not answer
        the others are asked for all the same.
        """
        asked, silent = self._ask(self._due(), Why.LOOK, 0), None
        try:
            asked += self._ask(self._missed(everything), Why.EVENT, asked)
        except DependencyFailed as error:
            silent = error
        outdated = self.enrolments.outdated(self.trust_version(), max(0, self.most - asked))
        asked += self._ask(outdated, Why.EVENT, asked)
        if silent is not None:
            raise silent
        return asked

    def _due(self) -> Sequence[str]:
        now = self.now()
        due = self.enrolments.due(now - GRACE, self.most)
        return [id_ for id_, seen in due if self.enrolments.postpone(id_, seen, now + AGAIN_AFTER)]

    def _missed(self, everything: bool) -> Sequence[str]:
        """Instances that are not recorded as EC2 shows them: an event was lost, or is late."""
        now = self.now()
        seen, unseen = self._seen(everything, now)
        known = self.enrolments.get_many(list(seen)) if seen else {}
        return [
            *unseen,
            *(id_ for id_, facts in seen.items() if not _fits(known.get(id_), facts, now)),
        ]

    def _seen(
        self, everything: bool, now: datetime
    ) -> tuple[Mapping[str, InstanceFacts], Sequence[str]]:
        """What EC2 names, and those enrolled that it does not: they may have lost their tag."""
        if not everything:
            return {**self.instances.launched_since(now - LAUNCHES), **self.instances.ended()}, ()
        seen = self.instances.tagged()
        enrolled = self.enrolments.outdated("", _FLEET)  # than none: all of them
        unseen = [id_ for id_ in enrolled if id_ not in seen]
        if len(unseen) > _FEW and len(unseen) > len(enrolled) * _MOST_UNTAGGED:
            log.error("%d of %d have lost the tag: is it named right?", len(unseen), len(enrolled))
            return seen, ()
        return seen, unseen

    def _ask(self, ids: Sequence[str], why: Why, before: int) -> int:
        """Ask for these, so that with those *before* they are spread evenly; not for too many."""
        step = timedelta(seconds=RUN_SECONDS) / self.most
        spread = [
            Ask(id_, why, step * place)
            for place, id_ in enumerate(ids[: max(0, self.most - before)], start=before)
        ]
        if spread:
            self.queue.ask(spread)
            log.info("asked for %d instances", len(spread))
        return len(spread)


def _fits(known: Enrolment | None, facts: InstanceFacts, now: datetime) -> bool:
    """Whether its record knows of its start, its tag and its end; or will by an event, or when it
    is due."""
    gone = known is not None and known.state is EnrolmentState.GONE
    if facts.access is None:
        return known is None or gone
    if facts.ended:
        return gone
    if not facts.running or facts.launched_at > now - EVENTS_TAKE:
        return True
    if known is None or known.state in _NOT_BEGUN:
        return False
    if known.at_rest and known.code != REVOKED_BY_HAND:
        return known.knows(facts)
    return True
