"""What the two tables hold, as pynamodb models, and the way to our values and back."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from pynamodb.attributes import (
    BooleanAttribute,
    NumberAttribute,
    TTLAttribute,
    UnicodeAttribute,
    UTCDateTimeAttribute,
)
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex
from pynamodb.models import Model

from chalicelib.adapters.store.times import stored_time
from chalicelib.domain.model import Access, CertificateRecord, RevocationReason, Validity


class ByOwner(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # pynamodb's is untyped
    """An owner's certificates in the order of their issue."""

    class Meta:
        index_name = "by_owner"
        projection = AllProjection()

    owner = UnicodeAttribute(hash_key=True)
    issued_key = UnicodeAttribute(range_key=True)


class ByMonth(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # pynamodb's is untyped
    """Everybody's certificates in the order of their issue, a month a partition."""

    class Meta:
        index_name = "by_month"
        projection = AllProjection()

    issued_month = UnicodeAttribute(hash_key=True)
    issued_key = UnicodeAttribute(range_key=True)


class ByExpiry(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # pynamodb's is untyped
    """Everybody's certificates in the order of their end, a day a partition."""

    class Meta:
        index_name = "by_expiry"
        projection = AllProjection()

    expiry_day = UnicodeAttribute(hash_key=True)
    expiry_key = UnicodeAttribute(range_key=True)


class CertificateItem(Model):
    """One item per serial. CertificateStore binds the table name, so importing reads no config."""

    class Meta:
        table_name: str | None = None

    serial = UnicodeAttribute(hash_key=True)
    owner = UnicodeAttribute()
    issued_key = UnicodeAttribute()  # RFC 3339 time of issue, '#', serial: unique, and sorts
    issued_month = UnicodeAttribute()  # YYYY-MM of issued_at, UTC
    expiry_day = UnicodeAttribute()  # YYYY-MM-DD of not_after, UTC
    expiry_key = UnicodeAttribute()  # RFC 3339 not_after, '#', serial
    not_after = UTCDateTimeAttribute()  # inclusive
    not_before = UTCDateTimeAttribute()
    issued_at = UTCDateTimeAttribute()
    name = UnicodeAttribute()
    access = UnicodeAttribute(null=True)  # null: a server certificate
    fingerprint_sha256 = UnicodeAttribute()
    issuer_id = UnicodeAttribute()
    key_id = UnicodeAttribute()
    made_key = BooleanAttribute()
    label = UnicodeAttribute(null=True)
    slot = NumberAttribute(null=True)
    certificate = UnicodeAttribute()  # PEM
    issued_by = UnicodeAttribute(null=True)
    renews = UnicodeAttribute(null=True)
    superseded_by = UnicodeAttribute(null=True)
    line = UnicodeAttribute(null=True)
    granted_days = NumberAttribute(null=True)
    revoked_at = UTCDateTimeAttribute(null=True)
    revocation_reason = UnicodeAttribute(null=True)
    revoked_by = UnicodeAttribute(null=True)

    by_owner = ByOwner()
    by_month = ByMonth()
    by_expiry = ByExpiry()


# What the sort keys of a key's and a line's certificates begin with; "key" comes after them.
USES = "cert#"


class StateItem(Model):
    """One item of the state table; which attributes it has depends on its kind.

    owner#ARN / slot#NNN: serial, not_after, expires_at
    owner#ARN / request#SHA256-OF-IDEMPOTENCY-KEY: serial, digest, expires_at
    key#KEY-ID / key: owner, number (of times it was certified), revoked_at
    key#KEY-ID / cert#NOT-AFTER#SERIAL: expires_at; of each certificate of it that stands
    line#FIRST-SERIAL / cert#NOT-AFTER#SERIAL: the same, of those that descend from it by renewal
    revoked#ISSUER-ID / NOT-AFTER#SERIAL: serial, revoked_at, reason, expires_at
    crl-pending / SERIAL: nothing more; there until a published CRL lists it
    crl / number: number
    """

    class Meta:
        table_name: str | None = None

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    owner = UnicodeAttribute(null=True)
    serial = UnicodeAttribute(null=True)
    digest = UnicodeAttribute(null=True)
    reason = UnicodeAttribute(null=True)
    number = NumberAttribute(null=True)
    not_after = UTCDateTimeAttribute(null=True)
    revoked_at = UTCDateTimeAttribute(null=True)
    expires_at = TTLAttribute(null=True)


def owner_key(owner: str) -> str:
    """The partition of an owner's slots and requests in the state table."""
    return f"owner#{owner}"


def request_key(idempotency_key: str) -> str:
    """A fixed-length name, whatever characters the caller chose."""
    return f"request#{hashlib.sha256(idempotency_key.encode()).hexdigest()}"


def issued_key(record: CertificateRecord) -> str:
    """Where the certificate stands in the order of issue: unique, and sorts."""
    return f"{record.issued_at:%Y-%m-%dT%H:%M:%S.%fZ}#{record.serial}"


def expiry_key(record: CertificateRecord) -> str:
    """Where it stands in the order of its end: unique, and sorts."""
    return f"{stored_time(record.validity.not_after)}#{record.serial}"


def slot_item(record: CertificateRecord) -> StateItem:
    """The place of the record's quota slot; it must have one."""
    return StateItem(owner_key(record.owner), f"slot#{record.slot:03}")


def key_item(record: CertificateRecord) -> StateItem:
    """The place of what is known of the record's public key."""
    return StateItem(f"key#{record.key_id}", "key")


def use_item(record: CertificateRecord) -> StateItem:
    """That the record's public key is certified in it, until it ends or is revoked."""
    return _standing(key_item(record).pk, record)


def line_of(record: CertificateRecord) -> str:
    """The partition of those that it stands in line with, and of itself once it is renewed."""
    return f"line#{record.line or record.serial}"


def place_item(record: CertificateRecord) -> StateItem:
    """That the record stands in its line, until it ends or is revoked."""
    return _standing(line_of(record), record)


def _standing(partition: str, record: CertificateRecord) -> StateItem:
    """One of the partition's items that say which of its certificates stand."""
    key = f"{USES}{expiry_key(record)}"
    return StateItem(partition, key, expires_at=record.validity.not_after)


def item_of(record: CertificateRecord) -> CertificateItem:
    """The item that keeps *record*."""
    return CertificateItem(
        record.serial,
        owner=record.owner,
        issued_key=issued_key(record),
        issued_month=f"{record.issued_at:%Y-%m}",
        expiry_day=f"{record.validity.not_after:%Y-%m-%d}",
        expiry_key=expiry_key(record),
        not_after=record.validity.not_after,
        not_before=record.validity.not_before,
        issued_at=record.issued_at,
        name=record.name,
        access=None if record.access is None else record.access.value,
        fingerprint_sha256=record.fingerprint_sha256,
        issuer_id=record.issuer_id,
        key_id=record.key_id,
        made_key=record.made_key,
        label=record.label,
        slot=record.slot,
        certificate=record.certificate_pem,
        issued_by=record.issued_by,
        renews=record.renews,
        line=record.line,
        granted_days=record.granted_days,
    )


def record_of(item: CertificateItem) -> CertificateRecord:
    """The record that *item* keeps. Raises ValueError for an item that lacks something."""
    for name, attribute in CertificateItem.get_attributes().items():
        if not attribute.null and getattr(item, name) is None:
            raise ValueError(f"there is no {name}")
    return CertificateRecord(
        serial=item.serial,
        owner=item.owner,
        name=item.name,
        access=None if item.access is None else Access(item.access),
        issued_at=item.issued_at,
        validity=Validity(item.not_before, item.not_after),
        fingerprint_sha256=item.fingerprint_sha256,
        issuer_id=item.issuer_id,
        key_id=item.key_id,
        made_key=item.made_key,
        label=item.label or "",
        slot=None if item.slot is None else int(item.slot),
        certificate_pem=item.certificate,
        issued_by=item.issued_by,
        renews=item.renews,
        superseded_by=item.superseded_by,
        line=item.line,
        granted_days=None if item.granted_days is None else int(item.granted_days),
        revoked_at=item.revoked_at,
        revocation_reason=_reason(item.revocation_reason),
        revoked_by=item.revoked_by,
    )


def _reason(stored: str | None) -> RevocationReason | None:
    """A certificate that is revoked stays so, whatever became of the reason."""
    if stored is None:
        return None
    known = stored in set(RevocationReason)
    return RevocationReason(stored) if known else RevocationReason.UNSPECIFIED


def has_expired(item: StateItem, now: datetime) -> bool:
    """Whether the item's time has passed; DynamoDB deletes it some time after that."""
    return item.expires_at is None or item.expires_at <= now
