"""The registry's own certificate: for its host alone, in its own name alone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509

from chalicelib.domain.model import Caller, Validity
from chalicelib.domain.pki.leaves import certificate_pem
from chalicelib.errors import (
    AppError,
    Contended,
    DependencyFailed,
    Forbidden,
    InvalidRequest,
    Misconfigured,
)
from tests.unit.authorities import DAY, HOST, NOW, SECOND, server_ca
from tests.unit.signing_requests import csr, ec_key
from tests.unit.stand_ins import REGISTRY_HOST_ROLE, Crash, World

SESSION = "arn:aws:sts::123456789012:assumed-role"
REGISTRY = Caller(f"{SESSION}/{REGISTRY_HOST_ROLE}/i-0123abcd", "i-0123abcd", REGISTRY_HOST_ROLE)
CSR = csr(ec_key(), "evil.example.net")
WHOLE = NOW.replace(microsecond=0)


def refused(world: World, kind: type[AppError], caller: Caller, pem: bytes) -> str:
    with pytest.raises(kind) as caught:
        world.serving.issue(pem, caller)
    return caught.value.code


def test_the_certificate_is_for_the_configured_host_whatever_the_csr_says(world: World) -> None:
    issued = world.serving.issue(CSR, REGISTRY)
    leaf = x509.load_pem_x509_certificate(issued.record.certificate_pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(HOST)]
    assert leaf.public_key() == ec_key().public_key()
    leaf.verify_directly_issued_by(server_ca().certificate)


def test_the_record_is_written_outside_every_quota(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    record = world.serving.issue(CSR, REGISTRY).record
    assert caplog.messages == [f"issued {record.serial} for the registry to {REGISTRY.arn}"]
    assert world.records.by_serial == {record.serial: record}
    assert world.journal.done == ["record"]
    assert (record.owner, record.name, record.access) == (REGISTRY.arn, HOST, None)
    assert (record.slot, record.made_key, record.issued_at) == (None, False, NOW)
    assert record.validity == Validity(WHOLE - timedelta(minutes=5), WHOLE + 90 * DAY)


def test_it_is_of_the_ca_that_signs_at_this_moment(world: World) -> None:
    """A host that asks because another CA signs now does not get the former's again."""
    new = server_ca(HOST, Validity.starting(NOW, 100 * DAY, DAY))
    world.authorities.reread = lambda: world.authorities.servers.insert(0, new)  # type: ignore[method-assign]
    assert world.serving.issue(CSR, REGISTRY).record.issuer_id == new.id


def test_the_chain_is_every_ca_that_clients_may_trust(world: World) -> None:
    other = server_ca("other." + HOST)
    world.authorities.servers.append(other)
    both = certificate_pem(server_ca().certificate) + certificate_pem(other.certificate)
    assert world.serving.issue(CSR, REGISTRY).chain == both


STRANGERS = {
    "a user": Caller("arn:aws:iam::123456789012:user/registry-host", REGISTRY_HOST_ROLE),
    "another role": Caller(f"{SESSION}/deploy/i-0123abcd", "i-0123abcd", "deploy"),
    "a role named nearly so": Caller(f"{SESSION}/registry-host2/x", "x", "registry-host2"),
    "a session that has the role's name": Caller(
        f"{SESSION}/deploy/registry-host", REGISTRY_HOST_ROLE, "deploy"
    ),
}


@pytest.mark.parametrize("caller", STRANGERS.values(), ids=STRANGERS)
def test_nobody_else_gets_one(world: World, caller: Caller) -> None:
    assert refused(world, Forbidden, caller, CSR) == "not_the_registry_host"
    assert world.untouched


def test_a_bad_csr_is_refused_and_leaves_no_record(world: World) -> None:
    assert refused(world, InvalidRequest, REGISTRY, CSR + CSR) == "csr_multiple"
    assert world.untouched


@pytest.mark.parametrize("kind", ["client", "server"])
def test_the_key_of_a_ca_is_refused(world: World, kind: str) -> None:
    ca = world.authorities.client() if kind == "client" else world.authorities.server()
    assert refused(world, InvalidRequest, REGISTRY, csr(ca.key)) == "key_is_ca"
    assert world.untouched


def test_it_never_outlives_its_issuer_and_an_expired_one_signs_nothing(world: World) -> None:
    end = WHOLE + 10 * DAY
    world.authorities.servers = [server_ca(HOST, Validity(WHOLE - DAY, end))]
    assert world.serving.issue(CSR, REGISTRY).record.validity.not_after == end
    world.time = end + SECOND
    assert refused(world, Misconfigured, REGISTRY, CSR) == "authority_expired"


def test_it_is_released_only_when_its_record_is_written(world: World) -> None:
    world.records.fails = True
    assert refused(world, DependencyFailed, REGISTRY, CSR) == "table_unwritable"
    world.records.fails, world.journal.crash_at = False, 1
    with pytest.raises(Crash):
        world.serving.issue(CSR, REGISTRY)
    assert world.records.by_serial == {}


def test_a_serial_that_is_taken_replaces_nothing(world: World) -> None:
    world.serials = [7, 7]
    first = world.serving.issue(CSR, REGISTRY).record
    assert refused(world, Contended, REGISTRY, CSR) == "busy"
    assert world.records.by_serial == {first.serial: first}
