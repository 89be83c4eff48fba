"""What the whole composition asks of AWS, on a real emulator."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import botocore.session
import pytest

from chalicelib.bootstrap import Services
from chalicelib.domain.model import (
    Caller,
    IssueRequest,
    RenewRequest,
    RevocationReason,
    Selection,
)
from chalicelib.errors import (
    DependencyFailed,
    QuotaExceeded,
)
from tests.component.emulated_aws import EmulatedAws
from tests.component.store.authorities import PREFIX, put_authorities
from tests.unit.settings import SETTINGS


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
        put_authorities(aws)
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

    def test_a_renewal_reads_its_predecessor_once(
        self, services: Services, owner: str, calls: list[str]
    ) -> None:
        caller = Caller(owner, "ann")
        old = services.issuing.issue(IssueRequest(), caller).record
        calls.clear()
        services.issuing.renew(old.serial, RenewRequest(), caller)
        assert calls[:-1] == ["GetItem", "Query", "TransactWriteItems"]
        assert calls[-1].startswith("PUT ")

    def test_it_takes_a_revocation_few_calls_and_no_client(
        self, aws: EmulatedAws, services: Services, owner: str, calls: list[str], clients: list[str]
    ) -> None:
        caller = Caller(owner, "ann")
        one, two = (services.issuing.issue(IssueRequest(), caller).record for _ in range(2))
        services.revoking.revoke(one.serial, RevocationReason.UNSPECIFIED, caller)
        calls.clear()
        clients.clear()
        services.revoking.revoke(two.serial, RevocationReason.UNSPECIFIED, caller)
        assert clients == []
        told = [call if call.isalpha() else call.split()[0] for call in calls]
        assert told == [
            *("GetItem", "GetItem", "Query", "TransactWriteItems"),  # certificate, and its key
            *("GET", "HEAD", "HEAD", "HEAD"),  # what is published
            *("UpdateItem", "Query", "GetParameters", "Query"),  # what is to be
            *("PUT", "PUT", "PUT", "PUT", "BatchWriteItem"),
            "DELETE",  # the stored private key
        ]

    def test_requests_at_once_use_the_quota_up_and_never_exceed_it(
        self, services: Services, owner: str
    ) -> None:
        caller, together = Caller(owner, "ann"), threading.Barrier(16)
        issuing = services.issuing
        # So that the threads share what it makes.
        services.catalogue.own(caller, Selection(), 1, None)

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
        assert len(services.catalogue.own(caller, Selection(), 100, None).records) == 6
