"""The real nginx and registry with the registry host's own files: who is let in, to do what."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chalicelib.domain.registry_host import HostLayout, nginx_config
from tests.component.real_host import (
    HOST,
    NGINX,
    RealHost,
    layout_under,
    running_nginx,
    running_registry,
    wait_until,
)
from tests.component.throwaway_pki import DAY, Leaf, ThrowawayCa, now, subject

UPLOADS = "/v2/team/app/blobs/uploads/"
WRITES = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "FOO"]


@pytest.fixture(scope="module")
def revoked() -> list[Leaf]:
    return []


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, revoked: list[Leaf]) -> Iterator[RealHost]:
    prefix = tmp_path_factory.mktemp("my registry host")  # spaces are part of the test
    host = RealHost(layout_under(prefix / "host"), scratch=prefix)
    revoked += [host.client_ca.client("gone", "push"), host.second_client_ca.client("off", "push")]
    host.write_files(revoked=tuple(leaf.serial for leaf in revoked))
    storage = prefix / "images"
    with running_registry(host.layout, storage), running_nginx(host.layout):
        yield host


# --- who is let in --------------------------------------------------------------------------------


def test_a_certificate_of_our_ca_is_admitted(host: RealHost) -> None:
    answer = host.ask(host.client_ca.client())
    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def refused(host: RealHost, leaf: Leaf | None) -> str:
    """The reason that nginx gives; fails if it lets *leaf* in, or answers in another form."""
    answer = host.ask(leaf)
    assert answer.status == 403
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert answer.error["code"] == "DENIED"
    return answer.error["message"]


def test_a_client_without_a_certificate_is_refused(host: RealHost) -> None:
    assert "show a certificate" in refused(host, None)


def test_a_stranger_ca_of_the_same_name_is_refused(host: RealHost) -> None:
    refused(host, ThrowawayCa(host.client_ca.name).client(access="push"))


def test_a_revoked_certificate_is_refused_and_told_so(host: RealHost, revoked: list[Leaf]) -> None:
    for leaf in revoked:
        assert "revoked" in refused(host, leaf)


def test_an_expired_certificate_is_refused_and_told_so(host: RealHost) -> None:
    leaf = host.client_ca.client(not_before=now() - 2 * DAY, not_after=now() - DAY)
    assert "expired" in refused(host, leaf)


def test_a_server_certificate_is_no_client_certificate(host: RealHost) -> None:
    refused(host, host.client_ca.client(usage=ExtendedKeyUsageOID.SERVER_AUTH))


def test_two_client_cas_serve_side_by_side(host: RealHost) -> None:
    assert host.ask(host.client_ca.client()).status == 200
    assert host.ask(host.second_client_ca.client()).status == 200


# --- what each may do -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", WRITES)
def test_a_pull_certificate_may_only_get_and_head(host: RealHost, method: str) -> None:
    leaf = host.client_ca.client(access="pull")
    assert host.ask(leaf, "HEAD").status == 200
    answer = host.ask(leaf, method, UPLOADS)
    assert answer.status == 403
    assert "pull only" in answer.error["message"]


def test_a_method_override_does_not_turn_a_pull_into_a_push(host: RealHost) -> None:
    override = {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE"}
    assert host.ask(host.client_ca.client(access="pull"), headers=override).status == 200


HOSTILE_NAMES = [
    "x,OU=push",
    "x/OU=push",
    "x+OU=push",
    "O=registry-trust,OU=push,CN=x",
    "x,O=registry-trust,OU=push,CN=x",
    "+=,.@_-",
    "say \"hi\" 'there'",
    "back\\slash\\",
    "\\,OU=push",
    "#push",
    " push ",
    "push",
    "jörg ☂",
    "x\nO=registry-trust,OU=push,CN=x",
    "x\r\n\tx",
    "$ssl_client_serial ${x}",
    "%s%n</script>",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_forges_an_access(host: RealHost, name: str) -> None:
    pull = host.client_ca.client(name, "pull")
    assert host.ask(pull).status == 200
    assert host.ask(pull, "POST", UPLOADS).status == 403
    assert host.ask(host.client_ca.client(name, "push"), "POST", UPLOADS).status == 202
    assert host.ask(host.client_ca.client(name, "none")).status == 403


def names(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])


CN, OU, O = NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME  # noqa: E741
OURS = (O, "registry-trust")
ODD_SUBJECTS = {
    "another access": names((CN, "x"), (OU, "admin"), OURS),
    "another case": names((CN, "x"), (OU, "Push"), OURS),
    "longer access": names((CN, "x"), (OU, "push2"), OURS),
    "access with a comma": names((CN, "x"), (OU, "push,CN=x"), OURS),
    "two accesses": names((CN, "x"), (OU, "push"), (OU, "pull"), OURS),
    "another organisation": names((CN, "x"), (OU, "push"), (O, "registry-trust2")),
    "something before": names((CN, "x"), (OU, "push"), OURS, (NameOID.COUNTRY_NAME, "DE")),
    "something after": names((NameOID.COUNTRY_NAME, "DE"), (CN, "x"), (OU, "push"), OURS),
    "the other order": names(OURS, (OU, "push"), (CN, "x")),
    "no name": names((OU, "push"), OURS),
    "no access": names((CN, "x"), OURS),
    "name and access in one part": x509.Name(
        [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(CN, "x"), x509.NameAttribute(NameOID.TITLE, "x")]
            ),
            *names((OU, "push"), OURS).rdns,
        ]
    ),
    "nothing": x509.Name([]),
}


@pytest.mark.parametrize("case", sorted(ODD_SUBJECTS))
def test_any_other_subject_gives_no_access_at_all(host: RealHost, case: str) -> None:
    leaf = host.client_ca.client(subject_name=ODD_SUBJECTS[case])
    assert host.ask(leaf).status == 403
    assert host.ask(leaf, "POST", UPLOADS).status == 403
    assert host.ask(host.client_ca.client(subject_name=subject("x", "push"))).status == 200


@contextmanager
def secured(
    host: RealHost, context: ssl.SSLContext, name: str | None = HOST, session: Any = None
) -> Iterator[ssl.SSLSocket]:
    """A TLS connection without HTTP on it yet."""
    with (
        socket.create_connection((HOST, host.port), 5) as plain,
        context.wrap_socket(plain, server_hostname=name, session=session) as connection,
    ):
        yield connection


GET = b"GET /v2/ HTTP/1.0\r\nHost: %s\r\n\r\n" % HOST.encode()


# --- how it is served -----------------------------------------------------------------------------


def test_only_the_registry_api_is_served(host: RealHost) -> None:
    leaf = host.client_ca.client(access="push")
    assert host.ask(leaf, path="/v2/").status == 200
    for path in ("/", "/debug/vars", "/v2/../debug/vars", "/v2/..%2fdebug", "/v1/"):
        assert host.ask(leaf, path=path).status == 404, path


def test_another_host_name_is_refused(host: RealHost) -> None:
    leaf = host.client_ca.client(access="push")
    assert host.ask(leaf, headers={"Host": host.layout.registry}).status == 200
    assert host.ask(leaf, headers={"Host": "registry.evil.example"}).status == 421
    assert host.ask(leaf, headers={"Host": "127.0.0.1"}).status == 421


def test_another_host_name_is_refused_without_sni_too(host: RealHost) -> None:
    context = host.context(host.client_ca.client(access="push"))
    context.check_hostname = False
    for name, status in ((HOST.encode(), b"200"), (b"10.0.0.1", b"421")):
        with secured(host, context, name=None) as connection:
            connection.sendall(b"GET /v2/ HTTP/1.0\r\nHost: %s\r\n\r\n" % name)
            assert connection.recv(4096).startswith(b"HTTP/1.1 %s" % status)


def test_without_sni_a_certificate_is_wanted_all_the_same(host: RealHost) -> None:
    context = host.context(None)
    context.check_hostname = False
    with secured(host, context, name=None) as connection:
        connection.sendall(GET)
        assert connection.recv(4096).startswith(b"HTTP/1.1 403")


def test_clients_cannot_choose_the_addresses_that_the_registry_hands_out(host: RealHost) -> None:
    spoofed = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Port": "1",
        "Forwarded": "host=evil.example;proto=http",
    }
    answer = host.ask(host.client_ca.client(access="push"), "POST", UPLOADS, headers=spoofed)
    assert answer.headers["Location"].startswith(f"https://{host.layout.registry}{UPLOADS}")


def test_tls_1_1_is_refused_and_1_2_is_not(host: RealHost) -> None:
    def shake(version: ssl.TLSVersion) -> str | None:
        context = host.context(None)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with secured(host, context) as connection:
            return connection.version()

    assert shake(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert shake(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        shake(ssl.TLSVersion.TLSv1_1)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed_so_every_connection_meets_the_crl(
    host: RealHost, version: ssl.TLSVersion
) -> None:
    context = host.context(host.client_ca.client())
    context.minimum_version = context.maximum_version = version

    def visit(session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
        with secured(host, context, session=session) as connection:
            connection.sendall(GET)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            return connection.session_reused, connection.session

    _, session = visit(None)
    assert session is None or visit(session)[0] is False


def test_plain_http_is_told_to_use_https(host: RealHost) -> None:
    connection = http.client.HTTPConnection(HOST, host.port, timeout=5)
    connection.request("GET", "/v2/")
    response = connection.getresponse()
    assert (response.status, b"https" in response.read()) == (400, True)
    connection.close()


MIB = 1 << 20


def test_a_large_upload_streams_through_to_the_registry(host: RealHost) -> None:
    """Half of it is on the registry's disk before the other half has been sent."""
    leaf = host.client_ca.client(access="push")
    blob = os.urandom(6 * MIB)
    location = host.ask(leaf, "POST", UPLOADS).headers["Location"]
    path = location.removeprefix(f"https://{host.layout.registry}")
    upload = path.partition("?")[0].rpartition("/")[2]
    (data,) = host.scratch.rglob(f"_uploads/{upload}")

    def halves() -> Iterator[bytes]:
        yield blob[: 3 * MIB]
        wait_until(lambda: on_disk(data) > 2 * MIB, "the first half to arrive")
        yield blob[3 * MIB :]

    octets = {"Content-Type": "application/octet-stream"}
    patched = host.ask(leaf, "PATCH", path, halves(), octets)
    assert patched.status == 202
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    path = patched.headers["Location"].removeprefix(f"https://{host.layout.registry}")
    assert host.ask(leaf, "PUT", f"{path}&digest={digest}").status == 201
    pulled = host.ask(host.client_ca.client(access="pull"), path=f"/v2/team/app/blobs/{digest}")
    assert (pulled.status, pulled.body == blob) == (200, True)


def on_disk(directory: Path) -> int:
    data = directory / "data"
    return data.stat().st_size if data.exists() else 0


# --- the access log -------------------------------------------------------------------------------


def last_line(host: RealHost, ask: Callable[[], object]) -> dict[str, object]:
    before = len(host.access_log())
    ask()
    wait_until(lambda: len(host.access_log()) > before, "a line in the access log")
    return host.access_log()[-1]


def test_the_access_log_says_who_did_what(host: RealHost) -> None:
    leaf = host.client_ca.client('ann "the cat"', "push")
    agent = {"User-Agent": "docker/27 (linux)"}
    line = last_line(host, lambda: host.ask(leaf, "POST", f"{UPLOADS}?x=secret", headers=agent))
    assert int(str(line["serial"]), 16) == leaf.serial
    assert line["subject"] == 'O=registry-trust,OU=push,CN=ann \\"the cat\\"'
    assert line["name"] == 'ann \\"the cat\\"'
    assert (line["access"], line["verify"], line["status"]) == ("push", "SUCCESS", 202)
    assert (line["method"], line["path"]) == ("POST", UPLOADS)
    assert line["user_agent"] == "docker/27 (linux)"
    assert {"time", "bytes", "request_bytes", "request_time", "client", "tls"} <= set(line)


def test_the_access_log_says_why_somebody_was_refused(host: RealHost, revoked: list[Leaf]) -> None:
    line = last_line(host, lambda: host.ask(revoked[0]))
    assert (line["verify"], line["access"], line["status"]) == (
        "FAILED:certificate revoked", "none", 403,
    )  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_breaks_the_access_log(host: RealHost, name: str) -> None:
    leaf = host.client_ca.client(name, "pull")
    line = last_line(host, lambda: host.ask(leaf))
    assert (line["access"], int(str(line["serial"]), 16)) == ("pull", leaf.serial)


def test_no_request_breaks_the_access_log(host: RealHost) -> None:
    """Bytes that are no UTF-8, a request cut short, one that is no HTTP at all."""
    requests = [
        b'GET /v2/\xff\xfe HTTP/1.1\r\nHost: localhost\r\nUser-Agent: \xff"\\ \r\n\r\n',
        b"GET /v2/\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab",
    ]
    for request in requests:
        before = len(host.access_log())
        context = host.context(host.client_ca.client(access="push"))
        with secured(host, context) as connection:
            connection.sendall(request)
        wait_until(lambda b=before: len(host.access_log()) > b, "a line in the access log")
    assert all(isinstance(line["status"], int) for line in host.access_log())


# --- elsewhere than here --------------------------------------------------------------------------


def test_a_registry_that_is_down_is_said_in_the_registrys_own_form(tmp_path: Path) -> None:
    host = RealHost(layout_under(tmp_path / "host"), scratch=tmp_path)
    host.write_files()
    with running_nginx(host.layout):
        answer = host.ask(host.client_ca.client())
    assert (answer.status, answer.error["code"]) == (503, "UNAVAILABLE")


@pytest.mark.skipif(os.geteuid() != 0, reason="without root, every test here runs unprivileged")
def test_nginx_runs_wholly_unprivileged() -> None:
    nobody = 65534
    with tempfile.TemporaryDirectory() as directory:
        prefix = Path(directory)
        scratch = prefix / "scratch"
        scratch.mkdir()
        layout = layout_under(prefix / "host")
        layout = HostLayout(**(vars(layout) | {"user": None}))
        host = RealHost(layout, scratch=scratch)
        host.write_files()
        for path in (prefix, *prefix.rglob("*")):
            os.chown(path, nobody, nobody)
        with running_nginx(layout, user=nobody, group=nobody, extra_groups=[]):
            assert host.ask(host.client_ca.client()).status == 503
        assert "[emerg]" not in Path(layout.log_dir, "nginx-error.log").read_text()


def test_this_nginx_takes_the_directives_of_its_own_age(tmp_path: Path) -> None:
    host = RealHost(layout_under(tmp_path / "host"), scratch=tmp_path)
    host.layout = HostLayout(**(vars(host.layout) | {"nginx_version": version_of_nginx()}))
    host.write_files()
    with running_nginx(host.layout):
        assert host.ask(host.client_ca.client()).status == 503
    assert ("keepalive_time 1m;" in nginx_config(host.layout)) == (
        version_of_nginx() >= (1, 19, 10)
    )


def version_of_nginx() -> tuple[int, int, int]:
    said = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said)
    assert found
    major, minor, patch = map(int, found.groups())
    return major, minor, patch
