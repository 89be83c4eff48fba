"""The form of an answer, from the Accept header (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.entrypoints.http.answers import FORMS
from chalicelib.entrypoints.http.forms import GZIP, JSON, PEM, SHELL, choose_form
from chalicelib.errors import NotAcceptable

CHOSEN = {
    None: JSON,
    "": JSON,
    "*/*": JSON,
    "application/*": JSON,
    "text/*": SHELL,
    JSON: JSON,
    PEM: PEM,
    GZIP: GZIP,
    SHELL: SHELL,
    "Application/X-PEM-File": PEM,
    f"{PEM}; charset=utf-8": PEM,
    f" {PEM} , {JSON}": PEM,
    f"text/html, {PEM}": PEM,
    f"text/html, {PEM};q=0.5, {SHELL};q=0.7": SHELL,
    f"{JSON};q=0.2, {PEM};q=0.1": JSON,
    f"{PEM};q=0.1, */*;q=0.2": JSON,
    f"*/*, {PEM}": JSON,
    f"{PEM}, */*": PEM,
    f"{JSON};q=0, */*": PEM,
    f"{JSON};q=0.1, */*;q=0.8": PEM,
    f"*/*;q=0.8, {JSON};q=0.1": PEM,
    f"{JSON};q=0, application/*;q=0, */*": SHELL,
    f"{PEM};q=high, {JSON};q=0.1": JSON,
    f"{GZIP}, */*": GZIP,
    f"{GZIP};q=0.9, {JSON};q=0.1": GZIP,
}


@pytest.mark.parametrize(("accept", "form"), CHOSEN.items())
def test_the_form_is_the_one_the_header_ranks_first(accept: str | None, form: str) -> None:
    assert choose_form(accept, FORMS) == form


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "image/*",
        "*",
        "json",
        f"{JSON};q=0",
        f"{JSON};q=-1",
        f"{JSON};q=nan",
        "*/*;q=0",
        "application/jsonp",
        "application/json-seq",
        ",",
        ";q=1",
    ],
)
def test_a_form_we_cannot_make_is_refused_and_the_choice_named(accept: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose_form(accept, FORMS)
    assert caught.value.code == "not_acceptable"
    assert all(form in str(caught.value) for form in FORMS)


@pytest.mark.parametrize(
    ("accept", "form"),
    [(f"{JSON};q=0.1, {GZIP}", JSON), (f"{PEM}, {GZIP}", PEM), (f"*/*;q=0.1, {GZIP}", JSON)],
)
def test_gzip_is_given_only_where_it_is_named_first(accept: str, form: str) -> None:
    """API Gateway would hand it out in base64 otherwise."""
    assert choose_form(accept, FORMS) == form


def test_gzip_named_later_and_alone_is_refused_rather_than_broken() -> None:
    with pytest.raises(NotAcceptable):
        choose_form(f"text/html, {GZIP}", FORMS)


def test_a_route_of_one_form_refuses_the_others() -> None:
    assert choose_form("*/*", (JSON,)) == JSON
    with pytest.raises(NotAcceptable):
        choose_form(PEM, (JSON,))


@given(st.text(max_size=60) | st.lists(st.sampled_from([*CHOSEN, ";q=1", ",", "="])).map(str))
@settings(max_examples=150)
def test_any_header_is_answered_with_an_offered_form_or_refused(accept: str) -> None:
    try:
        form = choose_form(accept, FORMS)
    except NotAcceptable:
        return
    assert form in FORMS
