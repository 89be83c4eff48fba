"""The installer run for real, on machines with their own /etc and home."""

from __future__ import annotations

import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.installer import installer
from tests.component.sandboxed_machine import ANN, DASH, NEEDED, Machine, Shell, shells, snapshot
from tests.component.throwaway_pki import ThrowawayCa, certificate_pem, key_pem, new_key

REGISTRY = "registry.example.com:8443"
HOST = "registry.example.com"
OUR_LINE = f"10.1.2.3 {HOST} # registry-trust\n"
SERVERS, CLIENTS = ThrowawayCa("servers"), ThrowawayCa("clients")
SYSTEM = ("docker", "containers")
FILES = ("ca.crt", "client.cert", "client.key")


@dataclass(frozen=True)
class Issue:
    """A certificate and its key, and the installers that bring it."""

    certificate: str
    key: str

    def files(self, ca: str = SERVERS.pem.decode()) -> dict[str, str]:
        return {"ca.crt": ca, "client.cert": self.certificate, "client.key": self.key}

    def script(self, address: str = "", *, with_key: bool = True) -> str:
        key = self.key if with_key else None
        ca, issuer = SERVERS.pem.decode(), CLIENTS.pem.decode()
        return installer(Bundle(REGISTRY, ca, self.certificate, issuer, key, address))


def issue(name: str) -> Issue:
    leaf = CLIENTS.client(name)
    return Issue(certificate_pem(leaf.certificate).decode(), key_pem(leaf.key).decode())


OLD, NEW = issue("old"), issue("a+=,.@_-b")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture(params=shells(), ids=lambda shell: shell.name)
def shell(request: pytest.FixtureRequest) -> Shell:
    chosen: Shell = request.param
    return chosen


def certs(directory: Path) -> Path:
    return directory / "certs.d" / REGISTRY


def installed(directory: Path) -> dict[str, str]:
    """The files for the registry below an engine's directory."""
    found = certs(directory)
    return {p.name: p.read_text() for p in found.glob("*") if p.is_file()}


def modes(directory: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mode & 0o7777 for p in certs(directory).iterdir()}


MODES = {"ca.crt": 0o644, "client.cert": 0o644, "client.key": 0o600}


def test_a_fresh_machine_is_set_up_for_every_user(machine: Machine, shell: Shell) -> None:
    ran = machine.run(NEW.script("10.1.2.3"), shell=shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    for engine in SYSTEM:
        assert installed(machine.etc / engine) == NEW.files()
        assert modes(machine.etc / engine) == MODES
        assert f"/etc/{engine}/certs.d/{REGISTRY}\n" in ran.stdout
        for directory in (certs(machine.etc / engine), *certs(machine.etc / engine).parents[:2]):
            assert directory.stat().st_mode & 0o7777 == 0o755
    owners = {p.stat().st_uid for p in machine.etc.rglob("*")}
    assert owners == {machine.etc.stat().st_uid}
    assert (machine.etc / "hosts").read_text() == OUR_LINE
    assert f"pull {REGISTRY}/" in ran.stdout
    assert_nothing_else(machine, *SYSTEM, "hosts")


def assert_nothing_else(machine: Machine, *in_etc: str) -> None:
    """No temporary file, nor anything that nobody asked for."""
    assert {p.name for p in machine.etc.iterdir()} == set(in_etc)
    assert list(machine.tmp.iterdir()) == []
    hidden = [p for top in (machine.etc, machine.home) for p in top.rglob(".registry-trust*")]
    assert hidden == []


def test_a_second_run_changes_nothing(machine: Machine, shell: Shell) -> None:
    script = NEW.script("10.1.2.3")
    (machine.etc / "containerd").mkdir()
    machine.run(script, shell=shell)
    before = snapshot(machine.etc)

    ran = machine.run(script, shell=shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert snapshot(machine.etc) == before
    assert ran.stdout.count("already up to date") == 3


def test_shasum_does_where_there_is_no_sha256sum(machine: Machine) -> None:
    """As on macOS."""
    for name in NEEDED:
        if name != "sha256sum":
            machine.shim(name, f'exec {shutil.which(name)} "$@"')
    sha256sum = shutil.which("sha256sum")
    machine.shim("shasum", f'test "$1 $2" = "-a 256" && shift 2 && exec {sha256sum} "$@"')
    script, elsewhere = NEW.script(), Shell(DASH.name, DASH.command, path="/opt/nothing")

    first, second = (machine.run(script, shell=elsewhere) for _ in range(2))

    assert (first.returncode, first.stderr) == (second.returncode, second.stderr) == (0, "")
    assert installed(machine.etc / "docker") == NEW.files()
    assert second.stdout.count("already up to date") == 2


def test_a_new_certificate_takes_the_place_of_an_old_one(machine: Machine, shell: Shell) -> None:
    machine.run(OLD.script(), shell=shell)
    foreign = certs(machine.etc / "docker") / "other.crt"
    foreign.write_text("somebody else's")

    ran = machine.run(NEW.script(), shell=shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert installed(machine.etc / "containers") == NEW.files()
    assert installed(machine.etc / "docker") == {**NEW.files(), "other.crt": "somebody else's"}
    assert modes(machine.etc / "containers") == MODES
    assert_nothing_else(machine, *SYSTEM)


def test_a_file_that_is_still_right_is_left_as_it_is(machine: Machine) -> None:
    machine.run(OLD.script())
    ca = certs(machine.etc / "docker") / "ca.crt"
    before = snapshot(ca)

    machine.run(NEW.script())

    assert snapshot(ca) == before


@pytest.mark.parametrize("spoil", ["mode", "link"])
def test_a_file_of_the_wrong_mode_or_kind_is_put_right(machine: Machine, spoil: str) -> None:
    machine.run(NEW.script())
    key = certs(machine.etc / "docker") / "client.key"
    if spoil == "mode":
        key.chmod(0o644)
    else:
        key.rename(machine.etc / "docker" / "key")
        key.symlink_to("../../key")

    assert machine.run(NEW.script()).returncode == 0

    assert modes(machine.etc / "docker") == MODES
    assert not key.is_symlink()


# The caller's own key


def test_a_certificate_from_a_csr_takes_its_key_from_a_file(machine: Machine, shell: Shell) -> None:
    (machine.home / "my key").write_text(NEW.key)

    ran = machine.run(NEW.script(with_key=False), "--key", "/home/ann/my key", shell=shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert installed(machine.etc / "docker") == NEW.files()
    assert modes(machine.etc / "docker") == MODES


def test_the_key_that_is_installed_already_can_be_named(machine: Machine) -> None:
    machine.run(NEW.script())
    before = snapshot(machine.etc)
    key = f"/etc/docker/certs.d/{REGISTRY}/client.key"

    assert machine.run(NEW.script(with_key=False), "--key", key).returncode == 0

    assert snapshot(machine.etc) == before


def test_a_key_in_an_older_form_is_written_as_engines_read_it(machine: Machine) -> None:
    key = serialization.load_pem_private_key(NEW.key.encode(), None)
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (machine.home / "key.der").write_bytes(der)

    machine.run(NEW.script(with_key=False), "--key", "/home/ann/key.der")

    assert installed(machine.etc / "docker") == NEW.files()


def encrypted(key_text: str) -> str:
    key = serialization.load_pem_private_key(key_text.encode(), None)
    cipher = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, cipher).decode()


REFUSED_KEYS = {
    "another's": (key_pem(new_key()).decode(), "does not belong to this certificate"),
    "encrypted": (encrypted(NEW.key), "no private key, or an encrypted one"),
    "no key": (NEW.certificate, "no private key, or an encrypted one"),
    "empty": ("", "no private key, or an encrypted one"),
    "missing": (None, "cannot read the key"),
}


@pytest.mark.parametrize("what", sorted(REFUSED_KEYS))
def test_a_key_that_will_not_do_changes_nothing(machine: Machine, what: str) -> None:
    machine.run(OLD.script())
    content, complaint = REFUSED_KEYS[what]
    if content is not None:
        (machine.home / "key").write_text(content)
    before = snapshot(machine.etc)

    ran = machine.run(NEW.script(with_key=False), "--key", "/home/ann/key")

    assert (ran.returncode, ran.stdout) == (1, "")
    assert complaint in ran.stderr
    assert snapshot(machine.etc) == before
    assert_nothing_else(machine, *SYSTEM)


def test_a_key_that_the_caller_may_not_read_is_refused(machine: Machine) -> None:
    (machine.home / "key").write_text(NEW.key)
    (machine.home / "key").chmod(0)

    ran = machine.run(NEW.script(with_key=False), "--key", "/home/ann/key", user=ANN)

    assert ran.returncode == 1
    assert "cannot read the key /home/ann/key" in ran.stderr
    assert [p.name for p in machine.home.iterdir()] == ["key"]


# Calls


WRONG_CALLS = [
    (True, ["--no-such-option"]),
    (True, ["file"]),
    (True, ["--key", "/home/ann/key"]),
    (True, ["--root"]),
    (True, ["--root", "/no/such/directory"]),
    (False, []),
    (False, ["--key"]),
    (False, ["--key", ""]),
]


@pytest.mark.parametrize(("with_key", "options"), WRONG_CALLS)
def test_a_wrong_call_is_told_so(machine: Machine, with_key: bool, options: list[str]) -> None:
    ran = machine.run(NEW.script(with_key=with_key), *options)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Usage: " in ran.stderr
    assert_nothing_else(machine)


def test_help_says_what_it_takes_and_what_its_exit_means(machine: Machine, shell: Shell) -> None:
    ran = machine.run(NEW.script(with_key=False), "--help", shell=shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    for word in ("--key FILE", "--containerd", "--root DIR", "Exit: 0 ", "; 1 ", "; 2 "):
        assert word in ran.stdout
    assert_nothing_else(machine)


@pytest.mark.parametrize("with_key", [True, False])
def test_no_secret_is_shown_or_passed_to_a_command(
    machine: Machine, shell: Shell, with_key: bool
) -> None:
    """xtrace shows every command with its arguments, and every comparison."""
    (machine.home / "key").write_text(NEW.key)
    script, options = NEW.script(with_key=with_key), [] if with_key else ["--key", "/home/ann/key"]
    machine.run(OLD.script())

    ran = machine.run(script, *options, shell=shell, flags=["-x"])

    assert ran.returncode == 0
    assert "+ " in ran.stderr
    for line in NEW.key.splitlines() + OLD.key.splitlines():
        assert line not in ran.stdout + ran.stderr


def test_a_download_that_breaks_off_does_nothing(machine: Machine) -> None:
    script = NEW.script().rstrip("\n")
    ends = [*range(0, len(script), 701), *range(len(script) - 14, len(script))]
    for end in ends:
        machine.run(script[:end])
        assert_nothing_else(machine)
    assert machine.run(script).returncode == 0


# Where it installs


def test_an_unprivileged_user_is_set_up_alone(machine: Machine, shell: Shell) -> None:
    (machine.etc / "hosts").write_text("127.0.0.1 localhost\n")
    before = snapshot(machine.etc)

    first = machine.run(NEW.script("10.1.2.3"), shell=shell, user=ANN)
    made = snapshot(machine.home)
    second = machine.run(NEW.script("10.1.2.3"), shell=shell, user=ANN)

    assert (first.returncode, first.stderr) == (second.returncode, second.stderr) == (0, "")
    for engine in SYSTEM:
        assert installed(machine.home / ".config" / engine) == NEW.files()
        assert modes(machine.home / ".config" / engine) == MODES
    assert snapshot(machine.home) == made
    assert snapshot(machine.etc) == before
    assert OUR_LINE in first.stdout


def test_rootless_docker_is_looked_for_where_its_user_has_configuration(machine: Machine) -> None:
    script = NEW.script()
    (machine.home / "conf" / "containerd").mkdir(parents=True)

    machine.run(script, user=ANN, XDG_CONFIG_HOME="/home/ann/conf")

    assert installed(machine.home / "conf/docker") == NEW.files()
    assert installed(machine.home / ".config/containers") == NEW.files()
    assert "hosts.toml" in installed(machine.home / "conf/containerd")


def test_a_mac_is_set_up_for_docker_desktop(machine: Machine) -> None:
    machine.shim("uname", "echo Darwin")

    ran = machine.run(NEW.script(), user=ANN)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert installed(machine.home / ".docker") == NEW.files()
    assert modes(machine.home / ".docker") == MODES
    assert installed(machine.home / ".config/containers") == NEW.files()
    assert "restart Docker Desktop" in ran.stdout
    assert_nothing_else(machine)


def test_on_a_mac_root_is_sent_away(machine: Machine) -> None:
    machine.shim("uname", "echo Darwin")
    assert machine.run(NEW.script()).returncode == 1
    assert_nothing_else(machine)


def test_a_tree_can_be_filled_by_anyone(machine: Machine) -> None:
    tree = machine.home / "a tree"
    tree.mkdir()

    ran = machine.run(NEW.script("10.1.2.3"), "--root", "home/ann/a tree/", user=ANN)

    assert (ran.returncode, ran.stderr) == (0, "")
    for engine in SYSTEM:
        assert installed(tree / "etc" / engine) == NEW.files()
    assert (tree / "etc/hosts").read_text() == OUR_LINE
    assert [p.name for p in machine.home.iterdir()] == ["a tree"]
    assert_nothing_else(machine)


def test_without_a_home_there_is_a_clear_error(machine: Machine) -> None:
    ran = machine.run(NEW.script(), user=ANN, HOME="")
    assert (ran.returncode, "HOME" in ran.stderr) == (1, True)


# containerd


@pytest.mark.parametrize("how", ["asked", "directory", "command"])
def test_containerd_is_set_up_when_asked_or_found(machine: Machine, how: str) -> None:
    if how == "directory":
        (machine.etc / "containerd").mkdir()
    if how == "command":
        machine.shim("containerd", "exit 1")
    options = ["--containerd"] if how == "asked" else []

    ran = machine.run(NEW.script(), *options)

    assert (ran.returncode, ran.stderr) == (0, "")
    directory = certs(machine.etc / "containerd")
    hosts = tomllib.loads((directory / "hosts.toml").read_text())
    address, tls = f"https://{REGISTRY}", {key: hosts[key] for key in ("ca", "client")}
    does = {"capabilities": ["pull", "resolve", "push"]}
    assert hosts == {"server": address, **tls, "host": {address: {**does, **tls}}}
    assert {hosts["ca"], *hosts["client"][0]} == set(FILES)
    assert modes(machine.etc / "containerd") == {**MODES, "hosts.toml": 0o644}


SECTION = '[plugins."io.containerd.grpc.v1.cri".registry]\n'
CONFIGS = {
    SECTION + '  config_path = "/etc/containerd/certs.d"\n': False,
    SECTION + "config_path='/opt/certs.d:/etc/containerd/certs.d'\n": False,
    SECTION + '  config_path = ""\n': True,
    SECTION + '  # config_path = "/etc/containerd/certs.d"\n': True,
    "": True,
}


@pytest.mark.parametrize("config", CONFIGS)
def test_a_containerd_that_will_not_look_there_is_told_how(machine: Machine, config: str) -> None:
    (machine.etc / "containerd").mkdir()
    if config:
        (machine.etc / "containerd/config.toml").write_text(config)

    ran = machine.run(NEW.script())

    assert ('config_path = "/etc/containerd/certs.d"' in ran.stdout) is CONFIGS[config]
    file = machine.etc / "containerd/config.toml"
    assert (file.read_text() if file.exists() else "") == config


@pytest.mark.parametrize("complete", [True, False])
def test_a_hosts_toml_of_somebody_else_is_left_alone(machine: Machine, complete: bool) -> None:
    theirs = 'server = "https://mirror"\n' + 'client = [["client.cert", "client.key"]]\n' * complete
    directory = certs(machine.etc / "containerd")
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text(theirs)

    ran = machine.run(NEW.script())

    assert installed(machine.etc / "containerd") == {**NEW.files(), "hosts.toml": theirs}
    assert (ran.returncode, "was left alone" in ran.stderr) == (0, False) if complete else (1, True)
    assert ('  client = [["client.cert", "client.key"]]' in ran.stderr) is not complete


# /etc/hosts

TAB = "\t"
OTHERS = f"127.0.0.1{TAB}localhost\n# a comment\n10.9.9.9 other.example.com # registry-trust\n"
HOSTS = {
    "added at the end": (OTHERS, "10.1.2.3", OTHERS + OUR_LINE),
    "added after a last line without an end": (OTHERS.rstrip(), "10.1.2.3", OTHERS + OUR_LINE),
    "updated where it stands": (
        f"10.0.0.1 {HOST} # registry-trust\n{OTHERS}",
        "10.1.2.3",
        OUR_LINE + OTHERS,
    ),
    "kept once": (OUR_LINE + OTHERS + OUR_LINE, "10.1.2.3", OUR_LINE + OTHERS),
    "removed": (OUR_LINE + OTHERS, "", OTHERS),
    "never added": (OTHERS, "", OTHERS),
    "odd lines stay": ("\\n %s $(id) `id` *\n  x  \n", "", "\\n %s $(id) `id` *\n  x  \n"),
    "odd lines stay beside ours": ("-n\\t* \n", "10.1.2.3", "-n\\t* \n" + OUR_LINE),
}


@pytest.mark.parametrize("what", sorted(HOSTS))
@pytest.mark.parametrize("mounted", [False, True])
def test_the_hosts_file_has_our_line_when_it_is_needed(
    machine: Machine, shell: Shell, what: str, mounted: bool
) -> None:
    before, address, after = HOSTS[what]
    hosts = machine.etc / "hosts"
    hosts.write_text(before)
    hosts.chmod(0o640)
    machine.mounted = ["hosts"] if mounted else []

    ran = machine.run(NEW.script(address), shell=shell)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert hosts.read_text() == after
    assert hosts.stat().st_mode & 0o7777 == 0o640
    assert "that is not ours" not in ran.stdout
    assert_nothing_else(machine, *SYSTEM, "hosts")


def test_our_line_follows_the_registrys_address(machine: Machine, shell: Shell) -> None:
    hosts = machine.etc / "hosts"
    hosts.write_text(OTHERS)
    for address in ("10.1.2.3", "10.4.5.6", "10.4.5.6", ""):
        assert machine.run(NEW.script(address), shell=shell).returncode == 0
        ours = f"{address} {HOST} # registry-trust\n" if address else ""
        assert hosts.read_text() == OTHERS + ours


def test_a_line_of_somebody_else_for_the_registry_is_pointed_out(machine: Machine) -> None:
    (machine.etc / "hosts").write_text(f"10.0.0.1{TAB}{HOST}{TAB}r\n")
    ran = machine.run(NEW.script("10.1.2.3"))
    assert "a line that is not ours names registry.example.com too" in ran.stdout


# When it cannot


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("read_only", ["containers", "."])
def test_where_it_cannot_write_the_old_state_stays_everywhere(
    machine: Machine, read_only: str, fresh: bool
) -> None:
    for engine in SYSTEM:
        (machine.etc / engine).mkdir()
    if not fresh:
        machine.run(OLD.script())
    machine.read_only = [read_only]

    ran = machine.run(NEW.script())

    assert (ran.returncode, ran.stdout) == (1, "")
    assert "cannot write in /etc/" in ran.stderr
    assert "nothing was changed" in ran.stderr
    for engine in SYSTEM:
        assert installed(machine.etc / engine) == ({} if fresh else OLD.files())
    assert_nothing_else(machine, *SYSTEM)


def test_a_hosts_file_that_cannot_be_written_stops_it_before_anything(machine: Machine) -> None:
    (machine.etc / "hosts").write_text("")
    machine.run(OLD.script())
    machine.read_only, machine.mounted = ["."], list(SYSTEM)

    ran = machine.run(NEW.script("10.1.2.3"))

    assert (ran.returncode, ran.stdout) == (1, "")
    assert "cannot write /etc/hosts; nothing was changed" in ran.stderr
    assert installed(machine.etc / "docker") == OLD.files()


def test_what_is_current_needs_no_writing(machine: Machine) -> None:
    machine.run(NEW.script("10.1.2.3"))
    machine.read_only = ["."]
    assert machine.run(NEW.script("10.1.2.3")).returncode == 0


def test_an_exchange_that_fails_half_way_goes_back(machine: Machine, shell: Shell) -> None:
    """mv renames the key and fails at the certificate."""
    machine.run(OLD.script())
    machine.shim("mv", 'case "$*" in *old/*) ;; *) set -- "$1" "$2" "$3" "$5"; fails=1 ;; esac\n'
                 f'{shutil.which("mv")} "$@" && exit ${{fails-0}}')  # fmt: skip

    ran = machine.run(NEW.script(), shell=shell)

    assert ran.returncode == 1
    assert "the files there are the old ones" in ran.stderr
    for engine in SYSTEM:
        assert installed(machine.etc / engine) == OLD.files()
        assert modes(machine.etc / engine) == MODES
    assert_nothing_else(machine, *SYSTEM)


def test_what_was_not_there_before_is_gone_after_going_back(machine: Machine) -> None:
    directory = certs(machine.etc / "docker")
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_text(SERVERS.pem.decode())
    machine.shim("mv", f'{shutil.which("mv")} -f "$3" "$5" && exit 1')

    assert machine.run(NEW.script()).returncode == 1

    assert list(installed(machine.etc / "docker")) == ["ca.crt"]


@pytest.mark.parametrize(
    ("shell", "signal"),
    [*((shell, "TERM") for shell in shells()), (DASH, "HUP"), (DASH, "INT")],
)
def test_interrupted_it_leaves_old_or_new_and_nothing_temporary(
    machine: Machine, shell: Shell, signal: str
) -> None:
    machine.run(OLD.script())
    machine.shim("chmod", f'kill -{signal} "$PPID"; exec {shutil.which("chmod")} "$@"')

    ran = machine.run(NEW.script(), shell=shell)

    assert (ran.returncode, ran.stderr) == (1, "registry-trust: interrupted; please run it again\n")
    for engine in SYSTEM:
        assert installed(machine.etc / engine) == OLD.files()
    assert_nothing_else(machine, *SYSTEM)


MOVE = f'{shutil.which("mv")} "$@"'
ENDS = {
    "told to end before it": f'kill -TERM "$PPID"; {MOVE}',
    "told to end after it": f'{MOVE}; kill -TERM "$PPID"',
    "killed before it": 'kill -KILL "$PPID"; exit 1',
    "killed after it": f'{MOVE}; kill -KILL "$PPID"',
}


@pytest.mark.parametrize("end", ENDS)
def test_ended_around_an_exchange_each_engine_has_a_matching_pair(
    machine: Machine, end: str
) -> None:
    machine.run(OLD.script())
    machine.shim("mv", ENDS[end])

    machine.run(NEW.script())

    for engine in SYSTEM:
        found = {name: installed(machine.etc / engine)[name] for name in FILES}
        assert found in (OLD.files(), NEW.files())

    (machine.top / "shims/mv").unlink()
    again = machine.run(NEW.script(), shell=DASH)
    assert (again.returncode, again.stderr) == (0, "")
    for engine in SYSTEM:
        assert installed(machine.etc / engine) == NEW.files()


def test_interrupted_at_the_keyboard_an_exchange_is_finished(machine: Machine) -> None:
    """There mv gets the signal too, here between its two files."""
    machine.run(OLD.script())
    mv = shutil.which("mv")
    machine.shim("mv", f'{mv} -f "$3" "$5"; kill -INT 0; {mv} -f "$4" "$5"')

    assert machine.run(NEW.script()).returncode == 0

    for engine in SYSTEM:
        assert installed(machine.etc / engine) == NEW.files()


@pytest.mark.parametrize("holder", ["docker/certs.d", f"docker/certs.d/{REGISTRY}"])
def test_what_a_killed_run_left_is_swept_and_what_a_living_one_needs_is_not(
    machine: Machine, holder: str
) -> None:
    if holder.endswith(REGISTRY):
        machine.run(OLD.script())
    dead, living = (machine.etc / holder / f".registry-trust.{pid}" for pid in (2_000_000, 1))
    for left in (dead, living):
        left.mkdir(parents=True)
        (left / "client.key").write_text(OLD.key)

    assert machine.run(NEW.script()).returncode == 0

    assert (dead.exists(), living.exists()) == (False, True)
    assert installed(machine.etc / "docker") == NEW.files()
