"""Put back into the tables what is known elsewhere of revocations, keys and slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError
from cryptography import x509

from chalicelib.adapters.store import enrolment_items
from chalicelib.adapters.store.images import record_in
from chalicelib.adapters.store.items import CertificateItem, StateItem
from chalicelib.domain.enrolment.changes import REVOKED_BY_HAND
from chalicelib.domain.enrolment.model import Enrolment, EnrolmentState
from chalicelib.domain.identity import is_instance_id
from chalicelib.domain.model import CertificateRecord
from chalicelib.domain.pki import crl
from chalicelib.domain.pki.authorities import AuthorityKind, authority_id
from chalicelib.errors import InvalidRequest
from operations import authorities, published
from operations.cloud import CommandError, error_code
from operations.state_rows import COUNTER, PENDING, Evidence, Item, Key, Losses, Revoked, Standing

# What a write whose condition does not hold answers: somebody else wrote it, and that is right too.
_THERE = ("ConditionalCheckFailedException", "TransactionCanceledException")

_PLANE = "registry-trust"  # who revokes where nobody did by hand


@dataclass(frozen=True, slots=True)
class Gathered:
    """evidence: all that is left. unreadable: serials whose record is damaged."""

    evidence: Evidence
    unreadable: tuple[str, ...]


def gather(aws: boto3.Session, outputs: Mapping[str, str]) -> Gathered:
    """Read the tables and every published list that is left; nothing is written.

    Raises CommandError when a table is not there.
    """
    records, unreadable = read_records(aws, outputs)
    state = scan(aws.client("dynamodb"), outputs["StateTable"])
    rows: dict[Key, Item] = {(item["pk"]["S"], item["sk"]["S"]): item for item in state}
    listed, number = _published(aws, outputs)
    return Gathered(Evidence(records, rows, listed, number), unreadable)


def read_records(
    aws: boto3.Session, outputs: Mapping[str, str]
) -> tuple[dict[str, CertificateRecord], tuple[str, ...]]:
    """Every certificate's by its serial, and the serials of those that are damaged."""
    records, unreadable = dict[str, CertificateRecord](), list[str]()
    for item in scan(aws.client("dynamodb"), outputs["CertificatesTable"]):
        try:
            record = record_in(item)
            records[record.serial] = record
        except InvalidRequest:
            unreadable.append(item["serial"]["S"])
    return records, tuple(unreadable)


def scan(dynamodb: Any, table: str) -> Iterator[Mapping[str, Any]]:
    """Every item, read consistently. Raises CommandError when there is no such table."""
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    try:
        for page in pages:
            yield from page["Items"]
    except ClientError as error:
        if error_code(error) != "ResourceNotFoundException":
            raise
        raise CommandError(f"the table {table} is not there: scripts/recover table") from error


def _published(
    aws: boto3.Session, outputs: Mapping[str, str]
) -> tuple[dict[str, list[crl.Revocation]], int]:
    """By issuer, what any version of the published lists shows; and the greatest number of these.

    Only lists that a client CA of now signed count: whoever writes to the bucket decides nothing.
    """
    known = authorities.read(aws, dict(outputs)).get(AuthorityKind.CLIENT)
    pems = [] if known is None else list(known.certificates.values())
    cas = [x509.load_pem_x509_certificate(pem.encode()) for pem in pems]
    found: dict[str, dict[int, crl.Revocation]] = {authority_id(ca): {} for ca in cas}
    number = 0
    for text in published.every_list(aws.client("s3"), outputs):
        for each in crl.readable_lists(text):
            for ca in cas:
                if each.names(ca) and each.signed_by(ca):
                    number = max(number, each.number or 0)
                    entries = found[authority_id(ca)]
                    entries |= {new.serial: new for new in each.others_than(entries.keys())}
    return {issuer_id: list(entries.values()) for issuer_id, entries in found.items()}, number


def put_back(aws: boto3.Session, outputs: Mapping[str, str], found: Losses) -> None:
    """Write it all, each only where nothing else is by now. Safe to run twice, and while the rest
    works: what is revoked first of all, so that whatever is published meanwhile lists it."""
    writer = _Writer(
        aws.client("dynamodb"),
        outputs["CertificatesTable"],
        outputs["StateTable"],
        str(aws.client("sts").get_caller_identity()["Arn"]),
    )
    if found.counter is not None:
        writer.count_from(found.counter)
    for entry in found.entries:
        writer.put(entry)
        writer.put(StateItem(PENDING, str(entry.serial)))
    for mark in found.marks:
        writer.mark(mark)
    for item in found.stale:
        writer.delete(item)
    for item in (*found.retired, *found.keys):
        writer.put_key(item)
    for standing in found.standing:
        writer.put_standing(standing)


@dataclass(frozen=True, slots=True)
class _Writer:
    dynamodb: Any
    certificates: str
    state: str
    operator: str

    def put(self, item: StateItem) -> None:
        with _unless_there():
            self.dynamodb.put_item(
                TableName=self.state,
                Item=item.serialize(),
                ConditionExpression="attribute_not_exists(pk)",
            )

    def count_from(self, number: int) -> None:
        with _unless_there():
            self.dynamodb.update_item(
                TableName=self.state,
                Key=_key(*COUNTER),
                UpdateExpression="SET #n = :n",
                ConditionExpression="attribute_not_exists(#n) OR #n < :n",
                ExpressionAttributeNames={"#n": "number"},
                ExpressionAttributeValues={":n": {"N": str(number)}},
            )

    def mark(self, mark: Revoked) -> None:
        """Revoked by the operator: who counts as having done it by hand bars an instance from
        enrolling by itself, and that is the safe way to be wrong."""
        item = CertificateItem(mark.serial, revoked_at=mark.at, revoked_by=self.operator)
        values = item.serialize(null_check=False)
        with _unless_there():
            self.dynamodb.update_item(
                TableName=self.certificates,
                Key={"serial": {"S": mark.serial}},
                UpdateExpression="SET revoked_at = :at, revocation_reason = :why, revoked_by = :by",
                ConditionExpression="attribute_exists(serial) AND attribute_not_exists(revoked_at)",
                ExpressionAttributeValues={
                    ":at": values["revoked_at"],
                    ":why": {"S": mark.reason.value},
                    ":by": values["revoked_by"],
                },
            )

    def delete(self, item: StateItem) -> None:
        """Of a slot only while it is still that certificate's."""
        condition: dict[str, Any] = {}
        if item.serial is not None:
            condition = {
                "ConditionExpression": "serial = :serial",
                "ExpressionAttributeValues": {":serial": {"S": item.serial}},
            }
        with _unless_there():
            self.dynamodb.delete_item(TableName=self.state, Key=_key(item.pk, item.sk), **condition)

    def put_key(self, item: StateItem) -> None:
        if item.owner is not None:
            self.put(item)
        if item.revoked_at is not None:
            self.dynamodb.update_item(
                TableName=self.state,
                Key=_key(item.pk, item.sk),
                UpdateExpression="SET revoked_at = if_not_exists(revoked_at, :at)",
                ExpressionAttributeValues={":at": item.serialize()["revoked_at"]},
            )

    def put_standing(self, standing: Standing) -> None:
        """Only while its certificate does stand: it may be revoked just now."""
        table, serial = self.certificates, standing.record.serial
        stands = {
            "TableName": table,
            "Key": {"serial": {"S": serial}},
            "ConditionExpression": "attribute_exists(serial) AND attribute_not_exists(revoked_at)",
        }
        for item in standing.items:
            put = {
                "TableName": self.state,
                "Item": item.serialize(),
                "ConditionExpression": "attribute_not_exists(pk)",
            }
            with _unless_there():
                self.dynamodb.transact_write_items(
                    TransactItems=[{"ConditionCheck": stands}, {"Put": put}]
                )


@contextmanager
def _unless_there() -> Iterator[None]:
    """Pass over a write whose condition does not hold."""
    try:
        yield
    except ClientError as error:
        if error_code(error) not in _THERE:
            raise


def _key(partition: str, sort: str) -> dict[str, Any]:
    return {"pk": {"S": partition}, "sk": {"S": sort}}


def bars(records: Mapping[str, CertificateRecord], now: datetime) -> list[Enrolment]:
    """Instances whose last certificate somebody took back by hand, as enrolments that are failed.

    Without them the clock would enrol such an instance again, as if nothing had been.
    """
    newest: dict[str, CertificateRecord] = {}
    for record in sorted(records.values(), key=lambda record: record.issued_at):
        own = record.issued_by is None and record.access is not None
        if own and is_instance_id(record.name) and record.owner.endswith(f"/{record.name}"):
            newest[record.name] = record
    return [
        Enrolment(
            instance_id,
            EnrolmentState.FAILED,
            since=now,
            began_at=now,
            look_at=now,
            access=record.access,
            owners=(record.owner,),
            serial=record.serial,
            failures=1,
            reason="its certificate was revoked by hand before the table of instances was lost",
            code=REVOKED_BY_HAND,
            version=int(now.timestamp()),  # whoever is at work on it now must not write over this
        )
        for instance_id, record in newest.items()
        if record.revoked_at is not None and record.revoked_by != _PLANE
    ]


def put_bars(aws: boto3.Session, outputs: Mapping[str, str], barred: list[Enrolment]) -> int:
    """How many of these instances were not recorded as such, and are now."""
    dynamodb, put = aws.client("dynamodb"), 0
    for each in barred:
        with _unless_there():
            dynamodb.put_item(
                TableName=outputs["InstancesTable"],
                Item=enrolment_items.item_of(each).serialize(),
                # Or it is just being enrolled again, and has no certificate yet.
                ConditionExpression="attribute_not_exists(instance_id) OR "
                "attribute_not_exists(serial)",
            )
            put += 1  # not reached when it has one
    return put
