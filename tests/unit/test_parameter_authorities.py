"""The CAs in SSM: read when needed, kept for a minute, and kept on when SSM does not answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.adapters.parameters import (
    AUTHORITIES_KEPT,
    ParameterAuthorities,
    authority_set_name,
    key_name,
)
from chalicelib.domain.pki.authorities import Authority, AuthorityKind
from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.domain.pki.keys import private_key_pem
from chalicelib.domain.pki.leaves import certificate_pem
from chalicelib.errors import DependencyFailed, Misconfigured
from tests.unit.authorities import NOW, SECOND, client_ca, server_ca

PREFIX = "/registry-trust/test/"
CLIENT, SERVER = AuthorityKind.CLIENT, AuthorityKind.SERVER


class _Missing(ClientError):
    """As the SDK names it: ParameterNotFound."""


class _Exceptions:
    ParameterNotFound = _Missing


@dataclass
class FaultySsm:
    """A stand-in for SSM, in memory: it counts what is asked, and fails when told to."""

    values: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    fails: bool = False
    exceptions = _Exceptions

    def get_parameters(self, Names: Sequence[str]) -> Any:  # noqa: N803 (AWS names it so)
        self._ask("sets")
        found = [{"Name": n, "Value": self.values[n]} for n in Names if n in self.values]
        return {"Parameters": found}

    def get_parameter(self, Name: str, WithDecryption: bool) -> Any:  # noqa: N803
        assert WithDecryption
        self._ask("key")
        if Name not in self.values:
            raise _Missing({"Error": {"Code": "ParameterNotFound"}}, "GetParameter")
        return {"Parameter": {"Value": self.values[Name]}}

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.fails:
            raise ClientError({"Error": {"Code": "ThrottlingException"}}, "GetParameters")

    def put(self, kind: AuthorityKind, active: Authority, *others: Authority) -> None:
        """Older ones before the active one, as rotations leave them."""
        known = {ca.id: certificate_pem(ca.certificate) for ca in (*others, active)}
        self.values[authority_set_name(PREFIX, kind)] = AuthoritySet(active.id, known).to_json()
        for ca in (active, *others):
            key = private_key_pem(ca.key).decode()
            self.values[key_name(PREFIX, kind, ca.id)] = key


@dataclass
class World:
    ssm: FaultySsm = field(default_factory=FaultySsm)
    time: datetime = NOW

    def __post_init__(self) -> None:
        self.ssm.put(CLIENT, client_ca(1))
        self.ssm.put(SERVER, server_ca())
        self.authorities = ParameterAuthorities(
            self.ssm,  # type: ignore[arg-type]
            PREFIX,
            lambda: self.time,
        )

    def later(self, by: timedelta) -> None:
        self.time += by


@pytest.fixture
def world() -> World:
    return World()


def test_both_kinds_are_read_in_one_call_and_a_key_when_something_is_signed(world: World) -> None:
    assert [c.serial_number for c in world.authorities.client_certificates()] == [1]
    world.authorities.server_certificates()
    assert world.ssm.asked == ["sets"]
    assert world.authorities.client().id == client_ca(1).id
    assert world.authorities.client().id == client_ca(1).id
    assert world.ssm.asked == ["sets", "key"]


def test_another_ca_signs_at_most_a_minute_after_it_was_made_to(world: World) -> None:
    world.authorities.client()
    world.ssm.put(CLIENT, client_ca(2), client_ca(1))
    world.later(AUTHORITIES_KEPT - SECOND)
    assert world.authorities.client().id == client_ca(1).id
    world.later(SECOND)
    assert world.authorities.client().id == client_ca(2).id


def test_a_key_is_fetched_once_however_often_the_sets_are_read(world: World) -> None:
    for _ in range(3):
        world.authorities.client()
        world.later(AUTHORITIES_KEPT)
    assert world.ssm.asked.count("key") == 1


def test_the_one_that_signs_comes_first(world: World) -> None:
    world.ssm.put(CLIENT, client_ca(2), client_ca(1))
    certificates = world.authorities.client_certificates()
    assert [each.serial_number for each in certificates] == [2, 1]
    assert [ca.id for ca in world.authorities.client_signers()] == [
        client_ca(2).id,
        client_ca(1).id,
    ]


def test_while_ssm_does_not_answer_issuing_goes_on_with_the_cas_known(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.authorities.client()
    world.ssm.fails = True
    world.later(AUTHORITIES_KEPT)
    with caplog.at_level(logging.WARNING):
        assert world.authorities.client().id == client_ca(1).id
    assert "going on" in caplog.text
    asked = len(world.ssm.asked)
    assert world.authorities.client().id == client_ca(1).id
    assert len(world.ssm.asked) == asked, "each call would wait for SSM in vain"


def test_who_never_read_them_is_told(world: World) -> None:
    world.ssm.fails = True
    with pytest.raises(DependencyFailed):
        world.authorities.client()


def test_who_publishes_learns_of_a_change_at_once(world: World) -> None:
    world.authorities.client()
    world.ssm.put(CLIENT, client_ca(2), client_ca(1))
    world.authorities.reread()
    assert world.authorities.client().id == client_ca(2).id


def test_who_publishes_is_told_when_ssm_does_not_answer_and_issuing_goes_on(world: World) -> None:
    world.authorities.client()
    world.ssm.fails = True
    with pytest.raises(DependencyFailed):
        world.authorities.reread()
    assert world.authorities.client().id == client_ca(1).id


@pytest.mark.parametrize("kind", AuthorityKind)
def test_a_missing_set_is_said(world: World, kind: AuthorityKind) -> None:
    del world.ssm.values[authority_set_name(PREFIX, kind)]
    with pytest.raises(Misconfigured) as refused:
        world.authorities.client()
    assert refused.value.code == "no_authority"


def test_a_missing_key_is_said_where_it_is_needed(world: World) -> None:
    del world.ssm.values[key_name(PREFIX, CLIENT, client_ca(1).id)]
    world.authorities.server()
    with pytest.raises(Misconfigured):
        world.authorities.client()


def test_a_certificate_that_cannot_be_read_is_a_fault_of_the_set(world: World) -> None:
    known = AuthoritySet("a", {"a": "no PEM"})
    world.ssm.values[authority_set_name(PREFIX, CLIENT)] = known.to_json()
    with pytest.raises(Misconfigured) as refused:
        world.authorities.client_certificates()
    assert refused.value.code == "unusable_authority"
