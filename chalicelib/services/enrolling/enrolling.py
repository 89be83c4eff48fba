"""Advance instances: look, take the next step that is due, say when to look again."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from chalicelib.domain.enrolment.changes import with_owner
from chalicelib.domain.enrolment.model import (
    LONGEST_DELAY,
    Ask,
    Enrolment,
    EnrolmentState,
    Sight,
    Step,
    Taking,
    Task,
    Why,
)
from chalicelib.domain.enrolment.steps import is_stale, next_step
from chalicelib.domain.model import CertificateRecord, InstanceFacts, RevocationReason
from chalicelib.errors import AppError, Contended, DependencyFailed, Misconfigured
from chalicelib.services.enrolling.commanding import Commanding
from chalicelib.services.enrolling.needs import Enrolments, Holder, Instances, Queue
from chalicelib.services.enrolling.plane import PLANE

log = logging.getLogger(__name__)

# Of those who work on one instance at once, the others begin anew with what the first one wrote.
ATTEMPTS = 4

# For a batch of messages: what is not begun by then comes again, and nothing is broken off. The
# function has a minute; a service that does not answer is given up after a quarter of that.
BUDGET = timedelta(seconds=30)

_STRENGTH = (Why.LOOK, Why.EVENT, Why.CERTIFICATES, Why.ADMIN)
_REASONS = {
    "terminated": RevocationReason.CESSATION_OF_OPERATION,
    "untagged": RevocationReason.PRIVILEGE_WITHDRAWN,
}


@dataclass(frozen=True, slots=True)
class Enrolling:
    """revoke: has these revoked by whom, and published. chance: 0 to 1."""

    enrolments: Enrolments
    instances: Instances
    queue: Queue
    commanding: Commanding
    holdings: Holder
    revoke: Callable[[Sequence[CertificateRecord], RevocationReason, str], None]
    now: Callable[[], datetime]
    chance: Callable[[], float]

    def advance_all(self, asks: Sequence[tuple[str, Ask]]) -> Sequence[str]:
        """Which of them failed, by the names they were given with, and are to be asked for again.

        EC2 is asked about all of them at once.
        """
        by_instance, end = _strongest(ask for _, ask in asks), self.now() + BUDGET
        failed: set[str] = set()
        known = self._known(by_instance.values(), failed)
        facts = self._facts(list(known))
        for instance_id, enrolment in known.items():
            try:
                if self.now() >= end:
                    raise DependencyFailed("no_time", "those before it took all the time there is")
                ask = by_instance[instance_id]
                self._advance(ask, enrolment, facts(instance_id))
            except AppError as error:
                log.error("%s was not advanced: %s: %s", instance_id, error.code, error)
                failed.add(instance_id)
            except Exception:  # whatever is wrong with one instance must not repeat the others
                log.exception("%s was not advanced", instance_id)
                failed.add(instance_id)
        return [name for name, ask in asks if ask.instance_id in failed]

    def _known(self, asks: Iterable[Ask], failed: set[str]) -> Mapping[str, Enrolment | None]:
        """What is recorded of those there is something to do for."""
        found: dict[str, Enrolment | None] = {}
        for ask in asks:
            try:
                known = self.enrolments.get(ask.instance_id)
            except Misconfigured as error:  # which it would be the next time, too
                log.error("%s is not advanced: %s: %s", ask.instance_id, error.code, error)
                continue
            except AppError as error:
                log.error("%s was not advanced: %s: %s", ask.instance_id, error.code, error)
                failed.add(ask.instance_id)
                continue
            if not is_stale(known, ask.why, self.now()):
                found[ask.instance_id] = known
        return found

    def _facts(self, ids: Sequence[str]) -> Callable[[str], InstanceFacts | None]:
        """What EC2 says of each. While one of its zones is in trouble it may answer for others
        alone (Amazon EC2 API Reference, DescribeInstances)."""
        try:
            return (self.instances.facts_of_all(ids) if ids else {}).get
        except DependencyFailed:
            return self.instances.facts

    def _advance(self, ask: Ask, known: Enrolment | None, instance: InstanceFacts | None) -> None:
        for _ in range(ATTEMPTS):
            try:
                self._advance_once(ask, known, instance)
                return
            except Contended:
                known = self.enrolments.get(ask.instance_id)
                instance = self.instances.facts(ask.instance_id)
        raise DependencyFailed("busy", "others are at work on this instance")

    def _advance_once(
        self, ask: Ask, known: Enrolment | None, instance: InstanceFacts | None
    ) -> None:
        if instance is None and known is not None and known.state is not EnrolmentState.GONE:
            # Its certificates are at stake: that it does not exist has to be said in so many words.
            instance = self.instances.facts(ask.instance_id)
        sight = self._sight(ask, known, instance)
        step = next_step(known, sight)
        if step is None:
            return
        if step.task in (Task.RETIRE, Task.SWEEP):
            if not self._retire(step, instance):
                return
        elif instance is not None:
            step = self.commanding.work(step, instance, sight)
        self._keep(step, known, instance)

    def _sight(self, ask: Ask, known: Enrolment | None, instance: InstanceFacts | None) -> Sight:
        """Only an enrolled one can hold a trust that is old; and nothing that ends waits for it."""
        enrolled = known is not None and known.state is EnrolmentState.ENROLLED
        ending = instance is None or instance.access is None or instance.ended
        version = self.commanding.trust().version if enrolled and not ending else ""
        return Sight(ask.instance_id, instance, version, ask.why, self.now(), self.chance())

    def _retire(self, step: Step, instance: InstanceFacts | None) -> bool:
        """Whether there is something to record of it."""
        held = self.holdings.all_of(step.enrolment, instance)
        if held:
            self.revoke(held, _REASONS[step.enrolment.code], PLANE)
        return bool(held) or step.task is Task.RETIRE

    def _keep(self, step: Step, before: Enrolment | None, instance: InstanceFacts | None) -> None:
        """Revoke first: should we end here, it is done once more, and not left half done."""
        withdraw = {each.serial: each for each in (*step.withdraw, *self._taken(step, instance))}
        if withdraw:
            self.revoke(list(withdraw.values()), RevocationReason.SUPERSEDED, PLANE)
        self._remind(self.enrolments.put(_owned(step.enrolment, instance)))
        _tell(step.enrolment, before)

    def _taken(self, step: Step, instance: InstanceFacts | None) -> Sequence[CertificateRecord]:
        if step.taking is Taking.NOTHING:
            return ()
        own = self.holdings.own(step.enrolment, instance)
        if step.taking is Taking.OWN:
            return own
        return [each for each in own if each.access is not step.enrolment.access]

    def _remind(self, enrolment: Enrolment) -> None:
        if enrolment.look_at is None:
            return
        delay = max(0.0, (enrolment.look_at - self.now()).total_seconds())
        ask = Ask(enrolment.instance_id, Why.LOOK, timedelta(seconds=math.ceil(delay)))
        if ask.delay > LONGEST_DELAY:  # the schedule asks for it
            return
        try:
            self.queue.ask([ask])
        except DependencyFailed as error:  # the schedule will
            log.warning("nobody reminds of %s: %s", enrolment.instance_id, error)


def _strongest(asks: Iterable[Ask]) -> Mapping[str, Ask]:
    """One for each instance: what was doubled, or has several reasons, is done once."""
    chosen: dict[str, Ask] = {}
    for ask in asks:
        other = chosen.setdefault(ask.instance_id, ask)
        chosen[ask.instance_id] = max(ask, other, key=lambda each: _STRENGTH.index(each.why))
    return chosen


def _owned(enrolment: Enrolment, instance: InstanceFacts | None) -> Enrolment:
    """It knows whose its certificates are, before there are any: an instance may ask by itself,
    and of one that ended EC2 may not say any more."""
    arn = None if instance is None else instance.session_arn
    return enrolment if arn is None else with_owner(enrolment, arn)


def _tell(enrolment: Enrolment, before: Enrolment | None) -> None:
    if before is not None and before.state is enrolment.state:
        return
    if enrolment.state is EnrolmentState.FAILED and enrolment.failures == 1:
        said = (enrolment.instance_id, enrolment.code, enrolment.reason)
        log.error("ENROLMENT_FAILED %s: %s: %s", *said)
    else:
        log.info("instance %s is %s", enrolment.instance_id, enrolment.state)
