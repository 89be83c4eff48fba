"""The registry host's set-up, run for real in a machine of its own; see host_machine for what is
played there. S3, metadata and API are a stand-in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from chalicelib.domain.registry_host import (
    KEEPALIVE_TIME_SINCE,
    SCRIPT_KEY,
    FileStorage,
    HostLayout,
    HostSetup,
    RefreshSource,
)
from localcloud.demo.image import write_image
from operations.host import RELOAD_COMMAND
from tests.component.cloud_stand_in import (
    API_PATH,
    BUCKET,
    REGION,
    SECRET_KEY,
    TOKEN,
    Cloud,
    running_cloud,
)
from tests.component.host_machine import HostMachine
from tests.component.real_host import free_port
from tests.component.throwaway_pki import (
    Leaf,
    ThrowawayCa,
    certificate_pem,
    crl_pem,
    key_pem,
)

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
            "trust/ca.crt": self.cloud.server_ca.pem,
            "trust/client-ca.crt": self.client_ca.pem,
            "trust/client-ca.crl": crl_pem(self.client_ca.crl(5)),
        }
        self.machine.write(GIVEN, self.setup.script)

    def set_up(self) -> int | None:
        return self.machine.run(f"sh {GIVEN}")

    def serves(self) -> None:
        """Set up, and it says so."""
        code = self.set_up()
        assert code == 0, self.machine.said
        assert self.machine.said.endswith("all is well\n")

    def fails(self, reason: str) -> None:
        code = self.set_up()
        assert (code, reason in self.machine.said) == (1, True), self.machine.said

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
        return subprocess.run(
            ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", "ca.crt"]
            + ["--cert", "client.cert", "--key", "client.key", f"https://{self.registry}/v2/"],
            cwd=self.client(self.client_ca.client("dev")),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stdout

    def secret(self) -> str:
        return self.machine.read("/var/lib/registry-trust/http-secret")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Deployment]:
    cloud = Cloud(ThrowawayCa("Servers"))
    with running_cloud(cloud):
        machine = HostMachine(tmp_path / "machines", cloud.url)
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
        made = Deployment(cloud, machine, HostSetup(layout, storage, source), tmp_path)
        made.publish()
        machine.up()
        yield made
        machine.down()


def skopeo(*arguments: object) -> None:
    done = subprocess.run(
        ["skopeo", "--insecure-policy", "copy", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_bare_machine_becomes_a_registry_that_clients_push_to_and_pull_from(
    host: Deployment, tmp_path: Path
) -> None:
    host.serves()

    print(host.machine.said)
    write_image(tmp_path / "image", "hello")
    files = host.client(host.client_ca.client("dev", access="push"))
    there = f"docker://{host.registry}/team/hello:1"
    skopeo("--dest-cert-dir", files, f"oci:{tmp_path / 'image'}", there)
    skopeo("--src-cert-dir", files, there, f"oci:{tmp_path / 'back'}")
    sent, came = (
        json.loads((tmp_path / name / "index.json").read_text())["manifests"][0]["digest"]
        for name in ("image", "back")
    )
    assert sent == came
