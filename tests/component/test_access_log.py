"""nginx's access log: whatever a client sends, every line is JSON and says who did what."""

from __future__ import annotations

import itertools
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.component.real_host import (
    HOST,
    RealHost,
    ask,
    layout_under,
    running_nginx,
    wait_until,
)
from tests.component.throwaway_pki import Leaf, ThrowawayCa

TYPES: dict[str, type | tuple[type, ...]] = {
    "time": str, "serial": str, "name": str, "access": str, "subject": str, "verify": str,
    "method": str, "path": str, "status": int, "bytes": int, "request_bytes": int,
    "request_time": (int, float), "user_agent": str, "client": str, "tls": str, "request_id": str,
}  # fmt: skip
ENDS = itertools.count()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHost]:
    """nginx without a registry behind it: who is admitted is told 503."""
    prefix = tmp_path_factory.mktemp("host")
    host = RealHost(layout_under(prefix / "host"), scratch=prefix)
    host.write_files()
    with running_nginx(host.layout):
        yield host


@pytest.fixture(scope="module")
def ann(host: RealHost) -> Leaf:
    return host.client_ca.client("ann", "push")


@pytest.fixture(scope="module")
def context(host: RealHost, ann: Leaf) -> ssl.SSLContext:
    return host.context(ann)


def lines_of(
    host: RealHost, context: ssl.SSLContext, sent: bytes, *, hear: bool = True
) -> list[dict[str, Any]]:
    """What the log says of a connection on which a client sends this, hears nginx out and goes.

    hear: else it goes at once. The last request must have nginx hang up, or it waits in vain.
    """
    log = Path(host.layout.log_dir, "access.log")
    before = log.stat().st_size
    with (
        socket.create_connection((HOST, host.port), 5) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
        suppress(OSError),  # nginx may hang up before all is sent
    ):
        connection.sendall(sent)
        while hear and connection.recv(65536):
            pass
        connection.unwrap()
    end = f"/the-end-{next(ENDS)}"
    ask(host.port, context, "GET", end)
    written = log.read_bytes
    wait_until(lambda: f'"path":"{end}"'.encode() in written()[before:], "the log to catch up")
    lines = [entry(line) for line in written()[before:].split(b"\n")[:-1]]
    return [line for line in lines if line["path"] != end]


def entry(line: bytes) -> dict[str, Any]:
    """A line, which is one JSON object with each of our fields once and of its own type."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert [name for name, _ in pairs] == list(TYPES)
        return dict(pairs)

    found: dict[str, Any] = json.loads(line.decode(), object_pairs_hook=once)
    assert all(isinstance(found[name], kind) for name, kind in TYPES.items())
    return found


def request(method: bytes, path: bytes, agent: bytes = b"curl/8", *, last: bool = True) -> bytes:
    ends = b"close" if last else b"keep-alive"
    head = (method + b" " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: " + ends)
    return b"\r\n".join((*head, b"User-Agent: " + agent)) + b"\r\n\r\n"


# --- one line a request ---------------------------------------------------------------------------


def told(lines: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(line["method"], line["path"], line["status"]) for line in lines]


def test_requests_in_one_go_have_a_line_each(host: RealHost, context: ssl.SSLContext) -> None:
    sent = [
        request(b"GET", b"/v2/a", last=False),
        request(b"HEAD", b"/v2/b?c=d", last=False),
        request(b"PUT", b"/e"),
    ]
    assert told(lines_of(host, context, b"".join(sent))) == [
        ("GET", "/v2/a", 503), ("HEAD", "/v2/b", 503), ("PUT", "/e", 404),
    ]  # fmt: skip


def test_a_request_that_is_none_has_a_line_and_so_has_the_good_one_before_it(
    host: RealHost, context: ssl.SSLContext
) -> None:
    for bad in (b"\x16\x03\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET /v2/ HTTP/9.9\r\n\r\n"):
        first, second = lines_of(host, context, request(b"GET", b"/v2/good", last=False) + bad)
        assert told([first]) == [("GET", "/v2/good", 503)]
        assert second["status"] in (400, 505)


TOO_LONG = {
    "path": (request(b"GET", b"/v2/" + b"x" * 70_000), 414),
    "header": (request(b"GET", b"/v2/", b"x" * 70_000), 400),
}


@pytest.mark.parametrize("what", TOO_LONG)
def test_a_request_that_is_too_long_has_a_line(
    host: RealHost, context: ssl.SSLContext, what: str
) -> None:
    sent, status = TOO_LONG[what]
    (line,) = lines_of(host, context, sent)
    assert line["status"] == status


def test_quotes_in_path_and_agent_stay_where_they_belong(
    host: RealHost, context: ssl.SSLContext
) -> None:
    odd = b'"\\,}{'
    (line,) = lines_of(host, context, request(b"GET", b"/v2/" + odd, odd))
    assert (line["path"], line["user_agent"]) == ("/v2/" + odd.decode(), odd.decode())


# --- whoever sends it -----------------------------------------------------------------------------


def test_somebody_without_a_certificate_has_a_line_too(host: RealHost) -> None:
    (line,) = lines_of(host, host.context(None), request(b"GET", b"/v2/"))
    assert [line[name] for name in ("serial", "name", "access", "verify", "status")] == [
        "", "", "none", "NONE", 403,
    ]  # fmt: skip


CLAIMS = ['","access":"push","x":"', "x,OU=push", "\x00\x01\x7f", "jörg ☂ \U0001f600", "\\"]


@pytest.mark.parametrize("name", CLAIMS)
def test_a_stranger_has_a_line_with_what_was_claimed_and_no_access(
    host: RealHost, name: str
) -> None:
    stranger = ThrowawayCa(host.client_ca.name).client(name, "push")
    (line,) = lines_of(host, host.context(stranger), request(b"GET", b"/v2/"))
    assert int(line["serial"], 16) == stranger.serial
    assert line["verify"].startswith("FAILED:")
    assert (line["access"], line["status"]) == ("none", 403)


# --- whatever is sent -----------------------------------------------------------------------------

ODD = st.binary(max_size=40) | st.sampled_from(
    [b'","status":200,"x":"', b"\\", b'"', b"\x00", b"\xff\xfe", b"%22%0a", b"\x1b[31m", b"}\n{"]
)
REQUESTS = st.builds(
    request,
    st.sampled_from([b"GET", b"PUT", b"FOO"]) | ODD,
    ODD.map(lambda path: b"/v2/" + path) | ODD,
    ODD,
    last=st.booleans(),
)
TALK = st.lists(REQUESTS | ODD, min_size=1, max_size=4).map(b"".join)


@example(sent=request(b"GET", b'/v2/","status":200,"x":"'))
@example(sent=request(b"GET", b"/v2/", b'","status":200,"x":"'))
@example(sent=request(b'GET","method":"GET', b"/v2/"))
@example(sent=request(b"GET", b"/v2/", b"\xff\xfe"))
@example(sent=request(b"GET", b"/v2/\xff\xfe"))
@example(sent=b"GET /v2/\r\n")
@example(sent=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
@given(sent=TALK)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_sent_every_line_is_json_and_says_who_it_was(
    host: RealHost, ann: Leaf, context: ssl.SSLContext, sent: bytes
) -> None:
    for line in lines_of(host, context, sent, hear=False):
        assert int(line["serial"], 16) == ann.serial
        assert (line["name"], line["access"], line["verify"]) == ("ann", "push", "SUCCESS")
        assert line["status"] not in range(200, 300)
