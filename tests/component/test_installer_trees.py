"""The installer with --root: whatever links a tree holds, nothing outside it is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.component.sandboxed_machine import Machine, Shell, shells, snapshot
from tests.component.test_installer import (
    HOST,
    MODES,
    NEW,
    OLD,
    OUR_LINE,
    REGISTRY,
    SYSTEM,
    certs,
    installed,
    modes,
)

TREE = "/home/ann/tree"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """With a tree in somebody's home, and a life of its own in /etc."""
    machine = Machine(tmp_path)
    for name in ("docker/certs.d", "elsewhere"):
        (machine.etc / name).mkdir(parents=True)
    (machine.etc / "hosts").write_text("127.0.0.1 localhost\n")
    (machine.etc / "secret").write_text("the machine's\n")
    (machine.home / "tree").mkdir()
    return machine


@pytest.fixture(params=shells(), ids=lambda shell: shell.name)
def shell(request: pytest.FixtureRequest) -> Shell:
    chosen: Shell = request.param
    return chosen


def tree(machine: Machine) -> Path:
    return machine.home / "tree"


def link(machine: Machine, name: str, target: str) -> None:
    path = tree(machine) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


LEADS_OUT = {
    "etc": "/etc",
    "etc/docker": "/etc/docker",
    "etc/docker/certs.d": "../../../../../etc/docker/certs.d",
    f"etc/docker/certs.d/{REGISTRY}": "/etc/elsewhere",
    "etc/containers": "/etc/not-there-yet",
    "etc/containers/certs.d": "..//../../../etc/elsewhere",
    "etc/containerd": "/etc/elsewhere",
    f"etc/containerd/certs.d/{REGISTRY}": "/nowhere",
}


@pytest.mark.parametrize("name", LEADS_OUT)
def test_a_directory_that_leads_out_of_the_tree_is_refused_before_anything_changes(
    machine: Machine, shell: Shell, name: str
) -> None:
    link(machine, name, LEADS_OUT[name])
    outside, inside = snapshot(machine.etc), snapshot(tree(machine))

    ran = machine.run(NEW.script("10.1.2.3"), "--containerd", "--root", TREE, shell=shell)

    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"{TREE}/{name}" in ran.stderr
    assert "out of the tree" in ran.stderr
    assert "nothing was changed" in ran.stderr
    assert snapshot(machine.etc) == outside
    assert snapshot(tree(machine)) == inside
    assert list(machine.tmp.iterdir()) == []


def test_links_that_stay_in_the_tree_are_followed(machine: Machine, shell: Shell) -> None:
    (tree(machine) / "opt/docker").mkdir(parents=True)
    link(machine, "etc/docker", "../opt/docker")
    outside = snapshot(machine.etc)

    ran = machine.run(NEW.script(), "--root", TREE, shell=shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert installed(tree(machine) / "opt/docker") == NEW.files()
    assert modes(tree(machine) / "opt/docker") == MODES
    assert snapshot(machine.etc) == outside


def test_a_tree_can_be_named_by_a_link(machine: Machine) -> None:
    (machine.home / "by another name").symlink_to("tree")

    ran = machine.run(NEW.script(), "--root", "/home/ann/by another name")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert installed(tree(machine) / "etc/docker") == NEW.files()


def test_the_links_of_this_machine_itself_are_followed(machine: Machine) -> None:
    (machine.etc / "docker/certs.d").rmdir()
    (machine.etc / "docker").rmdir()
    (machine.etc / "docker").symlink_to("elsewhere")

    for options in ([], ["--root", "/"]):
        ran = machine.run(NEW.script(), *options)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert installed(machine.etc / "elsewhere") == NEW.files()


@pytest.mark.parametrize("target", ["/etc/hosts", "../../../../etc/hosts", "/etc/not-there-yet"])
def test_a_hosts_file_that_is_a_link_is_not_written_through(
    machine: Machine, shell: Shell, target: str
) -> None:
    link(machine, "etc/hosts", target)
    outside = snapshot(machine.etc)

    ran = machine.run(NEW.script("10.1.2.3"), "--root", TREE, shell=shell)

    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"{TREE}/etc/hosts is a link" in ran.stderr
    assert "nothing was changed" in ran.stderr
    assert snapshot(machine.etc) == outside
    assert [p.name for p in (tree(machine) / "etc").iterdir()] == ["hosts"]


def test_a_hosts_file_that_is_a_link_does_no_harm_where_no_line_is_needed(machine: Machine) -> None:
    link(machine, "etc/hosts", "/etc/hosts")
    outside = snapshot(machine.etc)
    assert machine.run(NEW.script(), "--root", TREE).returncode == 0
    assert snapshot(machine.etc) == outside
    assert os.readlink(tree(machine) / "etc/hosts") == "/etc/hosts"


def test_a_file_that_is_a_link_is_replaced_and_what_it_led_to_is_left(
    machine: Machine, shell: Shell
) -> None:
    machine.run(OLD.script(), "--root", TREE)
    for name in installed(tree(machine) / "etc/docker"):
        path = certs(tree(machine) / "etc/docker") / name
        path.unlink()
        path.symlink_to("/etc/secret")
    outside = snapshot(machine.etc)

    ran = machine.run(NEW.script(), "--root", TREE, shell=shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert installed(tree(machine) / "etc/docker") == NEW.files()
    assert modes(tree(machine) / "etc/docker") == MODES
    assert snapshot(machine.etc) == outside


def test_going_back_puts_a_link_back_and_not_what_it_leads_to(machine: Machine) -> None:
    """Else a tree could gain a copy of a file of the machine that only root may read."""
    machine.run(OLD.script(), "--root", TREE)
    key = certs(tree(machine) / "etc/docker") / "client.key"
    key.unlink()
    key.symlink_to("/etc/secret")
    machine.shim("mv", 'case "$*" in *old/*) exec /usr/bin/mv "$@" ;; esac; exit 1')

    assert machine.run(NEW.script(), "--root", TREE).returncode == 1

    assert os.readlink(key) == "/etc/secret"
    assert (machine.etc / "secret").read_text() == "the machine's\n"


def test_names_that_were_guessed_lead_nowhere(machine: Machine, shell: Shell) -> None:
    """The script's temporary names in the tree end in its process id, and here ids are low."""
    (tree(machine) / "etc/hosts").parent.mkdir()
    (tree(machine) / "etc/hosts").write_text("")
    (tree(machine) / "etc/docker/certs.d").mkdir(parents=True)
    for pid in range(1, 400):
        link(machine, f"etc/.hosts.registry-trust.{pid}", "/etc/secret")
        link(machine, f"etc/docker/certs.d/.registry-trust.{pid}", "/etc/elsewhere")
    outside = snapshot(machine.etc)

    ran = machine.run(NEW.script("10.1.2.3"), "--root", TREE, shell=shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert snapshot(machine.etc) == outside
    assert installed(tree(machine) / "etc/docker") == NEW.files()
    assert (tree(machine) / "etc/hosts").read_text() == OUR_LINE
    assert (machine.etc / "secret").read_text() == "the machine's\n"


# --- names that mean something to a shell ---------------------------------------------------------

HOSTILE = [
    "$(cd tmp; :>pwned)",
    "`cd tmp; :>pwned`",
    "'; cd tmp; :>pwned; '",
    '"; cd tmp; :>pwned; "',
    "a\\nb c",
    "-n *",
    "%s$IFS",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_tree_is_called_it_is_filled(machine: Machine, shell: Shell, name: str) -> None:
    there = machine.home / name
    (there / "etc").mkdir(parents=True)
    (there / "etc/hosts").write_text(f"10.0.0.1 {HOST} # registry-trust\n")
    where = f"/home/ann/{name}"

    first = machine.run(NEW.script("10.1.2.3"), "--root", where, shell=shell)
    before = snapshot(there)
    second = machine.run(NEW.script("10.1.2.3"), "--root", where, shell=shell)

    assert (first.returncode, first.stderr) == (second.returncode, second.stderr) == (0, "")
    for engine in SYSTEM:
        assert installed(there / "etc" / engine) == NEW.files()
    assert (there / "etc/hosts").read_text() == OUR_LINE
    assert snapshot(there) == before
    assert list(machine.tmp.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_home_and_key_are_called_they_are_found(
    machine: Machine, shell: Shell, name: str
) -> None:
    home = machine.home / name
    home.mkdir()
    (home / name).write_text(NEW.key)
    inside = f"/home/ann/{name}"

    ran = machine.run(
        NEW.script(with_key=False), "--key", f"{inside}/{name}", shell=shell, user=1000, HOME=inside
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    for engine in SYSTEM:
        assert installed(home / ".config" / engine) == NEW.files()
    assert list(machine.tmp.iterdir()) == []
