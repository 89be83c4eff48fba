"""A registry host with the real registry-refresh; S3, metadata and API are a stand-in."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509

from chalicelib.domain.registry_host import (
    FileStorage,
    HostLayout,
    RefreshSource,
    host_files,
)
from chalicelib.domain.registry_host.report import HostReport, report_key
from tests.component.cloud_stand_in import (
    API_PATH,
    BUCKET,
    INSTANCE,
    REGION,
    Cloud,
    running_cloud,
)
from tests.component.real_host import (
    NGINX,
    ask,
    client_context,
    layout_under,
    make_directories,
    port_of,
)
from tests.component.throwaway_pki import Leaf, ThrowawayCa, crl_pem

SHELL = shutil.which("dash") or "sh"
ADMITTED, REFUSED = 503, 403  # there is no registry behind this nginx


@dataclass
class Host:
    """A registry host whose cloud is a stand-in. `run` is one run of registry-refresh."""

    layout: HostLayout
    cloud: Cloud
    prefix: Path
    client_ca: ThrowawayCa = field(default_factory=lambda: ThrowawayCa("Clients"))

    def write_files(self, test_command: str = f"{NGINX} -t -q -c") -> None:
        make_directories(self.layout)
        source = RefreshSource(
            config_bucket=BUCKET,
            region=REGION,
            api_url=f"{self.cloud.url}{API_PATH}",
            test_command=test_command,
            reload_command=f"echo x >>'{self.prefix}/reloads'; {self.layout.reload_command}",
            endpoint=self.cloud.url,
            metadata_endpoint=self.cloud.url,
        )
        storage = FileStorage(str(self.prefix / "images"))
        for path, (mode, text) in host_files(
            self.layout, storage, source, http_secret="s" * 32
        ).items():
            Path(path).write_text(text)
            Path(path).chmod(mode)

    def publish(
        self,
        *crls: x509.CertificateRevocationList,
        cas: tuple[ThrowawayCa, ...] = (),
        server_cas: tuple[ThrowawayCa, ...] = (),
    ) -> None:
        """server_cas: the one that signs first."""
        self.cloud.objects |= {
            "trust/ca.crt": b"".join(ca.pem for ca in server_cas or (self.cloud.server_ca,)),
            "trust/client-ca.crt": b"".join(ca.pem for ca in cas or (self.client_ca,)),
            "trust/client-ca.crl": crl_pem(*crls),
        }

    def start(self, **environment: str) -> subprocess.Popen[str]:
        config = Path(self.layout.config_dir)
        command = [SHELL, str(config / "registry-refresh"), str(config / "refresh.env")]
        return subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(**environment)
        _, said = process.communicate(timeout=20)
        return subprocess.CompletedProcess(process.args, process.returncode, "", said)

    def fails(self, reason: str) -> None:
        """A run that changes nothing, exits 1 and says *reason*, on stderr and in the status."""
        before, reloads = self.in_use(), self.reloads
        result = self.run()
        assert result.returncode == 1
        assert reason in result.stderr
        assert "registry-refresh: " in result.stderr
        status = self.status()
        assert status["ok"] is False
        assert reason in status["last_error"]
        assert (self.in_use(), self.reloads) == (before, reloads)

    def succeeds(self) -> None:
        result = self.run()
        assert (result.returncode, result.stderr) == (0, "")
        assert self.status()["ok"] is True

    def set(self, name: str, value: str) -> None:
        """Another value for one of its settings."""
        with Path(self.layout.config_dir, "refresh.env").open("a") as settings:
            settings.write(f"{name}={shlex.quote(value)}\n")

    def is_stuck(self) -> None:
        """From now on nginx does not hear of reloads, though they seem to succeed."""
        self.set("NGINX_RELOAD_COMMAND", f"echo x >>'{self.prefix}/reloads'")
        self.set("SERVE_PAUSES", "0.1 0.1")  # for the tests' speed

    def works_again(self) -> None:
        self.write_files()

    def let_the_wait_pass(self) -> None:
        """As if the last vain try for a certificate were long ago."""
        waiting = self.path("in-vain")
        since, rest = waiting.read_text().split(" ", 1)
        waiting.write_text(f"{int(since) - 4000} {rest}")

    def wait(self) -> int:
        """Seconds from the last vain try to the next one."""
        return int(self.path("in-vain").read_text().split()[1])

    def report(self) -> HostReport:
        return HostReport.from_json(self.cloud.objects[report_key(INSTANCE)])

    def status(self) -> dict[str, Any]:
        return json.loads(self.path("status.json").read_text())  # type: ignore[no-any-return]

    def path(self, name: str) -> Path:
        return Path(self.layout.state_dir, name)

    def in_use(self) -> dict[str, bytes]:
        current = self.path("current")
        return {p.name: p.read_bytes() for p in current.iterdir()} if current.exists() else {}

    @property
    def reloads(self) -> int:
        log = self.prefix / "reloads"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def visit(self, leaf: Leaf, *, trusting: ThrowawayCa | None = None) -> int:
        """Raises ssl.SSLError if it shows no certificate of *trusting*; default: the CA at work."""
        context = client_context(trusting or self.cloud.server_ca, leaf, self.prefix)
        return ask(port_of(self.layout), context).status

    def certificate(self) -> x509.Certificate:
        """What its files say that it shows."""
        return x509.load_pem_x509_certificate(self.in_use()["server.crt"])

    def shown(self) -> x509.Certificate:
        """What nginx does show."""
        address = ("127.0.0.1", port_of(self.layout))
        return x509.load_pem_x509_certificate(ssl.get_server_certificate(address).encode())


@contextmanager
def new_host_in(prefix: Path, server_ca: ThrowawayCa, client_ca: ThrowawayCa) -> Iterator[Host]:
    with running_cloud(Cloud(server_ca)) as cloud:
        host = Host(layout_under(prefix / "registry host"), cloud, prefix, client_ca)
        host.write_files()
        host.publish(host.client_ca.crl(5))
        yield host
