"""Everything wrong that can be sent: each gets its own code, and nothing is written."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess

import pytest

JSON = ("--header", "content-type: application/json")


@pytest.fixture
def nothing_written(written):
    before = written()
    yield
    assert written() == before


@pytest.fixture(autouse=True)
def _leave_nothing(nothing_written):
    """Holds for every test here."""


def test_an_unsigned_request_is_refused(dev):
    unsigned = dataclasses.replace(dev, access_key_id="")
    assert unsigned.ask("POST", "/certs").status == 403


def test_a_wrong_secret_is_refused(dev):
    wrong = dataclasses.replace(dev, secret_access_key=dev.secret_access_key[:-1] + "!")
    assert wrong.ask("POST", "/certs").status == 403


def test_a_caller_without_a_policy_is_refused(newcomer):
    assert newcomer("nobody", None).ask("POST", "/certs").status == 403


def test_a_developer_does_not_reach_admin_paths_nor_the_registrys_certificate(dev, make_csr):
    assert dev.ask("GET", "/admin/certs").status == 403
    assert dev.ask("POST", "/registry/cert", body=make_csr()).status == 403


def test_an_admin_is_not_the_registry_host(cloud, make_csr):
    assert cloud.person("ADMIN").ask("POST", "/registry/cert", body=make_csr()).status == 403


def test_the_accounts_root_is_no_owner(dev):
    """The emulator lets the key `test` be the account's root."""
    root = dataclasses.replace(dev, access_key_id="test", secret_access_key="test")  # noqa: S106  # the emulator's
    answer = root.ask("POST", "/certs")
    assert (answer.status, answer.code) == (403, "unrecognised_caller")


def csr_with_broken_signature(make_csr):
    lines = make_csr().decode().split("\n")
    der = bytearray(base64.b64decode("".join(lines[1:-2])))
    der[-1] ^= 1
    return pem(bytes(der))


def pem(der):
    text = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + text + b"-----END CERTIFICATE REQUEST-----\n"


def with_trailing_der(make_csr):
    lines = make_csr().decode().split("\n")
    return pem(base64.b64decode("".join(lines[1:-2])) + b"\0")


BAD_CSRS = {
    "not PEM": (lambda _: b"-----BEGIN CERTIFICATE REQUEST-----\n", "csr_not_pem"),
    "line breaks gone, as with -d": (lambda m: m().replace(b"\n", b""), "csr_not_pem"),
    "two": (lambda m: m() * 2, "csr_multiple"),
    "trailing text": (lambda m: m() + b"garbage", "csr_trailing_data"),
    "trailing bytes": (with_trailing_der, "csr_trailing_data"),
    "broken signature": (csr_with_broken_signature, "csr_bad_signature"),
    "RSA-1024": (lambda m: m("rsa:1024"), "rsa_key_size"),
    "exponent 3": (
        lambda m: m("rsa", "rsa_keygen_bits:2048", "rsa_keygen_pubexp:3"),
        "rsa_exponent",
    ),
    "RSA-5120": (lambda m: m("rsa:5120"), "rsa_key_size"),
    "P-192": (lambda m: m("ec", "ec_paramgen_curve:prime192v1"), "unsupported_key"),
    "secp256k1": (lambda m: m("ec", "ec_paramgen_curve:secp256k1"), "unsupported_key"),
    "Ed25519": (lambda m: m("ed25519"), "unsupported_key"),
    "over 16 KiB": (lambda m: m() + b"\n" * 16 * 1024, "csr_too_large"),
}


@pytest.mark.parametrize("name", BAD_CSRS)
@pytest.mark.parametrize("form", ["PEM", "JSON"])
def test_a_bad_csr_is_refused(dev, make_csr, name, form):
    make, code = BAD_CSRS[name]
    csr = make(make_csr)
    if form == "PEM":
        answer = dev.ask("POST", "/certs", body=csr)
    else:
        answer = dev.post("/certs", {"csr": csr.decode()})

    assert (answer.status, answer.code) == (400, code)
    assert answer.json["field"] == "csr"


def test_the_cas_own_key_is_not_certified(cloud, dev, tmp_path):
    ssm = cloud.client("ssm")
    prefix = f"/registry-trust/{cloud.variables['STAGE']}/"
    active = json.loads(ssm.get_parameter(Name=f"{prefix}client-ca")["Parameter"]["Value"])
    name = f"{prefix}client-ca-key/{active['active']}"
    key = tmp_path / "ca.key"
    key.write_text(ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])
    command = ["openssl", "req", "-new", "-key", key, "-subj", "/CN=x"]
    csr = subprocess.run(command, capture_output=True, check=True).stdout

    answer = dev.ask("POST", "/certs", body=csr)
    assert (answer.status, answer.code) == (400, "key_is_ca")


BAD_DOCUMENTS = [
    ({"surprise": 1}, "unknown_field", "surprise"),
    ({"days": "7"}, "wrong_type", "days"),
    ({"days": 1.5}, "wrong_type", "days"),
    ({"days": True}, "wrong_type", "days"),
    ({"days": None}, "wrong_type", "days"),
    ({"days": 0}, "days_out_of_range", "days"),
    ({"days": -1}, "days_out_of_range", "days"),
    ({"days": 366}, "days_out_of_range", "days"),
    ({"days": 10**30}, "days_out_of_range", "days"),
    ({"label": "x" * 65}, "label_too_long", "label"),
    ({"label": "a\u0007b"}, "label_not_printable", "label"),
    ({"label": "a\nb"}, "label_not_printable", "label"),
    ({"label": 5}, "wrong_type", "label"),
    ({"access": "root"}, "unknown_value", "access"),
    ({"key_type": "dsa"}, "unknown_value", "key_type"),
    ({"csr": 5}, "wrong_type", "csr"),
    ({"csr": ""}, "csr_not_pem", "csr"),
    ({"csr": "x", "key_type": "ec-p256"}, "csr_and_key_type", "key_type"),
]


@pytest.mark.parametrize(("document", "code", "field"), BAD_DOCUMENTS)
def test_a_bad_document_is_refused_with_its_own_code(dev, document, code, field):
    answer = dev.post("/certs", document)

    assert (answer.status, answer.code, answer.json["field"]) == (400, code, field)


BAD_BODIES = {
    "no JSON": (b"{", "malformed_json"),
    "a list": (b"[]", "wrong_type"),
    "not UTF-8": (b'{"label": "\xff\xfe"}', "body_not_utf8"),
    "too deep": (b'{"label":' * 5000, "wrong_type"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_refused(dev, name):
    body, code = BAD_BODIES[name]
    answer = dev.ask("POST", "/certs", *JSON, body=body)

    assert (answer.status, answer.code) == (400, code)


def test_an_unsupported_content_type_is_415(dev, make_csr):
    answer = dev.ask("POST", "/certs", "--header", "content-type: text/html", body=make_csr())
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


def test_json_without_its_content_type_is_told_how(dev):
    answer = dev.ask("POST", "/certs", body=b'{"days": 7}')
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert "application/json" in answer.json["detail"]


@pytest.mark.parametrize("path", ["/certs", "/admin/certs", "/certs/diagnose"])
def test_a_file_that_there_is_not_is_told_of(cloud, path):
    """curl sends nothing in its place; some versions of it refuse to."""
    who = cloud.person("ADMIN" if path.startswith("/admin") else "DEV")
    answer = who.ask("POST", path, "--data-binary", "")
    assert (answer.status, answer.code) == (400, "empty_body")
    assert "does the file after @ exist?" in answer.json["detail"]


def test_nothing_to_diagnose_is_told_what_to_send(dev):
    answer = dev.ask("POST", "/certs/diagnose")
    assert (answer.status, answer.code) == (400, "empty_body")
    assert "--data-binary @client.cert" in answer.json["detail"]


def test_der_is_told_how_to_become_pem(dev, make_csr):
    lines = make_csr().decode().split("\n")
    answer = dev.ask("POST", "/certs", body=base64.b64decode("".join(lines[1:-2])))
    assert (answer.status, answer.code) == (400, "body_not_utf8")
    assert "openssl req -inform der" in answer.json["detail"]


@pytest.mark.parametrize("form", ["alone", "key and CSR", "CSR and key", "JSON"])
def test_a_private_key_in_place_of_a_csr_is_refused(dev, make_csr, form):
    command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    key = subprocess.run(command, capture_output=True, check=True).stdout
    bodies = {"alone": key, "key and CSR": key + make_csr(), "CSR and key": make_csr() + key}
    if form == "JSON":
        answer = dev.post("/certs", {"csr": key.decode()})
    else:
        answer = dev.ask("POST", "/certs", body=bodies[form])
    assert (answer.status, answer.code) == (400, "private_key_sent")
    assert not [line for line in key.split()[3:-3] if line in answer.body]


@pytest.mark.parametrize("path", ["/certs", "/trust"])
def test_an_unsupported_accept_is_406(dev, path):
    method = "POST" if path == "/certs" else "GET"
    answer = dev.ask(method, path, "--header", "accept: text/html")
    assert (answer.status, answer.code) == (406, "not_acceptable")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_a_wrong_method_is_refused(dev, method):
    """API Gateway answers for a method that a path does not have, and says 403."""
    assert dev.ask(method, "/certs").status in (403, 405)


@pytest.mark.parametrize("key", ["x" * 65, "two words", "é"])
def test_a_bad_idempotency_key_is_refused(dev, key):
    answer = dev.ask("POST", "/certs", "--header", f"idempotency-key: {key}")
    assert (answer.status, answer.code) == (400, "bad_idempotency_key")


BAD_QUERIES = [
    ("limit=0", "limit_out_of_range", "limit"),
    ("limit=101", "limit_out_of_range", "limit"),
    ("limit=-1", "limit_out_of_range", "limit"),
    ("limit=ten", "limit_out_of_range", "limit"),
    ("status=gone", "unknown_value", "status"),
    ("cursor=nonsense", "invalid_cursor", "cursor"),
    ("cursor=AAAA", "invalid_cursor", "cursor"),
    ("owner=me", "unknown_parameter", "owner"),
    ("limit=1&limit=2", "repeated_parameter", "limit"),
]


@pytest.mark.parametrize(("query", "code", "field"), BAD_QUERIES)
def test_a_bad_query_is_refused(dev, query, code, field):
    answer = dev.ask("GET", f"/certs?{query}")
    assert (answer.status, answer.code, answer.json["field"]) == (400, code, field)


@pytest.mark.parametrize("serial", ["0" * 40, "f" * 40, "zz", "0" * 41, "0x12"])
def test_a_serial_of_nobodys_is_404(dev, serial):
    answer = dev.ask("GET", f"/certs/{serial}")
    assert (answer.status, answer.code) == (404, "certificate_not_found")
