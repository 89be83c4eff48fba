"""The registry host: an emulated instance, and its programs running here with its credentials.

The files are those that a registry host on EC2 gets; the instance's role signs for its storage and
for its server certificate.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from chalicelib.domain.registry_host import HostLayout, RefreshSource, S3Storage, host_files
from localcloud import images
from localcloud.aws import REGION, SETTINGS, Caller
from localcloud.layout import CHECKOUT, Layout, write_private
from localcloud.parts import Part
from localcloud.ports import Ports

NAME = "registry-host"
REFRESH_SECONDS = 2.0


@dataclass(frozen=True)
class RegistryHost:
    """What is needed to set the host up."""

    layout: Layout
    ports: Ports
    outputs: Mapping[str, str]  # of the stack
    api_url: str
    metadata_endpoint: str

    @property
    def registry(self) -> str:
        """host:port as clients write it."""
        return registry_name(self.ports)

    @property
    def files(self) -> HostLayout:
        """Where its files lie, and where nginx and the registry listen."""
        below = HostLayout.under(
            str(self.layout.registry_host),
            registry=self.registry,
            listen=(f"127.0.0.1:{self.ports.registry}",),
            upstream=f"127.0.0.1:{self.ports.storage}",
            nginx_version=nginx_version(),
        )
        # Started by root, nginx would give its workers to a user who cannot enter our directory.
        return replace(below, user="root") if os.geteuid() == 0 else below

    def write_files(self) -> None:
        """Render every file of the host; the registry's own secret is kept."""
        for directory, mode in self.files.directories.items():
            Path(directory).mkdir(parents=True, exist_ok=True, mode=mode)
        gateway = f"http://127.0.0.1:{self.ports.gateway}"
        storage = S3Storage(
            region=REGION,
            bucket=self.outputs["RegistryBucket"],
            endpoint=gateway,
            encrypt=False,  # the emulator's S3 has no keys to encrypt under
        )
        source = RefreshSource(
            config_bucket=self.outputs["ConfigBucket"],
            region=REGION,
            api_url=self.api_url,
            test_command=f"{shlex.quote(program('nginx'))} -t -q -c",
            reload_command=shlex.quote(str(self._write_reloader())),
            endpoint=gateway,
            metadata_endpoint=self.metadata_endpoint,
        )
        secret = kept_secret(self.layout.registry_host / "http-secret")
        rendered = host_files(self.files, storage, source, http_secret=secret)
        for path, (mode, text) in rendered.items():
            write_private(Path(path), text)
            Path(path).chmod(mode)

    def _write_reloader(self) -> Path:
        """A command that tells nginx, if it runs, to read its files again."""
        command = shlex.join([sys.executable, "-m", "localcloud.reload", "nginx"])
        variables = {
            "PYTHONPATH": str(CHECKOUT / "scripts"),
            "REGISTRY_TRUST_LOCAL": str(self.layout.root),
        }
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        path = Path(self.files.config_dir) / "reload-nginx"
        write_private(path, "\n".join(["#!/bin/sh", *lines, f"exec {command}", ""]))
        path.chmod(0o700)
        return path

    def refresh_command(self) -> list[str]:
        """One run of registry-refresh."""
        config = Path(self.files.config_dir)
        return ["sh", str(config / "registry-refresh"), str(config / "refresh.env")]

    def environment(self) -> dict[str, str]:
        """What the host's programs are started with: no key, for the instance's role has them."""
        return {
            "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin",
            "HOME": str(self.layout.temporary),
            "TMPDIR": str(self.layout.temporary),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata_endpoint,
            "AWS_REGION": REGION,
        }

    def parts(self) -> list[Part]:
        """The registry, nginx before it, and registry-refresh again and again."""
        config = Path(self.files.config_dir)
        commands: list[tuple[str, list[str], float | None]] = [
            ("registry", [program("docker-registry"), "serve", str(config / "registry.yml")], None),
            (
                "nginx",
                [
                    *(program("nginx"), "-c", str(config / "nginx.conf")),
                    *("-e", f"{self.files.log_dir}/nginx-error.log", "-g", "daemon off;"),
                ],
                None,
            ),
            ("registry-refresh", self.refresh_command(), REFRESH_SECONDS),
        ]
        return [
            Part(name, command, self.environment(), str(self.layout.registry_host), every=every)
            for name, command, every in commands
        ]


def registry_name(ports: Ports) -> str:
    """host:port by which clients know the registry."""
    return f"localhost:{ports.registry}"


def ensure_instance(operator: Caller, profile: str) -> tuple[str, bool]:
    """The id of the instance that is the registry host, and whether it had to be launched."""
    ec2 = operator.session.client("ec2", endpoint_url=operator.endpoint, config=SETTINGS)
    found = ec2.describe_instances(
        Filters=[
            {"Name": "tag:Name", "Values": [NAME]},
            {"Name": "instance-state-name", "Values": ["running"]},
        ]
    )
    for reservation in found["Reservations"]:
        for instance in reservation["Instances"]:
            return instance["InstanceId"], False
    launched = ec2.run_instances(
        ImageId=images.BARE,
        MinCount=1,
        MaxCount=1,
        IamInstanceProfile={"Name": profile},
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": NAME}]},
        ],
    )
    return launched["Instances"][0]["InstanceId"], True


def kept_secret(file: Path) -> str:
    """A random secret, the same on every call."""
    if not file.exists():
        write_private(file, secrets.token_hex(32))
    return file.read_text()


def program(name: str) -> str:
    """Where the program is; system programs are not on everybody's PATH."""
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(name, path=path) or name


def nginx_version() -> tuple[int, int, int]:
    """As `nginx -v` says."""
    said = subprocess.run([program("nginx"), "-v"], capture_output=True, text=True, check=True)
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said.stderr)
    if found is None:
        raise RuntimeError(f"nginx -v says {said.stderr.strip()!r}")
    major, minor, patch = (int(number) for number in found.groups())
    return major, minor, patch
