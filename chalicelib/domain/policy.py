"""Who may get what, and for how long."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from chalicelib.domain.identity import identify, is_name
from chalicelib.domain.model import (
    Access,
    Caller,
    CertificateRecord,
    Grant,
    InstanceFacts,
    IssueRequest,
    NamedRequest,
    QuotaSlot,
    Status,
    Validity,
)
from chalicelib.errors import Conflict, Forbidden, InvalidRequest, Misconfigured, QuotaExceeded

MAXIMUM_LABEL = 64
# The most that the stack's parameters allow, and so the furthest that any certificate ends.
LONGEST_LIFETIME = timedelta(days=825)
SERVER_LIFETIME = timedelta(days=90)
# A caller whose clock runs a little behind ours must not get a certificate "from the future".
BACKDATE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Limits:
    """The stack's parameters that bound what is issued.

    admin_maximum_days: for certificates that an admin has issued for a service.
    push_principals: globs over the caller's ARN, matched with case.
    """

    default_days: int
    maximum_days: int
    admin_maximum_days: int
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
    longest = limits.maximum_days
    if caller.instance_id is not None:  # one that may tag itself could fill the revocation lists
        longest = min(limits.default_days, longest)
    return Grant(
        name=caller.name,
        owner=caller.arn,
        access=_access(request.access, caller, instance, limits),
        lifetime=_lifetime(request.days, limits.default_days, longest),
    )


def grant_named(
    named: NamedRequest, caller: Caller, instance: InstanceFacts | None, limits: Limits
) -> Grant:
    """What an admin, *caller*, gets for a service.

    Whether the caller is an admin is IAM's word. Raises as grant() does, and for name and owner.
    """
    request = named.request
    _refuse_bad_label(request.label)
    if not is_name(named.name):
        raise InvalidRequest(
            "bad_name", "a name has 1 to 64 letters, digits and +=,.@_-", field="name"
        )
    return Grant(
        name=named.name,
        owner=caller.arn if named.owner is None else _owner(named.owner),
        access=_access(request.access, caller, instance, limits),
        lifetime=_lifetime(request.days, limits.default_days, limits.admin_maximum_days),
    )


def _owner(arn: str) -> str:
    try:
        return identify(arn).arn
    except Forbidden as error:
        raise InvalidRequest(
            "bad_owner", "an owner is the ARN of an IAM user or of a role's session", field="owner"
        ) from error


def grant_successor(
    old: CertificateRecord,
    days: int | None,
    caller: Caller,
    instance: InstanceFacts | None,
    limits: Limits,
    now: datetime,
) -> Grant:
    """What the owner of *old*, *caller*, gets in its place: the same for a time of its own.

    Access that the owner may not have any more is not renewed. What an admin granted is, whatever
    the owner may have by itself; but for no longer than the admin gave, and not once it has ended.
    Raises InvalidRequest (days), Forbidden (access) and Conflict (it cannot be renewed).
    """
    if old.access is None:
        raise Conflict("not_renewable", "the registry host renews the registry's own certificate")
    default, maximum = limits.default_days, limits.maximum_days
    if old.issued_by is not None:
        _refuse_ended_grant(old, now)
        default = maximum = min(old.granted_days or maximum, limits.admin_maximum_days)
    if old.issued_by is None or caller.instance_id is not None:
        allowed = _access(old.access, caller, instance, limits)
        if allowed is not old.access:
            raise Forbidden(
                "access_changed", f"you may have {allowed} access now; ask for a new certificate"
            )
    return Grant(
        name=old.name,
        owner=old.owner,
        access=old.access,
        lifetime=_lifetime(days, default, maximum),
    )


def _refuse_ended_grant(old: CertificateRecord, now: datetime) -> None:
    if old.status(now) is not Status.ACTIVE:
        raise Conflict(
            "grant_ended", "an admin had this certificate issued, and it has ended; ask an admin"
        )


def refuse_second_successor(
    old: CertificateRecord, successor: CertificateRecord | None, now: datetime
) -> None:
    """Raises Conflict while the last successor of *old* is active: it has one at a time."""
    if successor is not None and successor.status(now) is Status.ACTIVE:
        raise Conflict(
            "already_renewed",
            f"it was renewed: {successor.serial} is its successor; renew that one, or fetch its "
            "bundle",
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


def _lifetime(days: int | None, default: int, maximum: int) -> timedelta:
    wanted = min(default, maximum) if days is None else days
    if not 1 <= wanted <= maximum:
        raise InvalidRequest("days_out_of_range", f"days must be from 1 to {maximum}", field="days")
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


def renewal_due(validity: Validity) -> datetime:
    """When the last third of a certificate's life begins."""
    return validity.not_after - (validity.not_after - validity.not_before) / 3


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
            f"you hold {quota} active certificates, the most one owner may: revoke one that is "
            "not needed any more (DELETE /certs/SERIAL), or renew one with revoke_old",
        )
    return chance.choice(free)
