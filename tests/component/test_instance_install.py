"""The command *install* run for real, before the real nginx and a real registry."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.instance_host import InstallReport, InstallResult, install_command, report_in
from tests.component.instance_machine import ENGINES, INSTANCE, Instance, outcome
from tests.component.real_host import (
    NAME,
    RealHost,
    free_port,
    layout_under,
    port_of,
    running_host,
    running_nginx,
)
from tests.component.sandboxed_machine import ANN, DASH, Shell, shells, snapshot
from tests.component.throwaway_pki import Leaf, ThrowawayCa, certificate_pem, key_pem

WORKS = InstallReport(InstallResult.WORKS)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHost]:
    with running_host(tmp_path_factory.mktemp("host"), NAME) as host:
        yield host


@pytest.fixture
def machine(tmp_path: Path, host: RealHost) -> Instance:
    made = Instance(tmp_path, registry=host.layout.registry)
    made.shim("sleep", 'echo "$1" >>/tmp/slept')
    return made


@pytest.fixture(params=shells(), ids=lambda shell: shell.name)
def shell(request: pytest.FixtureRequest) -> Shell:
    chosen: Shell = request.param
    return chosen


@pytest.fixture(params=["curl", "openssl"])
def client(request: pytest.FixtureRequest, machine: Instance) -> str:
    """What the instance has to try the registry with."""
    if request.param == "openssl":
        machine.hidden = {"curl"}
    return str(request.param)


@dataclass(frozen=True)
class Setting:
    """What an install command is made of."""

    leaf: Leaf
    server_ca: ThrowawayCa
    registry: str
    address: str = "127.0.0.1"

    @property
    def script(self) -> str:
        certificate = certificate_pem(self.leaf.certificate).decode()
        ca = self.server_ca.pem.decode()
        return install_command(
            Bundle(self.registry, ca, certificate, ca, None, self.address), INSTANCE
        )


def admitted(host: RealHost) -> Setting:
    return Setting(host.client_ca.client(INSTANCE), host.server_ca, host.layout.registry)


def give_key(machine: Instance, leaf: Leaf) -> None:
    """For the registry that the machine is at."""
    machine.make_directory()
    machine.key_file.unlink(missing_ok=True)
    machine.key_file.touch(mode=0o600)
    machine.key_file.write_bytes(key_pem(leaf.key))


def tried(machine: Instance, setting: Setting, shell: Shell = DASH) -> InstallReport:
    """The report, of an instance that has the key."""
    machine.registry = setting.registry
    give_key(machine, setting.leaf)
    ran = machine.run(setting.script, shell=shell)
    report = report_in(outcome(ran))
    assert ran.returncode == (0 if report.result is InstallResult.WORKS else 1)
    last = ran.stdout.splitlines()[-1]
    assert last == f"registry-trust: {report.result} {report.detail}".strip()
    assert machine.leftovers() == []
    return report


def pairs(machine: Instance) -> dict[str, tuple[str, str]]:
    """Certificate and key of each engine that has any; what is laid aside no engine reads."""
    found = {}
    for engine in ENGINES:
        for certificate in (machine.etc / engine / "certs.d").glob("[!.]*/client.cert"):
            key = certificate.with_name("client.key")
            found[engine] = (certificate.read_text(), key.read_text() if key.exists() else "")
    return found


def pair(leaf: Leaf) -> tuple[str, str]:
    return certificate_pem(leaf.certificate).decode(), key_pem(leaf.key).decode()


def test_installed_and_seen_to_work(
    host: RealHost, machine: Instance, shell: Shell, client: str
) -> None:
    setting = admitted(host)

    assert tried(machine, setting, shell) == WORKS

    assert pairs(machine) == dict.fromkeys(ENGINES, pair(setting.leaf))
    for engine in ENGINES:
        key = machine.etc / engine / "certs.d" / setting.registry / "client.key"
        assert key.stat().st_mode & 0o7777 == 0o600
    assert (machine.etc / "hosts").read_text() == f"127.0.0.1 {NAME} # registry-trust\n"
    assert not (machine.tmp / "slept").exists()


def test_a_second_run_changes_nothing_and_works_again(
    host: RealHost, machine: Instance, shell: Shell
) -> None:
    setting = admitted(host)
    tried(machine, setting, shell)
    before = snapshot(machine.etc / "docker") | snapshot(machine.etc / "containers")
    key = machine.key

    ran = machine.run(setting.script, shell=shell)

    assert report_in(outcome(ran)) == WORKS
    assert snapshot(machine.etc / "docker") | snapshot(machine.etc / "containers") == before
    assert machine.key == key


def test_a_new_certificate_takes_the_place_of_the_old(host: RealHost, machine: Instance) -> None:
    old, new = admitted(host), admitted(host)
    tried(machine, old)
    assert tried(machine, new) == WORKS
    assert pairs(machine) == dict.fromkeys(ENGINES, pair(new.leaf))


def test_of_two_registries_installed_at_once_both_keep_their_line_in_the_hosts_file(
    host: RealHost, machine: Instance, shell: Shell
) -> None:
    """Each looks at the file before the other has written it, if nothing keeps it from that."""
    names = ("one.team.test:1", "two.team.test:1")
    for number, registry in enumerate(names):
        setting = replace(admitted(host), registry=registry)
        machine.registry = registry
        give_key(machine, setting.leaf)
        (machine.tmp / f"install{number}").write_text(setting.script)
    move = shutil.which("mv")
    machine.shim("mv", f'case $* in *hosts*) /bin/sleep 0.5 ;; esac; exec {move} "$@"')
    both = "sh /tmp/install0 & sh /tmp/install1; wait"

    ran = machine.run(both, shell=shell)

    assert ran.stdout.count("registry-trust: unreachable") == 2
    lines = sorted((machine.etc / "hosts").read_text().splitlines())
    assert lines == [f"127.0.0.1 {n.removesuffix(':1')} # registry-trust" for n in names]


# --- what keeps it from working -------------------------------------------------------------------


def test_a_revoked_certificate_is_reported_refused(
    host: RealHost, tmp_path: Path, machine: Instance, client: str
) -> None:
    revoked = host.client_ca.client(INSTANCE)
    elsewhere = RealHost(
        replace(layout_under(tmp_path / "revoking"), registry=NAME),
        tmp_path, host.server_ca, host.client_ca,
    )  # fmt: skip
    port = free_port()
    layout = replace(elsewhere.layout, registry=f"{NAME}:{port}", listen=(f"127.0.0.1:{port}",))
    elsewhere.layout = layout
    elsewhere.write_files(revoked=(revoked.serial,))
    with running_nginx(layout):
        report = tried(machine, Setting(revoked, host.server_ca, layout.registry))

    reason = "403 this client certificate has been revoked"
    assert report == InstallReport(InstallResult.REFUSED, reason)
    assert (machine.tmp / "slept").read_text() == "3\n"


def test_a_certificate_of_a_stranger_is_reported_refused(
    host: RealHost, machine: Instance, client: str
) -> None:
    stranger = ThrowawayCa("strangers").client(INSTANCE)
    report = tried(machine, replace(admitted(host), leaf=stranger))
    assert report.result is InstallResult.REFUSED
    assert report.detail.startswith("403 the client certificate was refused")


def test_an_answer_that_is_no_admission_is_reported_with_its_status(
    host: RealHost, tmp_path: Path, machine: Instance, client: str
) -> None:
    """An nginx with no registry behind it."""
    layout = layout_under(tmp_path / "alone", NAME)
    alone = RealHost(layout, tmp_path, host.server_ca, host.client_ca)
    alone.write_files()
    with running_nginx(layout):
        report = tried(machine, replace(admitted(host), registry=layout.registry))
    assert report.result is InstallResult.REFUSED
    assert report.detail == "503 the registry is not answering; try again shortly"


def test_a_server_that_another_ca_vouches_for_is_not_the_registry(
    host: RealHost, machine: Instance, client: str
) -> None:
    report = tried(machine, replace(admitted(host), server_ca=ThrowawayCa("others")))
    assert report.result is InstallResult.UNREACHABLE
    assert "certificate" in report.detail


def test_a_server_with_another_name_is_not_the_registry(
    host: RealHost, machine: Instance, client: str
) -> None:
    other = f"other.team.test:{port_of(host.layout)}"
    report = tried(machine, replace(admitted(host), registry=other))
    assert report.result is InstallResult.UNREACHABLE
    assert "name" in report.detail.lower()


def test_the_cas_of_the_system_do_not_count(host: RealHost, machine: Instance, client: str) -> None:
    """The server's CA is where OpenSSL and curl look for the system's."""
    certificates = machine.etc / "ssl/certs"
    certificates.mkdir(parents=True)
    (machine.etc / "ssl/cert.pem").write_bytes(host.server_ca.pem)
    (certificates / "ca-certificates.crt").write_bytes(host.server_ca.pem)
    (certificates / "ca.pem").write_bytes(host.server_ca.pem)
    rehash = shutil.which("openssl") or "openssl"
    subprocess.run([rehash, "rehash", str(certificates)], check=True)
    links = [p for p in certificates.iterdir() if p.name.endswith(".0")]
    assert links

    report = tried(machine, replace(admitted(host), server_ca=ThrowawayCa("others")))

    assert report.result is InstallResult.UNREACHABLE


@pytest.mark.parametrize(
    ("registry", "address"),
    [(f"{NAME}:1", "127.0.0.1"), ("no-such-name.invalid:443", "")],
    ids=["nobody listens", "no such name"],
)
def test_without_a_registry_it_is_installed_and_reported_unreachable(
    host: RealHost, machine: Instance, shell: Shell, client: str, registry: str, address: str
) -> None:
    setting = replace(admitted(host), registry=registry, address=address)
    report = tried(machine, setting, shell)
    assert report.result is InstallResult.UNREACHABLE
    assert report.detail
    assert pairs(machine) == dict.fromkeys(ENGINES, pair(setting.leaf))


def test_no_proxy_is_asked(host: RealHost, machine: Instance, client: str) -> None:
    setting = admitted(host)
    give_key(machine, setting.leaf)
    proxy = "http://127.0.0.1:1"
    ran = machine.run(setting.script, https_proxy=proxy, HTTPS_PROXY=proxy, ALL_PROXY=proxy)
    assert report_in(outcome(ran)) == WORKS


@contextmanager
def free_listener() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener.getsockname()[1]


def test_a_registry_that_never_answers_is_given_up(
    host: RealHost, machine: Instance, client: str
) -> None:
    """The times are shortened; that there are any is what counts."""
    with free_listener() as port:
        machine.registry = f"{NAME}:{port}"
        setting = replace(admitted(host), registry=machine.registry)
        script = setting.script
        assert (script.count("--max-time 10"), script.count("timeout 10")) == (1, 1)
        give_key(machine, setting.leaf)
        quick = script.replace("--max-time 10", "--max-time 1").replace("timeout 10", "timeout 1")
        report = report_in(outcome(machine.run(quick)))
    assert report.result is InstallResult.UNREACHABLE


# --- what keeps it from installing ----------------------------------------------------------------


@pytest.mark.parametrize("there", ["none", "another", "readable by others"])
def test_without_the_key_that_was_certified_nothing_changes(
    host: RealHost, machine: Instance, shell: Shell, there: str
) -> None:
    setting = admitted(host)
    if there != "none":
        give_key(machine, setting.leaf if there == "readable by others" else admitted(host).leaf)
    if there == "readable by others":
        machine.key_file.chmod(0o640)

    ran = machine.run(setting.script, shell=shell)

    report = report_in(outcome(ran))
    assert (ran.returncode, report.result) == (1, InstallResult.NEEDS_KEY)
    assert [p.name for p in machine.etc.iterdir()] == ["registry-trust"]
    assert machine.leftovers() == []


def test_an_installer_that_fails_is_reported_with_its_reason(
    host: RealHost, machine: Instance, shell: Shell
) -> None:
    setting = admitted(host)
    (machine.etc / "docker").mkdir()
    give_key(machine, setting.leaf)
    machine.read_only = ["docker"]

    ran = machine.run(setting.script, shell=shell)

    reason = "cannot write in /etc/docker/certs.d; nothing was changed"
    assert report_in(outcome(ran)) == InstallReport(InstallResult.NOT_INSTALLED, reason)
    assert f"registry-trust: {reason}\n" in ran.stderr
    assert pairs(machine) == {}


def test_not_run_by_root_it_reports_so(host: RealHost, machine: Instance) -> None:
    ran = machine.run(admitted(host).script, user=ANN)
    expected = InstallReport(InstallResult.NOT_INSTALLED, "run this as root")
    assert (ran.returncode, report_in(outcome(ran))) == (1, expected)


@pytest.mark.parametrize("signal", ["TERM", "HUP", "INT"])
def test_interrupted_it_reports_so_and_leaves_nothing(
    host: RealHost, machine: Instance, shell: Shell, signal: str
) -> None:
    setting = admitted(host)
    give_key(machine, setting.leaf)
    machine.shim("grep", f"kill -{signal} $(cat /tmp/pid); exit 1")
    (machine.etc / "containerd/certs.d" / setting.registry).mkdir(parents=True)
    (machine.etc / "containerd/certs.d" / setting.registry / "hosts.toml").write_text("ours not")
    ran = machine.run(f"echo $$ >/tmp/pid\n{setting.script}", shell=shell)
    report = report_in(outcome(ran))
    assert report.result is InstallResult.NOT_INSTALLED
    assert report.detail == "interrupted; please run it again"
    assert machine.leftovers() == []


def test_no_key_is_shown_or_passed_to_a_command(
    host: RealHost, machine: Instance, shell: Shell, client: str
) -> None:
    """xtrace shows every command with its arguments, and every comparison."""
    setting = admitted(host)
    give_key(machine, setting.leaf)
    ran = machine.run(setting.script, shell=shell, flags=["-x"])
    assert ran.returncode == 0
    for line in machine.key.splitlines():
        assert line not in ran.stdout + ran.stderr


def test_a_command_that_breaks_off_on_its_way_does_nothing(
    host: RealHost, machine: Instance
) -> None:
    setting = admitted(host)
    script = setting.script.rstrip("\n")
    give_key(machine, setting.leaf)
    before = snapshot(machine.etc)
    for end in [*range(0, len(script), 907), *range(len(script) - 8, len(script))]:
        machine.run(script[:end])
        assert snapshot(machine.etc) == before


@pytest.mark.parametrize("before", ["nothing", "another certificate", "the same key"])
def test_when_the_power_fails_at_any_command_each_engine_has_a_pair_that_fits(
    host: RealHost, machine: Instance, before: str
) -> None:
    """And the next run ends well. It stops at the first number of commands that is not reached."""
    setting = admitted(host)
    old = None if before == "nothing" else admitted(host).leaf
    if before == "the same key":
        old = host.client_ca.client(INSTANCE, key=setting.leaf.key)
    number, done = 1, False
    start = machine.top / "start"
    if old is not None:
        tried(machine, replace(setting, leaf=old))
    shutil.copytree(machine.etc, start, symlinks=True)
    allowed = [pair(setting.leaf), *([pair(old)] if old else [])]
    while not done:
        for name in machine.etc.iterdir():
            shutil.rmtree(name) if name.is_dir() else name.unlink()
        shutil.copytree(start, machine.etc, symlinks=True, dirs_exist_ok=True)
        give_key(machine, setting.leaf)
        machine.dies_at(number)
        done = "registry-trust: " in machine.run(setting.script).stdout
        machine.lives()

        found = pairs(machine)
        assert all(each in allowed for each in found.values()), (number, found)
        assert machine.key == key_pem(setting.leaf.key).decode()
        if number % 5 == 0 or done or before == "another certificate":
            ran = machine.run(setting.script)
            assert report_in(outcome(ran)) == WORKS
            assert pairs(machine) == dict.fromkeys(ENGINES, pair(setting.leaf))
            assert machine.leftovers() == []
        number += 1
    print(f"{number - 2} points")
    assert number > 40
