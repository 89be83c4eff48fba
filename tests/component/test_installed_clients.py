"""What the installer installs, used by those it is for: real clients, a real registry and nginx."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.installer import installer
from localcloud.demo.image import write_image
from tests.component.real_host import (
    NAME,
    RealHost,
    running_host,
    wait_until,
)
from tests.component.sandboxed_machine import ANN, ROOT, Machine, Shell, shells
from tests.component.throwaway_pki import ThrowawayCa, certificate_pem, key_pem


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHost]:
    with running_host(tmp_path_factory.mktemp("host")) as host:
        yield host


def installer_for(host: RealHost, address: str = "") -> str:
    """With a certificate that may push."""
    leaf = host.client_ca.client("a+=,.@_-b", "push")
    bundle = Bundle(
        registry=host.layout.registry,
        ca_bundle=host.server_ca.pem.decode(),
        certificate=certificate_pem(leaf.certificate).decode(),
        issuer=host.client_ca.pem.decode(),
        private_key=key_pem(leaf.key).decode(),
        registry_address=address,
    )
    return installer(bundle)


@pytest.fixture(scope="module")
def etc(host: RealHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the installer has set up every engine."""
    tree = tmp_path_factory.mktemp("tree")
    command = ["sh", "-s", "--", "--containerd", "--root", str(tree)]
    script = installer_for(host)
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


# --- on a machine of its own, where skopeo looks by itself ----------------------------------------


@pytest.fixture(scope="module")
def named_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHost]:
    """A registry with a name that only a hosts file can tell."""
    with running_host(tmp_path_factory.mktemp("named"), NAME) as host:
        yield host


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def skopeo(machine: Machine, host: RealHost, user: int) -> subprocess.CompletedProcess[str]:
    """A push and a pull by somebody who says nothing of certificates."""
    write_image(machine.home / "hello", "hello")
    (machine.home / "back").mkdir(mode=0o777)
    tool, image = f"{shutil.which('skopeo')} --insecure-policy copy -q", f"//{host.layout.registry}"
    return machine.run(
        f"{tool} oci:/home/ann/hello docker:{image}/team/hello:1 &&"
        f" {tool} docker:{image}/team/hello:1 oci:/home/ann/back",
        user=user,
    )


@pytest.mark.parametrize("shell", shells(), ids=lambda shell: shell.name)
def test_with_a_line_in_the_hosts_file_skopeo_finds_the_registry_and_its_certificates(
    named_host: RealHost, machine: Machine, shell: Shell
) -> None:
    installed = machine.run(installer_for(named_host, "127.0.0.1"), shell=shell)
    assert (installed.returncode, installed.stderr) == (0, "")

    done = skopeo(machine, named_host, ROOT)

    assert (done.returncode, done.stderr) == (0, "")
    assert (machine.home / "back/index.json").exists()


def test_without_the_line_nobody_finds_that_registry(
    named_host: RealHost, machine: Machine
) -> None:
    assert machine.run(installer_for(named_host)).returncode == 0
    assert f"lookup {NAME}" in skopeo(machine, named_host, ROOT).stderr


@pytest.mark.parametrize("user", [ROOT, ANN], ids=["root", "rootless"])
def test_where_dns_knows_the_registry_skopeo_finds_its_certificates(
    host: RealHost, machine: Machine, user: int
) -> None:
    """Each in its own place: root's is below /etc, ann's at home."""
    (machine.etc / "hosts").write_text("127.0.0.1 localhost\n")
    refused = skopeo(machine, host, user)
    assert "certificate" in refused.stderr
    shutil.rmtree(machine.home / "back")
    assert machine.run(installer_for(host), user=user).returncode == 0

    done = skopeo(machine, host, user)

    assert (done.returncode, done.stderr) == (0, "")
    assert (machine.etc / "containers").exists() is (user == ROOT)


def test_a_newer_certificate_is_used_at_once(host: RealHost, machine: Machine) -> None:
    """Over one that the registry refuses."""
    (machine.etc / "hosts").write_text("127.0.0.1 localhost\n")
    stranger = replace(host, client_ca=ThrowawayCa(host.client_ca.name))
    assert machine.run(installer_for(stranger)).returncode == 0
    assert "403 (Forbidden)" in skopeo(machine, host, ROOT).stderr
    shutil.rmtree(machine.home / "back")

    assert machine.run(installer_for(host)).returncode == 0

    done = skopeo(machine, host, ROOT)
    assert (done.returncode, done.stderr) == (0, "")


# --- containerd -----------------------------------------------------------------------------------


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
