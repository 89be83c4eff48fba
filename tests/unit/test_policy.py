"""Who may get what, for how long, and how many."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain import policy
from chalicelib.domain.model import (
    Access,
    Caller,
    InstanceFacts,
    InstanceState,
    IssueRequest,
    QuotaSlot,
    Validity,
)
from chalicelib.errors import Forbidden, InvalidRequest, Misconfigured, QuotaExceeded
from tests.unit.authorities import DAY, NOW, SECOND
from tests.unit.instances import facts_of

ANN = Caller(arn="arn:aws:iam::123456789012:user/team/ann", name="ann")
INSTANCE = Caller(
    arn="arn:aws:sts::123456789012:assumed-role/docker-instance/i-0123abcd",
    name="i-0123abcd",
    role="docker-instance",
    instance_id="i-0123abcd",
)
RUNNING = facts_of("i-0123abcd")
LIMITS = policy.Limits(
    default_days=90,
    maximum_days=365,
    admin_maximum_days=730,
    certificates_per_owner=3,
    push_principals=("*",),
)
NOBODY_PUSHES = replace(LIMITS, push_principals=())


def access(
    asked: Access | None,
    *,
    caller: Caller = ANN,
    facts: InstanceFacts | None = None,
    limits: policy.Limits = LIMITS,
) -> Access:
    return policy.grant(IssueRequest(access=asked), caller, facts, limits).access


def test_a_grant_is_in_the_callers_own_name() -> None:
    grant = policy.grant(IssueRequest(), ANN, None, LIMITS)
    assert (grant.name, grant.owner) == ("ann", ANN.arn)


@pytest.mark.parametrize("asked", [None, Access.PUSH])
def test_who_may_push_gets_push_unless_pull_is_asked_for(asked: Access | None) -> None:
    assert access(asked) is Access.PUSH
    assert access(Access.PULL) is Access.PULL


def test_who_may_not_push_gets_pull_and_is_refused_push() -> None:
    assert access(None, limits=NOBODY_PUSHES) is Access.PULL
    assert access(Access.PULL, limits=NOBODY_PUSHES) is Access.PULL
    with pytest.raises(Forbidden) as caught:
        access(Access.PUSH, limits=NOBODY_PUSHES)
    assert caught.value.code == "push_not_allowed"


GLOBS = {
    ANN.arn: True,
    "arn:aws:iam::123456789012:user/*": True,
    "arn:aws:iam::*:user/team/*": True,
    "*/ann": True,
    "arn:aws:iam::123456789012:user/team/an?": True,
    "arn:aws:iam::123456789012:user/team/[ab]nn": True,
    "arn:aws:iam::123456789012:user/ann": False,
    "arn:aws:iam::123456789012:user/TEAM/*": False,
    "arn:aws:iam::123456789012:user/team/an": False,
    "ann": False,
    "": False,
}


@pytest.mark.parametrize(("glob", "matches"), GLOBS.items())
def test_push_is_for_the_callers_whose_whole_arn_matches_a_glob(glob: str, matches: bool) -> None:
    limits = replace(LIMITS, push_principals=("arn:aws:iam::1:user/other", glob))
    assert access(None, limits=limits) is (Access.PUSH if matches else Access.PULL)


@pytest.mark.parametrize("tagged", Access)
@pytest.mark.parametrize("asked", [None, *Access])
def test_an_instance_gets_what_its_tag_says_and_never_what_it_asks_for(
    tagged: Access, asked: Access | None
) -> None:
    facts = replace(RUNNING, access=tagged)
    for limits in (LIMITS, NOBODY_PUSHES):
        assert access(asked, caller=INSTANCE, facts=facts, limits=limits) is tagged


NO_SUCH_INSTANCE = {
    "there is none": None,
    "it is not running": replace(RUNNING, state=InstanceState.STOPPED),
    "it has another role": replace(RUNNING, role="deploy"),
    "it has no role": replace(RUNNING, role=None),
}


@pytest.mark.parametrize("facts", NO_SUCH_INSTANCE.values(), ids=NO_SUCH_INSTANCE)
def test_a_session_that_only_calls_itself_an_instance_is_refused(
    facts: InstanceFacts | None,
) -> None:
    with pytest.raises(Forbidden) as caught:
        access(Access.PULL, caller=INSTANCE, facts=facts)
    assert caught.value.code == "not_that_instance"


def test_an_instance_without_a_tag_is_refused() -> None:
    with pytest.raises(Forbidden) as caught:
        access(None, caller=INSTANCE, facts=replace(RUNNING, access=None))
    assert caught.value.code == "instance_not_tagged"


@pytest.mark.parametrize("days", [1, 90, 365])
def test_the_lifetime_is_the_days_asked_for(days: int) -> None:
    assert policy.grant(IssueRequest(days=days), ANN, None, LIMITS).lifetime == days * DAY


def test_the_lifetime_is_the_default_when_none_is_asked_for() -> None:
    assert policy.grant(IssueRequest(), ANN, None, LIMITS).lifetime == 90 * DAY


@pytest.mark.parametrize("days", [0, -1, 366, 10**30])
def test_days_beyond_the_bounds_are_refused_and_the_bounds_named(days: int) -> None:
    with pytest.raises(InvalidRequest, match="from 1 to 365") as caught:
        policy.grant(IssueRequest(days=days), ANN, None, LIMITS)
    assert (caught.value.code, caught.value.field) == ("days_out_of_range", "days")


@pytest.mark.parametrize("label", ["", "x" * 64, "Ann's laptop, 2nd", "рабочий ноутбук", "日本"])
def test_a_printable_label_of_64_characters_is_accepted(label: str) -> None:
    assert policy.grant(IssueRequest(label=label), ANN, None, LIMITS)


BAD_LABELS = {
    "x" * 65: "label_too_long",
    "a\nb": "label_not_printable",
    "a\tb": "label_not_printable",
    "a\0b": "label_not_printable",
    "a\x1b[31mb": "label_not_printable",
    "a\x7fb": "label_not_printable",
    "a\u202eb": "label_not_printable",
    "a\ud800b": "label_not_printable",
}


@pytest.mark.parametrize(("label", "code"), BAD_LABELS.items(), ids=map(ascii, BAD_LABELS))
def test_a_bad_label_is_refused(label: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        policy.grant(IssueRequest(label=label), ANN, None, LIMITS)
    assert (caught.value.code, caught.value.field) == (code, "label")


def test_a_validity_is_backdated_for_slow_clocks_and_ends_with_the_issuer() -> None:
    start, backdate = NOW.replace(microsecond=0), timedelta(minutes=5)
    full = Validity(start - backdate, start + 90 * DAY)
    assert policy.validity(NOW, 90 * DAY, NOW + 91 * DAY) == full
    assert policy.validity(NOW, 90 * DAY, start + DAY) == Validity(start - backdate, start + DAY)


def test_a_ca_signs_in_its_last_second_and_not_after() -> None:
    assert policy.validity(NOW, DAY, NOW).not_after == NOW
    with pytest.raises(Misconfigured) as caught:
        policy.validity(NOW, DAY, NOW - SECOND)
    assert caught.value.code == "authority_expired"


def slots(*numbers: int, until: timedelta = DAY) -> list[QuotaSlot]:
    return [QuotaSlot(number, NOW + until) for number in numbers]


def free(taken: list[QuotaSlot], limits: policy.Limits = LIMITS, seed: int = 1) -> int:
    return policy.free_slot(taken, limits, NOW, random.Random(seed))  # noqa: S311


def test_every_free_slot_has_its_chance_and_no_taken_one() -> None:
    assert {free(slots(1), seed=seed) for seed in range(40)} == {0, 2}


def test_an_owner_with_all_slots_taken_is_refused_until_one_expires() -> None:
    with pytest.raises(QuotaExceeded, match="you hold 3 active") as caught:
        free(slots(0, 1, 2))
    assert caught.value.code == "quota_exceeded"
    assert free(slots(0, 2) + slots(1, until=-SECOND)) == 1


def test_a_slot_is_taken_through_the_last_second_of_its_certificate() -> None:
    """not_after is inclusive."""
    with pytest.raises(QuotaExceeded):
        free(slots(0, 1) + slots(2, until=timedelta(0)))


def test_a_lowered_quota_counts_the_slots_beyond_it_too() -> None:
    with pytest.raises(QuotaExceeded):
        free(slots(7, 8, 9))
    assert free(slots(7, 8)) in {0, 1, 2}


def test_a_quota_of_none_gives_nothing() -> None:
    with pytest.raises(QuotaExceeded):
        free([], replace(LIMITS, certificates_per_owner=0))


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(-2, 2)), unique_by=lambda slot: slot[0]),
    st.integers(0, 6),
    st.integers(),
)
@settings(max_examples=200)
def test_a_slot_is_given_exactly_when_fewer_than_the_quota_are_active(
    taken: list[tuple[int, int]], quota: int, seed: int
) -> None:
    held = [QuotaSlot(number, NOW + days * DAY) for number, days in taken]
    active = {number for number, days in taken if days >= 0}
    limits = replace(LIMITS, certificates_per_owner=quota)
    if len(active) >= quota:
        with pytest.raises(QuotaExceeded):
            free(held, limits, seed)
    else:
        assert free(held, limits, seed) in set(range(quota)) - active
