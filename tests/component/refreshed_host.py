"""A registry host with the real registry-refresh; S3, metadata and API are a stand-in."""

from __future__ import annotations

import json
import os
import shutil
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
from tests.component.cloud_stand_in import API_PATH, BUCKET, REGION, Cloud, running_cloud
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
        self, *crls: x509.CertificateRevocationList, cas: tuple[ThrowawayCa, ...] = ()
    ) -> None:
        self.cloud.objects |= {
            "trust/ca.crt": self.cloud.server_ca.pem,
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

    def visit(self, leaf: Leaf) -> int:
        context = client_context(self.cloud.server_ca, leaf, self.prefix)
        return ask(port_of(self.layout), context).status


@contextmanager
def new_host_in(prefix: Path, server_ca: ThrowawayCa, client_ca: ThrowawayCa) -> Iterator[Host]:
    with running_cloud(Cloud(server_ca)) as cloud:
        host = Host(layout_under(prefix / "registry host"), cloud, prefix, client_ca)
        host.write_files()
        host.publish(host.client_ca.crl(5))
        yield host
