"""What the installer installs, used by those it is for: real clients, a real registry and nginx."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.installer import installer
from localcloud.demo.image import write_image
from tests.component.real_host import (
    RealHost,
    layout_under,
    running_nginx,
    running_registry,
    wait_until,
)
from tests.component.throwaway_pki import certificate_pem, key_pem


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHost]:
    prefix = tmp_path_factory.mktemp("host")
    host = RealHost(layout_under(prefix / "host"), scratch=prefix)
    host.write_files()
    with running_registry(host.layout, prefix / "images"), running_nginx(host.layout):
        yield host


@pytest.fixture(scope="module")
def etc(host: RealHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the installer has set up every engine, with a certificate that may push."""
    leaf = host.client_ca.client("a+=,.@_-b", "push")
    bundle = Bundle(
        registry=host.layout.registry,
        ca_bundle=host.server_ca.pem.decode(),
        certificate=certificate_pem(leaf.certificate).decode(),
        issuer=host.client_ca.pem.decode(),
        private_key=key_pem(leaf.key).decode(),
    )
    tree = tmp_path_factory.mktemp("tree")
    script, command = installer(bundle), ["sh", "-s", "--", "--containerd", "--root", str(tree)]
    subprocess.run(command, input=script, text=True, check=True, stdout=subprocess.DEVNULL)
    return tree / "etc"


@pytest.fixture(scope="module")
def image(host: RealHost, etc: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image in the registry, pushed by skopeo."""
    layout = tmp_path_factory.mktemp("image") / "oci"
    write_image(layout, "hello")
    name = f"{host.layout.registry}/team/hello:1"
    directory = str(etc / "containers/certs.d" / host.layout.registry)
    options = ["--insecure-policy", "copy", "--quiet", "--dest-cert-dir", directory]
    subprocess.run(["skopeo", *options, f"oci:{layout}", f"docker://{name}"], check=True)
    return name


@pytest.mark.parametrize("engine", ["docker", "containers"])
def test_skopeo_pulls_with_the_files_of_each_engine(
    host: RealHost, etc: Path, image: str, tmp_path: Path, engine: str
) -> None:
    directory = str(etc / engine / "certs.d" / host.layout.registry)
    options = ["--insecure-policy", "copy", "--quiet", "--src-cert-dir", directory]
    subprocess.run(["skopeo", *options, f"docker://{image}", f"dir:{tmp_path}"], check=True)
    assert (tmp_path / "manifest.json").exists()


@pytest.fixture
def ctr(tmp_path: Path) -> Iterator[list[str]]:
    """The command that speaks to a containerd of the test's own."""
    if not shutil.which("containerd") or os.geteuid() != 0:
        pytest.skip("this needs containerd, and root to run it")
    socket, config = tmp_path / "socket", tmp_path / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{tmp_path}/root"\nstate = "{tmp_path}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{socket}"\n'
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["containerd", "-c", str(config)], stdout=log, stderr=log)
    try:
        command = ["ctr", "--address", str(socket)]
        ready = [*command, "version"]
        wait_until(
            lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0,
            "containerd to answer",
        )
        yield command
    finally:
        process.terminate()
        process.wait(10)


def test_containerd_pulls_and_pushes_by_its_hosts_file(
    etc: Path, image: str, ctr: list[str]
) -> None:
    where = ["--hosts-dir", str(etc / "containerd/certs.d")]
    copy = image.replace(":1", ":2")

    subprocess.run([*ctr, "images", "pull", "--snapshotter", "native", *where, image], check=True)
    subprocess.run([*ctr, "images", "tag", image, copy], check=True)
    subprocess.run([*ctr, "images", "push", *where, copy], check=True)

    missing = [*ctr, "images", "pull", *where, image.replace(":1", ":3")]
    told = subprocess.run(missing, capture_output=True, text=True, check=False)
    assert "not found" in told.stderr  # and not that the server wants a certificate
