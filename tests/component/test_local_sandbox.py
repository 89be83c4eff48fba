"""The sandboxes that stand for instances: what is theirs, and what they cannot see."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcloud.layout import CHECKOUT
from localcloud.sandbox import OWN, NotRunning, Sandbox

ENDPOINT = "http://127.0.0.1:9/secret"
NAME = "i-0123456789abcdef0"


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    made = Sandbox.of(tmp_path / "instances", NAME)
    made.boot(ENDPOINT)
    return made


def run(sandbox: Sandbox, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        sandbox.command(["sh", "-c", script], variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        umask=0o022,
    )


def said(sandbox: Sandbox, script: str, **variables: str) -> str:
    done = run(sandbox, script, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_own_directories_are_roots_and_can_be_written(sandbox: Sandbox) -> None:
    for name in OWN:
        assert said(sandbox, f"stat -c '%u %g' /{name}; touch /{name}/x").strip() == "0 0"
        assert (sandbox.disk / name / "x").exists()


@pytest.mark.parametrize("where", ["/x", "/usr/x", "/usr/bin/x", "/etc/ssl/certs/x", "/bin/x"])
def test_nothing_else_can_be_written(sandbox: Sandbox, where: str) -> None:
    assert run(sandbox, f"touch {where}").returncode != 0


def test_it_has_its_name_its_processes_and_a_bare_environment(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of who runs it")

    assert said(sandbox, "hostname; id -un").split() == [NAME, "root"]
    names = {line.partition("=")[0] for line in said(sandbox, "env", REGISTRY="r:1").splitlines()}
    assert names <= {"PATH", "HOME", "AWS_EC2_METADATA_SERVICE_ENDPOINT", "REGISTRY", "PWD", "_"}
    assert said(sandbox, 'echo "$AWS_EC2_METADATA_SERVICE_ENDPOINT $REGISTRY"', REGISTRY="r:1") == (
        f"{ENDPOINT} r:1\n"
    )
    mine = Path(f"/proc/{os.getpid()}/cmdline").read_bytes()
    assert mine.replace(b"\0", b" ").decode() not in said(
        sandbox, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    )


def test_nothing_of_the_checkout_of_the_cloud_or_of_homes_is_to_be_seen(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    secret = tmp_path / "keys"
    secret.mkdir()
    (secret / "operator.json").write_text("secret")

    for path in (
        CHECKOUT,
        CHECKOUT / "app.py",
        secret,
        tmp_path,
        Path.home() / ".ssh",
        Path(__file__),
    ):
        assert run(sandbox, f"test -e '{path}'").returncode == 1, path
    assert said(sandbox, "ls -A /root /home") == "/home:\n\n/root:\n"
    assert run(sandbox, "test -e /etc/ssl/private").returncode == 1
    assert run(sandbox, "test -e /etc/shadow").returncode == 1
    # Nor by way of what holds it: a mount, or the host's root through a process.
    assert "secret" not in run(sandbox, f"cat /proc/*/root{secret}/operator.json").stdout


def test_one_machine_sees_nothing_of_another(sandbox: Sandbox) -> None:
    other = Sandbox.of(sandbox.directory.parent, "i-00000000000000001")
    other.boot("http://127.0.0.1:9/other")
    said(other, "for d in etc root tmp; do echo 'of the other' > /$d/key; done")

    seen = run(
        sandbox, "cat /etc/key /root/key /tmp/key; grep -r 'of the other' /etc /root /tmp /run /var"
    )

    assert "of the other" not in seen.stdout
    assert run(sandbox, f"ls '{other.directory}'").returncode != 0


def test_programs_of_a_host_work_in_it(sandbox: Sandbox) -> None:
    assert "PRIVATE KEY" in said(sandbox, "openssl ecparam -name prime256v1 -genkey -noout")
    assert said(sandbox, "curl --version; skopeo --version; awk 'BEGIN {print 1}'; mktemp")
    done = run(sandbox, "skopeo inspect docker://localhost:9/x")
    assert "policy.json" not in done.stderr  # it gets as far as asking
    assert "connection refused" in done.stderr


def test_its_disk_outlives_a_halt_but_not_what_is_gone_at_boot(sandbox: Sandbox) -> None:
    said(sandbox, "mkdir /run/d; ln -s /etc /tmp/link; for d in etc run tmp; do echo > /$d/x; done")
    sandbox.halt()
    with pytest.raises(NotRunning, match=NAME):
        sandbox.command(["true"])

    sandbox.boot(ENDPOINT)
    assert said(sandbox, "ls /run /tmp; ls -d /etc/x") == "/run:\n\n/tmp:\n/etc/x\n"


def test_a_new_disk_is_empty(sandbox: Sandbox) -> None:
    said(sandbox, "echo > /etc/x; mkdir -m 000 /var/lib/closed")

    sandbox.format()

    assert run(sandbox, "ls /etc/x || ls /var/lib/closed").returncode != 0
    assert said(sandbox, "cat /etc/hostname").strip() == NAME


def test_links_that_a_machine_made_lead_nowhere_outside(sandbox: Sandbox, tmp_path: Path) -> None:
    kept = tmp_path / "outside"
    kept.mkdir()
    (kept / "file").write_text("stays")
    said(
        sandbox, f"ln -s '{kept}' /run/link; rm -r /etc/containers; ln -s '{kept}' /etc/containers"
    )

    sandbox.halt()
    sandbox.boot(ENDPOINT)
    sandbox.format()
    sandbox.remove()

    assert [each.name for each in kept.iterdir()] == ["file"]
    assert not sandbox.directory.exists()


def test_what_runs_in_it_ends_with_who_began_it(sandbox: Sandbox) -> None:
    code = f"""if True:
        import subprocess
        subprocess.Popen({sandbox.command(["sh", "-c", "echo on > /run/on; exec sleep 1000"])!r})
        import time; time.sleep(100)"""
    starter = subprocess.Popen([sys.executable, "-c", code])
    while not (sandbox.disk / "run" / "on").exists():
        time.sleep(0.05)
    starter.kill()
    starter.wait()

    deadline = time.monotonic() + 5
    while any(_sleepers(sandbox)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_sleepers(sandbox))


def _sleepers(sandbox: Sandbox) -> Iterator[int]:
    """Processes that were begun for this sandbox and still run."""
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and str(sandbox.disk).encode() in (entry / "cmdline").read_bytes()
            ):
                yield int(entry.name)
        except OSError:
            continue


def test_two_hundred_are_made_in_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    for number in range(200):
        Sandbox.of(tmp_path, f"i-{number:017x}").boot(ENDPOINT)
    took = time.monotonic() - began
    with capsys.disabled():
        print(f"\n  200 sandboxes made in {took:.2f} s")
    assert took < 20
