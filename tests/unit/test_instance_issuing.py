"""Certificates for instances that ask for nothing themselves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from chalicelib.domain.model import Access, InstanceState, IssueRequest, RevocationReason
from chalicelib.errors import Forbidden, InvalidRequest
from tests.unit.authorities import client_ca
from tests.unit.instances import caller_of, facts_of
from tests.unit.refusals import refused
from tests.unit.signing_requests import csr, ec_key, rsa_key
from tests.unit.stand_ins import World

INSTANCE = facts_of()
CSR, OTHER_CSR = csr(ec_key()), csr(rsa_key(2048))
DAY = timedelta(days=1)


def test_it_is_the_instances_own_and_no_bundle_is_stored(world: World) -> None:
    record = world.instance_issuing.certify(INSTANCE, CSR, None, "first")
    assert (record.owner, record.name) == (INSTANCE.session_arn, INSTANCE.instance_id)
    assert record.access is INSTANCE.access
    assert not record.made_key
    assert world.journal.done == ["record"]


def test_the_same_request_again_gets_the_same_certificate(world: World) -> None:
    first = world.instance_issuing.certify(INSTANCE, CSR, None, "first")
    assert world.instance_issuing.certify(INSTANCE, CSR, None, "first") == first
    assert world.instance_issuing.certify(INSTANCE, CSR, None, "second") != first


def test_what_is_certified_well_already_is_not_certified_again(world: World) -> None:
    issuing = world.instance_issuing
    first = issuing.certify(INSTANCE, CSR, None, "first")
    assert issuing.certify(INSTANCE, CSR, first, "second") == first
    assert issuing.certify(INSTANCE, OTHER_CSR, first, "third").renews == first.serial


def test_another_access_or_the_last_third_of_its_life_make_another_certificate(
    world: World,
) -> None:
    issuing = world.instance_issuing
    first = issuing.certify(INSTANCE, CSR, None, "first")
    second = issuing.certify(replace(INSTANCE, access=Access.PUSH), CSR, first, "second")
    assert (second.access, second.renews) == (Access.PUSH, first.serial)
    world.time += 61 * DAY
    third = issuing.certify(INSTANCE, CSR, second, "third")
    assert third.serial not in (first.serial, second.serial)


def test_nothing_follows_what_was_revoked(world: World) -> None:
    issuing = world.instance_issuing
    first = issuing.certify(INSTANCE, CSR, None, "first")
    world.revoking.take_back([first], RevocationReason.CESSATION_OF_OPERATION, "registry-trust")
    revoked = world.records.by_serial[first.serial]
    ask = lambda: issuing.certify(INSTANCE, CSR, revoked, "second")  # noqa: E731
    assert refused(InvalidRequest, ask) == "key_revoked"
    second = issuing.certify(INSTANCE, OTHER_CSR, revoked, "third")
    assert (second.renews, second.line) == (None, None)


def test_renewing_certifies_the_same_key(world: World) -> None:
    first = world.instance_issuing.certify(INSTANCE, CSR, None, "first")
    second = world.instance_issuing.renew(INSTANCE, first, "second")
    assert (second.key_id, second.renews) == (first.key_id, first.serial)
    assert second.serial != first.serial


@pytest.mark.parametrize(
    ("instance", "code"),
    [
        (replace(INSTANCE, state=InstanceState.STOPPED), "not_that_instance"),
        (replace(INSTANCE, access=None), "instance_not_tagged"),
        (replace(INSTANCE, role="other"), "not_that_instance"),
        (replace(INSTANCE, role=None, session_arn=None), "no_instance_profile"),
    ],
)
def test_what_would_be_refused_to_the_instance_is_refused_here(
    world: World, instance: object, code: str
) -> None:
    ask = lambda: world.instance_issuing.certify(instance, CSR, None, "first")  # type: ignore[arg-type]  # noqa: E731
    assert refused(Forbidden, ask) == code
    assert world.untouched


def test_another_owners_key_and_a_cas_are_refused(world: World) -> None:
    issuing = world.instance_issuing
    issuing.certify(INSTANCE, CSR, None, "first")
    other = facts_of("i-00000000000000007")
    assert refused(InvalidRequest, lambda: issuing.certify(other, CSR, None, "x")) == "key_in_use"
    of_ca = csr(client_ca().key)  # type: ignore[arg-type]
    assert refused(InvalidRequest, lambda: issuing.certify(other, of_ca, None, "y")) == "key_is_ca"


def test_no_idempotency_key_of_a_callers_is_one_of_ours(world: World) -> None:
    """Else an instance could choose ours first, and have what it asked for taken for what it is
    given."""
    world.instances[INSTANCE.instance_id] = INSTANCE
    request = IssueRequest(csr_pem=OTHER_CSR, idempotency_key="enrolment-1", digest="d")
    asked = world.issuing.issue(request, caller_of(INSTANCE)).record
    given = world.instance_issuing.certify(INSTANCE, CSR, None, "enrolment 1")
    assert given.serial != asked.serial


def test_several_are_taken_back_with_one_list(world: World) -> None:
    issuing = world.instance_issuing
    records = [
        issuing.certify(INSTANCE, each, None, f"{number}")
        for number, each in enumerate((CSR, OTHER_CSR))
    ]
    before = len(world.bundles.published)
    world.revoking.take_back(records, RevocationReason.CESSATION_OF_OPERATION, "registry-trust")
    assert len(world.bundles.published) == before + 1
    taken = [world.records.by_serial[record.serial] for record in records]
    assert {record.revoked_by for record in taken} == {"registry-trust"}
    assert all(record.revoked_at for record in taken)


def test_nothing_to_take_back_publishes_nothing(world: World) -> None:
    world.revoking.take_back([], RevocationReason.SUPERSEDED, "registry-trust")
    assert world.untouched
