"""What a revocation does to connections that are there: the real nginx and registry-refresh."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from chalicelib.domain.registry_host import HostLayout, nginx_config
from localcloud.registry_host import nginx_version
from tests.component.real_host import (
    HOST,
    RealHost,
    client_context,
    layout_under,
    port_of,
    running_nginx,
    running_registry,
    wait_until,
)
from tests.component.refreshed_host import ADMITTED, REFUSED, Host, new_host_in
from tests.component.throwaway_pki import Leaf, ThrowawayCa

# From the end of registry-refresh to the end of a connection. nginx needs some 50 ms; the bound
# that its configuration sets without a reload is a minute.
BOUND_SECONDS = 5.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with new_host_in(tmp_path, ThrowawayCa("Servers"), ThrowawayCa("Clients")) as host:
        host.succeeds()
        with running_nginx(host.layout):
            yield host


class Kept:
    """One connection, which is never made again."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.connection = http.client.HTTPSConnection(HOST, port, timeout=5, context=context)
        self.connection.connect()
        self.connection.auto_open = False

    def ask(self) -> int | None:
        """The status of one more request; None when the connection has ended."""
        try:
            self.connection.request("GET", "/v2/")
            response = self.connection.getresponse()
            response.read()
        except (http.client.HTTPException, OSError):
            return None
        return response.status

    def ends_within(self, seconds: float, *, asking: bool) -> bool:
        """Whether nginx ends it, with no answer that differs from ADMITTED before that.

        asking: again and again, else waiting for nothing but the end.
        """
        connection = self.connection.sock
        assert connection
        if not asking:
            connection.settimeout(seconds)
            return not connection.recv(1)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self.ask()
            if status is None:
                return True
            assert status == ADMITTED
            time.sleep(0.005)
        return False


@pytest.fixture
def kept(host: Host) -> Iterator[Callable[[Leaf], Kept]]:
    """kept(leaf): a connection with a request on it that has been answered."""
    made = []

    def keep(leaf: Leaf) -> Kept:
        connection = Kept(port_of(host.layout), context_of(host, leaf))
        made.append(connection)
        assert connection.ask() == ADMITTED
        return connection

    yield keep
    for each in made:
        each.connection.close()


def context_of(host: Host, leaf: Leaf) -> ssl.SSLContext:
    return client_context(host.cloud.server_ca, leaf, host.prefix)


def wait_until_refused(host: Host, leaf: Leaf) -> None:
    """For some 50 ms of a reload both the old and the new worker take connections."""
    wait_until(
        lambda: {host.visit(leaf) for _ in range(10)} == {REFUSED}, "the new CRL alone to count"
    )


def revoke(host: Host, leaf: Leaf) -> None:
    host.publish(host.client_ca.crl(6, [leaf.serial]))
    host.succeeds()


@pytest.mark.parametrize("asking", [True, False], ids=["busy", "idle"])
def test_a_kept_alive_connection_of_a_revoked_certificate_ends(
    host: Host, kept: Callable[[Leaf], Kept], asking: bool
) -> None:
    lost = host.client_ca.client("lost", "push")
    connection = kept(lost)

    revoke(host, lost)

    assert connection.ends_within(BOUND_SECONDS, asking=asking)
    assert [host.visit(lost) for _ in range(10)] == [REFUSED] * 10


def test_others_connect_again_and_go_on(host: Host, kept: Callable[[Leaf], Kept]) -> None:
    lost, other = host.client_ca.client("lost"), host.client_ca.client("other")
    connection = kept(other)

    revoke(host, lost)

    assert connection.ends_within(BOUND_SECONDS, asking=True)
    assert kept(other).ask() == ADMITTED


def test_a_run_that_brings_nothing_new_ends_no_connection(
    host: Host, kept: Callable[[Leaf], Kept]
) -> None:
    connection = kept(host.client_ca.client())
    host.succeeds()
    assert not connection.ends_within(0.5, asking=True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_from_before_does_not_get_a_revoked_certificate_in(
    host: Host, version: ssl.TLSVersion
) -> None:
    lost, kept = host.client_ca.client("lost"), host.client_ca.client("kept")
    contexts = [context_of(host, leaf) for leaf in (lost, kept)]
    for context in contexts:
        context.minimum_version = context.maximum_version = version
    sessions = [visit(host, context)[1] for context in contexts]

    revoke(host, lost)
    wait_until_refused(host, lost)

    answers = [visit(host, *with_session) for with_session in zip(contexts, sessions, strict=True)]
    assert [status for status, _ in answers] == [REFUSED, ADMITTED]


def visit(
    host: Host, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[int, ssl.SSLSession | None]:
    """The status of one request on a connection that wants to resume *session*, and its own."""
    with (
        socket.create_connection((HOST, port_of(host.layout)), 5) as plain,
        context.wrap_socket(plain, server_hostname=HOST, session=session) as connection,
    ):
        connection.sendall(b"GET /v2/ HTTP/1.0\r\nHost: %s\r\n\r\n" % HOST.encode())
        answer = connection.recv(4096)
        return int(answer.split(b" ")[1]), connection.session


def test_an_upload_in_flight_is_finished_and_is_the_last_of_its_connection(host: Host) -> None:
    lost = host.client_ca.client("lost", "push")
    with running_registry(host.layout, host.prefix / "images"):
        started = started_upload(host, lost)
        kept = Kept(port_of(host.layout), context_of(host, lost))
        connection = kept.connection
        connection.putrequest("PATCH", started)
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Content-Length", "2000")
        connection.endheaders(b"x" * 1000)

        revoke(host, lost)
        wait_until_refused(host, lost)

        connection.send(b"x" * 1000)
        response = connection.getresponse()
        assert (response.status, response.read()) == (202, b"")
        assert kept.ask() is None


def started_upload(host: Host, leaf: Leaf) -> str:
    """The path to send a blob to."""
    port = port_of(host.layout)
    connection = http.client.HTTPSConnection(HOST, port, timeout=5, context=context_of(host, leaf))
    connection.request("POST", "/v2/team/app/blobs/uploads/")
    response = connection.getresponse()
    connection.close()
    assert response.status == 202
    return str(response.headers["Location"]).removeprefix(f"https://{host.layout.registry}")


# --- without a reload -----------------------------------------------------------------------------
# What expires is in no CRL, so no reload ends its connections: nginx's own limits do.


@contextmanager
def unrefreshed(layout: HostLayout, scratch: Path, change: tuple[str, str]) -> Iterator[Kept]:
    host = RealHost(layout, scratch=scratch)
    host.write_files()
    config = nginx_config(layout)
    assert change[0] in config
    Path(layout.config_dir, "nginx.conf").write_text(config.replace(*change))
    with running_nginx(layout):
        connection = Kept(host.port, host.context(host.client_ca.client()))
        yield connection
        connection.connection.close()


@pytest.mark.skipif(nginx_version() < (1, 19, 10), reason="this nginx has no keepalive_time")
def test_a_busy_connection_ends_when_its_time_is_up(tmp_path: Path) -> None:
    layout = replace(layout_under(tmp_path / "host"), nginx_version=nginx_version())
    with unrefreshed(layout, tmp_path, ("keepalive_time 1m;", "keepalive_time 1s;")) as connection:
        began = time.monotonic()
        assert connection.ends_within(BOUND_SECONDS, asking=True)
        assert time.monotonic() - began > 0.9


def test_an_idle_connection_ends_when_its_time_is_up(tmp_path: Path) -> None:
    layout = layout_under(tmp_path / "host")
    change = ("keepalive_timeout 30s;", "keepalive_timeout 1s;")
    with unrefreshed(layout, tmp_path, change) as connection:
        connection.ask()
        assert connection.ends_within(BOUND_SECONDS, asking=False)


def test_after_so_many_requests_a_connection_ends_whatever_the_nginx(tmp_path: Path) -> None:
    layout = layout_under(tmp_path / "host")
    change = ("keepalive_requests 1000;", "keepalive_requests 1000;")
    with unrefreshed(layout, tmp_path, change) as connection:
        assert [connection.ask() for _ in range(1001)] == [ADMITTED] * 1000 + [None]


def test_the_longest_transfer_that_a_reload_waits_for_is_bounded(tmp_path: Path) -> None:
    config = nginx_config(layout_under(tmp_path / "host"))
    assert re.search(r"^worker_shutdown_timeout 1h;$", config, re.MULTILINE)
