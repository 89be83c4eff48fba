"""The audit trail: who was granted or refused what, and nothing that a log must not hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib import bootstrap
from chalicelib.entrypoints.http import audit
from chalicelib.errors import Misconfigured
from tests.unit.signed_gateway import ANN, BOB, REQUEST_ID, Api
from tests.unit.signing_requests import csr, ec_key
from tests.unit.stand_ins import REGISTRY_HOST_ROLE, World

pytestmark = pytest.mark.filterwarnings("ignore:IAMAuthorizer is not a supported")

CSR = csr(ec_key())
FORM, PEM = "application/x-www-form-urlencoded", "application/x-pem-file"
GZIP, SHELL = "application/gzip", "text/x-shellscript"
SERIAL = f"{2**158 + 1:040x}"
ROOT = "arn:aws:iam::123456789012:root"


class Trail:
    """What was written since it was last read."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        (line,) = self.lines
        return line


@pytest.fixture
def trail(capsys: pytest.CaptureFixture[str]) -> Trail:
    return Trail(capsys)


def test_a_grant_says_who_got_what_from_where(api: Api, trail: Trail) -> None:
    api("POST /certs", {"access": "pull"}, user_agent="curl/7.88.1")
    assert trail.line == {
        "audit": True,
        "level": "INFO",
        "timestamp": "2026-03-04T05:06:07.123Z",
        "request_id": REQUEST_ID,
        "decision": "granted",
        "action": "issue_certificate",
        "status": 201,
        "caller": ANN,
        "source_ip": "127.0.0.1",
        "user_agent": "curl/7.88.1",
        "method": "POST",
        "path": "/certs",
        "serial": SERIAL,
        "name": "ann",
        "owner": ANN,
        "access": "pull",
        "private_key": True,
    }


def test_a_refusal_says_who_was_refused_what_and_why(api: Api, trail: Trail) -> None:
    api("DELETE /certs/ABC", caller=BOB, user_agent="curl/7.88.1")
    assert trail.line == {
        "audit": True,
        "level": "WARN",
        "timestamp": "2026-03-04T05:06:07.123Z",
        "request_id": REQUEST_ID,
        "decision": "refused",
        "action": "revoke_certificate",
        "status": 404,
        "code": "certificate_not_found",
        "caller": BOB,
        "source_ip": "127.0.0.1",
        "user_agent": "curl/7.88.1",
        "method": "DELETE",
        "path": "/certs/{serial}",
        "serial": "abc".zfill(40),
    }


def test_a_failure_of_ours_is_no_refusal(api: Api, world: World, trail: Trail) -> None:
    world.records.fails = True
    api("POST /certs")
    line = trail.line
    assert (line["decision"], line["level"], line["status"]) == ("failed", "ERROR", 503)
    assert line["code"] == "table_unwritable"


def test_what_nobody_expected_is_written_down_too(
    api: Api, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> object:
        raise KeyError("s3cret")

    monkeypatch.setattr(bootstrap, "services", broken)
    api("GET /trust")
    line = trail.line
    assert (line["decision"], line["status"], line["code"]) == ("failed", 500, "internal_error")
    assert "s3cret" not in str(line)


def registry_host() -> str:
    return f"arn:aws:sts::123456789012:assumed-role/{REGISTRY_HOST_ROLE}/i-0123abcd"


def test_each_kind_of_grant_is_one_line(api: Api, world: World, trail: Trail) -> None:
    world.trust.refresh()
    old = api("POST /certs").json_body["serial"]
    new = api(f"POST /certs/{old}/renew", {"revoke_old": True}).json_body["serial"]
    api(f"GET /certs/{new}/bundle", accept=SHELL)
    api(f"DELETE /certs/{new}", {"reason": "keyCompromise"})
    api("POST /admin/certs", {"name": "ci", "owner": BOB})
    api("POST /registry/cert", CSR, caller=registry_host())
    lines = trail.lines
    assert [line["decision"] for line in lines] == ["granted"] * 6
    issued, renewed, fetched, revoked, named, served = lines
    assert (issued["serial"], issued["private_key"]) == (old, True)
    assert (renewed["renews"], renewed["also_revoked"]) == (old, [old])
    assert (renewed["private_key"], renewed["crl_pending"]) == (True, False)
    assert (fetched["action"], fetched["serial"]) == ("get_bundle", new)
    assert (revoked["reason"], revoked["crl_pending"]) == ("keyCompromise", False)
    assert (named["name"], named["owner"], named["caller"]) == ("ci", BOB, ANN)
    assert (served["action"], served["name"]) == (
        "issue_registry_certificate",
        "registry.example.com",
    )


def test_a_revocation_still_to_be_published_is_granted_and_says_so(
    api: Api, world: World, trail: Trail
) -> None:
    world.trust.refresh()
    serial = api("POST /certs").json_body["serial"]
    world.bundles.publishing_fails = True
    api(f"DELETE /certs/{serial}")
    line = trail.lines[-1]
    assert (line["decision"], line["status"], line["crl_pending"]) == ("granted", 202, True)


def test_reading_what_is_no_secret_leaves_no_line(api: Api, world: World, trail: Trail) -> None:
    world.trust.refresh()
    serial = api("POST /certs", CSR).json_body["serial"]
    assert trail.lines
    for request in (
        "GET /certs",
        f"GET /certs/{serial}",
        f"GET /certs/{serial}/bundle",
        "GET /trust",
        "GET /openapi.json",
        "GET /admin/certs",
        f"GET /admin/certs/{serial}",
    ):
        assert api(request).status_code == 200
    assert api("POST /certs/diagnose", {"serial": serial}).status_code == 200
    assert trail.lines == []


def test_a_bundle_that_holds_a_private_key_is_granted_each_time(api: Api, trail: Trail) -> None:
    """Its twin above, without a key in it, is not."""
    serial = api("POST /certs").json_body["serial"]
    for _ in range(2):
        api(f"GET /certs/{serial}/bundle", accept=PEM)
    assert [line["action"] for line in trail.lines][1:] == ["get_bundle"] * 2


REFUSED = {
    "root": ("POST /certs", b"", {"caller": ROOT}, "unrecognised_caller"),
    "a parameter": ("GET /trust?a=b", b"", {}, "unknown_parameter"),
    "accept": ("GET /certs", b"", {"accept": "text/html"}, "not_acceptable"),
    "a list's cursor": ("GET /certs?cursor=x", b"", {}, "invalid_cursor"),
    "a key": ("POST /certs/diagnose", b"-----BEGIN PRIVATE KEY-----", {"content_type": PEM},
              "private_key_sent"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_each_kind_of_refusal_is_one_line(
    api: Api, trail: Trail, case: tuple[str, object, dict[str, str], str]
) -> None:
    request, body, headers, code = case
    api(request, body, **headers)
    line = trail.line
    assert (line["decision"], line["code"]) == ("refused", code)
    assert line["caller"] == headers.get("caller", ANN)


def test_an_incomplete_deployment_is_written_down(
    api: Api, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    def incomplete() -> object:
        raise Misconfigured("missing_setting", "the variable STATE_TABLE is not set")

    monkeypatch.setattr(bootstrap, "services", incomplete)
    api("POST /certs")
    line = trail.line
    assert (line["decision"], line["code"]) == ("failed", "missing_setting")
    assert "STATE_TABLE" not in str(line)


class TestSecrets:
    def test_no_line_holds_a_key_a_certificate_or_a_link(
        self, api: Api, world: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        world.trust.refresh()
        issued = api("POST /certs").json_body
        serial, key = issued["serial"], issued["private_key"]
        for accept in ("application/json", PEM, GZIP, SHELL):
            api(f"GET /certs/{serial}/bundle", accept=accept)
        api("POST /certs", key.encode(), content_type=FORM)
        api("POST /certs/diagnose", key.encode(), content_type=FORM)
        api("POST /certs/diagnose", {"certificate": key})
        for field in ("csr", "label", "days", "access", key):
            api("POST /certs", {field: key})
        one_line = key.replace("\n", "")
        api("POST /certs", idempotency_key=one_line)
        api("GET /trust", accept=one_line)
        api(f"GET /certs/{one_line.replace('/', '_')}")
        api(f"GET /certs?cursor={one_line.replace('+', 'x')}")
        api(f"DELETE /certs/{serial}", {"reason": one_line})
        written = capsys.readouterr().out
        assert len(written.splitlines()) > 12
        assert "BEGIN" not in written
        assert issued["bundle"]["url"] not in written
        for line in key.splitlines()[1:-1]:
            assert line[:20] not in written

    def test_what_strangers_write_is_bounded_and_in_printable_ascii(
        self, api: Api, capsys: pytest.CaptureFixture[str]
    ) -> None:
        api("GET /certs/x", user_agent="a\x1b[2J\r\n{}\u202e\xe9" + "x" * 9999)
        written = capsys.readouterr().out
        assert written.isascii()
        assert written.rstrip("\n").isprintable()
        assert len(written) < 1000
        shown = json.loads(written)["user_agent"]
        assert shown.startswith("a\ufffd[2J\ufffd\ufffd{}\ufffd\xe9xxx")
        assert len(shown) == 256


@given(
    st.dictionaries(
        st.sampled_from(["requestId", "httpMethod", "resourcePath"]),
        st.none() | st.text(max_size=400),
    ),
    st.none()
    | st.dictionaries(
        st.sampled_from(["userArn", "sourceIp", "userAgent"]), st.none() | st.text(max_size=2000)
    ),
)
@settings(max_examples=100)
def test_any_context_makes_one_line(
    context: dict[str, Any], identity: dict[str, Any] | None
) -> None:
    outcome = audit.Outcome(403, "code")
    told = audit.trail({**context, "identity": identity}, "action", outcome, {})
    assert told is not None
    assert "\n" not in json.dumps(told)
    assert all(str(value).isprintable() for value in told.values())
    assert len(json.dumps(told)) < 20_000
