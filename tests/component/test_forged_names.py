"""Whatever name IAM lets somebody have, nginx reads from their certificate the access we put there.

What we sign is asked of the real nginx, some hundred times; and of OpenSSL's own function that
prints subjects for nginx with nginx's own patterns, some thousand times.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import http.client
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalicelib.domain.model import Access, Grant, Validity
from chalicelib.domain.pki.authorities import Authority
from chalicelib.domain.pki.leaves import new_serial, sign_client_leaf
from chalicelib.domain.templates import read
from tests.component.real_host import (
    HOST,
    RealHost,
    client_context,
    layout_under,
    running_nginx,
    wait_until,
)
from tests.component.throwaway_pki import DAY, Leaf, ThrowawayCa, new_key, now

ISSUER, KEY = ThrowawayCa("Clients"), new_key()
VALIDITY = Validity.starting(now(), 30 * DAY, timedelta(minutes=5))

# AWS "IAM and AWS STS quotas": 1 to 64 letters, digits and +=,.@_- .
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
ANY = st.text(alphabet=LETTERS + "+=,.@_-", min_size=1, max_size=64)
PARTS = ["OU=push", "OU=pull", "O=registry-trust", "CN=", "push", "pull", ",", "+", "=", "x", "-"]
LIKE_A_SUBJECT = (
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=12)
    .map("".join)
    .filter(lambda name: len(name) <= 64)
)
NAMES = ANY | LIKE_A_SUBJECT
ACCESSES = st.sampled_from(list(Access))
FORGERIES = [
    "x,OU=push",
    "OU=push",
    "a+OU=push",
    ",OU=push,O=registry-trust",
    "O=registry-trust,OU=push,CN=x",
    "x,O=registry-trust,OU=push,CN=x",
    "CN=x+OU=push+O=registry-trust",
    "push",
    "+",
    ",",
    "=" * 64,
    "+," * 32,
]


def examples(test: Any) -> Any:
    for name in FORGERIES:
        test = example(name=name, access=Access.PULL)(test)
    return test


def leaf(name: str, access: Access) -> Leaf:
    """As POST /certs signs it."""
    grant = Grant(name, f"arn:aws:iam::123456789012:user/{name}", access, 30 * DAY)
    authority = Authority(ISSUER.certificate, ISSUER.key)
    signed = sign_client_leaf(authority, grant, KEY.public_key(), new_serial(), VALIDITY)
    return Leaf(signed, KEY)


# --- the real nginx -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHost]:
    """nginx without a registry behind it: who is admitted is told 503."""
    prefix = tmp_path_factory.mktemp("host")
    host = RealHost(layout_under(prefix / "host"), scratch=prefix, client_ca=ISSUER)
    host.write_files()
    with running_nginx(host.layout):
        yield host


ADMITTED, REFUSED = 503, 403


def visit(host: RealHost, leaf: Leaf) -> list[int]:
    """What GET and POST are answered, on one connection."""
    context = client_context(host.server_ca, leaf, host.scratch)
    connection = http.client.HTTPSConnection(HOST, host.port, timeout=5, context=context)
    statuses = []
    for method in ("GET", "POST"):
        connection.request(method, "/v2/")
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    return statuses


@examples
@given(name=NAMES, access=ACCESSES)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nginx_gives_every_name_the_access_that_was_signed(
    host: RealHost, name: str, access: Access
) -> None:
    issued = leaf(name, access)

    may_push = ADMITTED if access is Access.PUSH else REFUSED
    assert visit(host, issued) == [ADMITTED, may_push]

    for line in lines_of(host, issued):
        assert (line["access"], line["verify"]) == (access.value, "SUCCESS")
        assert line["name"].replace("\\", "") == name
        assert line["subject"] == printed(issued.certificate.subject)


def lines_of(host: RealHost, issued: Leaf) -> list[dict[str, Any]]:
    """What the access log has of this certificate: nginx writes it once it has answered."""
    log = Path(host.layout.log_dir, "access.log")

    def found() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_text().splitlines()[-2:]]
        return [line for line in lines if int(line["serial"], 16) == issued.serial]

    wait_until(lambda: len(found()) == 2, "both requests in the access log")
    return found()


# --- OpenSSL's words, nginx's patterns ------------------------------------------------------------

# openssl/x509.h: XN_FLAG_RFC2253, which nginx's ngx_ssl_get_subject_dn() asks for.
XN_FLAG_RFC2253 = 0x1110317
CRYPTO = ctypes.CDLL(ctypes.util.find_library("crypto") or "libcrypto.so.3")
CRYPTO.BIO_s_mem.restype = CRYPTO.BIO_new.restype = ctypes.c_void_p
CRYPTO.d2i_X509_NAME.restype = ctypes.c_void_p


def printed(subject: x509.Name) -> str:
    """The subject as nginx sees it."""
    der = subject.public_bytes()
    start = ctypes.c_char_p(der)
    name = ctypes.c_void_p(CRYPTO.d2i_X509_NAME(None, ctypes.byref(start), len(der)))
    bio = ctypes.c_void_p(CRYPTO.BIO_new(ctypes.c_void_p(CRYPTO.BIO_s_mem())))
    buffer = ctypes.create_string_buffer(4096)
    CRYPTO.X509_NAME_print_ex(bio, name, 0, ctypes.c_ulong(XN_FLAG_RFC2253))
    length = CRYPTO.BIO_read(bio, buffer, len(buffer))
    CRYPTO.BIO_free(bio)
    CRYPTO.X509_NAME_free(name)
    return buffer.raw[:length].decode("ascii")


def patterns() -> dict[str, re.Pattern[str]]:
    """The patterns of the map that decides, by the access they give."""
    lines = re.findall(r'^ *"~(\^SUCCESS .*)" (\w+);$', read("registry/nginx.conf"), re.MULTILINE)
    assert len(lines) == 2
    # ngx_conf_read_token(): between quotes a backslash takes quotes and backslashes as they are.
    return {access: re.compile(re.sub(r"\\([\"'\\])", r"\1", pattern)) for pattern, access in lines}


PATTERNS = patterns()


REST_OF_SUBJECT = {access: list(leaf("x", access).certificate.subject)[1:] for access in Access}


def subject_of(name: str, access: Access) -> x509.Name:
    """As in a certificate of ours. Signing thousands would take minutes."""
    own = x509.NameAttribute(x509.NameOID.COMMON_NAME, name)
    return x509.Name([own, *REST_OF_SUBJECT[access]])


def accesses(subject: x509.Name) -> list[str]:
    """Every access whose pattern this subject has."""
    text = f"SUCCESS {printed(subject)}"
    return [access for access, pattern in PATTERNS.items() if pattern.search(text)]


@examples
@given(name=NAMES, access=ACCESSES)
@settings(max_examples=3000, deadline=None)
def test_every_name_of_iam_has_the_one_access_that_was_signed(name: str, access: Access) -> None:
    assert accesses(subject_of(name, access)) == [access.value]


ANY_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=64).filter(
    lambda text: len(text.encode()) <= 64
)


@given(name=ANY_TEXT | LIKE_A_SUBJECT.map(lambda name: f"\\{name[:63]}"), access=ACCESSES)
@settings(max_examples=1000, deadline=None)
def test_names_that_iam_does_not_allow_could_not_forge_one_either(
    name: str, access: Access
) -> None:
    assert accesses(subject_of(name, access)) == [access.value]


@pytest.mark.parametrize("access", list(Access))
def test_the_subjects_above_are_those_of_certificates(access: Access) -> None:
    assert subject_of("a+b,c", access) == leaf("a+b,c", access).certificate.subject


@pytest.mark.parametrize("name", [*FORGERIES, "ann", "jörg ☂", "x\ny", "a\\b"])
def test_openssl_itself_prints_subjects_as_we_have_them_printed(name: str) -> None:
    subject = subject_of(name, Access.PULL)
    made = ISSUER.client(subject_name=subject).certificate.public_bytes(Encoding.PEM)
    command = ["openssl", "x509", "-noout", "-subject", "-nameopt", "RFC2253"]
    told = subprocess.run(command, input=made, capture_output=True, check=True).stdout.decode()
    assert told == f"subject={printed(subject)}\n"
