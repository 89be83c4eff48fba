"""How an enrolment changes with what is seen of its instance and its commands. No effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from chalicelib.domain.enrolment import timing
from chalicelib.domain.enrolment.model import (
    CommandKind,
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
from chalicelib.domain.model import Access, CertificateRecord, InstanceFacts
from chalicelib.domain.policy import renewal_due

# Of the certificates that instances are given; whoever asks by itself may choose another.
ENROLMENT_LABEL = "enrolment"

# An admin took its certificate back: what undoes that is for an admin, too.
REVOKED_BY_HAND = "certificate_revoked"

_NO_AGENT = "no_agent"
_NO_AGENT_REASON = (
    "its SSM agent is not online: is the agent installed, does the instance profile allow it "
    "(AmazonSSMManagedInstanceCore), does it reach the Systems Manager endpoints?"
)

_NOT_ASKED = "not_asked_yet"
_NOT_ASKED_REASON = (
    "it has no certificate with the access of its tag; it asks for one within two hours"
)

# Looks without an agent, after which the instance may have asked by itself.
_LOOKS_BEFORE_OWN = 2

_STATE_OF = {
    CommandKind.PREPARE: EnrolmentState.PREPARING,
    CommandKind.INSTALL: EnrolmentState.INSTALLING,
}


def into(known: Enrolment, state: EnrolmentState, now: datetime) -> Enrolment:
    """In that state, since *now* if it was in another."""
    return known if known.state is state else replace(known, state=state, since=now)


def attempt(known: Enrolment, now: datetime) -> Enrolment:
    """At the beginning of an attempt."""
    waiting = into(known, EnrolmentState.WAITING_FOR_AGENT, now)
    return replace(waiting, began_at=now, tries=0, command=None)


def wait(known: Enrolment, sight: Sight) -> Step:
    """Look again in a while, longer each time."""
    look_at = sight.now + timing.pause(known.tries, sight.spread)
    return Step(Task.KEEP, replace(known, tries=known.tries + 1, look_at=look_at))


def again(known: Enrolment, sight: Sight, code: str, reason: str) -> Step:
    """Try again in a while, or give up for longer when the attempt took too long.

    code, reason: what is in the way, in the words that an admin reads.
    """
    if sight.now >= known.began_at + timing.ATTEMPT:
        return failed(known, sight, code, reason)
    waiting = into(known, EnrolmentState.WAITING_FOR_AGENT, sight.now)
    return wait(replace(waiting, command=None, code=code, reason=reason), sight)


def failed(known: Enrolment, sight: Sight, code: str, reason: str) -> Step:
    """It is left alone for long, or, where an admin took its certificate back, for good.

    What it may not have any more is taken from it, and where an admin took one, all.
    """
    failures, by_hand = known.failures + 1, code == REVOKED_BY_HAND
    pause = timing.CHECK if by_hand else timing.retry(failures, sight.spread)
    return Step(
        Task.KEEP,
        taking=Taking.OWN if by_hand else Taking.OTHER_ACCESS,
        enrolment=replace(
            into(known, EnrolmentState.FAILED, sight.now),
            command=None,
            failures=failures,
            launched_at=sight.launched_at,
            access=sight.access,
            code=code,
            reason=reason,
            look_at=sight.now + pause,
        ),
    )


def agent_found(known: Enrolment, sight: Sight) -> Step:
    """What to do with an instance whose agent is online."""
    if known.state is EnrolmentState.ENROLLED:  # it asked by itself so far
        known = attempt(known, sight.now)
    if known.code == _NO_AGENT:
        known = replace(known, code="", reason="")
    if known.serial is None or known.new_key or known.path is EnrolmentPath.BOOT:
        return Step(Task.PREPARE, known)
    return Step(Task.INSTALL, known)


def may_have_asked(known: Enrolment, why: Why) -> bool:
    """Whether to look for certificates that an instance without an agent got by itself."""
    by_itself = known.path is EnrolmentPath.BOOT or why is Why.CERTIFICATES
    return by_itself or known.tries >= _LOOKS_BEFORE_OWN


def agent_missing(known: Enrolment, own: Sequence[CertificateRecord], sight: Sight) -> Step:
    """own: the certificates of the instance that stand, if may_have_asked(); else none.

    One whose agent stopped answering still has the certificate that the agent installed.
    """
    if any(_was_asked_for(each) for each in own):
        return _by_itself(known, own, sight)
    if known.state is EnrolmentState.ENROLLED:
        known = attempt(known, sight.now)
    return _not_asked_yet(known, sight)


def _not_asked_yet(known: Enrolment, sight: Sight) -> Step:
    """One that asks by itself may take its time: it looks at its certificate once an hour."""
    if known.path is not EnrolmentPath.BOOT:
        return again(known, sight, _NO_AGENT, _NO_AGENT_REASON)
    if sight.now >= known.began_at + timing.OWN_ATTEMPT:
        return failed(known, sight, _NOT_ASKED, _NOT_ASKED_REASON)
    waiting = into(known, EnrolmentState.WAITING_FOR_AGENT, sight.now)
    said = replace(waiting, serial=None, code=_NOT_ASKED, reason=_NOT_ASKED_REASON)
    return Step(Task.KEEP, replace(said, look_at=sight.now + timing.OWN_GRACE / 2))


def _by_itself(known: Enrolment, own: Sequence[CertificateRecord], sight: Sight) -> Step:
    """It holds the newest that it asked for. Others go once it had the time to install that; and
    those that give more than the tag does go at once: it notices, and asks again. One that gives
    less is better than none until it does."""
    wrong = [each for each in own if each.access is Access.PUSH is not sight.access]
    right = [each for each in own if each not in wrong]
    asked = [each for each in right if _was_asked_for(each)]
    if not asked:
        fresh = attempt(replace(known, path=EnrolmentPath.BOOT), sight.now)
        return replace(_not_asked_yet(fresh, sight), withdraw=tuple(wrong))
    newest = max(asked, key=lambda each: each.issued_at)
    older = [each for each in right if each.serial != newest.serial]
    settled = sight.now >= newest.issued_at + timing.OWN_GRACE
    pause = timing.OWN_GRACE if older and not settled else timing.check(sight.spread)
    enrolled = replace(
        _calm(into(with_certificate(known, newest), EnrolmentState.ENROLLED, sight.now)),
        path=EnrolmentPath.BOOT,
        access=sight.access,
        enrolled_at=newest.issued_at,
        launched_at=sight.launched_at,
        look_at=sight.now + pause,
    )
    return Step(Task.KEEP, enrolled, tuple(wrong + (older if settled else [])))


def sending(known: Enrolment, kind: CommandKind, nonce: str, sight: Sight) -> Enrolment:
    """As it is recorded before a command is sent: whoever loses the race for that sends none."""
    command = SentCommand(kind, nonce, sight.now)
    look_at = sight.now + timing.SENDING + timing.pause(0, sight.spread)
    state = into(known, _STATE_OF[kind], sight.now)
    return replace(state, command=command, tries=known.tries + 1, look_at=look_at)


def sent(known: Enrolment, command: SentCommand, command_id: str, sight: Sight) -> Enrolment:
    """With the command's id. An event tells of its end; if that is lost, a look does."""
    look_at = sight.now + timing.pause(0, sight.spread)
    return replace(known, command=replace(command, command_id=command_id), look_at=look_at)


def still_running(known: Enrolment, command: SentCommand, sight: Sight) -> Step:
    """The command has no answer yet."""
    if sight.now >= command.sent_at + timing.COMMAND_PATIENCE:
        return again(known, sight, "command_lost", "a command had no answer in time")
    look_at = sight.now + timing.as_long_again(sight.now - command.sent_at)
    return Step(Task.KEEP, replace(known, look_at=look_at))


def works(
    known: Enrolment, instance: InstanceFacts, others: Sequence[CertificateRecord], sight: Sight
) -> Step:
    """Its certificate was seen to be admitted. others: those of its certificates it replaces.

    What the tag came to say meanwhile is seen to at once.
    """
    check = sight.now + timing.check(sight.spread)
    if known.access is not instance.access:
        check = sight.now
    enrolled = replace(
        _calm(into(known, EnrolmentState.ENROLLED, sight.now)),
        path=EnrolmentPath.AGENT,
        enrolled_at=sight.now,
        launched_at=instance.launched_at,
        look_at=check if known.renew_at is None else min(check, known.renew_at),
    )
    return Step(Task.KEEP, enrolled, tuple(others))


def with_certificate(known: Enrolment, record: CertificateRecord) -> Enrolment:
    """The same, given this certificate."""
    return replace(
        with_owner(known, record.owner),
        serial=record.serial,
        access=record.access,
        renew_at=renewal_due(record.validity),
        new_key=False,
    )


def with_owner(known: Enrolment, arn: str) -> Enrolment:
    """The same, with this session among those that its certificates may be issued to."""
    return known if arn in known.owners else replace(known, owners=(*known.owners, arn))


def _was_asked_for(record: CertificateRecord) -> bool:
    """Whether the instance asked for it, rather than being given it."""
    return record.label != ENROLMENT_LABEL


def _calm(known: Enrolment) -> Enrolment:
    return replace(known, command=None, tries=0, failures=0, code="", reason="")
