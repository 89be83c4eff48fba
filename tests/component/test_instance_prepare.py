"""The command *prepare* run for real: a key is born on the instance, and a CSR comes out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chalicelib.domain.instance_host import csr_in, prepare_command
from tests.component.instance_machine import (
    EVERYTHING,
    INSTANCE,
    NONCE,
    OTHER,
    REGISTRY,
    Instance,
    csr_key,
    outcome,
)
from tests.component.sandboxed_machine import ANN, DASH, Shell, shells, snapshot
from tests.component.throwaway_pki import key_pem, new_key

PREPARE = prepare_command(INSTANCE, NONCE, REGISTRY, new_key=False)
AFRESH = prepare_command(INSTANCE, NONCE, REGISTRY, new_key=True)


@pytest.fixture
def machine(tmp_path: Path) -> Instance:
    return Instance(tmp_path)


@pytest.fixture(params=shells(), ids=lambda shell: shell.name)
def shell(request: pytest.FixtureRequest) -> Shell:
    chosen: Shell = request.param
    return chosen


def csr_of(ran: subprocess.CompletedProcess[str]) -> bytes:
    assert (ran.returncode, ran.stderr) == (0, "")
    return csr_in(outcome(ran), INSTANCE, NONCE)


def assert_one_good_key(machine: Instance) -> None:
    assert sorted(p.name for p in machine.directory.iterdir()) == [".lock", f"{INSTANCE}.key"]
    assert machine.key_file.stat().st_mode & 0o7777 == 0o600
    assert not machine.key_file.is_symlink()
    assert machine.private_key().curve.name == "secp256r1"
    assert machine.leftovers() == []


def test_a_key_is_made_that_only_root_may_read(machine: Instance, shell: Shell) -> None:
    csr = csr_of(machine.run(PREPARE, shell=shell))

    assert_one_good_key(machine)
    assert machine.directory.stat().st_mode & 0o7777 == 0o700
    assert machine.directory.parent.stat().st_mode & 0o7777 == 0o755
    assert csr_key(csr) == machine.public_key()


def test_a_second_run_asks_again_for_the_same_key(machine: Instance, shell: Shell) -> None:
    first = csr_of(machine.run(PREPARE, shell=shell))
    before = machine.key

    second = csr_of(machine.run(PREPARE, shell=shell))

    assert machine.key == before
    assert first != second
    assert csr_key(first) == csr_key(second)


def test_a_new_key_takes_the_place_of_a_good_one_only_when_asked(
    machine: Instance, shell: Shell
) -> None:
    first = csr_of(machine.run(PREPARE, shell=shell))

    second = csr_of(machine.run(AFRESH, shell=shell))

    assert csr_key(first) != csr_key(second) == machine.public_key()
    assert_one_good_key(machine)


def p384() -> str:
    form = serialization.PrivateFormat.PKCS8
    key = ec.generate_private_key(ec.SECP384R1())
    return key.private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    ).decode()


GOOD = key_pem(new_key()).decode()
UNUSABLE = {
    "empty": "",
    "half written": GOOD[:80],
    "no key": "hello\n",
    "a kind of key that prepare does not make": p384(),
    "readable by others": GOOD,
    "a link": GOOD,
    "a link to nothing": None,
    "a directory": None,
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_an_unusable_key_is_replaced(machine: Instance, shell: Shell, what: str) -> None:
    machine.make_directory(mode=0o700)
    key, content = machine.key_file, UNUSABLE[what]
    if content is not None:
        key.touch(mode=0o600)
        key.write_text(content)
    if what == "readable by others":
        key.chmod(0o644)
    if what == "a link":
        key.rename(machine.home / "elsewhere")
        key.symlink_to("/home/ann/elsewhere")
    if what == "a link to nothing":
        key.symlink_to("/home/ann/nothing")
    if what == "a directory":
        key.mkdir()
        (key / "file").touch()

    csr = csr_of(machine.run(PREPARE, shell=shell))

    assert_one_good_key(machine)
    assert csr_key(csr) == machine.public_key()
    assert machine.key != GOOD
    if what == "a link":
        assert (machine.home / "elsewhere").read_text() == GOOD


def test_a_good_key_is_kept_so_the_tests_above_mean_something(machine: Instance) -> None:
    machine.make_directory(mode=0o700)
    machine.key_file.touch(mode=0o600)
    machine.key_file.write_text(GOOD)
    csr_of(machine.run(PREPARE))
    assert machine.key == GOOD


def test_the_keys_that_a_machine_image_brought_are_removed(machine: Instance, shell: Shell) -> None:
    machine.make_directory()
    (machine.directory / f"{OTHER}.key").write_text(GOOD)
    (machine.directory / f"{OTHER}.csr").write_text("of a boot")
    (machine.directory / ".work.2000000").mkdir()
    (machine.directory / ".work.2000000/key").write_text(GOOD)

    csr_of(machine.run(PREPARE, shell=shell))

    assert_one_good_key(machine)


def test_the_certificate_that_a_machine_image_brought_is_removed_from_every_engine(
    machine: Instance, shell: Shell
) -> None:
    """This registry's alone; and of that the CAs stay."""
    machine.make_directory()
    (machine.directory / f"{OTHER}.key").write_text(GOOD)
    brought, of_another = machine.give_engines(), machine.give_engines("registry.team.test")
    (brought[0].parent / "ca.crt").write_text("CAs")

    csr_of(machine.run(PREPARE, shell=shell))

    assert [each for each in brought if each.exists()] == []
    assert all(each.exists() for each in of_another)
    assert (brought[0].parent / "ca.crt").exists()
    assert_one_good_key(machine)


@pytest.mark.parametrize("why", ["nothing says that this is a copy", "it has a key of its own"])
@pytest.mark.parametrize("script", [PREPARE, AFRESH], ids=["a key", "a new key"])
def test_another_certificate_that_engines_have_works_on_until_the_new_one_is_there(
    machine: Instance, shell: Shell, why: str, script: str
) -> None:
    """One that an owner asked for by hand, or that was not replaced yet."""
    machine.make_directory()
    if why == "it has a key of its own":
        (machine.directory / f"{OTHER}.key").write_text(GOOD)
        machine.key_file.touch(mode=0o600)
        machine.key_file.write_text(GOOD)
    there = machine.give_engines()
    before = [snapshot(each) for each in there]

    csr_of(machine.run(script, shell=shell))

    assert [snapshot(each) for each in there] == before


def test_an_engine_whose_files_cannot_be_removed_keeps_both(machine: Instance) -> None:
    machine.make_directory()
    (machine.directory / f"{OTHER}.key").write_text(GOOD)
    brought = machine.give_engines()
    machine.read_only = ["docker"]

    ran = machine.run(PREPARE)

    assert [each for each in brought if each.exists()] == brought[:2]
    key = f"/etc/docker/certs.d/{REGISTRY}/client.key"
    assert (ran.returncode, ran.stderr) == (0, f"registry-trust: cannot remove {key}\n")


def test_what_a_registry_host_keeps_beside_it_stays_as_it_is(machine: Instance) -> None:
    machine.directory.parent.mkdir()
    machine.directory.parent.chmod(0o750)
    (machine.directory.parent / "refresh.env").write_text("of a registry host")

    csr_of(machine.run(PREPARE))

    there = sorted(p.name for p in machine.directory.parent.iterdir())
    assert there == ["refresh.env", REGISTRY]
    assert machine.directory.parent.stat().st_mode & 0o7777 == 0o750


def test_two_registries_keys_on_one_machine_are_none_of_each_others_business(
    machine: Instance, shell: Shell
) -> None:
    first = csr_of(machine.run(PREPARE, shell=shell))
    before = snapshot(machine.directory)
    for registry in ("registry.team.test", "registry.team.test:9443"):
        other = prepare_command(INSTANCE, NONCE, registry, new_key=True)
        assert csr_key(csr_of(machine.run(other, shell=shell))) != csr_key(first)

    assert snapshot(machine.directory) == before
    assert csr_key(csr_of(machine.run(PREPARE, shell=shell))) == csr_key(first)


@pytest.mark.parametrize("flock", [True, False], ids=["with flock", "without flock"])
def test_of_two_runs_at_once_both_ask_for_the_one_key_that_stays(
    machine: Instance, shell: Shell, flock: bool
) -> None:
    if not flock:
        machine.hidden = {"flock"}
    (machine.tmp / "prepare").write_text(PREPARE)
    # Both have looked before either has made its key; and were it moved, one after the other.
    openssl = shutil.which("openssl")
    pause = "mkdir /tmp/first 2>/dev/null || sleep 0.6"
    machine.shim("mv", f'{pause}; exec {shutil.which("mv")} "$@"')
    machine.shim("openssl", f'case $1 in genpkey) sleep 0.3 ;; esac; exec {openssl} "$@"')
    both = "sh /tmp/prepare >/tmp/one & sh /tmp/prepare >/tmp/two; two=$?; wait $! && exit $two"

    ran = machine.run(both, shell=shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    for name in ("one", "two"):
        printed = subprocess.CompletedProcess([], 0, (machine.tmp / name).read_text(), "")
        assert csr_key(csr_of(printed)) == machine.public_key()
    assert_one_good_key(machine)


def test_a_run_that_lives_keeps_its_files_where_there_is_no_flock(machine: Instance) -> None:
    machine.hidden = {"flock"}
    (machine.directory / ".work.1").mkdir(parents=True)
    csr_of(machine.run(PREPARE))
    assert (machine.directory / ".work.1").exists()


def test_no_key_is_shown_or_passed_to_a_command(machine: Instance, shell: Shell) -> None:
    """xtrace shows every command with its arguments, and every comparison."""
    ran = machine.run(AFRESH, shell=shell, flags=["-x"])

    assert ran.returncode == 0
    assert "genpkey" in ran.stderr
    for line in machine.key.splitlines():
        assert line not in ran.stdout + ran.stderr


def test_a_command_that_breaks_off_on_its_way_does_nothing(machine: Instance) -> None:
    script = PREPARE.rstrip("\n")
    for end in [*range(0, len(script), 97), *range(len(script) - 8, len(script))]:
        assert machine.run(script[:end]).stdout == ""
        assert list(machine.etc.iterdir()) == []


# --- when it cannot -------------------------------------------------------------------------------


def refused(machine: Instance, reason: str, **options: int) -> None:
    ran = machine.run(PREPARE, **options)  # type: ignore[arg-type]
    assert ran.returncode == 1
    assert (ran.stdout, ran.stderr) == ("", f"registry-trust: {reason}\n")


def test_it_says_in_one_line_why_it_cannot(machine: Instance) -> None:
    refused(machine, "run this as root", user=ANN)
    machine.read_only = ["."]
    refused(machine, "cannot make /etc/registry-trust")
    machine.read_only = []
    for directory in (machine.directory.parent, machine.directory):
        directory.parent.mkdir(exist_ok=True)
        there = f"/etc/{directory.relative_to(machine.etc)}"
        directory.symlink_to("/home/ann")
        refused(machine, f"{there} is a link; please remove it")
        directory.unlink()
        directory.write_text("")
        refused(machine, f"cannot make {there}")
        directory.unlink()
    machine.shim("openssl", "exit 1")
    refused(machine, "openssl could not make a key")
    assert machine.leftovers() == []


def test_where_it_may_not_write_a_good_key_stays(machine: Instance) -> None:
    csr_of(machine.run(PREPARE))
    before = snapshot(machine.directory)
    machine.read_only = ["registry-trust"]
    refused(machine, f"cannot write in /etc/registry-trust/{REGISTRY}")
    assert snapshot(machine.directory) == before


@pytest.mark.parametrize("signal", ["TERM", "HUP", "INT"])
def test_interrupted_it_leaves_nothing_behind(machine: Instance, shell: Shell, signal: str) -> None:
    openssl = shutil.which("openssl")
    machine.shim("openssl", f'{openssl} "$@"; kill -{signal} "$PPID"; exit 0')

    ran = machine.run(PREPARE, shell=shell)

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "registry-trust: interrupted; please run it again\n"
    assert machine.leftovers() == []


def test_when_the_power_fails_on_a_copy_no_engine_has_a_certificate_without_its_key(
    machine: Instance,
) -> None:
    """And the next run removes what is left. It stops when all commands were reached."""
    number, printed = 1, ""
    while not printed:
        shutil.rmtree(machine.directory, ignore_errors=True)
        machine.make_directory()
        (machine.directory / f"{OTHER}.csr").write_text("of a boot")
        (machine.directory / f"{OTHER}.key").write_text(GOOD)
        brought = machine.give_engines()
        machine.dies_at(number)
        printed = machine.run(PREPARE, shell=DASH).stdout
        machine.lives()

        for certificate, key in zip(brought[::2], brought[1::2], strict=True):
            assert key.exists() or not certificate.exists()
        csr_of(machine.run(PREPARE))
        assert [each for each in brought if each.exists()] == []
        assert_one_good_key(machine)
        number += 1
    assert number > 16


@pytest.mark.parametrize("script", [PREPARE, AFRESH], ids=["a key", "a new key"])
@pytest.mark.parametrize("old", [None, GOOD, "spoilt"], ids=["none", "good", "spoilt"])
def test_when_the_power_fails_at_any_command_there_is_the_old_key_or_a_new_one(
    machine: Instance, script: str, old: str | None
) -> None:
    """And the next run ends well. It stops at the first number of commands that is not reached."""
    number, printed = 1, ""
    while not printed:
        shutil.rmtree(machine.directory, ignore_errors=True)
        if old is not None:
            machine.make_directory(mode=0o700)
            machine.key_file.touch(mode=0o600)
            machine.key_file.write_text(old)
        machine.dies_at(number)
        printed = machine.run(script, shell=DASH).stdout
        machine.lives()

        if machine.key_file.exists() and machine.key != old:
            assert machine.key_file.stat().st_mode & 0o7777 == 0o600
            machine.private_key()
        else:
            assert old is None or machine.key == old
        before = machine.key if machine.key_file.exists() else None
        csr = csr_of(machine.run(PREPARE))
        assert_one_good_key(machine)
        assert csr_key(csr) == machine.public_key()
        if before not in (None, "spoilt"):
            assert machine.key == before
        number += 1
    assert number > 8
    assert set(EVERYTHING) > {"openssl", "mv", "ln", "rm", "mkdir"}
    print(f"{number - 2} points")
