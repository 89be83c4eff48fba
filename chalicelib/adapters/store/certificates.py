"""Certificates and what guards their issuance, in DynamoDB.

Two tables. `certificates` holds one item a serial. `state` holds what must be decided at once with
a certificate: the quota slots of an owner, the public keys in use, the idempotency keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError
from pynamodb.connection import Connection
from pynamodb.constants import ALL_OLD
from pynamodb.exceptions import PutError, PynamoDBException, TransactWriteError
from pynamodb.transactions import TransactWrite

from chalicelib.adapters.store.items import (
    CertificateItem,
    StateItem,
    bind,
    has_expired,
    item_of,
    owner_key,
    record_of,
    request_key,
)
from chalicelib.adapters.store.paging import cursor_after, start_key
from chalicelib.domain.model import (
    CertificatePage,
    CertificateRecord,
    QuotaSlot,
    Status,
    StoredRequest,
)
from chalicelib.domain.pki.crl import Revocation
from chalicelib.errors import Contended, DependencyFailed, InvalidRequest

IDEMPOTENCY_LIFETIME = timedelta(hours=24)

# Four tries within what API Gateway waits for an answer, 29 seconds.
_CONNECT_SECONDS, _READ_SECONDS, _RETRIES = 2, 5, 3


class CertificateStore:
    """One per process: it binds the two models to their tables and to one connection."""

    def __init__(self, certificates_table: str, state_table: str) -> None:
        self._connection = Connection(
            connect_timeout_seconds=_CONNECT_SECONDS,
            read_timeout_seconds=_READ_SECONDS,
            max_retry_attempts=_RETRIES,
        )
        bind(CertificateItem, certificates_table, self._connection)
        bind(StateItem, state_table, self._connection)

    def slots(self, owner: str) -> Sequence[QuotaSlot]:
        """The owner's taken quota slots, read consistently. Raises DependencyFailed."""
        with _our_errors():
            items = StateItem.query(
                owner_key(owner), StateItem.sk.startswith("slot#"), consistent_read=True
            )
            return [QuotaSlot(int(item.sk.removeprefix("slot#")), item.not_after) for item in items]

    def add(
        self, record: CertificateRecord, request: StoredRequest | None, now: datetime
    ) -> StoredRequest | None:
        """Write the record, its slot, its public key and the request together, or nothing.

        Returns what the idempotency key was used for before, if it was; then nothing is written.
        Raises Contended when the slot or serial was taken meanwhile, InvalidRequest for a key
        that is revoked or another owner's, DependencyFailed.
        """
        try:
            with _our_errors(), TransactWrite(connection=self._connection) as transaction:
                _put_record(transaction, record)
                _take_slot(transaction, record, now)
                if request is not None:
                    _remember(transaction, record.owner, request, now)
                _claim_key(transaction, record)
        except _CancelledError as cancelled:
            return _why_cancelled(cancelled, record, request)
        return None

    def add_outside_quota(self, record: CertificateRecord) -> None:
        """Write the record alone, which claims neither slot nor key.

        Raises Contended when the serial is taken, DependencyFailed.
        """
        try:
            with _our_errors():
                item_of(record).save(condition=CertificateItem.serial.does_not_exist())
        except _CancelledError as cancelled:
            raise _contended() from cancelled

    def revocations(self, issuer_id: str, now: datetime) -> Sequence[Revocation]:
        """What *issuer_id*'s CRL must list at *now*, read consistently. Raises DependencyFailed."""
        with _our_errors():
            items = StateItem.query(
                f"revoked#{issuer_id}",
                StateItem.sk >= f"{now:%Y-%m-%dT%H:%M:%SZ}",
                consistent_read=True,
            )
            return [
                Revocation(int(item.serial, 16), item.revoked_at, item.reason) for item in items
            ]

    def next_crl_number(self) -> int:
        """Greater than any before, by one atomic addition. Raises DependencyFailed."""
        counter = StateItem("crl", "number")
        with _our_errors():
            counter.update(actions=[StateItem.number.add(1)])
        return int(counter.number)

    def earlier_request(
        self, owner: str, idempotency_key: str, now: datetime
    ) -> StoredRequest | None:
        """What the key was used for in the last 24 hours. Raises DependencyFailed."""
        with _our_errors():
            try:
                item = StateItem.get(
                    owner_key(owner), request_key(idempotency_key), consistent_read=True
                )
            except StateItem.DoesNotExist:
                return None
        if has_expired(item, now):
            return None
        return StoredRequest(idempotency_key, item.digest, item.serial)

    def get(self, serial: str) -> CertificateRecord | None:
        """The record, read consistently. Raises DependencyFailed."""
        with _our_errors():
            try:
                return record_of(CertificateItem.get(serial, consistent_read=True))
            except CertificateItem.DoesNotExist:
                return None

    def page(
        self, owner: str, status: Status | None, limit: int, cursor: str | None, now: datetime
    ) -> CertificatePage:
        """Up to *limit* of the owner's certificates, newest first.

        The cursor names the last one seen, so what is issued between two pages moves nothing.
        Raises InvalidRequest for a cursor that is not ours, DependencyFailed.
        """
        with _our_errors():
            found = CertificateItem.by_owner.query(
                owner,
                filter_condition=_has_status(status, now),
                scan_index_forward=False,
                limit=limit,
                last_evaluated_key=None if cursor is None else start_key(owner, cursor),
            )
            items = list(found)
        more = found.last_evaluated_key is not None
        return CertificatePage(
            tuple(map(record_of, items)),
            cursor_after(items[-1].issued_key) if items and more else None,
        )


class _CancelledError(Exception):
    """A condition of a transaction did not hold. The reasons are in the order of the items."""

    def __init__(self, reasons: Sequence[Any]) -> None:
        super().__init__("transaction cancelled")
        self.reasons = reasons


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except TransactWriteError as error:
        if error.cause_response_code != "TransactionCanceledException":
            raise DependencyFailed("table_unwritable", "the record was not written") from error
        raise _CancelledError(error.cancellation_reasons) from error
    except PutError as error:
        if error.cause_response_code != "ConditionalCheckFailedException":
            raise DependencyFailed("table_unwritable", "the record was not written") from error
        raise _CancelledError([]) from error
    except (PynamoDBException, BotoCoreError) as error:
        raise DependencyFailed("table_unreadable", "the table did not answer") from error


# The order in which add() puts the items. pynamodb sends puts before updates, so the key, the one
# update, comes after the puts, be they two or three.
_REQUEST = 2


def _put_record(transaction: TransactWrite, record: CertificateRecord) -> None:
    transaction.save(item_of(record), condition=CertificateItem.serial.does_not_exist())


def _take_slot(transaction: TransactWrite, record: CertificateRecord, now: datetime) -> None:
    end = record.validity.not_after
    slot = StateItem(
        owner_key(record.owner),
        f"slot#{record.slot or 0:03}",
        serial=record.serial,
        not_after=end,
        expires_at=end,
    )
    free = StateItem.pk.does_not_exist() | (StateItem.not_after < now)
    transaction.save(slot, condition=free)


def _remember(
    transaction: TransactWrite, owner: str, request: StoredRequest, now: datetime
) -> None:
    item = StateItem(
        owner_key(owner),
        request_key(request.idempotency_key),
        serial=request.serial,
        digest=request.digest,
        expires_at=now + IDEMPOTENCY_LIFETIME,
    )
    unused = StateItem.pk.does_not_exist() | (StateItem.expires_at <= now)
    transaction.save(item, condition=unused, return_values=ALL_OLD)


def _claim_key(transaction: TransactWrite, record: CertificateRecord) -> None:
    """A key belongs to the first owner it is certified for: else whoever copies a CSR could have
    the key certified for himself, revoke that, and so have the key refused to its holder."""
    ours = (StateItem.owner == record.owner) & StateItem.revoked_at.does_not_exist()
    transaction.update(
        StateItem(f"key#{record.key_id}", "key"),
        actions=[StateItem.owner.set(record.owner)],
        condition=StateItem.pk.does_not_exist() | ours,
        return_values=ALL_OLD,
    )


def _why_cancelled(
    cancelled: _CancelledError, record: CertificateRecord, request: StoredRequest | None
) -> StoredRequest | None:
    failed = {
        position: reason
        for position, reason in enumerate(cancelled.reasons)
        if reason is not None and reason.code == "ConditionalCheckFailed"
    }
    if request is not None and _REQUEST in failed:
        old = failed[_REQUEST].raw_item or {}
        return StoredRequest(request.idempotency_key, _text(old, "digest"), _text(old, "serial"))
    key = _REQUEST if request is None else _REQUEST + 1
    if key in failed:
        raise _key_refused(failed[key].raw_item or {}, record.owner)
    if failed or any(r is not None and r.code == "TransactionConflict" for r in cancelled.reasons):
        raise _contended()
    raise DependencyFailed("table_unwritable", "the record was not written")


def _contended() -> Contended:
    return Contended("busy", "another request of yours got there first; ask again")


def _key_refused(old: Mapping[str, Any], owner: str) -> InvalidRequest:
    if _text(old, "owner") != owner:
        return InvalidRequest(
            "key_in_use", "this key is certified for somebody else; make a new key", field="csr"
        )
    return InvalidRequest(
        "key_revoked", "a certificate of this key was revoked; make a new key", field="csr"
    )


def _text(raw_item: Mapping[str, Any], name: str) -> str:
    return str(raw_item.get(name, {}).get("S", ""))


def _has_status(status: Status | None, now: datetime) -> Any:
    if status is None:
        return None
    if status is Status.REVOKED:
        return CertificateItem.revoked_at.exists()
    standing = CertificateItem.revoked_at.does_not_exist()
    if status is Status.EXPIRED:
        return standing & (CertificateItem.not_after < now)
    return standing & (CertificateItem.not_after >= now)
