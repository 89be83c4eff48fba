"""Recording what is issued, in DynamoDB.

Two tables. `certificates` holds one item a serial. `state` holds what must be decided at once with
a certificate: the quota slots of an owner, the public keys in use, the idempotency keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pynamodb.expressions.update import Action

from chalicelib.adapters.store.items import (
    CertificateItem,
    StateItem,
    has_expired,
    item_of,
    key_item,
    owner_key,
    place_item,
    record_of,
    request_key,
    slot_item,
    use_item,
)
from chalicelib.adapters.store.revocations import list_as_revoked, mark_revoked
from chalicelib.adapters.store.tables import (
    CancelledError,
    Tables,
    Transaction,
    contended,
    our_errors,
    readable,
    text,
)
from chalicelib.domain.model import (
    CertificateRecord,
    QuotaSlot,
    RevocationReason,
    Status,
    StoredRequest,
    Succession,
)
from chalicelib.errors import InvalidRequest

IDEMPOTENCY_LIFETIME = timedelta(hours=24)


class CertificateStore:
    """Certificates by serial, and what guards their issue."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def slots(self, owner: str) -> Sequence[QuotaSlot]:
        """The owner's taken quota slots, read consistently. Raises DependencyFailed."""
        with our_errors():
            items = StateItem.query(
                owner_key(owner), StateItem.sk.startswith("slot#"), consistent_read=True
            )
            return [QuotaSlot(int(item.sk.removeprefix("slot#")), item.not_after) for item in items]

    def add(
        self,
        record: CertificateRecord,
        request: StoredRequest | None,
        now: datetime,
        succession: Succession | None = None,
    ) -> StoredRequest | None:
        """Write the record, its slot, its public key and the request together, or nothing.

        With them a predecessor is marked, and if that is asked revoked; then its successor sits
        in its slot. Returns what the idempotency key was used for before, if it was; then nothing
        is written. Raises Contended when the slot, serial or predecessor was changed meanwhile,
        InvalidRequest for a key that is revoked or another owner's, DependencyFailed.
        """
        transaction = Transaction(self._tables.connection)
        unused = CertificateItem.serial.does_not_exist()
        transaction.put("record", item_of(record), unused)
        if record.slot is not None:
            _take_slot(transaction, record, now, succession)
        if request is not None:
            _remember(transaction, request, now)
        _claim_key(transaction, record)
        if succession is not None:
            _succeed(transaction, record, succession, now)
        try:
            transaction.commit()
        except CancelledError as cancelled:
            return _why_cancelled(cancelled, record, request)
        return None

    def add_outside_quota(self, record: CertificateRecord) -> None:
        """Write the record alone, which claims neither slot nor key.

        Raises Contended when the serial is taken, DependencyFailed.
        """
        with our_errors():
            item_of(record).save(condition=CertificateItem.serial.does_not_exist())

    def earlier_request(
        self, caller: str, idempotency_key: str, now: datetime
    ) -> StoredRequest | None:
        """What the caller's key was used for in the last 24 hours. Raises DependencyFailed."""
        with our_errors():
            try:
                item = StateItem.get(
                    owner_key(caller), request_key(idempotency_key), consistent_read=True
                )
            except StateItem.DoesNotExist:
                return None
        if has_expired(item, now):
            return None
        return StoredRequest(caller, idempotency_key, item.digest, item.serial)

    def get(self, serial: str) -> CertificateRecord | None:
        """The record, read consistently. Raises DependencyFailed, Misconfigured (damaged)."""
        with our_errors(), readable(serial):
            try:
                return record_of(CertificateItem.get(serial, consistent_read=True))
            except CertificateItem.DoesNotExist:
                return None


def _take_slot(
    transaction: Transaction,
    record: CertificateRecord,
    now: datetime,
    succession: Succession | None,
) -> None:
    end = record.validity.not_after
    slot = slot_item(record)
    slot.serial, slot.not_after, slot.expires_at = record.serial, end, end
    free = StateItem.pk.does_not_exist() | (StateItem.not_after < now)
    if succession is not None and succession.revoke and succession.old.slot == record.slot:
        free |= StateItem.serial == succession.old.serial
    transaction.put("slot", slot, free)


def _remember(transaction: Transaction, request: StoredRequest, now: datetime) -> None:
    item = StateItem(
        owner_key(request.caller),
        request_key(request.idempotency_key),
        serial=request.serial,
        digest=request.digest,
        expires_at=now + IDEMPOTENCY_LIFETIME,
    )
    unused = StateItem.pk.does_not_exist() | (StateItem.expires_at <= now)
    transaction.put("request", item, unused)


def _claim_key(transaction: Transaction, record: CertificateRecord) -> None:
    """A key belongs to the first owner it is certified for: else whoever copies a CSR could have
    the key certified for himself, revoke that, and so have the key refused to its holder."""
    ours = (StateItem.owner == record.owner) & StateItem.revoked_at.does_not_exist()
    transaction.update(
        "key",
        key_item(record),
        [StateItem.owner.set(record.owner), StateItem.number.add(1)],
        StateItem.pk.does_not_exist() | ours,
    )
    transaction.put("use", use_item(record))


def _succeed(
    transaction: Transaction, record: CertificateRecord, succession: Succession, now: datetime
) -> None:
    """One certificate has one successor at a time: what was read of it must still be so."""
    old = succession.old
    unchanged = CertificateItem.revoked_at.does_not_exist()
    if old.superseded_by is None:
        unchanged &= CertificateItem.superseded_by.does_not_exist()
    else:
        unchanged &= CertificateItem.superseded_by == old.superseded_by
    actions: list[Action] = [CertificateItem.superseded_by.set(record.serial)]
    if succession.revoke:
        reason = RevocationReason.SUPERSEDED
        actions += mark_revoked(now, reason, record.owner)  # nobody else renews
        if old.status(now) is Status.ACTIVE:
            list_as_revoked(transaction, old, now, reason)
    else:
        transaction.put("old place", place_item(old))  # it may be the first that is renewed
    transaction.put("place", place_item(record))
    transaction.update("predecessor", CertificateItem(old.serial), actions, unchanged)


def _why_cancelled(
    cancelled: CancelledError, record: CertificateRecord, request: StoredRequest | None
) -> StoredRequest | None:
    failed = cancelled.failed
    if request is not None and "request" in failed:
        old = failed["request"]
        return replace(request, digest=text(old, "digest"), serial=text(old, "serial"))
    if "key" in failed:
        raise _key_refused(failed["key"], record.owner)
    raise contended()


def _key_refused(old: Mapping[str, Any], owner: str) -> InvalidRequest:
    if text(old, "owner") != owner:
        return InvalidRequest(
            "key_in_use", "this key is certified for somebody else; make a new key", field="csr"
        )
    return InvalidRequest(
        "key_revoked", "a certificate of this key was revoked; make a new key", field="csr"
    )
