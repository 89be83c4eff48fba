"""Enrolments on a real emulator: none overwritten unseen, what is due found and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.adapters.store import EnrolmentStore, Tables, reading
from chalicelib.adapters.store import enrolments as module
from chalicelib.domain.enrolment.model import (
    CommandKind,
    Enrolment,
    EnrolmentPath,
    EnrolmentState,
    SentCommand,
)
from chalicelib.domain.model import Access
from chalicelib.errors import Contended, DependencyFailed, InvalidRequest, Misconfigured
from tests.component.emulated_aws import EmulatedAws
from tests.component.store.records import DAY, NOW, SECOND, new_number

TRUST = "0123456789abcdef"


def enrolment(**changes: Any) -> Enrolment:
    """One of an instance that nobody else has."""
    return replace(
        Enrolment(f"i-{new_number():017x}", EnrolmentState.LAUNCHED, NOW, NOW), **changes
    )


def enrolled(**changes: Any) -> Enrolment:
    """One with everything that an enrolment can have."""
    arns = ("arn:aws:sts::1:assumed-role/b/i-0", "arn:aws:sts::1:assumed-role/a/i-0")
    return enrolment(
        **{
            "state": EnrolmentState.ENROLLED,
            "look_at": NOW + DAY,
            "access": Access.PUSH,
            "path": EnrolmentPath.AGENT,
            "owners": arns,
            "serial": "ab" * 20,
            "renew_at": NOW + 20 * DAY,
            "trust_version": TRUST,
            "launched_at": NOW - DAY,
            "enrolled_at": NOW,
            "command": SentCommand(CommandKind.INSTALL, "0f" * 16, NOW, "c-1"),
            "tries": 3,
            "failures": 2,
            "new_key": True,
            "reason": 'ü \N{SNOWMAN} it\'s "so" ' + "x" * 280,
            "code": "refused",
            **changes,
        }
    )


@pytest.fixture(autouse=True)
def table(aws: EmulatedAws) -> Any:
    """Empty at first, as boto3 has it."""
    client = aws.client("dynamodb")
    for item in raw_items(client):
        client.delete_item(TableName="instances", Key={"instance_id": item["instance_id"]})
    return client


def raw_items(client: Any) -> Iterator[dict[str, Any]]:
    for page in client.get_paginator("scan").paginate(TableName="instances"):
        yield from page["Items"]


def damage(
    client: Any, instance_id: str, attribute: str = "began_at", value: str = "nonsense"
) -> None:
    client.update_item(
        TableName="instances",
        Key={"instance_id": {"S": instance_id}},
        UpdateExpression="SET #a = :nonsense",
        ExpressionAttributeNames={"#a": attribute},
        ExpressionAttributeValues={":nonsense": {"S": value}},
    )


class TestWriting:
    def test_what_is_put_is_what_is_got(self, enrolments: EnrolmentStore) -> None:
        for one in (enrolment(), enrolled()):
            stored = enrolments.put(one)
            assert stored == replace(one, version=1)
            assert enrolments.get(one.instance_id) == stored

    def test_what_is_no_longer_so_is_not_kept(self, enrolments: EnrolmentStore) -> None:
        full = enrolments.put(enrolled())
        bare = Enrolment(full.instance_id, EnrolmentState.FAILED, NOW, NOW, version=full.version)
        assert enrolments.put(bare) == enrolments.get(full.instance_id)
        assert enrolments.outdated("another", 9) == []
        assert enrolments.due(NOW + 9 * DAY, 9) == []

    def test_a_command_that_is_being_sent_has_no_id_yet(self, enrolments: EnrolmentStore) -> None:
        sending = SentCommand(CommandKind.PREPARE, "0a" * 16, NOW)
        stored = enrolments.put(enrolment(command=sending))
        assert enrolments.get(stored.instance_id) == stored

    def test_an_instance_that_was_never_seen_has_none(self, enrolments: EnrolmentStore) -> None:
        assert enrolments.get("i-00000000000000000") is None

    def test_of_two_who_saw_the_same_one_writes(self, enrolments: EnrolmentStore) -> None:
        seen = enrolments.put(enrolment())
        enrolments.put(replace(seen, tries=1))
        with pytest.raises(Contended):
            enrolments.put(replace(seen, tries=2))
        found = enrolments.get(seen.instance_id)
        assert found is not None
        assert (found.tries, found.version) == (1, 2)

    def test_of_two_who_saw_none_one_writes(self, enrolments: EnrolmentStore) -> None:
        first = enrolment()
        enrolments.put(first)
        with pytest.raises(Contended):
            enrolments.put(replace(first, tries=2))

    def test_what_was_deleted_meanwhile_does_not_come_back(
        self, enrolments: EnrolmentStore, table: Any
    ) -> None:
        seen = enrolments.put(enrolment())
        table.delete_item(TableName="instances", Key={"instance_id": {"S": seen.instance_id}})
        with pytest.raises(Contended):
            enrolments.put(seen)

    def test_only_what_is_gone_is_forgotten_after_thirty_days(
        self, enrolments: EnrolmentStore, table: Any
    ) -> None:
        gone = enrolments.put(enrolment(state=EnrolmentState.GONE))
        for state in set(EnrolmentState) - {EnrolmentState.GONE}:
            enrolments.put(enrolment(state=state))
        expiring = {
            item["instance_id"]["S"]: int(item["expires_at"]["N"])
            for item in raw_items(table)
            if "expires_at" in item
        }
        assert expiring == {gone.instance_id: int((NOW + 30 * DAY).timestamp())}

    @pytest.mark.parametrize("attribute", ["state", "since", "owners", "version", "access", "path"])
    def test_a_damaged_one_is_said_to_be_so(
        self, enrolments: EnrolmentStore, table: Any, attribute: str
    ) -> None:
        stored = enrolments.put(enrolled())
        damage(table, stored.instance_id, attribute)
        with pytest.raises(Misconfigured) as caught:
            enrolments.get(stored.instance_id)
        assert caught.value.code == "unreadable_enrolment"

    def test_a_table_that_is_not_there_is_a_dependency_that_failed(self) -> None:
        nowhere = EnrolmentStore(Tables("nowhere", "nowhere-either", "nor-here"))
        for ask in (
            lambda: nowhere.get("i-00000000000000000"),
            lambda: nowhere.put(enrolment()),
            lambda: nowhere.postpone("i-00000000000000000", NOW, NOW),
            lambda: nowhere.due(NOW, 1),
            lambda: nowhere.outdated(TRUST, 1),
            lambda: nowhere.get_many(["i-00000000000000000"]),
            lambda: nowhere.page(None, 1, None),
        ):
            with pytest.raises(DependencyFailed):
                ask()


class TestDue:
    def test_the_longest_due_come_first_and_the_end_is_sharp(
        self, enrolments: EnrolmentStore
    ) -> None:
        now = NOW.replace(microsecond=0)
        times = [now, now - 2 * DAY, now + SECOND, now - DAY, None]
        made = [enrolments.put(enrolment(look_at=time)) for time in times]
        expected = [(made[place].instance_id, times[place]) for place in (1, 3, 0)]
        assert enrolments.due(now, 9) == expected
        assert enrolments.due(now, 2) == expected[:2]
        assert enrolments.due(now, 0) == []

    def test_many_are_found_page_by_page(
        self, enrolments: EnrolmentStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """DynamoDB ends a page at 1 MB, whatever the limit says."""
        made = [enrolments.put(enrolment(look_at=NOW - n * SECOND)) for n in range(5)]
        ask = tables.query

        def two_at_most(*args: Any, limit: int, **options: Any) -> Any:
            return ask(*args, limit=min(limit, 2), **options)

        monkeypatch.setattr(tables, "query", two_at_most)
        found = [instance_id for instance_id, _ in enrolments.due(NOW, 4)]
        assert found == [each.instance_id for each in made[::-1]][:4]

    def test_what_is_postponed_is_due_then_and_otherwise_as_it_was(
        self, enrolments: EnrolmentStore
    ) -> None:
        stored = enrolments.put(enrolment(look_at=NOW))  # not a whole second
        ((instance_id, seen),) = enrolments.due(NOW, 9)
        assert enrolments.postpone(instance_id, seen, NOW + DAY)
        assert enrolments.due(NOW + DAY - SECOND, 9) == []
        assert len(enrolments.due(NOW + DAY, 9)) == 1
        assert enrolments.get(instance_id) == stored  # who advances it sees since when it waits

    def test_of_two_who_saw_it_due_one_postpones_it(self, enrolments: EnrolmentStore) -> None:
        enrolments.put(enrolment(look_at=NOW))
        ((instance_id, seen),) = enrolments.due(NOW, 9)
        assert enrolments.postpone(instance_id, seen, NOW + DAY)
        assert not enrolments.postpone(instance_id, seen, NOW + 2 * DAY)

    def test_a_damaged_one_does_not_hide_the_others(
        self, enrolments: EnrolmentStore, table: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, two = (enrolments.put(enrolment(look_at=NOW)) for _ in range(2))
        damage(table, one.instance_id, "due_key", "0 nonsense")
        assert [instance_id for instance_id, _ in enrolments.due(NOW, 9)] == [two.instance_id]
        assert "nonsense" in caplog.text

    def test_what_is_not_to_be_looked_at_any_more_is_not_postponed(
        self, enrolments: EnrolmentStore
    ) -> None:
        stored = enrolments.put(enrolment(look_at=NOW))
        enrolments.put(replace(stored, look_at=None))
        assert not enrolments.postpone(stored.instance_id, NOW, NOW + DAY)
        assert not enrolments.postpone("i-00000000000000000", NOW, NOW + DAY)
        assert enrolments.get("i-00000000000000000") is None
        assert enrolments.due(NOW + 9 * DAY, 9) == []


class TestOutdated:
    def test_those_that_hold_another_trust_are_found_on_both_sides_of_it(
        self, enrolments: EnrolmentStore
    ) -> None:
        versions = ["0" * 16, TRUST, "f" * 16, "0", TRUST[:-1], TRUST + "0"]
        made = {v: enrolments.put(enrolled(trust_version=v)).instance_id for v in versions}
        found = enrolments.outdated(TRUST, 9)
        assert sorted(found) == sorted(made[version] for version in versions if version != TRUST)
        assert len(set(enrolments.outdated(TRUST, 4))) == 4
        assert enrolments.outdated(TRUST, 0) == []
        assert sorted(enrolments.outdated("", 9)) == sorted(made.values())

    def test_those_that_are_not_enrolled_or_keep_themselves_current_are_not(
        self, enrolments: EnrolmentStore
    ) -> None:
        for state in set(EnrolmentState) - {EnrolmentState.ENROLLED}:
            enrolments.put(enrolled(state=state))
        enrolments.put(enrolled(path=EnrolmentPath.BOOT))
        enrolments.put(enrolled(trust_version=None))  # it stopped, and is given one when it starts
        one = enrolments.put(enrolled())
        assert enrolments.outdated("another", 9) == [one.instance_id]


class TestGettingMany:
    def test_more_than_a_request_holds_are_got(self, enrolments: EnrolmentStore) -> None:
        made = [enrolments.put(enrolment()) for _ in range(104)]
        ids = [each.instance_id for each in made]
        found = enrolments.get_many([*ids, *ids[:3], "i-00000000000000000"])
        assert found == {each.instance_id: each for each in made}

    def test_none_are_got_without_asking(self) -> None:
        nowhere = EnrolmentStore(Tables("nowhere", "nowhere-either", "nor-here"))
        assert nowhere.get_many([]) == {}

    def test_a_damaged_one_does_not_hide_the_others(
        self, enrolments: EnrolmentStore, table: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, two = (enrolments.put(enrolment()) for _ in range(2))
        damage(table, one.instance_id)
        assert enrolments.get_many([one.instance_id, two.instance_id]) == {two.instance_id: two}
        assert one.instance_id in caplog.text

    def test_what_dynamodb_did_not_get_to_is_asked_for_again_and_not_for_ever(
        self, enrolments: EnrolmentStore, tables: Tables, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = [enrolments.put(enrolment()) for _ in range(3)]
        monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0)
        ask, asked = tables.batch_get, list[int]()

        def one_at_a_time(table: str, keys: Any) -> Any:
            asked.append(len(keys))
            answer = dict(ask(table, keys[:1]))
            left = [{"instance_id": {"S": key["instance_id"]}} for key in keys[1:]]
            return {**answer, "UnprocessedKeys": {table: {"Keys": left}} if left else {}}

        monkeypatch.setattr(tables, "batch_get", one_at_a_time)
        assert len(enrolments.get_many([each.instance_id for each in made])) == 3
        assert asked == [3, 2, 1]
        with pytest.raises(DependencyFailed):
            enrolments.get_many([f"i-{number:017x}" for number in range(10)])


class TestPages:
    def test_of_a_state_the_latest_come_first(self, enrolments: EnrolmentStore) -> None:
        made = [
            enrolments.put(enrolment(state=EnrolmentState.FAILED, since=NOW - n * SECOND))
            for n in range(5)
        ]
        enrolments.put(enrolment())
        for limit in (1, 2, 5, 9):
            assert every_page(enrolments, EnrolmentState.FAILED, limit) == made
        assert every_page(enrolments, EnrolmentState.GONE, 2) == []

    def test_of_all_one_state_comes_after_the_other(self, enrolments: EnrolmentStore) -> None:
        made = [
            enrolments.put(enrolment(state=state, since=NOW - n * SECOND))
            for state in EnrolmentState
            for n in range(2)
        ]
        for limit in (1, 2, 3, 14, 99):
            assert every_page(enrolments, None, limit) == made

    def test_a_full_page_is_the_last_if_there_is_nothing_more(
        self, enrolments: EnrolmentStore
    ) -> None:
        made = [enrolments.put(enrolment(since=NOW - n * SECOND)) for n in range(2)]
        page = enrolments.page(EnrolmentState.LAUNCHED, 2, None)
        assert (page.enrolments, page.cursor) == (tuple(made), None)
        assert enrolments.page(EnrolmentState.LAUNCHED, 1, None).cursor is not None

    def test_a_damaged_one_does_not_hide_the_others(
        self, enrolments: EnrolmentStore, table: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        made = [enrolments.put(enrolment(since=NOW - n * SECOND)) for n in range(3)]
        damage(table, made[1].instance_id)
        assert every_page(enrolments, EnrolmentState.LAUNCHED, 1) == [made[0], made[2]]
        assert made[1].instance_id in caplog.text

    def test_a_page_gives_up_after_bounded_work_and_says_where_to_go_on(
        self, enrolments: EnrolmentStore, table: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = [enrolments.put(enrolment(since=NOW - n * SECOND)) for n in range(4)]
        for each in made[:3]:
            damage(table, each.instance_id)
        monkeypatch.setattr(reading, "_MOST_ITEMS", 2)
        first = enrolments.page(None, 1, None)
        assert first.enrolments == ()
        assert first.cursor is not None
        assert every_page(enrolments, None, 1) == made[3:]

    @pytest.mark.parametrize("cursor", ["", "x", "é", "bm90IG91cnM"])
    def test_a_cursor_that_is_not_ours_is_refused(
        self, enrolments: EnrolmentStore, cursor: str
    ) -> None:
        with pytest.raises(InvalidRequest) as caught:
            enrolments.page(None, 9, cursor)
        assert (caught.value.code, caught.value.field) == ("invalid_cursor", "cursor")

    def test_a_cursor_of_another_state_or_list_is_refused(self, enrolments: EnrolmentStore) -> None:
        for number in range(2):
            enrolments.put(enrolment(since=NOW - timedelta(seconds=number)))
        cursor = enrolments.page(EnrolmentState.LAUNCHED, 1, None).cursor
        assert cursor is not None
        assert enrolments.page(None, 1, cursor).enrolments != ()
        with pytest.raises(InvalidRequest):
            enrolments.page(EnrolmentState.GONE, 1, cursor)


def every_page(store: EnrolmentStore, state: EnrolmentState | None, limit: int) -> list[Enrolment]:
    """All that the pages hold, one after the other; there must be an end to them."""
    seen: list[Enrolment] = []
    cursor = None
    for _ in range(50):
        page = store.page(state, limit, cursor)
        assert len(page.enrolments) <= limit
        seen += page.enrolments
        cursor = page.cursor
        if cursor is None:
            return seen
    raise AssertionError("no end of pages")
