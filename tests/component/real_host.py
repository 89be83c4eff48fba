"""The real nginx and the real registry under a directory of the test, with our rendered files."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chalicelib.domain.registry_host import FileStorage, HostLayout, nginx_config, registry_config
from tests.component.throwaway_pki import (
    Leaf,
    ThrowawayCa,
    certificate_pem,
    crl_pem,
    key_pem,
    new_key,
)

HOST = "localhost"
NAME = "registry.team.test"  # which no DNS knows (RFC 6761 section 6.2)
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
PATIENCE = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s in vain for {what}"
        time.sleep(0.02)


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def layout_under(prefix: Path, host: str = HOST) -> HostLayout:
    port = free_port()
    return HostLayout.under(
        str(prefix),
        registry=f"{host}:{port}",
        listen=(f"127.0.0.1:{port}",),
        upstream=f"127.0.0.1:{free_port()}",
        user="root" if os.geteuid() == 0 else None,
        nginx_version=(1, 18, 0),
    )


def port_of(layout: HostLayout) -> int:
    return int(layout.registry.rpartition(":")[2])


@contextmanager
def running(command: list[str], port: int, log: Path, **options: Any) -> Iterator[int]:
    """A program that serves *port*; ended when the test is."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        wait_until(lambda: listens(port) or process.poll() is not None, f"{command[0]} to listen")
        assert process.poll() is None, log.read_text()
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_nginx(layout: HostLayout, **options: Any) -> Iterator[int]:
    command = [NGINX, "-c", f"{layout.config_dir}/nginx.conf", "-g", "daemon off;"]
    with running(command, port_of(layout), Path(layout.log_dir, "nginx.out"), **options) as pid:
        yield pid


@contextmanager
def running_registry(layout: HostLayout, storage: Path) -> Iterator[int]:
    config = Path(layout.config_dir, "registry.yml")
    config.write_text(registry_config(layout, FileStorage(str(storage)), http_secret="s" * 32))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "REGISTRY_"))}
    command = ["docker-registry", "serve", str(config)]
    port = int(layout.upstream.rpartition(":")[2])
    with running(command, port, Path(layout.log_dir, "registry.out"), env=environment) as pid:
        yield pid


def make_directories(layout: HostLayout) -> None:
    for path, mode in layout.directories.items():
        Path(path).mkdir(mode=mode, parents=True, exist_ok=True)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> Mapping[str, str]:
        """The one error of the registry's own form."""
        (error,) = json.loads(self.body)["errors"]
        return error  # type: ignore[no-any-return]


@dataclass
class RealHost:
    """nginx before a registry, with CAs of the test's own."""

    layout: HostLayout
    scratch: Path
    server_ca: ThrowawayCa = field(default_factory=lambda: ThrowawayCa("Servers"))
    client_ca: ThrowawayCa = field(default_factory=lambda: ThrowawayCa("Clients"))
    second_client_ca: ThrowawayCa = field(default_factory=lambda: ThrowawayCa("More clients"))

    @property
    def port(self) -> int:
        return port_of(self.layout)

    def write_files(self, revoked: tuple[int, ...] = ()) -> None:
        make_directories(self.layout)
        Path(self.layout.config_dir, "nginx.conf").write_text(nginx_config(self.layout))
        trust = Path(self.layout.trust_dir)
        trust.mkdir(exist_ok=True)
        key = new_key()
        crls = [self.client_ca.crl(1, revoked), self.second_client_ca.crl(1, revoked)]
        (trust / "server.key").write_bytes(key_pem(key))
        (trust / "server.crt").write_bytes(
            certificate_pem(self.server_ca.server(key.public_key(), self.layout.host_name))
        )
        (trust / "client-ca.crt").write_bytes(self.client_ca.pem + self.second_client_ca.pem)
        (trust / "client-ca.crl").write_bytes(crl_pem(*crls))

    def context(self, leaf: Leaf | None) -> ssl.SSLContext:
        return client_context(self.server_ca, leaf, self.scratch)

    def ask(
        self,
        leaf: Leaf | None,
        method: str = "GET",
        path: str = "/v2/",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return ask(self.port, self.context(leaf), method, path, body, headers)

    def access_log(self) -> list[dict[str, Any]]:
        text = Path(self.layout.log_dir, "access.log").read_bytes().decode()
        return [json.loads(line) for line in text.splitlines()]


def client_context(server_ca: ThrowawayCa, leaf: Leaf | None, scratch: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=server_ca.pem.decode())
    if leaf is not None:
        both = scratch / "client.pem"
        both.write_bytes(certificate_pem(leaf.certificate) + key_pem(leaf.key))
        context.load_cert_chain(both)
    return context


def ask(
    port: int,
    context: ssl.SSLContext,
    method: str = "GET",
    path: str = "/v2/",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    connection = http.client.HTTPSConnection(HOST, port, timeout=PATIENCE, context=context)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


@contextmanager
def running_host(prefix: Path, name: str = HOST) -> Iterator[RealHost]:
    """The two programs, until the test is over."""
    host = RealHost(layout_under(prefix / "host", name), scratch=prefix)
    host.write_files()
    with running_registry(host.layout, prefix / "images"), running_nginx(host.layout):
        yield host
