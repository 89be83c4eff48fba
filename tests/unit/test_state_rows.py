"""What is missing of the state table, worked out from what is left elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from chalicelib.adapters.store.items import StateItem
from chalicelib.domain.model import CertificateRecord, RevocationReason, Validity
from chalicelib.domain.pki.crl import UNKNOWN_DATE, Revocation
from operations.state_rows import Evidence, Losses, losses
from tests.unit.authorities import DAY, NOW
from tests.unit.certificate_records import record

HOUR = timedelta(hours=1)
ISSUER = "0123456789abcdef"
START = NOW.replace(microsecond=0)
REASON = RevocationReason


def one(number: int, **fields: Any) -> CertificateRecord:
    serial = f"{number:040x}"
    given = {"issuer_id": ISSUER, "key_id": f"{number:064x}", "slot": number, **fields}
    return record(serial=serial, **given)


def revoked(
    number: int, reason: RevocationReason = REASON.UNSPECIFIED, **fields: Any
) -> CertificateRecord:
    given = {"revoked_at": START - HOUR, "revoked_by": "admin", **fields}
    return replace(one(number, **given), revocation_reason=reason)


def evidence(
    records: Iterable[CertificateRecord] = (),
    rows: Iterable[StateItem] = (),
    listed: Iterable[Revocation] = (),
    number: int = 0,
) -> Evidence:
    counter = StateItem("crl", "number", number=number)
    items = {(item.pk, item.sk): item.serialize() for item in (counter, *rows)}
    by_serial = {each.serial: each for each in records}
    return Evidence(by_serial, items, {ISSUER: list(listed)}, number)


def keys(items: Iterable[StateItem]) -> set[tuple[str, str]]:
    return {(item.pk, item.sk) for item in items}


def everything(found: Losses) -> list[StateItem]:
    of_standing = [item for each in found.standing for item in each.items]
    return [*found.entries, *of_standing, *found.keys]


def test_nothing_is_missing_where_there_is_nothing() -> None:
    assert not losses(evidence(), NOW).any


def test_of_an_empty_table_all_is_missing_that_the_records_tell() -> None:
    ended = one(4, validity=Validity(START - 9 * DAY, START - DAY))
    found = losses(evidence([one(1), revoked(2), replace(one(3), access=None), ended]), NOW)
    end = f"{one(1).validity.not_after:%Y-%m-%dT%H:%M:%SZ}"
    assert keys(everything(found)) == {
        (f"revoked#{ISSUER}", f"{end}#{2:040x}"),
        (f"key#{1:064x}", "key"),
        (f"key#{2:064x}", "key"),
        (f"key#{4:064x}", "key"),
        (f"key#{1:064x}", f"cert#{end}#{1:040x}"),
        (f"owner#{one(1).owner}", "slot#001"),
    }


def test_once_it_is_put_back_nothing_is_missing_any_more() -> None:
    some = [one(1), revoked(2), one(5, line=f"{1:040x}"), replace(one(6), superseded_by="x")]
    first = losses(evidence(some), NOW)
    assert not losses(evidence(some, everything(first)), NOW).any


def test_an_entry_is_as_revoking_wrote_it() -> None:
    (entry,) = losses(evidence([revoked(2, REASON.KEY_COMPROMISE)]), NOW).entries
    assert (entry.serial, entry.revoked_at, entry.reason) == (
        f"{2:040x}",
        START - HOUR,
        "keyCompromise",
    )
    assert entry.expires_at == one(2).validity.not_after + 8 * DAY


def test_what_ended_needs_no_entry() -> None:
    past = Validity(START - 9 * DAY, START - DAY)
    assert losses(evidence([revoked(2, validity=past)]), NOW).entries == ()


def test_what_was_revoked_after_the_backup_holds_no_place_any_more() -> None:
    """And what has its slot by now keeps it."""
    before = [one(1), one(2, line=f"{1:040x}", slot=7), one(3)]
    rows = everything(losses(evidence(before), NOW))
    now = [revoked(1), revoked(2, line=f"{1:040x}", slot=7), one(3, slot=7)]
    rows = [row for row in rows if row.sk != "slot#007"]
    (held,) = [row for row in everything(losses(evidence([now[2]]), NOW)) if row.sk == "slot#007"]
    found = losses(evidence(now, [*rows, held]), NOW)
    assert {item.sk for item in found.stale} >= {"slot#001"}
    assert "slot#007" not in {item.sk for item in found.stale}
    gone = keys(found.stale)
    left = [row for row in (*rows, held, *found.entries) if (row.pk, row.sk) not in gone]
    assert losses(evidence(now, [*left, *found.keys]), NOW).stale == ()


class TestLists:
    """What was published is revoked, whatever the tables say."""

    LISTED = Revocation(7, START - DAY, "superseded")

    def test_the_record_is_marked_and_a_row_put(self) -> None:
        found = losses(evidence([one(7)], listed=[self.LISTED]), NOW)
        assert [(m.serial, m.at, m.reason) for m in found.marks] == [
            (f"{7:040x}", START - DAY, REASON.SUPERSEDED)
        ]
        assert len(found.entries) == 1
        assert found.standing == ()  # nothing stands any more
        assert found.unrecorded == ()

    def test_without_a_record_it_stays_listed_as_long_as_it_could_stand(self) -> None:
        found = losses(evidence(listed=[self.LISTED]), NOW)
        (entry,) = found.entries
        assert entry.sk == f"{START + 824 * DAY:%Y-%m-%dT%H:%M:%SZ}#{7:040x}"
        assert found.unrecorded == (f"{7:040x}",)

    def test_also_when_its_date_is_unknown(self) -> None:
        (entry,) = losses(
            evidence(listed=[replace(self.LISTED, revoked_at=UNKNOWN_DATE)]), NOW
        ).entries
        assert entry.sk.startswith(f"{NOW + 825 * DAY:%Y-%m-%dT%H:%M:%SZ}")

    def test_a_row_is_enough_for_a_record_that_does_not_know(self) -> None:
        """The certificates' table was restored: its record is one of before."""
        rows = everything(losses(evidence([revoked(7)]), NOW))
        found = losses(evidence([one(7)], rows), NOW)
        assert [mark.serial for mark in found.marks] == [f"{7:040x}"]
        assert found.entries == ()

    def test_the_record_knows_best(self) -> None:
        known = revoked(7, REASON.KEY_COMPROMISE)
        (entry,) = losses(evidence([known], listed=[self.LISTED]), NOW).entries
        assert (entry.revoked_at, entry.reason) == (START - HOUR, "keyCompromise")


class TestKeys:
    """A key that is refused stays so: else its finder could have it certified again."""

    SHARED = f"{9:064x}"

    def of_key(self, number: int, at: datetime | None = None, **fields: Any) -> CertificateRecord:
        return one(number, key_id=self.SHARED, revoked_at=at, **fields)

    @pytest.mark.parametrize(
        ("reason", "expected"),
        [
            (REASON.UNSPECIFIED, True),
            (REASON.CESSATION_OF_OPERATION, True),
            (REASON.KEY_COMPROMISE, True),
            (REASON.SUPERSEDED, False),
        ],
    )
    def test_of_the_last_certificate(self, reason: RevocationReason, expected: bool) -> None:
        (item,) = losses(evidence([revoked(2, reason)]), NOW).keys
        assert (item.revoked_at is not None) is expected

    @pytest.mark.parametrize(
        ("reason", "expected"), [(REASON.UNSPECIFIED, False), (REASON.KEY_COMPROMISE, True)]
    )
    def test_while_another_of_it_stands(self, reason: RevocationReason, expected: bool) -> None:
        older = revoked(1, reason, key_id=self.SHARED, issued_at=START - 2 * DAY)
        newer = self.of_key(2, issued_at=START - DAY)
        (item,) = losses(evidence([older, newer]), NOW).keys
        assert (item.owner, item.number) == (older.owner, 2)
        assert (item.revoked_at is not None) is expected

    def test_one_that_is_there_is_refused_again(self) -> None:
        there = StateItem(f"key#{2:064x}", "key", owner="somebody", number=1)
        found = losses(evidence([revoked(2)], [there]), NOW)
        assert found.keys == ()
        assert [item.revoked_at for item in found.retired] == [START - HOUR]


class TestCounter:
    def number(self, there: int | None, published: int, *, restored: bool = False) -> int | None:
        rows = {} if there is None else {("crl", "number"): {"number": {"N": str(there)}}}
        return losses(Evidence({}, rows, {}, published), NOW, restored=restored).counter

    def test_one_that_is_ahead_stays(self) -> None:
        assert self.number(5, 5) is None
        assert self.number(6, 5) is None

    def test_one_that_fell_behind_or_is_lost_is_beyond_any_that_ever_was(self) -> None:
        """Registry hosts may hold a list of a greater number than any that is left."""
        for there, published in ((3, 5), (None, 5), (None, 0)):
            assert self.number(there, published) == int(NOW.timestamp())

    def test_so_is_that_of_a_table_that_was_restored(self) -> None:
        assert self.number(6, 5, restored=True) == int(NOW.timestamp())
        far = int(NOW.timestamp()) + 9
        assert self.number(far, 5, restored=True) == far
