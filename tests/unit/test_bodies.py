"""Request bodies: every form that is read, and a word for whatever is wrong with one."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from chalice.app import Request
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.model import (
    Access,
    IssueRequest,
    KeyType,
    NamedRequest,
    RenewRequest,
    RevocationReason,
)
from chalicelib.entrypoints.http import bodies, requested
from chalicelib.entrypoints.http.asked import Asked
from chalicelib.entrypoints.http.operations import Accepts, Answers, Nothing, Operation
from chalicelib.errors import AppError, InvalidRequest, UnsupportedMediaType
from tests.unit.signing_requests import csr, ec_key

CSR = csr(ec_key())
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PEM_FILE = "application/x-pem-file"
AS_PEM = ["application/pkcs10", "application/x-pem-file", FORM, None, "application/X-PEM-File; a=b"]


def asked_with(
    body: object,
    content_type: str | None = JSON,
    key: str | None = None,
    *,
    accepts: Accepts[Any] = bodies.ISSUE,
    path: str = "/certs",
    serial: str | None = None,
) -> Asked[Any, Any]:
    """body: bytes or text as they are, else as JSON."""
    headers = {"content-type": content_type, "idempotency-key": key}
    event = {
        "requestContext": {"httpMethod": "POST", "resourcePath": path},
        "headers": {name: value for name, value in headers.items() if value is not None},
        "body": body if isinstance(body, (bytes, str)) else json.dumps(body),
        "pathParameters": {"serial": serial} if serial else None,
        "stageVariables": None,
        "multiValueQueryStringParameters": None,
    }
    successes = {200: Answers(description="", document=Nothing)}
    operation = Operation(method="POST", query=Nothing, accepts=accepts, successes=successes)
    return Asked(Request(event), operation)


def read(body: object, content_type: str | None = JSON, key: str | None = None) -> IssueRequest:
    return requested.issue_request(asked_with(body, content_type, key))


def read_csr(body: object, content_type: str | None = JSON) -> str:
    csr_body: bodies.CsrBody = asked_with(body, content_type, accepts=bodies.REGISTRY).body
    return csr_body.csr


def refused(body: object, content_type: str | None = JSON) -> tuple[str, str | None, str]:
    with pytest.raises(InvalidRequest) as caught:
        read(body, content_type)
    return caught.value.code, caught.value.field, str(caught.value)


@pytest.mark.parametrize("content_type", [None, JSON, "text/plain", "image/png"])
@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_nothing_at_all_asks_for_all_the_defaults(body: bytes, content_type: str | None) -> None:
    asked = read(body, content_type)
    assert asked == IssueRequest(digest=asked.digest)
    assert asked == read({})


OF_FILES = [FORM, PEM_FILE, "application/pkcs10", "Application/X-WWW-Form-Urlencoded; a=b"]
ALL_BODIES = {
    "issue": (bodies.ISSUE, "leave out the body and its content type"),
    "renew": (bodies.RENEW, "leave out the body and its content type"),
    "revoke": (bodies.REVOKE, "leave out the body and its content type"),
    "named": (bodies.NAMED, "JSON with at least a name"),
    "diagnose": (bodies.DIAGNOSE, '--data-binary @client.cert) or JSON, {"serial": "..."}'),
    "registry": (bodies.REGISTRY, "--data-binary @FILE"),
}


def body_refused(
    accepts: Accepts[Any], body: object, content_type: str | None
) -> tuple[str, str | None, str]:
    with pytest.raises(AppError) as caught:
        _ = asked_with(body, content_type, accepts=accepts).body
    return caught.value.code, caught.value.field, str(caught.value)


@pytest.mark.parametrize("content_type", OF_FILES)
@pytest.mark.parametrize("body", [b"", b" \r\n"])
@pytest.mark.parametrize(("accepts", "said"), ALL_BODIES.values(), ids=ALL_BODIES)
def test_nothing_that_is_called_a_file_is_refused_everywhere(
    accepts: Accepts[Any], said: str, body: bytes, content_type: str
) -> None:
    """So curl sends a file that there is not. Its twin is above."""
    code, field, detail = body_refused(accepts, body, content_type)
    assert (code, field) == ("empty_body", None)
    assert detail.startswith("the body is empty: does the file after @ exist? ")
    assert said in detail
    assert len(detail) <= 200


@pytest.mark.parametrize("content_type", [None, JSON, "text/plain"])
@pytest.mark.parametrize("name", ["named", "diagnose", "registry"])
def test_nothing_where_something_is_needed_is_told_what(
    name: str, content_type: str | None
) -> None:
    accepts, said = ALL_BODIES[name]
    code, _, detail = body_refused(accepts, b"", content_type)
    assert code == "empty_body"
    assert said in detail
    assert "@ exist" not in detail


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


def test_the_values_there_are_are_named() -> None:
    assert "ec-p256, ec-p384, rsa-2048" in refused({"key_type": "x"})[2]
    assert "pull, push" in refused({"access": "x"})[2]
    assert "there are: access, csr, days, key_type, label" in refused({"dayz": 1})[2]


TYPES: dict[str, tuple[Accepts[Any], object, str]] = {
    "text for a number": (bodies.ISSUE, {"days": "30"}, "days must be a whole number"),
    "a fraction": (bodies.ISSUE, {"days": 1.5}, "days must be a whole number"),
    "null for a text": (bodies.ISSUE, {"csr": None}, "csr must be text"),
    "a number for a text": (bodies.NAMED, {"name": 1}, "name must be text"),
    "a list for one of two": (bodies.ISSUE, {"access": []}, "access must be one of: pull, push"),
    "text for a truth": (bodies.RENEW, {"revoke_old": "yes"}, "revoke_old must be true or false"),
    "a list": (bodies.ISSUE, [], "the body must be an object"),
    "null": (bodies.REVOKE, None, "the body must be an object"),
}


@pytest.mark.parametrize(("accepts", "body", "said"), TYPES.values(), ids=TYPES)
def test_the_type_that_it_must_be_is_said_in_words(
    accepts: Accepts[Any], body: object, said: str
) -> None:
    assert body_refused(accepts, body, JSON)[::2] == ("wrong_type", said)


def test_there_are_words_for_the_type_of_every_field() -> None:
    for accepts, _ in ALL_BODIES.values():
        for name in accepts.shape.__struct_fields__:
            for wrong in ([], {}, None):
                code, field, said = body_refused(accepts, {"name": "ci", name: wrong}, JSON)
                assert code in ("wrong_type", "unknown_field")
                assert said.startswith(f"{name} must be ") or field == "name"


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


@pytest.mark.parametrize(("accepts", "_"), ALL_BODIES.values(), ids=ALL_BODIES)
def test_who_forgets_the_content_type_of_json_is_told_the_option_of_curl(
    accepts: Accepts[Any], _: str
) -> None:
    for body in (b"{}", b"reason=superseded", b"reason=s3cret"):
        code, field, detail = body_refused(accepts, body, FORM)
        assert (code, field) == ("unsupported_media_type", "content-type")
        assert "curl -H 'content-type: application/json'" in detail
        assert "s3cret" not in detail
        assert len(detail) <= 200


def test_who_forgets_it_is_shown_a_body_as_it_must_be() -> None:
    detail = body_refused(bodies.REVOKE, b"reason=superseded", FORM)[2]
    shown = "-H 'content-type: application/json' --data '{\"reason\": \"superseded\"}'"
    assert detail == f"send JSON and say so: curl {shown}"
    assert reason('{"reason": "superseded"}') is RevocationReason.SUPERSEDED


def test_a_csr_within_json_that_curl_calls_a_form_is_no_csr() -> None:
    for body in ({"csr": CSR.decode()}, [CSR.decode()], CSR.decode()):
        assert body_refused(bodies.ISSUE, json.dumps(body), FORM)[0] == "unsupported_media_type"
    assert read({"csr": CSR.decode()}, None).csr_pem == CSR


@pytest.mark.parametrize("body", [b"0\x82\x01\x00\x30", "0\ufffd\x01\x00"])
@pytest.mark.parametrize(
    ("accepts", "tool"), [(bodies.ISSUE, "req"), (bodies.RENEW, "req"), (bodies.DIAGNOSE, "x509")]
)
def test_der_is_known_and_the_command_told_that_makes_pem_of_it(
    accepts: Accepts[Any], tool: str, body: object
) -> None:
    code, _, detail = body_refused(accepts, body, FORM)
    assert code == "body_not_utf8"
    assert detail == f"this looks like DER; for PEM: openssl {tool} -inform der -in FILE"


@pytest.mark.parametrize("accepts", [bodies.ISSUE, bodies.REVOKE])
def test_what_is_no_der_is_not_called_so(accepts: Accepts[Any]) -> None:
    assert body_refused(accepts, b"1\x82", FORM)[2] == "the body must be UTF-8 text"
    assert body_refused(bodies.REVOKE, b"0\x82", FORM)[2] == "the body must be UTF-8 text"


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
    assert read_csr(CSR, content_type) == CSR.decode()


def test_the_registry_hosts_csr_is_read_out_of_json() -> None:
    assert read_csr({"csr": CSR.decode()}) == CSR.decode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{}", "missing_field"),
        ('{"csr": 1}', "wrong_type"),
        ('{"csr": "x", "days": 1}', "unknown_field"),
        ("", "empty_body"),
    ],
)
def test_a_registry_hosts_body_without_a_csr_is_refused(body: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_csr(body)
    assert caught.value.code == code
    if code == "missing_field":
        assert caught.value.field == "csr"


def named(body: object, content_type: str | None = JSON) -> NamedRequest:
    return requested.named_request(asked_with(body, content_type, accepts=bodies.NAMED))


def renewal(body: object, content_type: str | None = JSON, **more: Any) -> RenewRequest:
    given: dict[str, Any] = {"path": "/certs/{serial}/renew", "serial": "ab", **more}
    return requested.renew_request(asked_with(body, content_type, accepts=bodies.RENEW, **given))


def evidence(body: object, content_type: str | None = JSON) -> bytes | str:
    return requested.evidence(asked_with(body, content_type, accepts=bodies.DIAGNOSE))


def test_a_service_is_named_and_may_have_an_owner() -> None:
    owner = "arn:aws:sts::123456789012:assumed-role/ci/runner"
    asked = named({"name": "ci", "owner": owner, "access": "pull", "days": 400, "label": "x"})
    assert (asked.name, asked.owner) == ("ci", owner)
    assert (asked.request.access, asked.request.days, asked.request.label) == ("pull", 400, "x")
    assert named({"name": "ci"}).owner is None


OWNER = "arn:aws:iam::123456789012:user/ann"
BAD_NAMED: dict[str, tuple[object, str, str | None]] = {
    "no name": ({}, "missing_field", "name"),
    "an empty name": ({"name": ""}, "bad_name", "name"),
    "a long name": ({"name": "x" * 65}, "bad_name", "name"),
    "a name with a slash": ({"name": "a/b"}, "bad_name", "name"),
    "a name with a space": ({"name": "a b"}, "bad_name", "name"),
    "a name with a line": ({"name": "a\nb"}, "bad_name", "name"),
    "a name that is a number": ({"name": 1}, "wrong_type", "name"),
    "an owner that is a name": ({"name": "ci", "owner": "ann"}, "bad_owner", "owner"),
    "an empty owner": ({"name": "ci", "owner": ""}, "bad_owner", "owner"),
    "the root as owner": ({"name": "ci", "owner": OWNER[:25] + ":root"}, "bad_owner", "owner"),
    "a role as owner": (
        {"name": "ci", "owner": "arn:aws:iam::123456789012:role/ci"}, "bad_owner", "owner",
    ),
    "an endless owner": ({"name": "ci", "owner": OWNER + "/" * 1024}, "bad_owner", "owner"),
    "nothing": (b"", "empty_body", None),
}  # fmt: skip


@pytest.mark.parametrize(("body", "code", "field"), BAD_NAMED.values(), ids=BAD_NAMED)
def test_a_service_with_a_bad_name_or_owner_is_refused(
    body: object, code: str, field: str | None
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        named(body)
    assert (caught.value.code, caught.value.field) == (code, field)


@pytest.mark.parametrize("content_type", [PEM_FILE, "application/pkcs10", FORM, None])
def test_a_named_certificate_is_asked_for_in_json_alone(content_type: str | None) -> None:
    with pytest.raises((UnsupportedMediaType, InvalidRequest)) as caught:
        named(CSR, content_type)
    assert caught.value.code in ("unsupported_media_type", "malformed_json")


@pytest.mark.parametrize("name", ["a", "x" * 64, "ci-runner@example.com", "+=,.@_-"])
def test_a_name_may_hold_what_iam_allows(name: str) -> None:
    assert named({"name": name}).name == name


@pytest.mark.parametrize("body", [b"", {}])
def test_a_renewal_of_nothing_keeps_all_as_it_was(body: object) -> None:
    asked = renewal(body)
    assert asked == RenewRequest(digest=asked.digest)


def test_a_renewal_may_bring_a_key_and_a_lifetime_and_revoke_the_old() -> None:
    asked = renewal({"csr": "x", "days": 3, "revoke_old": True}, key="once")
    assert asked == RenewRequest(b"x", 3, True, "once", asked.digest)
    assert renewal(CSR, PEM_FILE).csr_pem == CSR


@pytest.mark.parametrize("field", ["access", "label", "key_type", "name", "owner"])
def test_a_renewal_changes_nothing_else(field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        renewal({field: "x"})
    assert (caught.value.code, caught.value.field) == ("unknown_field", field)


def test_the_digest_changes_with_the_route_and_the_serial_as_well() -> None:
    digests = [
        read({}).digest,
        renewal({}).digest,
        renewal({}, serial="ac").digest,
        renewal({"revoke_old": True}).digest,
        named({"name": "a"}).request.digest,
        named({"name": "b"}).request.digest,
        named({"name": "a", "owner": OWNER}).request.digest,
    ]
    assert len(set(digests)) == len(digests)
    assert renewal({}).digest == renewal(b"", serial="AB".zfill(40)).digest


def reason(body: object, content_type: str | None = JSON) -> RevocationReason:
    found: bodies.RevokeBody = asked_with(body, content_type, accepts=bodies.REVOKE).body
    return found.reason


@pytest.mark.parametrize("body", [b"", {}])
def test_a_revocation_needs_no_reason(body: object) -> None:
    assert reason(body) is RevocationReason.UNSPECIFIED


@pytest.mark.parametrize("name", RevocationReason)
def test_a_revocation_may_have_a_reason(name: RevocationReason) -> None:
    assert reason({"reason": str(name)}) is name


@pytest.mark.parametrize("name", ["lost", "", "keycompromise", "certificateHold", "removeFromCRL"])
def test_a_reason_there_is_not_is_refused_and_those_there_are_named(name: str) -> None:
    with pytest.raises(InvalidRequest, match="unspecified, keyCompromise, ") as caught:
        reason({"reason": name})
    assert (caught.value.code, caught.value.field) == ("unknown_value", "reason")


@pytest.mark.parametrize("content_type", [PEM_FILE, FORM, None])
def test_a_certificate_to_diagnose_comes_as_it_is_or_in_json(content_type: str | None) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    assert evidence(pem, content_type) == evidence({"certificate": pem}) == pem.encode()


@pytest.mark.parametrize("content_type", [PEM_FILE, FORM, None])
def test_a_certificate_to_diagnose_may_have_text_before_it(content_type: str | None) -> None:
    """As `openssl x509 -text` puts it."""
    text = b"Certificate:\n    Data:\n-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    assert evidence(text, content_type) == text
    if content_type != PEM_FILE:
        with pytest.raises(AppError):
            evidence(text.replace(b"-----BEGIN", b""), content_type)


def test_a_serial_to_diagnose_is_left_as_it_was_pasted() -> None:
    assert evidence({"serial": "AB:cd"}) == "AB:cd"


@pytest.mark.parametrize("body", [{}, {"certificate": "x", "serial": "ab"}])
def test_one_thing_is_diagnosed_at_a_time(body: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        evidence(body)
    assert caught.value.code == "certificate_or_serial"


def test_a_csr_is_no_certificate_to_diagnose() -> None:
    with pytest.raises(
        UnsupportedMediaType, match=r"^send application/json or application/x-pem-file$"
    ):
        evidence(CSR, "application/pkcs10")


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["csr", "key_type", "access", "days", "label", "name", "reason", "serial", "x"]
                ),
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
    for accepts in (bodies.ISSUE, bodies.NAMED, bodies.RENEW, bodies.REVOKE, bodies.DIAGNOSE):
        with suppress(AppError):
            assert isinstance(asked_with(body, content_type, accepts=accepts).body, accepts.shape)
