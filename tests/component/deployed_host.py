"""A registry host that is deployed: a cloud, what it publishes, and a machine that is set up by it.

S3, metadata and API are a stand-in; see host_machine for what is played on the machine.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from chalicelib.domain.registry_host import (
    KEEPALIVE_TIME_SINCE,
    SCRIPT_KEY,
    FileStorage,
    HostLayout,
    HostSetup,
    RefreshSource,
)
from operations.host import RELOAD_COMMAND
from tests.component.cloud_stand_in import API_PATH, BUCKET, REGION, Cloud, running_cloud
from tests.component.host_machine import HostMachine
from tests.component.real_host import free_port
from tests.component.throwaway_pki import Leaf, ThrowawayCa, certificate_pem, crl_pem, key_pem

GIVEN = "/root/registry-host.sh"
CHECK = "/usr/local/sbin/registry-host check"


@dataclass
class Deployment:
    """A cloud, what its registry host is to be, and the machine for it."""

    cloud: Cloud
    machine: HostMachine
    setup: HostSetup
    scratch: Path
    client_ca: ThrowawayCa = field(default_factory=lambda: ThrowawayCa("Clients"))

    def publish(self, **changes: object) -> None:
        """As scripts/deploy does, after a change of parameters."""
        self.setup = replace(self.setup, **changes)  # type: ignore[arg-type]
        self.cloud.objects |= {
            self.setup.release_key: self.setup.release,
            SCRIPT_KEY: self.setup.script.encode(),
        }
        self.machine.write(GIVEN, self.setup.script)

    def publish_trust(self) -> None:
        """As the stack does, and `refresh_crl` each hour."""
        self.cloud.objects |= {
            "trust/ca.crt": self.cloud.server_ca.pem,
            "trust/client-ca.crt": self.client_ca.pem,
            "trust/client-ca.crl": crl_pem(self.client_ca.crl(5)),
        }

    def set_up(self) -> int:
        return self.machine.run(f"sh {GIVEN}")

    def serves(self) -> None:
        """Set up, and it says so."""
        code = self.set_up()
        assert code == 0, self.machine.said
        assert self.machine.said.endswith("all is well\n")

    def fails(self, reason: str) -> None:
        code = self.set_up()
        assert (code, reason in self.machine.said) == (1, True), self.machine.said

    def power_fails(self, command: str, spared: Sequence[str] = ()) -> list[str]:
        """The power fails in runs of it, each time later, and the next run ends well.

        Before which commands it failed; spared: see HostMachine.cuts.
        """
        with tempfile.TemporaryDirectory(dir=self.scratch) as directory:
            cuts = self.machine.cuts(command, Path(directory), spared)
            for cut in cuts:
                self.starts_from(cut.disk)
                self.serves()
                assert self.machine.container("registry-former") == "", cut.command
                assert self.status() == "200", cut.command
                assert self.machine.leftovers() == [], cut.command
        return [cut.command for cut in cuts]

    def starts_from(self, disk: Path) -> None:
        """The machine is started again, with another disk."""
        self.machine.down()
        self.machine.format(disk)
        self.machine.up()

    @property
    def registry(self) -> str:
        return self.setup.layout.registry

    def client(self, leaf: Leaf) -> Path:
        """A directory as Docker keeps it for a registry."""
        directory = self.scratch / "certs.d" / self.registry
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ca.crt").write_bytes(self.cloud.server_ca.pem)
        (directory / "client.cert").write_bytes(certificate_pem(leaf.certificate))
        (directory / "client.key").write_bytes(key_pem(leaf.key))
        return directory

    def status(self) -> str:
        """With which it answers a client of ours."""
        ours = ("--cacert", "ca.crt", "--cert", "client.cert", "--key", "client.key")
        form = ("-s", "-o", "/dev/null", "-w", "%{http_code}")
        return subprocess.run(
            ["curl", *form, *ours, f"https://{self.registry}/v2/"],
            cwd=self.client(self.client_ca.client("dev")),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stdout

    def secret(self) -> str:
        return self.machine.read("/var/lib/registry-trust/http-secret")


@contextmanager
def deployed(directory: Path) -> Iterator[Deployment]:
    """All is published, the machine is up, and nothing is set up there."""
    cloud = Cloud(ThrowawayCa("Servers"))
    with running_cloud(cloud):
        machine = HostMachine(directory / "machines", cloud.url)
        layout = HostLayout.system(
            f"localhost:{free_port()}",
            upstream=f"127.0.0.1:{free_port()}",
            nginx_version=KEEPALIVE_TIME_SINCE,
        )
        source = RefreshSource(
            BUCKET,
            REGION,
            f"{cloud.url}{API_PATH}",
            reload_command=RELOAD_COMMAND,
            endpoint=cloud.url,
        )
        storage = FileStorage("/var/lib/images")
        machine.path("/var/lib/images").mkdir()
        made = Deployment(cloud, machine, HostSetup(layout, storage, source), directory)
        made.publish()
        made.publish_trust()
        machine.up()
        yield made
        machine.down()
