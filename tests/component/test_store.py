"""The two tables on a real emulator: all or nothing, under every collision we could think of."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.exceptions import ReadTimeoutError
from botocore.httpsession import URLLib3Session

from chalicelib.adapters.parameters import AuthoritySet, authority_set_name, key_name
from chalicelib.adapters.store import CertificateStore
from chalicelib.bootstrap import Services
from chalicelib.domain.model import (
    Access,
    Caller,
    CertificateRecord,
    IssueRequest,
    KeyType,
    Status,
    StoredRequest,
    Validity,
)
from chalicelib.domain.pki.authorities import (
    AuthorityKind,
    make_client_authority,
    make_server_authority,
)
from chalicelib.domain.pki.keys import make_key, private_key_pem
from chalicelib.domain.pki.leaves import certificate_pem
from chalicelib.errors import (
    Contended,
    DependencyFailed,
    InvalidRequest,
    QuotaExceeded,
)
from localcloud.aws import ROOT
from localcloud.aws import Caller as AwsCaller
from tests.component.emulated_aws import EmulatedAws, emulated_aws
from tests.unit.settings import SETTINGS

STACK = Path(__file__).resolve().parents[2] / ".chalice" / "stack.yaml"
NOW = datetime.now(UTC).replace(microsecond=123456)  # the emulator expires items by a real clock
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
PREFIX = "/registry-trust/test/"
_numbers = count(1)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        make_tables(running.client("dynamodb"))
        running.client("s3").create_bucket(Bucket="config")
        yield running


def make_tables(dynamodb: Any) -> None:
    """As the stack makes them; but for what the emulator would drop anyway."""

    class Template(yaml.SafeLoader):
        """Reads CloudFormation's tags as nothing."""

    Template.add_multi_constructor("!", lambda *_: None)
    resources = yaml.load(STACK.read_text(), Template)["Resources"]  # noqa: S506  # a SafeLoader
    for name, resource in (("certificates", "CertificatesTable"), ("state", "StateTable")):
        wanted = ("KeySchema", "AttributeDefinitions", "GlobalSecondaryIndexes", "BillingMode")
        properties = resources[resource]["Properties"]
        given = {key: properties[key] for key in wanted if key in properties}
        dynamodb.create_table(TableName=name, **given)


@pytest.fixture(autouse=True)
def _environment(aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AwsCaller(aws.endpoint, ROOT).environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store() -> CertificateStore:
    return CertificateStore("certificates", "state")


@pytest.fixture
def owner() -> str:
    """Somebody new."""
    return f"arn:aws:iam::123456789012:user/owner-{next(_numbers)}"


def record(owner: str, slot: int | None = 0, **changes: Any) -> CertificateRecord:
    number = next(_numbers)
    start = NOW.replace(microsecond=0)
    made = CertificateRecord(
        serial=f"{number:040x}",
        owner=owner,
        name="ann",
        access=Access.PULL,
        issued_at=NOW + timedelta(milliseconds=number),
        validity=Validity(start, start + 30 * DAY),
        fingerprint_sha256=f"{number:064x}",
        issuer_id="0123456789abcdef",
        key_id=f"{number:064x}",
        made_key=False,
        label="Ann's laptop",
        slot=slot,
        certificate_pem="-----BEGIN CERTIFICATE-----\n",
    )
    return replace(made, **changes)


def rows(aws: EmulatedAws) -> tuple[list[Any], list[Any]]:
    """Everything in both tables."""
    client = aws.client("dynamodb")
    tables = [
        client.get_paginator("scan").paginate(TableName=name) for name in ("certificates", "state")
    ]
    certificates, state = (
        sorted((item for page in pages for item in page["Items"]), key=str) for pages in tables
    )
    return certificates, state


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

    @pytest.mark.parametrize("request_", [None, StoredRequest("new", "d", "s")])
    @pytest.mark.parametrize("collision", ["serial", "slot", "both"])
    def test_a_collision_is_contended_and_writes_nothing_at_all(
        self,
        aws: EmulatedAws,
        store: CertificateStore,
        owner: str,
        collision: str,
        request_: StoredRequest | None,
    ) -> None:
        first = record(owner)
        store.add(first, None, NOW)
        before = rows(aws)
        serial = first.serial if collision != "slot" else f"{next(_numbers):040x}"
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

    @pytest.mark.parametrize("request_", [None, StoredRequest("new", "d", "s")])
    def test_a_key_belongs_to_the_first_owner_it_is_certified_for(
        self,
        aws: EmulatedAws,
        store: CertificateStore,
        owner: str,
        request_: StoredRequest | None,
    ) -> None:
        first = record(owner)
        store.add(first, None, NOW)
        before = rows(aws)
        with pytest.raises(InvalidRequest) as caught:
            store.add(record("arn:other", key_id=first.key_id), request_, NOW)
        assert (caught.value.code, caught.value.field) == ("key_in_use", "csr")
        assert rows(aws) == before
        assert store.add(record(owner, 1, key_id=first.key_id), request_, NOW) is None

    @pytest.mark.parametrize("request_", [None, StoredRequest("new", "d", "s")])
    def test_a_revoked_key_is_refused_to_its_owner_and_everybody_else(
        self,
        aws: EmulatedAws,
        store: CertificateStore,
        owner: str,
        request_: StoredRequest | None,
    ) -> None:
        first = record(owner)
        store.add(first, None, NOW)
        aws.client("dynamodb").update_item(
            TableName="state",
            Key={"pk": {"S": f"key#{first.key_id}"}, "sk": {"S": "key"}},
            UpdateExpression="SET revoked_at = :now",
            ExpressionAttributeValues={":now": {"S": "2026-01-01T00:00:00.000000+0000"}},
        )
        for other, code in ((owner, "key_revoked"), ("arn:other", "key_in_use")):
            with pytest.raises(InvalidRequest) as caught:
                store.add(record(other, 1, key_id=first.key_id), request_, NOW)
            assert caught.value.code == code

    def test_an_answer_lost_on_the_way_costs_nothing(
        self, store: CertificateStore, owner: str
    ) -> None:
        """The repeated request carries the token of the first, or it would meet its own record."""
        tokens: list[str] = []

        def lose_the_first(request: Any, **_: Any) -> None:
            tokens.append(json.loads(request.body)["ClientRequestToken"])
            if len(tokens) == 1:
                URLLib3Session().send(request)
                raise ReadTimeoutError(endpoint_url=request.url)

        events = store._connection.client.meta.events
        events.register("before-send.dynamodb.TransactWriteItems", lose_the_first)
        added = record(owner)
        assert store.add(added, StoredRequest("once", "d", added.serial), NOW) is None
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
        page = store.page(owner, None, 100, None, NOW)
        assert {each.serial for each in page.records} == set(won)


class TestRequests:
    def test_a_request_made_again_is_answered_by_the_first_and_writes_nothing(
        self, aws: EmulatedAws, store: CertificateStore, owner: str
    ) -> None:
        first = record(owner)
        request = StoredRequest("once", "digest", first.serial)
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
        store.add(first, StoredRequest("once", "d", first.serial), now)
        late = StoredRequest("once", "e", second.serial)
        just_before = now + DAY - SECOND
        assert store.earlier_request(owner, "once", just_before) is not None
        assert store.add(second, late, just_before) == StoredRequest("once", "d", first.serial)
        assert store.earlier_request(owner, "once", now + DAY) is None
        assert store.add(second, late, now + DAY) is None
        assert store.earlier_request(owner, "once", now + DAY) == late

    def test_owners_do_not_share_them(self, store: CertificateStore, owner: str) -> None:
        first = record(owner)
        store.add(first, StoredRequest("once", "d", first.serial), NOW)
        assert store.earlier_request(owner + "2", "once", NOW) is None


class TestPages:
    def test_pages_hold_everything_once_newest_first(
        self, store: CertificateStore, owner: str
    ) -> None:
        added = [record(owner, slot) for slot in range(7)]
        for each in added:
            store.add(each, None, NOW)
        store.add(record(owner + "2"), None, NOW)
        seen: list[CertificateRecord] = []
        cursor = None
        while True:
            page = store.page(owner, None, 3, cursor, NOW)
            seen += page.records
            cursor = page.cursor
            assert len(page.records) == 3 or cursor is None
            if cursor is None:
                break
        assert seen == added[::-1]

    def test_what_is_issued_between_two_pages_moves_nothing(
        self, store: CertificateStore, owner: str
    ) -> None:
        added = [record(owner, slot) for slot in range(4)]
        for each in added:
            store.add(each, None, NOW)
        first = store.page(owner, None, 2, None, NOW)
        store.add(record(owner, 4), None, NOW)
        second = store.page(owner, None, 2, first.cursor, NOW)
        assert [*first.records, *second.records] == added[::-1]

    def test_anothers_cursor_shows_nothing_of_his(
        self, store: CertificateStore, owner: str
    ) -> None:
        for slot in range(3):
            store.add(record(owner, slot), None, NOW)
        cursor = store.page(owner, None, 1, None, NOW).cursor
        assert store.page(owner + "2", None, 9, cursor, NOW).records == ()

    def test_a_page_of_a_status_is_full_though_others_lie_between(
        self, store: CertificateStore, owner: str
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
            page = store.page(owner, status, 4, None, now)
            assert [each.status(now) for each in page.records] == [status] * expected
        assert len(store.page(owner, Status.ACTIVE, 2, None, end + SECOND).records) == 2

    @pytest.mark.parametrize("cursor", ["", "x", "é", "bm90IG91cnM", "=" * 9])
    def test_a_cursor_that_is_not_ours_is_refused(
        self, store: CertificateStore, owner: str, cursor: str
    ) -> None:
        with pytest.raises(InvalidRequest) as caught:
            store.page(owner, None, 9, cursor, NOW)
        assert (caught.value.code, caught.value.field) == ("invalid_cursor", "cursor")


def test_crl_numbers_only_grow_whoever_asks(store: CertificateStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda _: store.next_crl_number(), range(24)))
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + 24))


def test_a_table_that_is_not_there_is_our_own_error(owner: str) -> None:
    store = CertificateStore("nowhere", "nowhere-either")
    for ask in (
        lambda: store.slots(owner),
        lambda: store.get("0" * 40),
        lambda: store.add(record(owner), None, NOW),
        lambda: store.add_outside_quota(record(owner)),
        lambda: store.page(owner, None, 9, None, NOW),
        lambda: store.earlier_request(owner, "once", NOW),
        lambda: store.next_crl_number(),
    ):
        with pytest.raises(DependencyFailed):
            ask()


class TestAWarmIssuance:
    """The whole composition, as a function of the stack has it."""

    @pytest.fixture
    def clients(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The clients made so far, by service."""
        made: list[str] = []
        make = botocore.session.Session.create_client

        def counted(self: Any, service: str, *args: Any, **kwargs: Any) -> Any:
            made.append(service)
            client = make(self, service, *args, **kwargs)
            client.meta.events.register("before-send", lambda request, **_: self.calls(request))
            return client

        monkeypatch.setattr(botocore.session.Session, "create_client", counted)
        return made

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The requests sent so far, by what they ask for."""
        sent: list[str] = []

        def note(_: Any, request: Any) -> None:
            target = request.headers.get("X-Amz-Target", b"")
            name = target.decode() if isinstance(target, bytes) else target
            sent.append(name.rpartition(".")[2] or f"{request.method} {request.url}")

        monkeypatch.setattr(botocore.session.Session, "calls", note, raising=False)
        return sent

    @pytest.fixture
    def services(self, aws: EmulatedAws, calls: list[str], clients: list[str]) -> Services:
        validity = Validity.starting(NOW, 3650 * DAY, DAY)
        key = make_key(KeyType.EC_P256)
        made = {
            AuthorityKind.CLIENT: make_client_authority(key, 1, validity),
            AuthorityKind.SERVER: make_server_authority(key, 1, validity, "r.example"),
        }
        ssm = aws.client("ssm")
        for kind, ca in made.items():
            known = AuthoritySet(ca.id, {ca.id: certificate_pem(ca.certificate)})
            for name, value, type_ in (
                (authority_set_name(PREFIX, kind), known.to_json(), "String"),
                (key_name(PREFIX, kind, ca.id), private_key_pem(key).decode(), "SecureString"),
            ):
                ssm.put_parameter(Name=name, Value=value, Type=type_, Overwrite=True)
        calls.clear()
        clients.clear()
        return Services(replace(SETTINGS, parameter_prefix=PREFIX, certificates_per_owner=6))

    def test_it_makes_three_calls_in_their_order_and_no_client(
        self, services: Services, owner: str, calls: list[str], clients: list[str]
    ) -> None:
        caller = Caller(owner, "ann")
        services.issuing.issue(IssueRequest(), caller)
        assert sorted(clients) == ["dynamodb", "s3", "ssm"]
        clients.clear()
        for request in (IssueRequest(), IssueRequest(idempotency_key="a", digest="b")):
            calls.clear()
            serial = services.issuing.issue(request, caller).record.serial
            assert calls[:2] == ["Query", "TransactWriteItems"]
            assert len(calls) == 3
            assert calls[2].startswith("PUT ")
            assert f"certs/{serial}/bundle.tar.gz" in calls[2]
        assert clients == []

    def test_requests_at_once_use_the_quota_up_and_never_exceed_it(
        self, services: Services, owner: str
    ) -> None:
        caller, together = Caller(owner, "ann"), threading.Barrier(16)
        issuing = services.issuing
        issuing.page(caller, None, 1, None)  # so that the threads share what it makes

        def ask(_: int) -> str:
            together.wait()
            try:
                return issuing.issue(IssueRequest(), caller).record.serial
            except (QuotaExceeded, DependencyFailed) as error:
                return error.code

        with ThreadPoolExecutor(16) as threads:
            answers = Counter(threads.map(ask, range(16)))
        refused = answers.pop("quota_exceeded", 0) + answers.pop("busy", 0)
        assert (len(answers), refused) == (6, 10)
        assert len(issuing.page(caller, None, 100, None).records) == 6
