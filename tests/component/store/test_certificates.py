"""Recording on a real emulator: all or nothing, under every collision we could think of."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ReadTimeoutError
from botocore.httpsession import URLLib3Session

from chalicelib.adapters.store import (
    CertificateListing,
    CertificateStore,
    RevocationStore,
    Tables,
)
from chalicelib.domain.model import (
    RevocationReason,
    Selection,
    StoredRequest,
)
from chalicelib.errors import (
    Contended,
    DependencyFailed,
    InvalidRequest,
    Misconfigured,
)
from tests.component.emulated_aws import EmulatedAws
from tests.component.store.records import DAY, NOW, SECOND, new_number, record, rows


class TestAdding:
    def test_a_record_is_read_back_as_it_was(self, store: CertificateStore, owner: str) -> None:
        added = record(owner)
        assert store.add(added, None, NOW) is None
        assert store.get(added.serial) == added
        assert [(slot.number, slot.not_after) for slot in store.slots(owner)] == [
            (0, added.validity.not_after)
        ]

    def test_a_server_certificates_record_takes_no_slot(
        self, store: CertificateStore, owner: str
    ) -> None:
        added = record(owner, None, access=None)
        store.add_outside_quota(added)
        assert store.get(added.serial) == added
        assert store.slots(owner) == []
        with pytest.raises(Contended):
            store.add_outside_quota(replace(added, name="other"))
        assert store.get(added.serial) == added

    def test_what_is_not_there_is_none(self, store: CertificateStore, owner: str) -> None:
        assert store.get("f" * 40) is None
        assert store.earlier_request(owner, "none", NOW) is None

    @pytest.mark.parametrize("request_", [None, StoredRequest("arn:whoever", "new", "d", "s")])
    @pytest.mark.parametrize("collision", ["serial", "slot", "both"])
    def test_a_collision_is_contended_and_writes_nothing_at_all(
        self,
        aws: EmulatedAws,
        store: CertificateStore,
        owner: str,
        collision: str,
        request_: StoredRequest | None,
    ) -> None:
        request_ = request_ and replace(request_, caller=owner)
        first = record(owner)
        store.add(first, None, NOW)
        before = rows(aws)
        serial = first.serial if collision != "slot" else f"{new_number():040x}"
        second = record(owner, 0 if collision != "serial" else 1, serial=serial)
        with pytest.raises(Contended):
            store.add(second, request_, NOW)
        assert rows(aws) == before

    def test_a_slot_is_free_after_the_last_second_of_its_certificate(
        self, store: CertificateStore, owner: str
    ) -> None:
        first = record(owner)
        store.add(first, None, NOW)
        with pytest.raises(Contended):
            store.add(record(owner), None, first.validity.not_after)
        assert store.add(record(owner), None, first.validity.not_after + SECOND) is None

    def test_slots_of_several_owners_are_apart(self, store: CertificateStore, owner: str) -> None:
        store.add(record(owner), None, NOW)
        assert store.slots(owner + "2") == []
        assert store.add(record(owner + "2"), None, NOW) is None

    @pytest.mark.parametrize("request_", [None, StoredRequest("arn:whoever", "new", "d", "s")])
    def test_a_key_belongs_to_the_first_owner_it_is_certified_for(
        self,
        aws: EmulatedAws,
        store: CertificateStore,
        owner: str,
        request_: StoredRequest | None,
    ) -> None:
        request_ = request_ and replace(request_, caller=owner)
        first = record(owner)
        store.add(first, None, NOW)
        before = rows(aws)
        with pytest.raises(InvalidRequest) as caught:
            store.add(record("arn:other", key_id=first.key_id), request_, NOW)
        assert (caught.value.code, caught.value.field) == ("key_in_use", "csr")
        assert rows(aws) == before
        assert store.add(record(owner, 1, key_id=first.key_id), request_, NOW) is None

    @pytest.mark.parametrize("request_", [None, StoredRequest("arn:whoever", "new", "d", "s")])
    def test_a_revoked_key_is_refused_to_its_owner_and_everybody_else(
        self,
        revocations: RevocationStore,
        store: CertificateStore,
        owner: str,
        request_: StoredRequest | None,
    ) -> None:
        request_ = request_ and replace(request_, caller=owner)
        first = record(owner)
        store.add(first, None, NOW)
        revocations.retire_key(first, NOW)
        for other, code in ((owner, "key_revoked"), ("arn:other", "key_in_use")):
            with pytest.raises(InvalidRequest) as caught:
                store.add(record(other, 1, key_id=first.key_id), request_, NOW)
            assert caught.value.code == code

    def test_an_answer_lost_on_the_way_costs_nothing(
        self, tables: Tables, store: CertificateStore, owner: str
    ) -> None:
        """The repeated request carries the token of the first, or it would meet its own record."""
        tokens: list[str] = []

        def lose_the_first(request: Any, **_: Any) -> None:
            tokens.append(json.loads(request.body)["ClientRequestToken"])
            if len(tokens) == 1:
                URLLib3Session().send(request)
                raise ReadTimeoutError(endpoint_url=request.url)

        events = tables.connection.client.meta.events
        events.register("before-send.dynamodb.TransactWriteItems", lose_the_first)
        added = record(owner)
        assert store.add(added, StoredRequest(owner, "once", "d", added.serial), NOW) is None
        assert len(tokens) == 2
        assert len(set(tokens)) == 1
        assert store.get(added.serial) == added
        assert len(store.slots(owner)) == 1

    def test_threads_at_once_never_take_more_slots_than_there_are(
        self, store: CertificateStore, owner: str
    ) -> None:
        together = threading.Barrier(16)

        def add(number: int) -> str | None:
            added = record(owner, number % 5)
            together.wait()
            try:
                store.add(added, None, NOW)
            except Contended:
                return None
            return added.serial

        with ThreadPoolExecutor(16) as threads:
            won = [serial for serial in threads.map(add, range(16)) if serial]
        assert sorted(slot.number for slot in store.slots(owner)) == [0, 1, 2, 3, 4]
        assert len(won) == 5
        stored = {serial for serial in won if store.get(serial)}
        assert stored == set(won)


class TestRequests:
    def test_a_request_made_again_is_answered_by_the_first_and_writes_nothing(
        self, aws: EmulatedAws, store: CertificateStore, owner: str
    ) -> None:
        first = record(owner)
        request = StoredRequest(owner, "once", "digest", first.serial)
        store.add(first, request, NOW)
        before = rows(aws)
        for slot in (0, 1):  # whether or not it also collides elsewhere
            again = record(owner, slot, key_id=first.key_id)
            assert store.add(again, replace(request, serial=again.serial), NOW) == request
        other = replace(request, digest="other")
        assert store.add(record(owner, 1), other, NOW) == request
        assert store.earlier_request(owner, "once", NOW) == request
        assert rows(aws) == before

    def test_after_24_hours_a_key_may_be_used_again(
        self, store: CertificateStore, owner: str
    ) -> None:
        now = NOW.replace(microsecond=0)
        first, second = record(owner, 0), record(owner, 1)
        store.add(first, StoredRequest(owner, "once", "d", first.serial), now)
        late = StoredRequest(owner, "once", "e", second.serial)
        just_before = now + DAY - SECOND
        assert store.earlier_request(owner, "once", just_before) is not None
        assert store.add(second, late, just_before) == StoredRequest(
            owner, "once", "d", first.serial
        )
        assert store.earlier_request(owner, "once", now + DAY) is None
        assert store.add(second, late, now + DAY) is None
        assert store.earlier_request(owner, "once", now + DAY) == late

    def test_they_are_the_callers_whoever_owns_the_certificate(
        self, store: CertificateStore, owner: str
    ) -> None:
        admin = owner + "-admin"
        first = record(owner, None, issued_by=admin)
        request = StoredRequest(admin, "once", "d", first.serial)
        store.add(first, request, NOW)
        assert store.earlier_request(admin, "once", NOW) == request
        assert store.earlier_request(owner, "once", NOW) is None

    def test_owners_do_not_share_them(self, store: CertificateStore, owner: str) -> None:
        first = record(owner)
        store.add(first, StoredRequest(owner, "once", "d", first.serial), NOW)
        assert store.earlier_request(owner + "2", "once", NOW) is None


@pytest.mark.parametrize(
    ("attribute", "value", "readable"),
    [
        ("revocation_reason", {"S": "boredom"}, True),
        ("not_after", {"S": "tomorrow"}, False),
        ("access", {"S": "admin"}, False),
        ("slot", {"S": "one"}, False),
        *((name, None, False) for name in ("issued_at", "not_before", "not_after", "key_id")),
        *((name, None, False) for name in ("name", "certificate", "made_key", "issuer_id")),
        *((name, None, True) for name in ("revocation_reason", "label")),
    ],
)
def test_a_damaged_record_is_told_as_such_and_hides_no_other(
    aws: EmulatedAws,
    store: CertificateStore,
    listing: CertificateListing,
    owner: str,
    attribute: str,
    value: Any,
    readable: bool,
) -> None:
    damaged, other = record(owner, 0), record(owner, 1)
    for each in (damaged, other):
        store.add(each, None, NOW)
    aws.client("dynamodb").update_item(
        TableName="certificates",
        Key={"serial": {"S": damaged.serial}},
        AttributeUpdates={
            attribute: {"Action": "PUT", "Value": value} if value else {"Action": "DELETE"}
        },
    )
    listed = {each.serial for each in listing.page(Selection(owner), 9, None, NOW).records}
    assert listed == ({damaged.serial, other.serial} if readable else {other.serial})
    if readable:
        assert store.get(damaged.serial) is not None
        return
    with pytest.raises(Misconfigured) as caught:
        store.get(damaged.serial)
    assert caught.value.code == "unreadable_record"


def test_a_write_that_meets_a_transaction_is_contended(
    tables: Tables, revocations: RevocationStore, store: CertificateStore, owner: str
) -> None:
    """A fake answer, since the emulator lets the two wait for each other."""
    kept = record(owner)
    store.add(kept, None, NOW)

    def refuse(**_: Any) -> Any:
        body = b'{"__type": "com.amazonaws.dynamodb.v20120810#TransactionConflictException"}'
        return AWSResponse("http://emulator.test", 400, {}, Raw(body))

    events = tables.connection.client.meta.events
    events.register_first("before-send.dynamodb.UpdateItem", refuse)
    with pytest.raises(Contended):
        revocations.retire_key(kept, NOW)
    events.unregister("before-send.dynamodb.UpdateItem", refuse)
    revocations.retire_key(kept, NOW)


class Raw(BytesIO):
    """A body, as botocore reads it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def test_a_table_that_is_not_there_is_our_own_error(owner: str) -> None:
    nowhere = Tables("nowhere", "nowhere-either", "nor-here")
    store, revocations = CertificateStore(nowhere), RevocationStore(nowhere)
    some = record(owner)
    for ask in (
        lambda: store.slots(owner),
        lambda: store.get("0" * 40),
        lambda: store.add(record(owner), None, NOW),
        lambda: store.add_outside_quota(record(owner)),
        lambda: CertificateListing(nowhere).page(Selection(), 9, None, NOW),
        lambda: store.earlier_request(owner, "once", NOW),
        lambda: revocations.next_crl_number(0),
        lambda: revocations.revoke(some, RevocationReason.UNSPECIFIED, owner, NOW, None),
        lambda: revocations.use_of_key(some, NOW),
        lambda: revocations.retire_key(some, NOW),
        lambda: list(revocations.revocations(some.issuer_id, NOW)),
        lambda: revocations.pending(),
        lambda: revocations.settle([some.serial]),
    ):
        with pytest.raises(DependencyFailed):
            ask()
