"""Instances that enrol themselves: what asks for their advances, and the queue that brings these.

No event and no message has to arrive, or only once, or in order: an advance looks at everything
anew, and what nobody asked for is asked for by the clock.
"""

from __future__ import annotations

import logging
from typing import TypeGuard

import msgspec
from chalice import Blueprint
from chalice.app import CloudWatchEvent, SQSEvent, SQSRecord

from chalicelib import bootstrap
from chalicelib.domain.enrolment.model import Ask, Why
from chalicelib.domain.identity import is_instance_id

log = logging.getLogger(__name__)

blueprint = Blueprint(__name__)

_TAG_CHANGED = "Tag Change on Resource"  # EventBridge "Tag change events on AWS resources"
_LONGEST_TOLD = 64


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a message of the queue."""

    instance_id: str
    why: Why


# The rule for changes of the tag is added in .chalice/stack.yaml, which knows the tag's name.
@blueprint.on_cw_event(
    {
        "source": ["aws.ec2"],
        "detail-type": ["EC2 Instance State-change Notification"],
        "detail": {"state": ["running", "shutting-down", "terminated"]},
    }
)
def on_instance_state(event: CloudWatchEvent) -> None:
    """Ask for an advance of an instance that started, ends, or whose tag changed.

    Lets every error out: Lambda tries twice more; after that reconcile_instances finds it.
    """
    if event.detail_type == _TAG_CHANGED:
        tagged = "".join(event.resources[:1]).rpartition("/")[2]
        if _names_instance(tagged):
            bootstrap.services().asking.tag_changed(tagged)
    elif _names_instance(changed := event.detail.get("instance-id")):
        bootstrap.services().asking.instance_changed(changed)


@blueprint.on_cw_event(
    {
        "source": ["aws.ssm"],
        "detail-type": ["EC2 Command Invocation Status-change Notification"],
        "detail": {
            "status": ["Success", "Failed", "TimedOut", "Cancelled"],
            "document-name": ["AWS-RunShellScript"],
        },
    }
)
def on_command_state(event: CloudWatchEvent) -> None:
    """Ask for an advance of an instance on which a command ended, if it may be one of ours.

    Lets every error out: Lambda tries twice more; after that reconcile_instances finds it.
    """
    named = event.detail.get("instance-id")
    if _names_instance(named):
        bootstrap.services().asking.command_ended(named)


# Which queue it is, and how often a message comes again, is said in .chalice/stack.yaml.
@blueprint.on_sqs_message(queue="EnrolmentQueue", batch_size=10)
def advance_instance(event: SQSEvent) -> dict[str, list[dict[str, str]]]:
    """Advance each instance that the messages name.

    Answers which messages are to come again; the others do not (Lambda Developer Guide,
    "Implementing partial batch responses"). What is no message of ours would be no better next
    time, and does not come again. Lets every error out: then all of them come again.
    """
    asks = [(_message_id(record), ask) for record in event if (ask := _ask_in(record)) is not None]
    failed = bootstrap.services().enrolling.advance_all(asks)
    return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}


def _names_instance(named: object) -> TypeGuard[str]:
    """Other nodes than EC2 instances can be sent commands too; their events are passed by."""
    if isinstance(named, str) and is_instance_id(named):
        return True
    log.info("passed by an event: it names no EC2 instance but %s", _told(named))
    return False


def _ask_in(record: SQSRecord) -> Ask | None:
    try:
        message = msgspec.json.decode(record.body, type=_Message)
    except (msgspec.MsgspecError, ValueError):
        message = None
    if message is None or not is_instance_id(message.instance_id):
        log.warning("dropped a message of the queue: it is none of ours: %s", _told(record.body))
        return None
    return Ask(message.instance_id, message.why)


def _message_id(record: SQSRecord) -> str:
    return str(record.to_dict()["messageId"])


def _told(what: object) -> str:
    """For the log: its start, in printable ASCII."""
    return ascii(what)[:_LONGEST_TOLD]
