"""What the state table must say, worked out from the certificates' records and the published lists.

Pure: what is there goes in, what is missing comes out. What is revoked stays so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from chalicelib.adapters.store.items import (
    StateItem,
    expiry_key,
    key_item,
    place_item,
    slot_item,
    use_item,
)
from chalicelib.adapters.store.revocations import KEPT_AFTER_END
from chalicelib.adapters.store.times import stored_time
from chalicelib.domain.model import CertificateRecord, RevocationReason, Status
from chalicelib.domain.pki import crl
from chalicelib.domain.policy import LONGEST_LIFETIME

Item = Mapping[str, Any]  # in DynamoDB's own form
Key = tuple[str, str]

_REVOKED = "revoked#"
PENDING = "crl-pending"
COUNTER: Key = ("crl", "number")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is left. records: by serial. rows: all items of the state table, by their keys.

    listed: by issuer, the entries of every published list of it that could be found. number: the
    greatest CRL number of these; 0 without.
    """

    records: Mapping[str, CertificateRecord]
    rows: Mapping[Key, Item]
    listed: Mapping[str, Sequence[crl.Revocation]]
    number: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """One certificate that is revoked, by whatever is left of it."""

    serial: str
    issuer_id: str
    at: datetime
    reason: RevocationReason


@dataclass(frozen=True, slots=True)
class Standing:
    """Items that go with a certificate for as long as it is neither revoked nor ended."""

    record: CertificateRecord
    items: tuple[StateItem, ...]


@dataclass(frozen=True, slots=True)
class Losses:
    """What is to be put back.

    entries: rows of the revocation lists. marks: certificates whose record does not say that they
    are revoked. standing: of those that stand. stale: items of a revoked certificate that say it
    stands. keys: of public keys; retired: keys that are there, but whose refusal is not. counter:
    the CRL number to go on from; None if it is right. unrecorded: serials that are revoked and have
    no record.
    """

    entries: tuple[StateItem, ...]
    marks: tuple[Revoked, ...]
    standing: tuple[Standing, ...]
    stale: tuple[StateItem, ...]
    keys: tuple[StateItem, ...]
    retired: tuple[StateItem, ...]
    counter: int | None
    unrecorded: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether anything is to be put back."""
        parts = (self.entries, self.marks, self.standing, self.stale, self.keys, self.retired)
        return any(parts) or self.counter is not None


def losses(evidence: Evidence, now: datetime, *, restored: bool = False) -> Losses:
    """What is missing of the state table, and of revocations in the records.

    restored: the table was just restored or made anew, so its CRL number may be behind one that
    registry hosts hold, though nothing here shows it.
    """
    revoked = {each.serial: each for each in _revoked(evidence)}
    records = {serial: _as_revoked(one, revoked) for serial, one in evidence.records.items()}
    clients = [record for record in records.values() if record.access is not None]
    keys, retired = _keys(clients, evidence.rows)
    return Losses(
        entries=tuple(_entries(revoked.values(), evidence, now)),
        marks=tuple(
            revoked[serial]
            for serial, record in evidence.records.items()
            if serial in revoked and record.revoked_at is None
        ),
        standing=tuple(_standing(clients, evidence.rows, now)),
        stale=tuple(_stale(clients, evidence.rows)),
        keys=keys,
        retired=retired,
        counter=_counter(evidence, now, restored),
        unrecorded=tuple(serial for serial in revoked if serial not in evidence.records),
    )


def texts(row: Item) -> dict[str, str]:
    """An item's texts by name, as the revocation lists are made of them."""
    return {name: str(value["S"]) for name, value in row.items() if "S" in value}


def _revoked(evidence: Evidence) -> Iterator[Revoked]:
    """Each once; of what several say, the record's word counts first, then the row's."""
    found: dict[str, Revoked] = {}
    for one in (*_by_records(evidence), *_by_rows(evidence), *_by_lists(evidence)):
        held = found.setdefault(one.serial, one)
        if held.at == crl.UNKNOWN_DATE:
            found[one.serial] = replace(held, at=one.at)
    yield from found.values()


def _by_records(evidence: Evidence) -> Iterator[Revoked]:
    for record in evidence.records.values():
        if record.revoked_at is not None and record.access is not None:
            reason = record.revocation_reason or RevocationReason.UNSPECIFIED
            yield Revoked(record.serial, record.issuer_id, record.revoked_at, reason)


def _by_rows(evidence: Evidence) -> Iterator[Revoked]:
    for (partition, _), row in evidence.rows.items():
        if partition.startswith(_REVOKED):
            issuer_id = partition.removeprefix(_REVOKED)
            yield from _of(issuer_id, crl.readable([texts(row)]).revocations)


def _by_lists(evidence: Evidence) -> Iterator[Revoked]:
    for issuer_id, entries in evidence.listed.items():
        yield from _of(issuer_id, entries)


def _of(issuer_id: str, revocations: Iterable[crl.Revocation]) -> Iterator[Revoked]:
    known = set(RevocationReason)
    for one in revocations:
        reason = RevocationReason(one.reason) if one.reason in known else None
        said = reason or RevocationReason.UNSPECIFIED
        yield Revoked(format(one.serial, "040x"), issuer_id, one.revoked_at, said)


def _as_revoked(record: CertificateRecord, revoked: Mapping[str, Revoked]) -> CertificateRecord:
    one = revoked.get(record.serial)
    if one is None or record.revoked_at is not None:
        return record
    return replace(record, revoked_at=one.at, revocation_reason=one.reason)


def _entries(revoked: Iterable[Revoked], evidence: Evidence, now: datetime) -> Iterator[StateItem]:
    """Of one without a record nobody knows when it ends: as late as any of before its date may."""
    there = {(partition, key[-40:]) for partition, key in evidence.rows}
    for one in revoked:
        partition = f"{_REVOKED}{one.issuer_id}"
        if (partition, one.serial) in there:
            continue
        record = evidence.records.get(one.serial)
        if record is not None:
            end, key = record.validity.not_after, expiry_key(record)
        else:
            end = (now if one.at == crl.UNKNOWN_DATE else one.at) + LONGEST_LIFETIME
            key = f"{stored_time(end)}#{one.serial}"
        if end >= now:
            yield StateItem(
                partition,
                key,
                serial=one.serial,
                revoked_at=one.at,
                reason=one.reason.value,
                expires_at=end + KEPT_AFTER_END,
            )


def _standing(
    clients: Iterable[CertificateRecord], rows: Mapping[Key, Item], now: datetime
) -> Iterator[Standing]:
    for record in clients:
        if record.status(now) is not Status.ACTIVE:
            continue
        items = [use_item(record)]
        if record.line is not None or record.superseded_by is not None:
            items.append(place_item(record))
        if record.slot is not None:
            items.append(_slot(record))
        missing = tuple(item for item in items if (item.pk, item.sk) not in rows)
        if missing:
            yield Standing(record, missing)


def _slot(record: CertificateRecord) -> StateItem:
    slot, end = slot_item(record), record.validity.not_after
    slot.serial, slot.not_after, slot.expires_at = record.serial, end, end
    return slot


def _stale(clients: Iterable[CertificateRecord], rows: Mapping[Key, Item]) -> Iterator[StateItem]:
    """A slot that another certificate has by now is that one's."""
    for record in clients:
        if record.revoked_at is None:
            continue
        yield from (
            item for item in (use_item(record), place_item(record)) if (item.pk, item.sk) in rows
        )
        if record.slot is not None:
            slot = _slot(record)
            if texts(rows.get((slot.pk, slot.sk), {})).get("serial") == record.serial:
                yield slot


def _keys(
    clients: Sequence[CertificateRecord], rows: Mapping[Key, Item]
) -> tuple[tuple[StateItem, ...], tuple[StateItem, ...]]:
    """Those that are missing, and those that are there and not refused though they should be."""
    by_key: dict[str, list[CertificateRecord]] = {}
    for record in sorted(clients, key=lambda record: record.issued_at):
        by_key.setdefault(record.key_id, []).append(record)
    missing, retired = list[StateItem](), list[StateItem]()
    for of_key in by_key.values():
        item = key_item(of_key[0])
        item.revoked_at = _retired_at(of_key)
        row = rows.get((item.pk, item.sk))
        if row is None:
            item.owner, item.number = of_key[0].owner, len(of_key)
            missing.append(item)
        elif item.revoked_at is not None and "revoked_at" not in row:
            retired.append(item)
    return tuple(missing), tuple(retired)


def _retired_at(of_key: Sequence[CertificateRecord]) -> datetime | None:
    """When the key was refused for good, as revoking decides it: see domain/revocation.py."""
    for record in of_key:
        at, reason = record.revoked_at, record.revocation_reason
        if at is None or reason is RevocationReason.SUPERSEDED:
            continue
        compromised = reason is RevocationReason.KEY_COMPROMISE
        others = (other for other in of_key if other is not record)
        if compromised or not any(_stood(other, at) for other in others):
            return at
    return None


def _stood(record: CertificateRecord, at: datetime) -> bool:
    """Whether it stood just after *at*."""
    revoked = record.revoked_at is not None and record.revoked_at <= at
    return record.issued_at <= at <= record.validity.not_after and not revoked


def _counter(evidence: Evidence, now: datetime, restored: bool) -> int | None:
    """Registry hosts take no list of a smaller number than theirs, which we may not know.

    The seconds since 1970 are more than any count of lists, and than any seconds of before.
    """
    row = evidence.rows.get(COUNTER)
    there = int(row["number"]["N"]) if row is not None and "number" in row else None
    if there is not None and there >= evidence.number and not restored:
        return None
    return max(evidence.number, there or 0, int(now.timestamp()))
