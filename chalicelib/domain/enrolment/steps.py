"""What is to be done next with an instance: facts in, the next step out, no effects.

Level-triggered: what counts is what there is now, not which event told of it. So an event that is
lost, doubled, late or out of order changes nothing but the time it takes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from chalicelib.domain.enrolment import timing
from chalicelib.domain.enrolment.changes import REVOKED_BY_HAND, again, attempt, into, wait
from chalicelib.domain.enrolment.model import (
    Enrolment,
    EnrolmentPath,
    EnrolmentState,
    SentCommand,
    Sight,
    Step,
    Taking,
    Task,
    Why,
)
from chalicelib.domain.model import InstanceFacts, InstanceState


def is_stale(known: Enrolment | None, why: Why, now: datetime) -> bool:
    """Whether this is the reminder of an earlier look, which something else came before.

    Half a second is for clocks that differ: the message comes no earlier than it was to.
    """
    if why is not Why.LOOK or known is None:
        return False
    return known.look_at is None or now < known.look_at - timing.CLOCKS_DIFFER


def next_step(known: Enrolment | None, sight: Sight) -> Step | None:
    """What is to be done now; None: nothing, and there is nothing to record either."""
    instance = sight.instance
    if instance is None or instance.ended:
        return _ended(known, sight)
    if instance.access is None:
        return _retired(known, sight, "untagged", "it carries no tag with an access any more")
    if known is None or known.state is EnrolmentState.GONE:
        known = _newcomer(known, sight)
    if instance.state is InstanceState.PENDING:
        return wait(known, sight) if known.state is EnrolmentState.LAUNCHED else None
    if not instance.running:
        return _stopped(known, instance, sight)
    return _running(known, instance, sight)


def _ended(known: Enrolment | None, sight: Sight) -> Step | None:
    young = known is not None and sight.now < known.since + timing.SETTLING
    if known is not None and sight.instance is None and young and known.serial is None:
        return None if known.state is EnrolmentState.GONE else wait(known, sight)
    return _retired(known, sight, "terminated", "it was terminated")


def _retired(known: Enrolment | None, sight: Sight, code: str, reason: str) -> Step | None:
    """Its certificates are revoked, and looked for again later on.

    One that was never seen alive may have asked for some by itself, and so may one that is gone
    when something is heard of it.
    """
    if known is None and sight.instance is None:
        return None
    if known is not None and known.state is EnrolmentState.GONE:
        if known.is_due(sight.now):
            return Step(Task.RETIRE, replace(known, look_at=_confirmation(known, sight.now)))
        task = Task.SWEEP
    else:
        untagged = sight.instance is not None and sight.instance.access is None
        task = Task.SWEEP if known is None and untagged else Task.RETIRE
        known = into(known or _newcomer(known, sight), EnrolmentState.GONE, sight.now)
    confirm = sight.now + timing.CONFIRM
    return Step(task, replace(known, look_at=confirm, code=code, reason=reason, command=None))


def _confirmation(known: Enrolment, now: datetime) -> datetime | None:
    last = known.since + timing.CREDENTIALS + timing.CONFIRM
    return last if now < last else None


def _newcomer(known: Enrolment | None, sight: Sight) -> Enrolment:
    """One that was gone and is back keeps whose its certificates were, and nothing else."""
    return Enrolment(
        sight.instance_id,
        EnrolmentState.LAUNCHED,
        since=sight.now,
        began_at=sight.now,
        owners=() if known is None else known.owners,
        new_key=known is not None,  # which went with its certificates
        version=0 if known is None else known.version,
    )


def _stopped(known: Enrolment, instance: InstanceFacts, sight: Sight) -> Step | None:
    """It keeps what it has; what was under way begins anew once it runs.

    But not with an access that its tag does not give any more: it might be started by another.
    A new trust cannot reach it, and it is not asked for that again: once started, which shows in
    its launch time, it is given what is published then.
    """
    check = sight.now + timing.CHECK
    if not known.at_rest:
        known = replace(into(known, EnrolmentState.LAUNCHED, sight.now), command=None)
    elif not _is_due_at_rest(known, instance, sight):
        return None
    stopped = replace(known, access=instance.access, trust_version=None, look_at=check)
    return Step(Task.KEEP, stopped, taking=Taking.OTHER_ACCESS)


def _is_due_at_rest(known: Enrolment, instance: InstanceFacts, sight: Sight) -> bool:
    if known.is_due(sight.now) or known.access is not instance.access:
        return True
    return known.trust_version not in (None, sight.trust_version)


def _running(known: Enrolment, instance: InstanceFacts, sight: Sight) -> Step | None:
    if known.state is EnrolmentState.LAUNCHED:
        return Step(Task.FIND_AGENT, attempt(known, sight.now))
    if sight.why is Why.ADMIN:
        # The old key may be why they ask, and so may what became of its certificate.
        fresh = replace(known, failures=0, new_key=True, serial=None, code="", reason="")
        return Step(Task.FIND_AGENT, attempt(fresh, sight.now))
    if known.state is EnrolmentState.ENROLLED:
        return _enrolled(known, instance, sight)
    if known.state is EnrolmentState.FAILED:
        return _failed(known, instance, sight)
    if known.at_work and known.command is not None:
        return _commanded(known, known.command, sight)
    return Step(Task.FIND_AGENT, known)


def _enrolled(known: Enrolment, instance: InstanceFacts, sight: Sight) -> Step | None:
    if not _is_due(known, instance, sight):
        return None
    if known.path is EnrolmentPath.BOOT:
        return Step(Task.FIND_AGENT, known)
    return Step(Task.FIND_AGENT, attempt(known, sight.now))


def _is_due(known: Enrolment, instance: InstanceFacts, sight: Sight) -> bool:
    """Whether what was seen to work may not be all there should be any more."""
    if known.is_due(sight.now) or not known.knows(instance):
        return True
    if instance.session_arn not in (None, *known.owners) or sight.why is Why.CERTIFICATES:
        return True
    return known.path is EnrolmentPath.AGENT and known.trust_version != sight.trust_version


def _failed(known: Enrolment, instance: InstanceFacts, sight: Sight) -> Step | None:
    due = known.look_at is None or sight.now >= known.look_at or sight.why is Why.CERTIFICATES
    if known.code == REVOKED_BY_HAND:
        check = replace(known, look_at=sight.now + timing.CHECK)
        return Step(Task.KEEP, check, taking=Taking.OWN) if due else None
    if not due and known.knows(instance):
        return None
    return Step(Task.FIND_AGENT, attempt(known, sight.now))


def _commanded(known: Enrolment, command: SentCommand, sight: Sight) -> Step | None:
    if command.command_id is not None:
        return Step(Task.READ_COMMAND, known)
    if sight.now < command.sent_at + timing.SENDING:
        return None  # whoever recorded it is sending it
    return again(known, sight, "command_not_sent", "sending a command to it broke off")
