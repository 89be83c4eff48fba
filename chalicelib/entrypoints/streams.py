"""What follows from changes of the certificates table."""

from __future__ import annotations

from chalice import Blueprint
from chalice.app import DynamoDBEvent, DynamoDBRecord

from chalicelib import bootstrap
from chalicelib.services.announcing import Change

blueprint = Blueprint(__name__)


# Which stream it is, and what becomes of failures, is said in .chalice/stack.yaml.
@blueprint.on_dynamodb_record("CertificatesTable", starting_position="TRIM_HORIZON")
def announce_certificates(event: DynamoDBEvent) -> dict[str, list[dict[str, str]]]:
    """Announce what became of certificates.

    Answers which record to come back to: Lambda then sends it, and all that follow it in the
    stream, again (Lambda Developer Guide, "Configuring partial batch response with DynamoDB").
    Lets every error out: Lambda sends the whole batch again.
    """
    first = bootstrap.services().announcing.announce(_change_in(record) for record in event)
    return {"batchItemFailures": [] if first is None else [{"itemIdentifier": first}]}


def _change_in(record: DynamoDBRecord) -> Change:
    return Change(
        position=record.sequence_number,
        serial=record.keys["serial"]["S"],
        before=record.old_image,
        after=record.new_image,
    )
