"""What the instances table holds, as a pynamodb model, and the way to our values and back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pynamodb.attributes import (
    BooleanAttribute,
    ListAttribute,
    NumberAttribute,
    TTLAttribute,
    UnicodeAttribute,
    UTCDateTimeAttribute,
)
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, KeysOnlyProjection
from pynamodb.models import Model

from chalicelib.adapters.store.times import stored_time
from chalicelib.domain.enrolment.model import (
    CommandKind,
    Enrolment,
    EnrolmentPath,
    EnrolmentState,
    SentCommand,
)
from chalicelib.domain.model import Access

# Everything in an index of this name lies in one partition. A write to it takes one unit and
# DynamoDB allows a partition 1,000 of them a second: far more than we enrol.
DUE, ENROLLED = "due", "enrolled"

# How long an instance that has gone is remembered.
_KEPT_WHEN_GONE = timedelta(days=30)


class ByState(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # pynamodb's is untyped
    """Instances in the order in which they came into their state."""

    class Meta:
        index_name = "by_state"
        projection = AllProjection()

    state = UnicodeAttribute(hash_key=True)
    state_key = UnicodeAttribute(range_key=True)


class ByDue(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # pynamodb's is untyped
    """Those that are to be looked at, in the order of when."""

    class Meta:
        index_name = "by_due"
        projection = KeysOnlyProjection()

    due = UnicodeAttribute(hash_key=True)
    due_key = UnicodeAttribute(range_key=True)


class ByTrust(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # pynamodb's is untyped
    """Those whose trust is ours to renew, by which they hold."""

    class Meta:
        index_name = "by_trust"
        projection = KeysOnlyProjection()

    trust_of = UnicodeAttribute(hash_key=True)
    trust_key = UnicodeAttribute(range_key=True)


class EnrolmentItem(Model):
    """One item an instance. Tables binds the table name, so importing reads no config."""

    class Meta:
        table_name: str | None = None

    instance_id = UnicodeAttribute(hash_key=True)
    state = UnicodeAttribute()
    state_key = UnicodeAttribute()  # RFC 3339 since, '#', instance id: unique, and sorts
    due = UnicodeAttribute(null=True)  # constant; null: not to be looked at by the clock
    due_key = UnicodeAttribute(null=True)  # RFC 3339 look_at, '#', instance id
    trust_of = UnicodeAttribute(null=True)  # constant; null: its trust is not ours to renew
    trust_key = UnicodeAttribute(null=True)  # trust version, '#', instance id
    since = UTCDateTimeAttribute()
    began_at = UTCDateTimeAttribute()
    look_at = UTCDateTimeAttribute(null=True)
    access = UnicodeAttribute(null=True)
    path = UnicodeAttribute(null=True)
    # A list: a set can neither be empty nor keep an order. Its hint is of attributes, not of texts.
    owners: ListAttribute[str] = ListAttribute(of=UnicodeAttribute)  # type: ignore[arg-type]
    serial = UnicodeAttribute(null=True)
    renew_at = UTCDateTimeAttribute(null=True)
    trust_version = UnicodeAttribute(null=True)
    launched_at = UTCDateTimeAttribute(null=True)
    enrolled_at = UTCDateTimeAttribute(null=True)
    command = UnicodeAttribute(null=True)  # its kind
    command_nonce = UnicodeAttribute(null=True)
    command_sent_at = UTCDateTimeAttribute(null=True)
    command_id = UnicodeAttribute(null=True)
    tries = NumberAttribute()
    failures = NumberAttribute()
    new_key = BooleanAttribute()
    reason = UnicodeAttribute()
    code = UnicodeAttribute()
    version = NumberAttribute()
    expires_at = TTLAttribute(null=True)

    by_state = ByState()
    by_due = ByDue()
    by_trust = ByTrust()


def time_key(time: datetime, instance_id: str) -> str:
    """Where the instance stands in an order of times, to the second: unique, and sorts."""
    return f"{stored_time(time)}#{instance_id}"


def trust_key(trust_version: str, instance_id: str) -> str:
    """Where it stands among those that hold a trust."""
    return f"{trust_version}#{instance_id}"


def item_of(enrolment: Enrolment) -> EnrolmentItem:
    """The item that keeps *enrolment*."""
    command = enrolment.command
    item = EnrolmentItem(
        enrolment.instance_id,
        state=enrolment.state.value,
        state_key=time_key(enrolment.since, enrolment.instance_id),
        since=enrolment.since,
        began_at=enrolment.began_at,
        look_at=enrolment.look_at,
        access=None if enrolment.access is None else enrolment.access.value,
        path=None if enrolment.path is None else enrolment.path.value,
        owners=list(enrolment.owners),
        serial=enrolment.serial,
        renew_at=enrolment.renew_at,
        trust_version=enrolment.trust_version,
        launched_at=enrolment.launched_at,
        enrolled_at=enrolment.enrolled_at,
        command=None if command is None else command.kind.value,
        command_nonce=None if command is None else command.nonce,
        command_sent_at=None if command is None else command.sent_at,
        command_id=None if command is None else command.command_id,
        tries=enrolment.tries,
        failures=enrolment.failures,
        new_key=enrolment.new_key,
        reason=enrolment.reason,
        code=enrolment.code,
        version=enrolment.version,
    )
    _place(item, enrolment)
    return item


def _place(item: EnrolmentItem, enrolment: Enrolment) -> None:
    """In the indexes that hold only some, and among what DynamoDB forgets by itself."""
    if enrolment.look_at is not None:
        item.due, item.due_key = DUE, time_key(enrolment.look_at, enrolment.instance_id)
    enrolled = enrolment.state is EnrolmentState.ENROLLED
    if enrolled and enrolment.path is EnrolmentPath.AGENT and enrolment.trust_version:
        item.trust_of = ENROLLED
        item.trust_key = trust_key(enrolment.trust_version, enrolment.instance_id)
    if enrolment.state is EnrolmentState.GONE:
        item.expires_at = enrolment.since + _KEPT_WHEN_GONE


def enrolment_of(item: EnrolmentItem) -> Enrolment:
    """What *item* keeps. Raises ValueError or TypeError for an item that lacks something."""
    for name, attribute in EnrolmentItem.get_attributes().items():
        if not attribute.null and getattr(item, name) is None:
            raise ValueError(f"there is no {name}")
    return Enrolment(
        instance_id=item.instance_id,
        state=EnrolmentState(item.state),
        since=item.since,
        began_at=item.began_at,
        look_at=item.look_at,
        access=None if item.access is None else Access(item.access),
        path=None if item.path is None else EnrolmentPath(item.path),
        owners=tuple(item.owners),
        serial=item.serial,
        renew_at=item.renew_at,
        trust_version=item.trust_version,
        launched_at=item.launched_at,
        enrolled_at=item.enrolled_at,
        command=_command_of(item),
        tries=int(item.tries),
        failures=int(item.failures),
        new_key=item.new_key,
        reason=item.reason,
        code=item.code,
        version=int(item.version),
    )


def _command_of(item: EnrolmentItem) -> SentCommand | None:
    if item.command is None:
        return None
    if item.command_nonce is None or item.command_sent_at is None:
        raise ValueError("the command lacks something")
    kind = CommandKind(item.command)
    return SentCommand(kind, item.command_nonce, item.command_sent_at, item.command_id)
