"""Revoking, and what the revocation lists are made of, in DynamoDB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pynamodb.expressions.update import Action

from chalicelib.adapters.store.items import (
    USES,
    CertificateItem,
    StateItem,
    expiry_key,
    key_item,
    line_of,
    place_item,
    slot_item,
    use_item,
)
from chalicelib.adapters.store.tables import (
    CancelledError,
    Tables,
    Transaction,
    contended,
    our_errors,
)
from chalicelib.adapters.store.times import stored_time
from chalicelib.domain.model import CertificateRecord, KeyUse, RevocationReason, Status
from chalicelib.domain.pki.crl import LIFETIME

_PENDING = "crl-pending"

# How long an entry is kept after its certificate's end; lists stop showing it at the end itself, if
# the entry is still there to say so: for longer than a list can be in force.
KEPT_AFTER_END = LIFETIME + timedelta(days=1)


class RevocationStore:
    """What is revoked, what of it no published list shows yet, and the lists' number."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def revoke(
        self,
        record: CertificateRecord,
        reason: RevocationReason,
        by: str,
        now: datetime,
        retire: KeyUse | None,
    ) -> None:
        """Mark it, list it, free its slot and retire its key together, or nothing.

        retire: what its key was certified for when last looked at; None leaves the key alone.
        Raises Contended when the record, or that, changed meanwhile, DependencyFailed.
        """
        transaction = Transaction(self._tables.connection)
        if record.status(now) is Status.ACTIVE:
            list_as_revoked(transaction, record, now, reason)
            if record.slot is not None:
                # It may have been given to another certificate if this one's end is just now.
                free = StateItem.pk.does_not_exist() | (StateItem.serial == record.serial)
                transaction.delete("slot", slot_item(record), free)
        transaction.update(
            "record",
            CertificateItem(record.serial),
            mark_revoked(now, reason, by),
            CertificateItem.serial.exists() & CertificateItem.revoked_at.does_not_exist(),
        )
        if retire is not None:
            unchanged = (
                StateItem.number.does_not_exist()
                if retire.version is None
                else StateItem.number == retire.version
            )
            transaction.update("key", key_item(record), [_retired(now)], unchanged)
        try:
            transaction.commit()
        except CancelledError as cancelled:
            raise contended() from cancelled

    def retire_key(self, record: CertificateRecord, now: datetime) -> None:
        """Have the record's key refused from now on. Raises Contended, DependencyFailed."""
        with our_errors():
            key_item(record).update(actions=[_retired(now)])

    def standing_in_line(self, record: CertificateRecord, now: datetime) -> Sequence[str]:
        """Serials of those that descend from the same first certificate and stand at *now*.

        Raises DependencyFailed.
        """
        return self._standing(line_of(record), now)

    def use_of_key(self, record: CertificateRecord, now: datetime) -> KeyUse:
        """What the record's key is certified for at *now*. Raises DependencyFailed."""
        key = key_item(record)
        # The version first: what is certified after that shows by another version.
        with our_errors():
            try:
                version = StateItem.get(key.pk, key.sk, consistent_read=True).number
            except StateItem.DoesNotExist:
                return KeyUse(None, ())
        return KeyUse(None if version is None else int(version), tuple(self._standing(key.pk, now)))

    def _standing(self, partition: str, now: datetime) -> Sequence[str]:
        condition = StateItem.sk.between(f"{USES}{stored_time(now)}", f"{USES}~")
        options = {"range_key_condition": condition, "attributes_to_get": ["sk"]}
        found = self._items(partition, {**options, "consistent_read": True})
        return [item["sk"]["S"].rpartition("#")[2] for item in found]

    def revocations(self, issuer_id: str, since: datetime) -> Iterator[Mapping[str, str]]:
        """What *issuer_id*'s list must show from *since* on, read consistently, as it was stored.

        Texts sk (NOT-AFTER#SERIAL), serial, revoked_at and reason; a damaged item lacks some.
        Raises DependencyFailed.
        """
        options: dict[str, Any] = {
            "range_key_condition": StateItem.sk >= stored_time(since),
            "attributes_to_get": ["sk", "serial", "revoked_at", "reason"],
            "consistent_read": True,
        }
        for item in self._items(f"revoked#{issuer_id}", options):
            yield {name: value["S"] for name, value in item.items() if "S" in value}

    def pending(self) -> Sequence[str]:
        """Serials that no published list is known to show yet. Raises DependencyFailed."""
        options: dict[str, Any] = {"attributes_to_get": ["sk"], "consistent_read": True}
        return [item["sk"]["S"] for item in self._items(_PENDING, options)]

    def settle(self, serials: Sequence[str]) -> None:
        """These are shown by a published list now. Raises DependencyFailed."""
        with our_errors(), StateItem.batch_write() as batch:
            for serial in serials:
                batch.delete(StateItem(_PENDING, serial))

    def next_crl_number(self, above: int) -> int:
        """Greater than any before and than *above*, by atomic additions. Raises DependencyFailed.

        above: the greatest that is known to be published; the counter may be behind it, after the
        table was restored from a backup.
        """
        counter = StateItem("crl", "number")
        with our_errors():
            counter.update(actions=[StateItem.number.add(1)])
            if counter.number <= above:
                counter.update(actions=[StateItem.number.add(above + 1 - int(counter.number))])
        return int(counter.number)

    def _items(self, partition: str, options: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Every item, in DynamoDB's own form: one damaged item must not hide the others."""
        start = None
        while True:
            answer = self._tables.query(
                self._tables.state, partition, exclusive_start_key=start, **options
            )
            yield from answer["Items"]
            start = answer.get("LastEvaluatedKey")
            if start is None:
                return


def _retired(now: datetime) -> Action:
    return StateItem.revoked_at.set(now.replace(microsecond=0))


def mark_revoked(now: datetime, reason: RevocationReason, by: str) -> list[Action]:
    """The changes to a record that revoke it."""
    return [
        CertificateItem.revoked_at.set(now.replace(microsecond=0)),
        CertificateItem.revocation_reason.set(reason.value),
        CertificateItem.revoked_by.set(by),
    ]


def list_as_revoked(
    transaction: Transaction, record: CertificateRecord, now: datetime, reason: RevocationReason
) -> None:
    """Have the issuer's list show it from the next one on, until the certificate's end."""
    entry = StateItem(
        f"revoked#{record.issuer_id}",
        expiry_key(record),
        serial=record.serial,
        revoked_at=now.replace(microsecond=0),
        reason=reason.value,
        expires_at=record.validity.not_after + KEPT_AFTER_END,
    )
    transaction.put("entry", entry)
    transaction.put("pending", StateItem(_PENDING, record.serial))
    transaction.delete("use", use_item(record))
    transaction.delete("place", place_item(record))
