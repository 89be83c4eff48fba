"""What the whole composition asks of AWS, on a real emulator."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import botocore.session
import pytest

from chalicelib.adapters.parameters import AuthoritySet, authority_set_name, key_name
from chalicelib.bootstrap import Services
from chalicelib.domain.model import (
    Caller,
    IssueRequest,
    KeyType,
    Selection,
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
    DependencyFailed,
    QuotaExceeded,
)
from tests.component.emulated_aws import EmulatedAws
from tests.component.store.records import DAY, NOW
from tests.unit.settings import SETTINGS

PREFIX = "/registry-trust/test/"


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
        services.catalogue.own(
            caller, Selection(), 1, None
        )  # so that the threads share what it makes

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
