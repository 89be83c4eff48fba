"""A kind's authorities through a rotation: added, made to sign, dropped."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.errors import Misconfigured

OLD = AuthoritySet("a", {"a": "PEM A"})
BOTH = OLD.with_trusted("b", "PEM B")


def test_a_new_one_is_trusted_and_does_not_sign() -> None:
    assert (BOTH.active, BOTH.ids) == ("a", ["a", "b"])
    assert (BOTH.former, BOTH.pending) == ([], ["b"])


def test_the_one_that_signs_comes_first_and_the_other_is_former() -> None:
    new = BOTH.activated("b")
    assert (new.active, new.ids) == ("b", ["b", "a"])
    assert (new.former, new.pending) == (["a"], [])


def test_a_former_one_is_dropped() -> None:
    assert BOTH.activated("b").without("a") == AuthoritySet("b", {"b": "PEM B"})


def test_the_one_that_signs_is_not_dropped() -> None:
    with pytest.raises(Misconfigured):
        BOTH.without("a")


def test_only_a_trusted_one_is_made_to_sign() -> None:
    with pytest.raises(Misconfigured):
        OLD.activated("b")


@given(st.lists(st.text("0123456789abcdef", min_size=1), min_size=1, unique=True), st.data())
def test_it_is_read_back_as_it_was_written(ids: list[str], data: st.DataObject) -> None:
    active = data.draw(st.sampled_from(ids))
    known = AuthoritySet(active, {id_: f"PEM {id_}" for id_ in ids})
    read = AuthoritySet.from_json(known.to_json())
    assert (read, list(read.certificates)) == (known, ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({"active": "a", "authorities": []}),
        json.dumps({"active": "a", "authorities": [{"id": "b", "certificate": "PEM"}]}),
        json.dumps({"active": "a", "authorities": [{"id": "a"}]}),
        json.dumps({"active": "a", "authorities": "a"}),
    ],
)
def test_what_is_malformed_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        AuthoritySet.from_json(text)
    assert refused.value.code == "unusable_authority"
