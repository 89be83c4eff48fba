"""Pages of certificates on a real emulator: each is there once, whatever happens between two."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib.adapters.store import (
    CertificateListing,
    CertificateStore,
    RevocationStore,
    Tables,
)
from chalicelib.adapters.store import reading as module
from chalicelib.domain.model import (
    CertificatePage,
    CertificateRecord,
    RevocationReason,
    Selection,
    Status,
    Validity,
)
from chalicelib.errors import InvalidRequest
from tests.component.store.records import DAY, NOW, SECOND, record


class TestAnOwners:
    def test_pages_hold_everything_once_newest_first(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        added = [record(owner, slot) for slot in range(7)]
        for each in added:
            store.add(each, None, NOW)
        store.add(record(owner + "2"), None, NOW)
        seen: list[CertificateRecord] = []
        cursor = None
        while True:
            page = listing.page(Selection(owner), 3, cursor, NOW)
            seen += page.records
            cursor = page.cursor
            assert len(page.records) == 3 or cursor is None
            if cursor is None:
                break
        assert seen == added[::-1]

    def test_what_is_issued_between_two_pages_moves_nothing(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        added = [record(owner, slot) for slot in range(4)]
        for each in added:
            store.add(each, None, NOW)
        first = listing.page(Selection(owner), 2, None, NOW)
        store.add(record(owner, 4), None, NOW)
        second = listing.page(Selection(owner), 2, first.cursor, NOW)
        assert [*first.records, *second.records] == added[::-1]

    def test_anothers_cursor_shows_nothing_of_his(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        for slot in range(3):
            store.add(record(owner, slot), None, NOW)
        cursor = listing.page(Selection(owner), 1, None, NOW).cursor
        assert listing.page(Selection(owner + "2"), 9, cursor, NOW).records == ()

    def test_a_page_of_a_status_is_full_though_others_lie_between(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        end = NOW.replace(microsecond=0) + DAY
        short = [record(owner, n, validity=Validity(NOW - DAY, end)) for n in (0, 1)]
        long = [record(owner, n) for n in (2, 3)]
        for pair in zip(short, long, strict=True):
            for each in pair:
                store.add(each, None, NOW)
        for now, status, expected in (
            (end, Status.ACTIVE, 4),
            (end, Status.EXPIRED, 0),
            (end + SECOND, Status.ACTIVE, 2),
            (end + SECOND, Status.EXPIRED, 2),
            (end, Status.REVOKED, 0),
        ):
            page = listing.page(Selection(owner, status), 4, None, now)
            assert [each.status(now) for each in page.records] == [status] * expected
        assert (
            len(listing.page(Selection(owner, Status.ACTIVE), 2, None, end + SECOND).records) == 2
        )

    @pytest.mark.parametrize("cursor", ["", "x", "é", "bm90IG91cnM", "=" * 9])
    def test_a_cursor_that_is_not_ours_is_refused(
        self, listing: CertificateListing, owner: str, cursor: str
    ) -> None:
        with pytest.raises(InvalidRequest) as caught:
            listing.page(Selection(owner), 9, cursor, NOW)
        assert (caught.value.code, caught.value.field) == ("invalid_cursor", "cursor")

    def test_those_that_end_before_a_time_are_those_that_have_not_ended(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        ends = [START + days * DAY for days in (-1, 1, 2, 3)]
        for slot, end in enumerate(ends):
            store.add(record(owner, slot, validity=Validity(START - 9 * DAY, end)), None, NOW)
        page = listing.page(Selection(owner, expires_before=ends[3]), 9, None, NOW)
        assert [each.validity.not_after for each in page.records] == [ends[2], ends[1]]

    def test_a_page_gives_up_after_bounded_work_and_says_where_to_go_on(
        self,
        store: CertificateStore,
        listing: CertificateListing,
        owner: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(module, "_MOST_ITEMS", 2)
        monkeypatch.setattr(module, "_ITEMS_A_QUERY", 2)
        for slot in range(5):
            store.add(record(owner, slot), None, NOW)
        selection, cursor, pages = Selection(owner, Status.EXPIRED), None, 0
        while True:
            page = listing.page(selection, 9, cursor, NOW)
            assert page.records == ()
            pages, cursor = pages + 1, page.cursor
            if cursor is None:
                break
        assert pages == 3


class TestEverybodys:
    """Other tests' certificates are there too, all of them issued within the hour."""

    def test_pages_hold_everything_once_newest_first(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        added = [record(f"{owner}-{number}") for number in range(5)]
        for each in added:
            store.add(each, None, NOW)
        later = NOW + timedelta(hours=1)  # other tests' numbers became milliseconds
        seen = every_page(lambda cursor: listing.page(Selection(), 2, cursor, later))
        assert [each for each in seen if each.owner.startswith(owner)] == added[::-1]
        assert len({each.serial for each in seen}) == len(seen)
        assert [each.issued_at for each in seen] == sorted(
            (each.issued_at for each in seen), reverse=True
        )

    def test_months_are_read_back_to_the_first(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        old = [record(owner, slot, issued_at=NOW - slot * 31 * DAY) for slot in range(4)]
        for each in old:
            store.add(each, None, NOW)
        seen = every_page(lambda cursor: listing.page(Selection(), 3, cursor, NOW + DAY))
        assert [each for each in seen if each.owner == owner] == old

    def test_what_is_issued_between_two_pages_moves_nothing(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        for slot in range(4):
            store.add(record(owner, slot), None, NOW)
        later = NOW + timedelta(hours=1)
        first = listing.page(Selection(), 2, None, later)
        second = listing.page(Selection(), 2, first.cursor, later)
        store.add(record(owner, 4), None, NOW)
        assert listing.page(Selection(), 2, first.cursor, later) == second

    def test_of_a_status_only_those(
        self,
        store: CertificateStore,
        listing: CertificateListing,
        revocations: RevocationStore,
        owner: str,
    ) -> None:
        one, two = record(owner, 0), record(owner, 1)
        for each in (one, two):
            store.add(each, None, NOW)
        revocations.revoke(one, RevocationReason.UNSPECIFIED, owner, NOW, None)
        seen = every_page(
            lambda cursor: listing.page(Selection(status=Status.REVOKED), 9, cursor, NOW + DAY)
        )
        assert [each.serial for each in seen if each.owner == owner] == [one.serial]


class TestEndingSoonest:
    def put(self, store: CertificateStore, owner: str, *ends: datetime) -> list[CertificateRecord]:
        added = [
            record(owner, slot, validity=Validity(START - DAY, end))
            for slot, end in enumerate(ends)
        ]
        for each in added:
            store.add(each, None, NOW)
        return added

    def test_the_soonest_comes_first_and_both_ends_are_sharp(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        now = START + 400 * DAY  # where no other test's are
        ends = [now - SECOND, now, now + 3 * DAY, now + DAY, now + 5 * DAY - SECOND, now + 5 * DAY]
        added = self.put(store, owner, *ends)
        selection = Selection(expires_before=now + 5 * DAY)
        for limit in (1, 2, 9):
            seen = every_page(
                lambda cursor, limit=limit: listing.page(selection, limit, cursor, now)
            )
            assert seen == [added[1], added[3], added[2], added[4]]

    def test_a_page_goes_on_though_its_place_has_passed(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        now = START + 500 * DAY
        added = self.put(store, owner, now + SECOND, now + DAY, now + 2 * DAY)
        selection = Selection(expires_before=now + 9 * DAY)
        first = listing.page(selection, 1, None, now)
        assert first.records == (added[0],)
        much_later = now + DAY + SECOND
        assert listing.page(selection, 9, first.cursor, much_later).records == (added[2],)

    def test_many_that_end_on_one_day_come_once_each(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        noon = (START + 650 * DAY).replace(hour=12)
        same = [noon + SECOND] * 2  # told apart by their serials alone
        added = self.put(store, owner, *same, noon + 2 * SECOND, noon + 3 * SECOND)
        selection = Selection(expires_before=noon + DAY)
        for limit in (1, 2, 3):
            seen = every_page(
                lambda cursor, limit=limit: listing.page(selection, limit, cursor, noon)
            )
            assert seen == added

    def test_what_has_ended_since_the_page_before_is_left_out(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        noon = (START + 700 * DAY).replace(hour=12)
        added = self.put(store, owner, *(noon + seconds * SECOND for seconds in (1, 2, 3)))
        selection = Selection(expires_before=noon + DAY)
        first = listing.page(selection, 1, None, noon)
        assert first.records == (added[0],)
        assert listing.page(selection, 9, first.cursor, noon + 3 * SECOND).records == (added[2],)

    def test_it_reads_what_ends_soon_and_not_what_there_is(
        self, tables: Tables, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        now = START + 600 * DAY
        soon = self.put(store, owner, now + DAY, now + 2 * DAY)
        for number in range(30):
            ends = [now + (20 + number) * DAY]
            self.put(store, f"{owner}-{number}", *ends)
        read: list[int] = []
        ask = tables.query

        def count(*args: Any, **options: Any) -> Any:
            answer = ask(*args, **options)
            read.append(answer["ScannedCount"])
            return answer

        tables.query = count  # type: ignore[method-assign]
        page = listing.page(Selection(expires_before=now + 7 * DAY), 50, None, now)
        assert list(page.records) == soon
        assert sum(read) == 2
        assert len(read) == 8  # one query a day

    @pytest.mark.parametrize("before", [NOW - DAY, NOW, datetime.max.replace(tzinfo=UTC)])
    def test_any_time_may_be_asked_for(self, listing: CertificateListing, before: datetime) -> None:
        pages = every_page(
            lambda cursor: listing.page(Selection(expires_before=before), 100, cursor, NOW)
        )
        assert (pages == []) == (before <= NOW)

    def test_a_cursor_of_another_order_is_refused(
        self, store: CertificateStore, listing: CertificateListing, owner: str
    ) -> None:
        for slot in range(2):
            store.add(record(owner, slot), None, NOW)
        cursor = listing.page(Selection(owner), 1, None, NOW).cursor
        for other in (Selection(), Selection(expires_before=NOW + DAY)):
            with pytest.raises(InvalidRequest):
                listing.page(other, 1, cursor, NOW)


START = NOW.replace(microsecond=0)


def every_page(page: Callable[[str | None], CertificatePage]) -> list[CertificateRecord]:
    """All that the pages hold, one after the other; there must be an end to them."""
    seen: list[CertificateRecord] = []
    cursor = None
    for _ in range(300):
        found = page(cursor)
        seen += found.records
        cursor = found.cursor
        if cursor is None:
            return seen
    raise AssertionError("no end of pages")
