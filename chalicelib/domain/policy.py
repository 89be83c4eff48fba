"""Who may get what, and for how long."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from chalicelib.domain.model import (
    Access,
    Caller,
    Grant,
    InstanceFacts,
    IssueRequest,
    QuotaSlot,
    Validity,
)
from chalicelib.errors import Forbidden, InvalidRequest, Misconfigured, QuotaExceeded

MAXIMUM_LABEL = 64
SERVER_LIFETIME = timedelta(days=90)
# A caller whose clock runs a little behind ours must not get a certificate "from the future".
BACKDATE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Limits:
    """The stack's parameters that bound what is issued.

    push_principals: globs over the caller's ARN, matched with case.
    """

    default_days: int
    maximum_days: int
    certificates_per_owner: int
    push_principals: tuple[str, ...]


def grant(
    request: IssueRequest, caller: Caller, instance: InstanceFacts | None, limits: Limits
) -> Grant:
    """What *caller* gets for *request*.

    instance: what EC2 says, when the caller's session is named like an instance; else None.
    Raises InvalidRequest (days, label) and Forbidden (access, or an instance that is none).
    """
    _refuse_bad_label(request.label)
    return Grant(
        name=caller.name,
        owner=caller.arn,
        access=_access(request.access, caller, instance, limits),
        lifetime=_lifetime(request.days, limits),
    )


def _access(
    asked: Access | None, caller: Caller, instance: InstanceFacts | None, limits: Limits
) -> Access:
    if caller.instance_id is not None:
        return _access_of_instance(caller, instance)
    may_push = any(fnmatchcase(caller.arn, pattern) for pattern in limits.push_principals)
    if asked is Access.PUSH and not may_push:
        raise Forbidden("push_not_allowed", "you may have pull access, but not push")
    return asked or (Access.PUSH if may_push else Access.PULL)


def _access_of_instance(caller: Caller, instance: InstanceFacts | None) -> Access:
    """What the instance's tag says, never what it asks for.

    Anyone who may assume a role chooses the session's name, so the name is believed only if EC2
    runs such an instance with that very role.
    """
    if instance is None or not instance.running or instance.role != caller.role:
        raise Forbidden(
            "not_that_instance",
            "the session is named like an instance, but no such instance runs with this role",
        )
    if instance.access is None:
        raise Forbidden(
            "instance_not_tagged", "the instance carries no registry-trust tag of pull or push"
        )
    return instance.access


def _lifetime(days: int | None, limits: Limits) -> timedelta:
    default = min(limits.default_days, limits.maximum_days)
    wanted = default if days is None else days
    if not 1 <= wanted <= limits.maximum_days:
        raise InvalidRequest(
            "days_out_of_range", f"days must be from 1 to {limits.maximum_days}", field="days"
        )
    return timedelta(days=wanted)


def _refuse_bad_label(label: str) -> None:
    if len(label) > MAXIMUM_LABEL:
        raise InvalidRequest(
            "label_too_long", f"a label may have {MAXIMUM_LABEL} characters", field="label"
        )
    if not label.isprintable():
        raise InvalidRequest(
            "label_not_printable", "a label may not hold control characters", field="label"
        )


def validity(now: datetime, lifetime: timedelta, issuer_end: datetime) -> Validity:
    """From *now* on, cut at the issuer's end, which a leaf never outlives.

    Raises Misconfigured when the issuer itself has expired.
    """
    if issuer_end < now:
        raise Misconfigured("authority_expired", "the CA has expired; its operator replaces it")
    return Validity.starting(now, lifetime, BACKDATE).ending_by(issuer_end)


def free_slot(
    taken: Iterable[QuotaSlot], limits: Limits, now: datetime, chance: random.Random
) -> int:
    """A quota slot to put one more active certificate in. Raises QuotaExceeded.

    Picked by chance, so that requests arriving together seldom want the same one.
    """
    active = {slot.number for slot in taken if slot.not_after >= now}
    quota = limits.certificates_per_owner
    free = [number for number in range(quota) if number not in active]
    if len(active) >= quota or not free:
        raise QuotaExceeded(
            "quota_exceeded",
            f"you hold {quota} active certificates, the most one owner may; "
            "one has to expire or be revoked first",
        )
    return chance.choice(free)
