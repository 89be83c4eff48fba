"""Request bodies: every form that is read, and a word for whatever is wrong with one."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from chalice.app import Request
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.model import Access, IssueRequest, KeyType
from chalicelib.entrypoints.bodies import read_csr, read_issue_request
from chalicelib.errors import AppError, InvalidRequest, UnsupportedMediaType
from tests.unit.signing_requests import csr, ec_key

CSR = csr(ec_key())
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
AS_PEM = ["application/pkcs10", "application/x-pem-file", FORM, None, "application/X-PEM-File; a=b"]


def request(body: bytes | str, content_type: str | None = JSON) -> Request:
    headers = {} if content_type is None else {"content-type": content_type}
    event = {"requestContext": {"httpMethod": "POST", "resourcePath": "/"}, "body": body}
    return Request(
        {**event, "headers": headers, "pathParameters": None, "stageVariables": None}
        | {"multiValueQueryStringParameters": None}
    )


def read(body: object, content_type: str | None = JSON, key: str | None = None) -> IssueRequest:
    sent = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return read_issue_request(request(sent, content_type), key)


def refused(body: object, content_type: str | None = JSON) -> tuple[str, str | None, str]:
    with pytest.raises(InvalidRequest) as caught:
        read(body, content_type)
    return caught.value.code, caught.value.field, str(caught.value)


@pytest.mark.parametrize("content_type", [None, JSON, FORM, "text/plain", "image/png"])
@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_nothing_at_all_asks_for_all_the_defaults(body: bytes, content_type: str | None) -> None:
    asked = read(body, content_type)
    assert asked == IssueRequest(digest=asked.digest)
    assert asked == read({})


@pytest.mark.parametrize("content_type", AS_PEM)
def test_a_bare_csr_is_read_whatever_the_client_calls_it(content_type: str | None) -> None:
    asked = read(CSR, content_type)
    assert asked.csr_pem == CSR
    assert asked.digest == read({"csr": CSR.decode()}).digest


@pytest.mark.parametrize("content_type", [JSON, "application/JSON; charset=utf-8", None])
def test_json_is_read_field_by_field(content_type: str | None) -> None:
    asked = read(
        {"key_type": "rsa-3072", "access": "pull", "days": 30, "label": "lab"}, content_type, "once"
    )
    assert asked == IssueRequest(
        csr_pem=None,
        key_type=KeyType.RSA_3072,
        access=Access.PULL,
        days=30,
        label="lab",
        idempotency_key="once",
        digest=asked.digest,
    )
    assert read({"csr": "x"}, content_type).csr_pem == b"x"


@pytest.mark.parametrize("key_type", KeyType)
def test_every_key_type_can_be_asked_for(key_type: KeyType) -> None:
    assert read({"key_type": str(key_type)}).key_type is key_type


WRONG: dict[str, tuple[object, str, str | None]] = {
    "an unknown field": ({"dayz": 1}, "unknown_field", "dayz"),
    "a field in other case": ({"Days": 1}, "unknown_field", "Days"),
    "a key we do not make": ({"key_type": "rsa-1024"}, "unknown_value", "key_type"),
    "an access there is not": ({"access": "admin"}, "unknown_value", "access"),
    "an access with a path in it": ({"access": "x - at `$.csr`"}, "unknown_value", "access"),
    "an access with a path to nowhere": ({"access": " - at `$.foo"}, "unknown_value", "access"),
    "a csr and a key_type": ({"csr": "x", "key_type": "ec-p256"}, "csr_and_key_type", "key_type"),
    "days as text": ({"days": "30"}, "wrong_type", "days"),
    "days with a fraction": ({"days": 1.5}, "wrong_type", "days"),
    "days as a float": ({"days": 1.0}, "wrong_type", "days"),
    "days true": ({"days": True}, "wrong_type", "days"),
    "days null": ({"days": None}, "wrong_type", "days"),
    "days beyond all bounds": ('{"days": 1e999}', "wrong_type", "days"),
    "days of 5000 digits": ('{"days": %s}' % ("9" * 5000), "wrong_type", "days"),
    "a label that is a number": ({"label": 1}, "wrong_type", "label"),
    "a csr that is null": ({"csr": None}, "wrong_type", "csr"),
    "a csr that is a list": ({"csr": []}, "wrong_type", "csr"),
    "an access that is a list": ({"access": ["pull"]}, "wrong_type", "access"),
    "a list": ([], "wrong_type", None),
    "null": (None, "wrong_type", None),
    "a string": ("x", "malformed_json", None),
    "JSON cut short": ('{"days": 1', "malformed_json", None),
    "two documents": ("{}{}", "malformed_json", None),
    "a byte order mark": ("\ufeff{}", "malformed_json", None),
    "half a surrogate": ('{"label": "\\ud800"}', "malformed_json", None),
    "lists without end": ('{"days": ' + "[" * 100_000, "wrong_type", "days"),
    "Latin-1": ('{"label": "é"}'.encode("latin-1"), "body_not_utf8", None),
    "UTF-16": ("{}".encode("utf-16"), "body_not_utf8", None),
    "what API Gateway makes of bad UTF-8": ('{"label": "\ufffd"}', "body_not_utf8", None),
}


@pytest.mark.parametrize(("body", "code", "field"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_by_code_and_field(
    body: object, code: str, field: str | None
) -> None:
    assert refused(body)[:2] == (code, field)


def test_the_values_there_are_and_the_type_expected_are_named() -> None:
    assert "ec-p256, ec-p384, rsa-2048" in refused({"key_type": "x"})[2]
    assert "pull, push" in refused({"access": "x"})[2]
    assert refused({"days": "30"})[2] == "Expected int, got str"


def test_no_value_of_the_request_is_repeated_in_a_refusal() -> None:
    """It may be a private key, pasted by mistake."""
    for field in ("key_type", "access", "days"):
        assert "s3cret" not in "".join(map(str, refused({field: "s3cret"})))
    for field in ("csr", "key_type", "access", "days", "label"):
        assert "s3cret" not in "".join(map(str, refused({field: ["s3cret"]})))


def test_an_unknown_field_is_repeated_up_to_64_characters() -> None:
    assert refused({"x" * 65: 1})[1] == "x" * 64


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "text": (b"hello", "text/plain"),
    "JSON under a wrong name": (b"{}", "text/json"),
    "a CSR under a wrong name": (CSR, "text/plain"),
    "a form": (b"csr=x", FORM),
    "JSON that curl calls a form": (b"{}", FORM),
    "DER called PKCS #7": (b"x", "application/pkcs7-mime"),
}


@pytest.mark.parametrize(("body", "content_type"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_body_of_another_type_is_refused_and_the_types_named(
    body: bytes, content_type: str
) -> None:
    with pytest.raises(UnsupportedMediaType, match="json") as caught:
        read(body, content_type)
    assert (caught.value.code, caught.value.field) == ("unsupported_media_type", "content-type")


def test_the_types_there_are_are_named() -> None:
    types = "application/json, application/pkcs10 or application/x-pem-file"
    with pytest.raises(UnsupportedMediaType, match=f"^send {types}$"):
        read(b"hello", "text/plain")


def test_who_forgets_the_content_type_of_json_is_told_the_option_of_curl() -> None:
    with pytest.raises(UnsupportedMediaType, match="curl -H 'content-type: application/json'"):
        read(b"{}", FORM)


@pytest.mark.parametrize("key", ["a", "x" * 64, "!~", "550e8400-e29b-41d4-a716-446655440000"])
def test_an_idempotency_key_is_taken_as_it_is(key: str) -> None:
    assert read({}, key=key).idempotency_key == key


@pytest.mark.parametrize("key", ["", "x" * 65, "a b", "a\n", "ä", "\x7f", "\t"])
def test_a_bad_idempotency_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read({}, key=key)
    assert (caught.value.code, caught.value.field) == ("bad_idempotency_key", "Idempotency-Key")


def test_the_digest_changes_with_everything_that_was_asked_and_with_nothing_else() -> None:
    asked = [
        {},
        {"csr": "x"},
        {"key_type": "ec-p256"},
        {"key_type": "ec-p384"},
        {"access": "pull"},
        {"access": "push"},
        {"days": 90},
        {"days": 91},
        {"label": "a"},
        {"label": "b"},
    ]
    assert len({read(body).digest for body in asked}) == len(asked)
    one, other = '{"days":1, "label":"a"}', '{ "label": "\\u0061", "days": 1 }'
    assert read(one).digest == read(other, None, "some-key").digest


@pytest.mark.parametrize("content_type", AS_PEM)
def test_the_registry_hosts_csr_is_read_bare(content_type: str | None) -> None:
    assert read_csr(request(CSR, content_type)) == CSR


def test_the_registry_hosts_csr_is_read_out_of_json() -> None:
    assert read_csr(request(json.dumps({"csr": CSR.decode()}))) == CSR


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{}", "missing_field"),
        ('{"csr": 1}', "wrong_type"),
        ('{"csr": "x", "days": 1}', "unknown_field"),
        ("", "malformed_json"),
    ],
)
def test_a_registry_hosts_body_without_a_csr_is_refused(body: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_csr(request(body))
    assert caught.value.code == code
    if code == "missing_field":
        assert caught.value.field == "csr"


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["csr", "key_type", "access", "days", "label", "x"]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([*AS_PEM, JSON, "text/plain"]),
)
@settings(max_examples=200, deadline=None)
def test_any_body_is_read_or_refused_and_never_crashes(
    body: bytes, content_type: str | None
) -> None:
    with suppress(AppError):
        read_issue_request(request(body, content_type), None)
    with suppress(AppError):
        read_csr(request(body, content_type))
