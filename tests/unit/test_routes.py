"""The HTTP API: every body, every form of answer, and every problem."""

from __future__ import annotations

import io
import logging
import tarfile
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError
from chalice import IAMAuthorizer
from chalice.test import Client
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

import app
from chalicelib import bootstrap
from chalicelib.domain.model import CertificateRecord, RevocationReason
from chalicelib.errors import DependencyFailed, Misconfigured
from tests.unit.answered_problems import assert_problem
from tests.unit.authorities import DAY, HOST, NOW, client_ca, server_ca
from tests.unit.signed_gateway import ANN, BOB, Api
from tests.unit.signing_requests import csr, ec_key, rsa_key
from tests.unit.stand_ins import REGISTRY_HOST_ROLE, World

pytestmark = pytest.mark.filterwarnings("ignore:IAMAuthorizer is not a supported")

CSR = csr(ec_key())
KEY = ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
PEM, GZIP, SHELL = "application/x-pem-file", "application/gzip", "text/x-shellscript"
REGISTRY = f"arn:aws:sts::123456789012:assumed-role/{REGISTRY_HOST_ROLE}/i-0123abcd"
SERIAL = f"{2**158 + 1:040x}"


def leaf_of(pem: str | bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem if isinstance(pem, bytes) else pem.encode())


class TestIssuing:
    def test_a_post_of_nothing_answers_a_certificate_and_its_key(self, api: Api) -> None:
        answer = api("POST /certs")
        document = answer.json_body
        assert answer.status_code == 201
        assert answer.headers["Content-Type"] == JSON
        assert answer.headers["Location"] == f"/v1/certs/{document['serial']}"
        leaf = leaf_of(document["certificate"])
        key = load_pem_private_key(document["private_key"].encode(), None)
        assert key.public_key() == leaf.public_key()
        leaf.verify_directly_issued_by(leaf_of(document["chain"]))

    def test_the_document_holds_what_the_contract_lists(self, api: Api) -> None:
        document = api("POST /certs", {"csr": CSR.decode(), "label": "lab"}).json_body
        leaf = leaf_of(document.pop("certificate"))
        assert leaf_of(document.pop("chain")) == client_ca().certificate
        assert leaf_of(document.pop("ca_bundle")) == server_ca().certificate
        assert (
            document.pop("fingerprint_sha256")
            == leaf.fingerprint(
                leaf.signature_hash_algorithm  # type: ignore[arg-type]
            ).hex()
        )
        assert document == {
            "serial": SERIAL,
            "name": "ann",
            "owner": ANN,
            "access": "push",
            "status": "active",
            "issued_at": "2026-03-04T05:06:07Z",
            "not_before": "2026-03-04T05:01:07Z",
            "not_after": "2026-06-02T05:06:07Z",
            "issuer_id": client_ca().id,
            "label": "lab",
            "registry": f"{HOST}:8443",
            "bundle": {
                "uri": f"s3://config/{SERIAL}",
                "url": f"https://config.test/{SERIAL}",
                "expires_at": "2026-03-04T05:21:07Z",
            },
        }

    @pytest.mark.parametrize(
        "content_type", [FORM, "application/pkcs10", PEM, "application/pkcs10; charset=us-ascii"]
    )
    def test_a_bare_csr_is_certified_and_no_key_is_answered(
        self, api: Api, content_type: str
    ) -> None:
        answer = api("POST /certs", CSR, content_type=content_type)
        assert answer.status_code == 201
        assert "private_key" not in answer.json_body
        assert leaf_of(answer.json_body["certificate"]).public_key() == ec_key().public_key()

    def test_a_bare_csr_needs_no_content_type(self, api: Api) -> None:
        assert api("POST /certs", CSR).status_code == 201

    def test_json_is_obeyed(self, api: Api) -> None:
        asked = {"key_type": "ec-p384", "access": "pull", "days": 7}
        document = api("POST /certs", asked).json_body
        leaf = leaf_of(document["certificate"])
        assert leaf.public_key().key_size == 384  # type: ignore[union-attr]
        assert (document["access"], document["not_after"]) == ("pull", "2026-03-11T05:06:07Z")

    def test_pem_is_the_key_if_ours_then_the_certificate_then_its_issuer(self, api: Api) -> None:
        made = api("POST /certs", accept=PEM)
        own = api("POST /certs", CSR, accept=PEM)
        assert made.headers["Content-Type"] == own.headers["Content-Type"] == PEM
        key = load_pem_private_key(made.body, None)
        leaf, issuer = x509.load_pem_x509_certificates(made.body)
        assert leaf.public_key() == key.public_key()
        assert issuer == client_ca().certificate
        assert made.body.startswith(b"-----BEGIN PRIVATE KEY-----\n")
        assert own.body.startswith(b"-----BEGIN CERTIFICATE-----\n")
        assert own.headers["Location"].startswith("/v1/certs/")

    def test_gzip_is_the_archive_that_was_stored(self, api: Api, world: World) -> None:
        answer = api("POST /certs", accept=GZIP)
        assert answer.status_code == 201
        assert answer.headers["Content-Type"] == GZIP
        assert answer.headers["Content-Disposition"] == 'attachment; filename="ann.tar.gz"'
        assert answer.body == world.bundles.stored[SERIAL]
        with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
            names = [name.removeprefix(f"{HOST}:8443/") for name in archive.getnames()]
        assert names == ["ca.crt", "client.cert", "client.key"]

    def test_a_shell_script_installs_the_bundle_and_the_registrys_address(self, api: Api) -> None:
        made, own = (api("POST /certs", body, accept=SHELL) for body in (b"", CSR))
        assert made.status_code == own.status_code == 201
        assert made.headers["Content-Type"] == SHELL
        for script in (made.body.decode(), own.body.decode()):
            assert script.startswith("#!/bin/sh\n")
            assert f"{HOST}:8443" in script
            assert "192.0.2.7" in script
        assert b"BEGIN PRIVATE KEY" in made.body
        assert b"BEGIN PRIVATE KEY" not in own.body

    def test_a_bundle_that_was_not_stored_is_told_by_null(self, api: Api, world: World) -> None:
        world.bundles.fails = True
        answer = api("POST /certs")
        assert answer.status_code == 201
        assert answer.json_body["bundle"] is None
        assert "private_key" in answer.json_body

    def test_the_same_idempotency_key_gets_the_same_answer(self, api: Api) -> None:
        one, two = (api("POST /certs", idempotency_key="once") for _ in range(2))
        assert one.body == two.body
        assert one.status_code == two.status_code == 201


class TestLookingUp:
    def test_a_list_is_newest_first_and_goes_on_at_its_cursor(self, api: Api) -> None:
        serials = [api("POST /certs").json_body["serial"] for _ in range(3)]
        first = api("GET /certs?limit=2").json_body
        rest = api(f"GET /certs?limit=2&cursor={first['next_cursor']}").json_body
        shown = [each["serial"] for each in first["certificates"] + rest["certificates"]]
        assert shown == serials[::-1]
        assert rest["next_cursor"] is None

    def test_a_list_tells_of_certificates_and_leaves_their_pem_out(self, api: Api) -> None:
        document = api("POST /certs", CSR).json_body
        (shown,) = api("GET /certs").json_body["certificates"]
        assert shown == {name: document[name] for name in shown}
        assert set(document) - set(shown) == {
            "certificate",
            "chain",
            "ca_bundle",
            "registry",
            "bundle",
        }

    def test_a_list_holds_the_callers_own_of_the_status_asked_for(
        self, api: Api, world: World
    ) -> None:
        api("POST /certs", {"days": 1})
        assert api("GET /certs", caller=BOB).json_body == {"certificates": [], "next_cursor": None}
        for days, active, expired in ((0, 1, 0), (2, 0, 1)):
            world.time = NOW + days * DAY
            for status, expected in (("active", active), ("expired", expired), ("revoked", 0)):
                found = api(f"GET /certs?status={status}").json_body["certificates"]
                assert [each["status"] for each in found] == [status] * expected

    def test_a_list_shows_50_unless_told_otherwise(self, api: Api, world: World) -> None:
        api("POST /certs")
        record = world.records.by_serial[SERIAL]
        for number in range(101):
            serial = f"{number:040x}"
            world.records.by_serial[serial] = replace(record, serial=serial)
        for path, shown in (("", 50), ("?limit=100", 100), ("?limit=1", 1)):
            assert len(api(f"GET /certs{path}").json_body["certificates"]) == shown

    @pytest.mark.parametrize("limit", ["1", "100"])
    def test_a_limit_within_the_bounds_is_taken(self, api: Api, limit: str) -> None:
        assert api(f"GET /certs?limit={limit}").status_code == 200

    def test_a_certificate_is_found_by_its_serial_as_openssl_prints_it(
        self, api: Api, world: World
    ) -> None:
        world.serials = [0xABC]
        document = api("POST /certs", CSR).json_body
        for serial in ("abc".zfill(40), "0ABC", "ABC", "abc"):
            found = api(f"GET /certs/{serial}")
            assert found.status_code == 200
            assert found.json_body == {name: document[name] for name in found.json_body}
            assert found.json_body["certificate"] == document["certificate"]
            assert api(f"GET /certs/{serial}/bundle").json_body["serial"] == "abc".zfill(40)

    @pytest.mark.parametrize("accept", [JSON, PEM, GZIP, SHELL])
    def test_the_bundle_can_be_had_again_in_every_form(self, api: Api, accept: str) -> None:
        issued = api("POST /certs", accept=accept)
        again = api(f"GET /certs/{SERIAL}/bundle", accept=accept)
        assert again.status_code == 200
        assert again.body == issued.body
        assert "Location" not in again.headers

    def test_a_revoked_certificate_says_when_and_why(self, api: Api, world: World) -> None:
        api("POST /certs")
        record = world.records.by_serial[SERIAL]
        world.records.by_serial[SERIAL] = _revoked(record)
        shown = api(f"GET /certs/{SERIAL}").json_body
        assert shown["status"] == "revoked"
        assert shown["revoked_at"] == "2026-03-04T05:06:07Z"
        assert shown["revocation_reason"] == "superseded"

    def test_what_the_service_itself_revoked_says_so(self, api: Api, world: World) -> None:
        api("POST /certs")
        record = replace(_revoked(world.records.by_serial[SERIAL]), revoked_by="registry-trust")
        world.records.by_serial[SERIAL] = record
        assert api(f"GET /certs/{SERIAL}").json_body["revoked_by"] == "registry-trust"


def _revoked(record: CertificateRecord) -> CertificateRecord:
    return replace(record, revoked_at=NOW, revocation_reason=RevocationReason.SUPERSEDED)


class TestTrust:
    def test_the_trust_is_the_one_last_published(self, api: Api, world: World) -> None:
        published = world.trust.refresh()
        answer = api("GET /trust", caller=BOB)
        assert answer.status_code == 200
        assert answer.json_body == published.to_json()

    def test_the_schedule_publishes_it(self, api: Api, world: World) -> None:
        client = Client(app.app)
        event = client.events.generate_cw_event("aws.events", "Scheduled Event", {}, [])
        assert client.lambda_.invoke("refresh_crl", event).payload == {"crl_number": 1}
        assert api("GET /trust").json_body["crl_number"] == 1

    @pytest.mark.parametrize("body", [CSR, {"csr": CSR.decode()}], ids=["bare", "json"])
    def test_the_registry_host_gets_its_certificate(self, api: Api, body: object) -> None:
        answer = api("POST /registry/cert", body, caller=REGISTRY)
        assert answer.status_code == 201
        document = answer.json_body
        leaf = leaf_of(document["certificate"])
        leaf.verify_directly_issued_by(leaf_of(document["chain"]))
        assert leaf.public_key() == ec_key().public_key()
        assert (document["name"], document["access"]) == (HOST, None)

    def test_the_registry_host_gets_it_in_pem(self, api: Api) -> None:
        answer = api("POST /registry/cert", CSR, caller=REGISTRY, accept=PEM, content_type=FORM)
        assert (answer.status_code, answer.headers["Content-Type"]) == (201, PEM)
        leaf, issuer = x509.load_pem_x509_certificates(answer.body)
        leaf.verify_directly_issued_by(issuer)


# request, body, headers; status, code, field
Case = tuple[str, object, dict[str, str], int, str, str | None]
ROOT = "arn:aws:iam::123456789012:root"
LONE = "arn:aws:sts::123456789012:assumed-role/docker-instance/i-0123abcd"
PROBLEMS: dict[str, Case] = {
    "root": ("POST /certs", b"", {"caller": ROOT}, 403, "unrecognised_caller", None),
    "nobody": ("POST /certs", b"", {"caller": ""}, 403, "unrecognised_caller", None),
    "no instance": ("POST /certs", b"", {"caller": LONE}, 403, "not_that_instance", None),
    "root reading": ("GET /trust", b"", {"caller": ROOT}, 403, "unrecognised_caller", None),
    "root listing": ("GET /certs", b"", {"caller": ROOT}, 403, "unrecognised_caller", None),
    "root looking": ("GET /certs/ab", b"", {"caller": ROOT}, 403, "unrecognised_caller", None),
    "a key": ("POST /certs", KEY, {"content_type": FORM}, 400, "private_key_sent", "csr"),
    "a key and its CSR": ("POST /certs", KEY + CSR, {}, 400, "private_key_sent", "csr"),
    "a CSR and its key": ("POST /certs", CSR + KEY, {}, 400, "private_key_sent", "csr"),
    "a key in JSON": ("POST /certs", {"csr": KEY.decode()}, {}, 400, "private_key_sent", "csr"),
    "an admin's key": ("POST /admin/certs", {"name": "ci", "csr": KEY.decode()}, {}, 400,
                       "private_key_sent", "csr"),
    "the registry's key": ("POST /registry/cert", KEY, {"caller": REGISTRY}, 400,
                           "private_key_sent", "csr"),
    "no such file": ("POST /certs", b"", {"content_type": FORM}, 400, "empty_body", None),
    "no such file of an admin": ("POST /admin/certs", b"", {"content_type": FORM}, 400,
                                 "empty_body", None),
    "no such file to renew": (f"POST /certs/{SERIAL}/renew", b"", {"content_type": PEM}, 400,
                              "empty_body", None),
    "no such file to revoke": (f"DELETE /certs/{SERIAL}", b"", {"content_type": FORM}, 400,
                               "empty_body", None),
    "no such file to diagnose": ("POST /certs/diagnose", b"", {"content_type": FORM}, 400,
                                 "empty_body", None),
    "nothing to diagnose": ("POST /certs/diagnose", b"", {}, 400, "empty_body", None),
    "no CSR": ("POST /certs", {"csr": "x"}, {}, 400, "csr_not_pem", "csr"),
    "two CSRs": ("POST /certs", CSR + CSR, {}, 400, "csr_multiple", "csr"),
    "CSR and more": ("POST /certs", CSR + b"x", {}, 400, "csr_trailing_data", "csr"),
    "curl -d": ("POST /certs", CSR.replace(b"\n", b""), {"content_type": FORM}, 400,
                "csr_not_pem", "csr"),
    "large CSR": ("POST /certs", CSR.ljust(16385), {}, 400, "csr_too_large", "csr"),
    "RSA-1024": ("POST /certs", csr(rsa_key(1024)), {}, 400, "rsa_key_size", "csr"),
    "a CA's key": ("POST /certs", csr(client_ca().key), {}, 400, "key_is_ca", "csr"),
    "unknown field": ("POST /certs", {"dayz": 1}, {}, 400, "unknown_field", "dayz"),
    "wrong type": ("POST /certs", {"days": "1"}, {}, 400, "wrong_type", "days"),
    "days 0": ("POST /certs", {"days": 0}, {}, 400, "days_out_of_range", "days"),
    "days -1": ("POST /certs", {"days": -1}, {}, 400, "days_out_of_range", "days"),
    "days 1.5": ("POST /certs", {"days": 1.5}, {}, 400, "wrong_type", "days"),
    "days 366": ("POST /certs", {"days": 366}, {}, 400, "days_out_of_range", "days"),
    "long label": ("POST /certs", {"label": "x" * 65}, {}, 400, "label_too_long", "label"),
    "bad label": ("POST /certs", {"label": "a\n"}, {}, 400, "label_not_printable", "label"),
    "unknown key type": ("POST /certs", {"key_type": "x"}, {}, 400, "unknown_value", "key_type"),
    "no JSON": ("POST /certs", b"{", {"content_type": JSON}, 400, "malformed_json", None),
    "no UTF-8": ("POST /certs", b"\xff", {"content_type": JSON}, 400, "body_not_utf8", None),
    "binary": ("POST /certs", b"\xff\x00", {"content_type": GZIP}, 400, "body_not_utf8", None),
    "a parameter": ("POST /certs?access=pull", b"", {}, 400, "unknown_parameter", "access"),
    "bad idempotency key": ("POST /certs", b"", {"idempotency_key": "a b"}, 400,
                            "bad_idempotency_key", "Idempotency-Key"),
    "content type": ("POST /certs", b"x", {"content_type": "text/plain"}, 415,
                     "unsupported_media_type", "content-type"),
    "accept": ("POST /certs", b"", {"accept": "text/html"}, 406, "not_acceptable", None),
    "accept of a list": ("GET /certs", b"", {"accept": PEM}, 406, "not_acceptable", None),
    "accept of one": (f"GET /certs/{SERIAL}", b"", {"accept": PEM}, 406, "not_acceptable", None),
    "accept of a bundle": (f"GET /certs/{SERIAL}/bundle", b"", {"accept": "text/html"}, 406,
                           "not_acceptable", None),
    "accept of the trust": ("GET /trust", b"", {"accept": PEM}, 406, "not_acceptable", None),
    "accept of the registry": ("POST /registry/cert", CSR, {"accept": GZIP}, 406,
                               "not_acceptable", None),
    "limit 0": ("GET /certs?limit=0", b"", {}, 400, "limit_out_of_range", "limit"),
    "limit 101": ("GET /certs?limit=101", b"", {}, 400, "limit_out_of_range", "limit"),
    "limit -1": ("GET /certs?limit=-1", b"", {}, 400, "limit_out_of_range", "limit"),
    "limit x": ("GET /certs?limit=x", b"", {}, 400, "limit_out_of_range", "limit"),
    "limit 1000": ("GET /certs?limit=1000", b"", {}, 400, "limit_out_of_range", "limit"),
    "two limits": ("GET /certs?limit=1&limit=2", b"", {}, 400, "repeated_parameter", "limit"),
    "unknown status": ("GET /certs?status=x", b"", {}, 400, "unknown_value", "status"),
    "unknown cursor": ("GET /certs?cursor=x", b"", {}, 400, "invalid_cursor", "cursor"),
    "unknown parameter": ("GET /certs?sort=x", b"", {}, 400, "unknown_parameter", "sort"),
    "parameter of one": (f"GET /certs/{SERIAL}?a=b", b"", {}, 400, "unknown_parameter", "a"),
    "parameter of a bundle": (f"GET /certs/{SERIAL}/bundle?a=b", b"", {}, 400,
                              "unknown_parameter", "a"),
    "parameter of the trust": ("GET /trust?a=b", b"", {}, 400, "unknown_parameter", "a"),
    "unknown serial": (f"GET /certs/{SERIAL}", b"", {}, 404, "certificate_not_found", None),
    "no serial": ("GET /certs/latest", b"", {}, 404, "certificate_not_found", None),
    "long serial": (f"GET /certs/0{SERIAL}", b"", {}, 404, "certificate_not_found", None),
    "bundle of none": (f"GET /certs/{SERIAL}/bundle", b"", {}, 404, "certificate_not_found", None),
    "no trust yet": ("GET /trust", b"", {}, 500, "no_trust", None),
    "not the registry": ("POST /registry/cert", CSR, {}, 403, "not_the_registry_host", None),
    "registry's CSR": ("POST /registry/cert", b"{}", {"caller": REGISTRY}, 400, "missing_field",
                       "csr"),
    "registry's parameter": ("POST /registry/cert?a=b", CSR, {"caller": REGISTRY}, 400,
                             "unknown_parameter", "a"),
}  # fmt: skip


class TestProblems:
    @pytest.mark.parametrize("case", PROBLEMS.values(), ids=PROBLEMS)
    def test_bad_input_is_a_problem_with_its_code_and_writes_nothing(
        self, api: Api, world: World, case: Case
    ) -> None:
        request, body, headers, status, code, field = case
        assert_problem(api(request, body, **headers), status, code, field)
        assert world.untouched

    def test_the_parameters_there_are_are_named(self, api: Api) -> None:
        """In alphabetical order, in which older curls need them to sign them."""
        some = "there is no such parameter; there are: "
        none = "there are no parameters here"
        for request, said in (
            ("GET /certs", f"{some}cursor, expires_before, limit, status"),
            ("GET /admin/certs", f"{some}cursor, expires_before, limit, owner, status"),
            ("GET /trust", none),
            ("POST /certs", f"{none}; what it says belongs into the JSON body"),
            (f"DELETE /certs/{SERIAL}", f"{none}; what it says belongs into the JSON body"),
        ):
            detail = assert_problem(api(f"{request}?a=b"), 400, "unknown_parameter", "a")
            assert detail == said

    def test_what_is_our_fault_is_logged_as_an_error_and_what_is_not_is_not(
        self, api: Api, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        api("POST /certs", {"days": 0})
        world.records.fails = True
        api("POST /certs")
        told = [(line.levelname, line.getMessage().split(":")[0]) for line in caplog.records]
        assert told == [
            ("INFO", "answered 400 days_out_of_range"),
            ("ERROR", "answered 503 table_unwritable"),
        ]

    def test_anothers_certificate_is_answered_like_none(self, api: Api, world: World) -> None:
        serial = api("POST /certs").json_body["serial"]
        before = list(world.journal.done)
        for path in (f"/certs/{serial}", f"/certs/{serial}/bundle"):
            theirs = api(f"GET {path}", caller=BOB)
            none = api(f"GET {path.replace(serial, 'f' * 39)}", caller=BOB)
            assert_problem(theirs, 404, "certificate_not_found")
            assert (theirs.body, theirs.headers) == (none.body, none.headers)
        assert world.journal.done == before

    def test_a_key_bundle_past_its_day_is_a_problem(self, api: Api, world: World) -> None:
        api("POST /certs")
        world.time = NOW + DAY
        assert_problem(api(f"GET /certs/{SERIAL}/bundle"), 404, "bundle_expired")

    def test_the_certificate_after_the_quota_is_a_problem(self, api: Api, world: World) -> None:
        for _ in range(3):
            api("POST /certs")
        before = list(world.journal.done)
        assert_problem(api("POST /certs"), 429, "quota_exceeded")
        assert world.journal.done == before

    def test_an_idempotency_key_used_otherwise_is_a_problem(self, api: Api, world: World) -> None:
        api("POST /certs", idempotency_key="once")
        before = list(world.journal.done)
        answer = api("POST /certs", {"days": 1}, idempotency_key="once")
        assert_problem(answer, 409, "idempotency_key_reused", "Idempotency-Key")
        assert world.journal.done == before

    def test_a_table_that_does_not_answer_is_a_problem_worth_retrying(
        self, api: Api, world: World
    ) -> None:
        world.records.fails = True
        assert_problem(api("POST /certs"), 503, "table_unwritable")

    def test_the_log_says_what_aws_said_without_its_words(
        self, api: Api, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        said = {"Error": {"Code": "ThrottlingException", "Message": "canary"}}

        def throttled(_: str) -> None:
            error = DependencyFailed("table_unreadable", "the table did not answer")
            raise error from ClientError(said, "Query")

        world.records.slots = throttled  # type: ignore[assignment,method-assign]
        assert_problem(api("POST /certs"), 503, "table_unreadable")
        assert "ClientError ThrottlingException" in caplog.text
        assert "canary" not in caplog.text

    def test_push_for_who_may_only_pull_is_a_problem(self, api: Api, world: World) -> None:
        world.limits = replace(world.limits, push_principals=())
        assert_problem(api("POST /certs", {"access": "push"}), 403, "push_not_allowed")
        assert world.untouched

    def test_an_incomplete_deployment_names_nothing_of_itself(
        self, api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def incomplete() -> object:
            raise Misconfigured("missing_setting", "the variable STATE_TABLE is not set")

        monkeypatch.setattr(bootstrap, "services", incomplete)
        detail = assert_problem(api("POST /certs"), 500, "missing_setting")
        assert "STATE_TABLE" not in detail
        assert "STATE_TABLE" in caplog.text

    @pytest.mark.parametrize("kind", [RuntimeError, KeyError, ValueError, AssertionError])
    def test_what_nobody_expected_is_a_bare_500_and_its_text_is_nowhere(
        self,
        api: Api,
        world: World,
        caplog: pytest.LogCaptureFixture,
        kind: type[Exception],
    ) -> None:
        caplog.set_level(logging.DEBUG)
        secret = "".join(["s3", "cret"])  # so that no line of this source holds it

        def fail(_: object) -> None:
            try:
                raise OSError(secret)
            except OSError as inner:
                raise kind(secret) from inner

        world.records.before_add = fail
        detail = assert_problem(api("POST /certs"), 500, "internal_error")
        assert detail == "something went wrong on our side"
        assert secret not in caplog.text
        assert f"unexpected {kind.__name__}" in caplog.text
        assert "test_routes.py" in caplog.text  # where it came from is told to the operator


class TestEveryRoute:
    def test_every_route_is_signed_and_open_to_every_content_type(self) -> None:
        entries = [entry for methods in app.app.routes.values() for entry in methods.values()]
        assert len(entries) == 18
        for entry in entries:
            assert isinstance(entry.authorizer, IAMAuthorizer), entry.uri_pattern
            assert entry.content_types == []
            assert not entry.cors

    def test_the_routes_are_those_of_the_contract(self) -> None:
        assert {path: set(methods) for path, methods in app.app.routes.items()} == {
            "/certs": {"GET", "POST"},
            "/certs/{serial}": {"GET", "DELETE"},
            "/certs/{serial}/bundle": {"GET"},
            "/certs/{serial}/renew": {"POST"},
            "/certs/diagnose": {"POST"},
            "/admin/certs": {"GET", "POST"},
            "/admin/certs/{serial}": {"GET", "DELETE"},
            "/admin/certs/diagnose": {"POST"},
            "/admin/instances": {"GET"},
            "/admin/instances/{instance_id}": {"GET"},
            "/admin/instances/{instance_id}/enrol": {"POST"},
            "/trust": {"GET"},
            "/registry/cert": {"POST"},
            "/openapi.json": {"GET"},
        }

    def test_the_archive_is_the_one_binary_answer(self) -> None:
        assert app.app.api.binary_types == [GZIP]

    def test_no_line_of_the_log_holds_a_private_key(
        self, api: Api, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        keys = [api("POST /certs").json_body["private_key"] for _ in range(3)]
        for accept in (JSON, PEM, GZIP, SHELL):
            api(f"GET /certs/{SERIAL}/bundle", accept=accept)
        pasted = keys[0]
        api("POST /certs", pasted.encode(), content_type=FORM)
        api("POST /certs", {"csr": pasted})
        api("POST /certs", {"label": pasted})
        api("POST /certs", {"days": pasted})
        api("POST /certs", {pasted: 1})
        api("POST /certs", idempotency_key=pasted.replace("\n", " "))
        assert "issued" in caplog.text
        for key in keys:
            for line in key.splitlines()[1:-1]:
                assert line not in caplog.text
