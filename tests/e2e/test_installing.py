"""The installer that the deployed API answers, run on machines of their own; then skopeo, which is
told nothing of certificates."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from localcloud.demo.image import write_image
from tests.component.sandboxed_machine import ANN, ROOT, Machine, Shell, shells, snapshot
from tests.e2e.client import Person
from tests.e2e.conftest import Cloud

SCRIPT = ("--header", "accept: text/x-shellscript")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    (machine.etc / "hosts").write_text("127.0.0.1 localhost\n")  # the local registry's host
    write_image(machine.home / "hello", "hello\n")
    return machine


@pytest.fixture(params=shells(), ids=lambda shell: shell.name)
def shell(request: pytest.FixtureRequest) -> Shell:
    chosen: Shell = request.param
    return chosen


def installer(person: Person, path: str = "/certs", body: bytes | None = None) -> str:
    answer = person.ask("POST", path, *SCRIPT, body=body)
    assert answer.status == 201, answer.body
    return answer.body.decode()


def pushes_and_pulls(cloud: Cloud, machine: Machine, user: int) -> bool:
    tool = f"{shutil.which('skopeo')} --insecure-policy copy -q"
    image = f"docker://{cloud.variables['REGISTRY']}/e2e/installed:1"
    done = machine.run(
        f"rm -rf /home/ann/back && {tool} oci:/home/ann/hello {image}"
        f" && {tool} {image} oci:/home/ann/back",
        user=user,
    )
    return done.returncode == 0


@pytest.mark.parametrize("user", [ROOT, ANN], ids=["root", "rootless"])
def test_what_it_installs_opens_the_registry_and_twice_is_once(
    cloud: Cloud, dev: Person, machine: Machine, shell: Shell, user: int
) -> None:
    script = installer(dev)
    assert not pushes_and_pulls(cloud, machine, user)

    first = machine.run(script, shell=shell, user=user)
    installed = [snapshot(top) for top in (machine.etc, machine.home / ".config") if top.exists()]
    assert (first.returncode, first.stderr) == (0, "")
    assert pushes_and_pulls(cloud, machine, user)

    second = machine.run(script, shell=shell, user=user)
    assert (second.returncode, second.stderr) == (0, "")
    assert installed == [
        snapshot(top) for top in (machine.etc, machine.home / ".config") if top.exists()
    ]


def test_a_renewed_certificate_takes_the_place_of_the_revoked_one(
    cloud: Cloud, dev: Person, machine: Machine, shell: Shell
) -> None:
    machine.run(installer(dev), shell=shell)
    (serial,) = (each["serial"] for each in dev.ask("GET", "/certs").json["certificates"])
    renewed = installer(dev, f"/certs/{serial}/renew")
    assert dev.ask("DELETE", f"/certs/{serial}").status == 200

    done = machine.run(renewed, shell=shell)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(": updated in ") == 2
    assert pushes_and_pulls(cloud, machine, ROOT)


def test_for_a_csr_it_takes_the_key_from_its_owner(
    cloud: Cloud, dev: Person, machine: Machine, shell: Shell
) -> None:
    csr, key = machine.home / "own.csr", machine.home / "own.key"
    command = ["openssl", "req", "-new", "-nodes", "-subj", "/CN=me", "-out", csr, "-keyout", key]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run([*command, *curve], capture_output=True, check=True)
    script = installer(dev, body=csr.read_bytes())
    assert "BEGIN PRIVATE KEY" not in script
    assert machine.run(script, shell=shell).returncode == 2

    done = machine.run(script, "--key", "/home/ann/own.key", shell=shell)

    assert (done.returncode, done.stderr) == (0, "")
    assert pushes_and_pulls(cloud, machine, ROOT)
