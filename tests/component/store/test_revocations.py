"""Revoking on a real emulator: all or nothing, and nothing is lost on the way to a list."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.store import CertificateStore, RevocationStore, Tables
from chalicelib.domain.model import (
    CertificateRecord,
    KeyUse,
    RevocationReason,
    StoredRequest,
    Succession,
    Validity,
)
from chalicelib.errors import Contended, InvalidRequest
from tests.component.emulated_aws import EmulatedAws
from tests.component.store.records import DAY, NOW, SECOND, new_number, record, rows

REASON = RevocationReason.KEY_COMPROMISE
BY = "arn:aws:iam::123456789012:user/admin"
START = NOW.replace(microsecond=0)


@pytest.fixture
def added(store: CertificateStore, owner: str) -> CertificateRecord:
    issuer = f"{new_number():016x}"  # with a list of its own
    one = record(owner, issuer_id=issuer)
    store.add(one, None, NOW)
    return one


def serials_listed(
    revocations: RevocationStore, one: CertificateRecord, now: Any = NOW
) -> list[str]:
    return [row["serial"] for row in revocations.revocations(one.issuer_id, now)]


class TestRevoking:
    def test_everything_is_written_at_once(
        self,
        store: CertificateStore,
        revocations: RevocationStore,
        added: CertificateRecord,
    ) -> None:
        revocations.revoke(added, REASON, BY, NOW, revocations.use_of_key(added, NOW))
        assert store.get(added.serial) == replace(
            added, revoked_at=START, revocation_reason=REASON, revoked_by=BY
        )
        (row,) = revocations.revocations(added.issuer_id, NOW)
        end = f"{added.validity.not_after:%Y-%m-%dT%H:%M:%SZ}"
        assert row == {
            "sk": f"{end}#{added.serial}",
            "serial": added.serial,
            "revoked_at": f"{START:%Y-%m-%dT%H:%M:%S.%f+0000}",
            "reason": "keyCompromise",
        }
        assert added.serial in revocations.pending()
        assert store.slots(added.owner) == []
        with pytest.raises(InvalidRequest) as caught:
            store.add(record(added.owner, key_id=added.key_id), None, NOW)
        assert caught.value.code == "key_revoked"

    def test_a_second_time_is_contended_and_writes_nothing(
        self, aws: EmulatedAws, revocations: RevocationStore, added: CertificateRecord
    ) -> None:
        revocations.revoke(added, REASON, BY, NOW, None)
        before = rows(aws)
        use = revocations.use_of_key(added, NOW)
        with pytest.raises(Contended):
            revocations.revoke(added, REASON, "somebody else", NOW + DAY, use)
        assert rows(aws) == before

    def test_a_key_certified_once_more_meanwhile_is_contended_and_writes_nothing(
        self,
        aws: EmulatedAws,
        store: CertificateStore,
        revocations: RevocationStore,
        added: CertificateRecord,
    ) -> None:
        before_that = revocations.use_of_key(added, NOW)
        another = record(added.owner, 1, key_id=added.key_id)
        store.add(another, None, NOW)
        before = rows(aws)
        with pytest.raises(Contended):
            revocations.revoke(added, REASON, BY, NOW, before_that)
        assert rows(aws) == before
        revocations.revoke(added, REASON, BY, NOW, revocations.use_of_key(added, NOW))

    def test_of_a_key_those_are_known_that_stand(
        self, store: CertificateStore, revocations: RevocationStore, added: CertificateRecord
    ) -> None:
        """However often it was certified: revoking must not become slower from year to year."""
        short = Validity(START - DAY, START + DAY)
        others = [
            record(added.owner, 1, key_id=added.key_id),
            record(added.owner, 2, key_id=added.key_id, validity=short),
            record(added.owner, 3, key_id=added.key_id),
        ]
        for each in others:
            store.add(each, None, NOW)
        revocations.revoke(others[0], REASON, BY, NOW, None)
        new = record(added.owner, 3, key_id=added.key_id, renews=others[2].serial)
        store.add(new, None, NOW, Succession(others[2], revoke=True))
        use = revocations.use_of_key(added, NOW)
        assert use.version == 5
        assert set(use.serials) == {added.serial, others[1].serial, new.serial}
        late = revocations.use_of_key(added, START + DAY + SECOND)
        assert set(late.serials) == {added.serial, new.serial}

    def test_of_a_key_never_certified_nothing_is_known(
        self, revocations: RevocationStore, owner: str
    ) -> None:
        assert revocations.use_of_key(record(owner), NOW) == KeyUse(None, ())

    def test_without_retiring_the_key_it_is_certified_on(
        self, store: CertificateStore, revocations: RevocationStore, added: CertificateRecord
    ) -> None:
        revocations.revoke(added, REASON, BY, NOW, None)
        assert store.add(record(added.owner, key_id=added.key_id), None, NOW) is None

    def test_one_that_is_not_there_cannot_be_revoked(
        self, aws: EmulatedAws, revocations: RevocationStore, owner: str
    ) -> None:
        before = rows(aws)
        with pytest.raises(Contended):
            revocations.revoke(record(owner), REASON, BY, NOW, None)
        assert rows(aws) == before

    def test_an_expired_one_is_marked_and_neither_listed_nor_in_a_slot(
        self, store: CertificateStore, revocations: RevocationStore, added: CertificateRecord
    ) -> None:
        late = added.validity.not_after + SECOND
        another = record(added.owner)  # in the same slot, which is free by now
        store.add(another, None, late)
        revocations.revoke(added, REASON, BY, late, revocations.use_of_key(added, late))
        assert serials_listed(revocations, added) == []
        assert added.serial not in revocations.pending()
        assert [slot.not_after for slot in store.slots(added.owner)] == [another.validity.not_after]


class TestLists:
    def test_an_entry_is_shown_up_to_its_certificates_last_second(
        self, revocations: RevocationStore, added: CertificateRecord
    ) -> None:
        revocations.revoke(added, REASON, BY, NOW, None)
        end = added.validity.not_after
        assert serials_listed(revocations, added, end) == [added.serial]
        assert serials_listed(revocations, added, end + SECOND) == []

    def test_a_damaged_entry_hides_no_other(
        self, aws: EmulatedAws, revocations: RevocationStore, added: CertificateRecord
    ) -> None:
        revocations.revoke(added, REASON, BY, NOW, None)
        damaged = {
            "pk": {"S": f"revoked#{added.issuer_id}"},
            "sk": {"S": "9999 what is this"},
            "serial": {"N": "17"},
            "revoked_at": {"S": "yesterday"},
        }
        aws.client("dynamodb").put_item(TableName="state", Item=damaged)
        found = list(revocations.revocations(added.issuer_id, NOW))
        assert [row.get("serial") for row in found] == [added.serial, None]
        assert found[1] == {"sk": "9999 what is this", "revoked_at": "yesterday"}

    def test_every_entry_comes_however_many_pages_there_are(
        self, tables: Tables, store: CertificateStore, revocations: RevocationStore, owner: str
    ) -> None:
        issuer = f"{new_number():016x}"
        added = [record(owner, slot, issuer_id=issuer) for slot in range(5)]
        for each in added:
            store.add(each, None, NOW)
            revocations.revoke(each, REASON, BY, NOW, None)
        ask = tables.query
        tables.query = lambda *args, **options: ask(  # type: ignore[method-assign]
            *args, **{**options, "limit": 2}
        )
        assert set(serials_listed(revocations, added[0])) == {each.serial for each in added}

    def test_what_is_settled_is_pending_no_more_and_the_rest_is(
        self, store: CertificateStore, revocations: RevocationStore, owner: str
    ) -> None:
        added = [record(owner, slot) for slot in range(3)]
        for each in added:
            store.add(each, None, NOW)
            revocations.revoke(each, REASON, BY, NOW, None)
        revocations.settle([added[0].serial, added[2].serial])
        pending = set(revocations.pending())
        assert pending & {each.serial for each in added} == {added[1].serial}
        revocations.settle([])


class TestSuccession:
    """A successor is recorded, its predecessor marked and, if asked, revoked: all at once."""

    def successor(
        self, old: CertificateRecord, slot: int | None = 1, **changes: Any
    ) -> CertificateRecord:
        return record(old.owner, slot, renews=old.serial, **changes)

    def test_without_revoking_both_stand(
        self, store: CertificateStore, revocations: RevocationStore, added: CertificateRecord
    ) -> None:
        new = self.successor(added)
        assert store.add(new, None, NOW, Succession(added, revoke=False)) is None
        assert store.get(new.serial) == new
        assert store.get(added.serial) == replace(added, superseded_by=new.serial)
        assert len(store.slots(added.owner)) == 2
        assert serials_listed(revocations, added) == []

    def test_with_revoking_the_place_is_handed_over(
        self, store: CertificateStore, revocations: RevocationStore, added: CertificateRecord
    ) -> None:
        new = self.successor(added, added.slot, key_id=added.key_id)
        request = StoredRequest(added.owner, "once", "d", new.serial)
        assert store.add(new, request, NOW, Succession(added, revoke=True)) is None
        old = store.get(added.serial)
        assert old == replace(
            added,
            superseded_by=new.serial,
            revoked_at=START,
            revocation_reason=RevocationReason.SUPERSEDED,
            revoked_by=added.owner,
        )
        assert len(store.slots(added.owner)) == 1
        assert serials_listed(revocations, added) == [added.serial]
        assert revocations.use_of_key(added, NOW).serials == (new.serial,)
        assert store.earlier_request(added.owner, "once", NOW) == request

    def test_anothers_place_is_not_taken(
        self, aws: EmulatedAws, store: CertificateStore, added: CertificateRecord
    ) -> None:
        store.add(record(added.owner, 1), None, NOW)
        before = rows(aws)
        with pytest.raises(Contended):
            store.add(self.successor(added), None, NOW, Succession(added, revoke=True))
        assert rows(aws) == before

    @pytest.mark.parametrize("meanwhile", ["revoked", "renewed"])
    def test_a_predecessor_that_changed_meanwhile_has_nothing_written(
        self,
        aws: EmulatedAws,
        store: CertificateStore,
        revocations: RevocationStore,
        added: CertificateRecord,
        meanwhile: str,
    ) -> None:
        if meanwhile == "revoked":
            revocations.revoke(added, REASON, BY, NOW, None)
        else:
            store.add(self.successor(added), None, NOW, Succession(added, revoke=False))
        before = rows(aws)
        for revoke in (False, True):
            late = self.successor(added, slot=2)
            with pytest.raises(Contended):
                store.add(late, None, NOW, Succession(added, revoke=revoke))
        assert rows(aws) == before

    def test_of_many_at_once_one_succeeds(
        self, store: CertificateStore, added: CertificateRecord
    ) -> None:
        def renew(slot: int) -> str | None:
            new = record(added.owner, slot, renews=added.serial)
            try:
                store.add(new, None, NOW, Succession(added, revoke=False))
            except Contended:
                return None
            return new.serial

        with ThreadPoolExecutor(8) as threads:
            won = [serial for serial in threads.map(renew, range(1, 9)) if serial]
        old = store.get(added.serial)
        assert old is not None
        assert won == [old.superseded_by]

    def test_those_that_stand_in_a_line_are_known_by_its_first(
        self, store: CertificateStore, revocations: RevocationStore, added: CertificateRecord
    ) -> None:
        """However long the line is, and wherever it forks."""
        assert revocations.standing_in_line(added, NOW) == []
        second = self.successor(added, line=added.serial)
        store.add(second, None, NOW, Succession(added, revoke=False))
        third = self.successor(second, 1, line=added.serial)
        store.add(third, None, NOW, Succession(second, revoke=True))
        old = store.get(added.serial)
        assert old is not None
        fork = self.successor(old, 2, line=added.serial)
        store.add(fork, None, NOW, Succession(old, revoke=False))
        for each in (added, second, third, fork):
            standing = revocations.standing_in_line(each, NOW)
            assert set(standing) == {added.serial, third.serial, fork.serial}
        revocations.revoke(third, REASON, BY, NOW, None)
        assert set(revocations.standing_in_line(added, NOW)) == {added.serial, fork.serial}
        late = added.validity.not_after + SECOND
        assert revocations.standing_in_line(added, late) == []

    def test_an_admins_has_no_place_and_takes_none(
        self, store: CertificateStore, owner: str
    ) -> None:
        one = record(owner, None, issued_by=BY)
        assert store.add(one, None, NOW) is None
        assert store.get(one.serial) == one
        assert store.slots(owner) == []


def test_a_number_is_above_what_is_known_to_be_published(revocations: RevocationStore) -> None:
    far = revocations.next_crl_number(0) + 1000
    assert revocations.next_crl_number(far) == far + 1
    assert revocations.next_crl_number(far) == far + 2
    with ThreadPoolExecutor(4) as threads:
        numbers = list(threads.map(revocations.next_crl_number, [far + 500] * 8))
    assert len(set(numbers)) == 8
    assert min(numbers) > far + 500


def test_crl_numbers_only_grow_whoever_asks(revocations: RevocationStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda _: revocations.next_crl_number(0), range(24)))
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + 24))
