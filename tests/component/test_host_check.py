"""`registry-host check` on a machine that is set up, with one thing after another gone wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.component.deployed_host import CHECK, Deployment, deployed
from tests.component.real_host import RealHost, layout_under, running_nginx, wait_until
from tests.component.throwaway_pki import ThrowawayCa, certificate_pem, key_pem, new_key, now

STATE = "/var/lib/registry-trust"
PARTS = (
    *("container", "registry", "storage", "nginx", "TLS", "admission"),
    *("certificate", "trust", "refresh", "boot", "disk", "clock"),
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Set up once; each test mends what it spoilt."""
    with deployed(tmp_path_factory.mktemp("host")) as made:
        made.machine.write("/usr/local/bin/timedatectl", "#!/bin/sh\necho yes\n", 0o755)
        made.serves()
        yield made


def check(host: Deployment, code: int = 0) -> dict[str, tuple[str, str]]:
    """By part: how it is, and the words about it."""
    assert host.machine.run(CHECK) == code, host.machine.said
    first, *lines, verdict = host.machine.said.splitlines()
    assert first.startswith(f"registry host of {host.registry}, ")
    found = [re.fullmatch(r"(ok|WARNING|FAILED|-) +(\w+) +(.*)", line) for line in lines]
    assert all(found), host.machine.said
    said = {m[2]: (m[1], m[3]) for m in found if m}
    assert tuple(said) == PARTS
    failures = sum(how == "FAILED" for how, _ in said.values())
    warnings = sum(how == "WARNING" for how, _ in said.values())
    assert verdict == (
        f"{failures} FAILED, {warnings} to be warned of"
        if failures
        else f"it serves; {warnings} to be warned of"
        if warnings
        else "all is well"
    )
    return said


def wrong(host: Deployment, code: int = 1) -> dict[str, str]:
    """What is not ok, by part: FAILED or WARNING, and the words."""
    return {
        part: f"{how} {words}" for part, (how, words) in check(host, code).items() if how != "ok"
    }


def test_where_all_is_well_each_part_says_so(host: Deployment) -> None:
    said = check(host)
    assert {how for how, _ in said.values()} == {"ok"}
    ca = ca_id(host.client_ca)
    assert said["trust"][1].startswith(f"admits clients of CA {ca} (list 5); ")
    about = said["certificate"][1]
    assert f"of CA {ca_id(host.cloud.server_ca)}, ends in 89 days, renewed from 20" in about
    assert said["registry"][1] == f"answers on {host.setup.layout.upstream}"


def test_it_changes_nothing(host: Deployment) -> None:
    look = "find /etc /usr/local /var/lib /run -newer /root/mark -not -type d"
    before = host.machine.succeeds("touch /root/mark; sleep 1; sleep 1")
    check(host)
    host.machine.forget_calls()
    assert before == ""
    assert host.machine.succeeds(f"{look} | grep -v /registry/log || :") == ""
    assert host.machine.calls("docker") == host.machine.calls("systemctl") == []


def ca_id(ca: ThrowawayCa) -> str:
    command = "openssl x509 -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum"
    done = subprocess.run(["sh", "-c", command], input=ca.pem, capture_output=True, check=True)
    return done.stdout.decode()[:16]


def test_a_container_that_was_stopped(host: Deployment) -> None:
    host.machine.succeeds("docker stop registry")
    said = wrong(host)
    host.machine.succeeds("docker start registry; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done")
    assert set(said) == {"container", "registry", "storage"}
    assert said["container"].endswith("again: docker start registry")
    assert "answers nothing: curl: (7)" in said["registry"]


def test_a_container_that_is_gone(host: Deployment) -> None:
    host.machine.succeeds("docker rename registry elsewhere")
    said = wrong(host)
    host.machine.succeeds("docker rename elsewhere registry")
    assert set(said) == {"container"}
    assert "there is none named registry (Error: No such container: registry)" in said["container"]


def test_images_are_not_taken_for_containers(host: Deployment) -> None:
    host.machine.succeeds("docker pull -q registry; docker pull -q registry-former")
    host.machine.succeeds("docker rename registry elsewhere")
    said = wrong(host)
    host.machine.succeeds("docker rename elsewhere registry")
    assert said["container"].startswith("FAILED there is none named registry (Error: No such cont")
    assert wrong(host, code=0) == {}


def test_an_upgrade_that_was_interrupted(host: Deployment) -> None:
    stand_in = "/var/lib/docker-stand-in"
    host.machine.succeeds(f"cp -r {stand_in}/registry {stand_in}/registry-former")
    said = wrong(host, code=0)
    host.machine.succeeds(f"rm -r {stand_in}/registry-former")
    assert said == {
        "container": "WARNING an upgrade was interrupted: run registry-host setup",
    }


def test_storage_that_is_gone(host: Deployment) -> None:
    """The registry's images are in a directory here; S3's are as gone without the permission."""
    host.machine.succeeds("mv /var/lib/images /var/lib/away; touch /var/lib/images")
    assert host.machine.run(CHECK) == 1
    (storage,) = re.findall(r"^FAILED +storage +(.*)$", host.machine.said, re.MULTILINE)
    host.machine.succeeds("rm /var/lib/images; mv /var/lib/away /var/lib/images")
    assert storage.startswith("the registry cannot list it (it answers ")


def test_nginx_that_has_ended(host: Deployment) -> None:
    host.machine.succeeds("systemctl stop registry-nginx.service")
    said = wrong(host)
    host.machine.succeeds("systemctl start registry-nginx.service; sleep 1; sleep 1; sleep 1")
    assert set(said) == {"nginx", "TLS", "admission", "boot"}
    assert "does not run; why: journalctl -u registry-nginx" in said["nginx"]
    assert "registry-nginx.service is not active" in said["boot"]


@contextmanager
def edited(host: Deployment, path: str, old: str, new: str) -> Iterator[None]:
    file = host.machine.path(path)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    yield
    file.write_text(text)


CONFIG = "/etc/registry-trust/nginx.conf"


def test_nginx_that_would_not_start_again(host: Deployment) -> None:
    with edited(host, CONFIG, "server_tokens off;", "server_tokens odd;"):
        said = wrong(host)
    assert set(said) == {"nginx"}
    assert said["nginx"].startswith("FAILED runs, but would not start again: ")
    assert 'invalid value "odd"' in said["nginx"]


def test_a_door_that_stands_open(host: Deployment) -> None:
    reload = "systemctl reload registry-nginx.service; sleep 1; sleep 1; sleep 1; sleep 1; sleep 1"
    with (
        edited(host, CONFIG, "return 403;\n", "set $open 1;\n"),
        edited(host, CONFIG, "ssl_verify_client on;", "ssl_verify_client optional;"),
    ):
        host.machine.succeeds(reload)
        said = wrong(host)
    host.machine.succeeds(reload)
    assert set(said) == {"admission"}
    assert "SOMEBODY WITHOUT A CERTIFICATE IS ADMITTED" in said["admission"]


@contextmanager
def certificate(host: Deployment, ca: ThrowawayCa, begins: float, ends: float) -> Iterator[None]:
    """nginx has another one, of so many days ago until in so many days."""
    key = new_key()
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    made = ca.server(
        key.public_key(),
        "localhost",
        not_before=now() + timedelta(days=begins),
        not_after=now() + timedelta(days=ends),
    )
    current = host.machine.path(STATE) / host.machine.path(f"{STATE}/current").readlink()
    before = {name: (current / name).read_bytes() for name in ("server.crt", "server.key")}
    (current / "server.crt").write_bytes(certificate_pem(made))
    (current / "server.key").write_bytes(key_pem(key))
    yield
    for name, content in before.items():
        (current / name).write_bytes(content)


def test_a_certificate_that_nginx_does_not_show(host: Deployment) -> None:
    with certificate(host, host.cloud.server_ca, -1, 89):
        said = wrong(host)
    assert set(said) == {"TLS"}
    assert "another certificate than ours is shown" in said["TLS"]


@pytest.mark.parametrize(
    ("begins", "ends", "how"),
    [
        (-60.5, 29.5, "ok"),  # a day for its renewal
        (-62, 28, "WARNING"),
        (-90, 0.5, "WARNING"),
        (-95, -5.5, "FAILED"),
    ],
)
def test_a_certificate_whose_end_is_near(
    host: Deployment, begins: float, ends: float, how: str
) -> None:
    with certificate(host, host.cloud.server_ca, begins, ends):
        assert host.machine.run(CHECK) == 1
        (line,) = re.findall(r"^(\w+) +certificate +(.*)$", host.machine.said, re.MULTILINE)
    assert line[0] == how
    if how == "FAILED":
        assert line[1].startswith("has expired 5 days ago")
    if how == "WARNING":
        assert "its renewal is overdue since 20" in line[1]


def test_a_certificate_of_a_ca_that_clients_do_not_know(host: Deployment) -> None:
    with certificate(host, ThrowawayCa("strangers"), -1, 89):
        said = wrong(host)
    assert "is of none of the server CAs that clients are told of" in said["certificate"]


@pytest.mark.parametrize(
    ("hours", "how", "words"),
    [
        (-1, "FAILED", "the revocation list has expired, so nginx refuses EVERY client"),
        (24, "WARNING", "after which nginx refuses every client; does refresh_crl run?"),
    ],
)
def test_a_revocation_list_that_grows_old(
    host: Deployment, hours: int, how: str, words: str
) -> None:
    until = int((now() + timedelta(hours=hours)).timestamp())
    before = host.machine.read(f"{STATE}/current/crl-until").strip()
    with edited(host, f"{STATE}/current/crl-until", before, str(until)):
        said = wrong(host, code=1 if how == "FAILED" else 0)
    assert set(said) == {"trust"}
    assert said["trust"].startswith(how)
    assert words in said["trust"]


@pytest.mark.parametrize(
    ("report", "how", "words"),
    [
        ({}, "FAILED", "registry-refresh has not run yet"),
        ({"ok": True, "ago": 900}, "FAILED", "was 90"),
        ({"ok": False, "ago": 5, "well": 60}, "WARNING", "no S3 (a little before all was well)"),
        ({"ok": False, "ago": 5, "well": 900}, "FAILED", "no S3 (last well: 20"),
        ({"ok": False, "ago": 5}, "FAILED", "no S3 (last well: never)"),
    ],
)
def test_a_refresh_that_went_wrong(
    host: Deployment, report: dict[str, int], how: str, words: str
) -> None:
    file = host.machine.path(f"{STATE}/status.json")
    before = file.read_text()

    def ago(seconds: int) -> str:
        return (now() - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    if report:
        well = ago(report["well"]) if "well" in report else ""
        ok = "true" if report["ok"] else "false"
        file.write_text(
            f'{{"time":"{ago(report["ago"])}","ok":{ok},"last_success":"{well}",'
            '"last_failure":"","last_error":"\x1b[2Jno S3","generation":""}\n'
        )
    else:
        file.unlink()
    said = wrong(host, code=1 if how == "FAILED" else 0)
    file.write_text(before)
    assert set(said) == {"refresh"}
    assert said["refresh"].startswith(how)
    assert words in re.sub(r"[5-9] seconds ago", "5 seconds ago", said["refresh"])
    assert "\x1b" not in host.machine.said


def test_what_would_not_start_with_the_machine(host: Deployment) -> None:
    disabled = host.machine.path("/var/lib/units/registry-refresh.timer")
    disabled.unlink()
    said = wrong(host)
    disabled.touch()
    expected = "FAILED registry-refresh.timer is not enabled; run registry-host setup"
    assert said == {"boot": expected}


@pytest.mark.parametrize(
    ("used", "how"), [(84, "ok"), (85, "WARNING"), (96, "WARNING"), (97, "FAILED")]
)
def test_a_disk_that_fills(host: Deployment, used: int, how: str) -> None:
    df = f"#!/bin/sh\necho Filesystem\necho /dev/root 100 {used} {100 - used} {used}% /\n"
    host.machine.write("/usr/local/bin/df", df, 0o755)
    said = check(host, code=1 if how == "FAILED" else 0)
    host.machine.path("/usr/local/bin/df").unlink()
    assert said["disk"][0] == how
    assert f"{used}% full" in said["disk"][1]


@pytest.mark.parametrize(("answer", "how"), [("echo no", "WARNING"), ("exit 1", "-")])
def test_a_clock_that_is_not_synchronised(host: Deployment, answer: str, how: str) -> None:
    host.machine.write("/usr/local/bin/timedatectl", f"#!/bin/sh\n{answer}\n", 0o755)
    said = check(host)
    host.machine.write("/usr/local/bin/timedatectl", "#!/bin/sh\necho yes\n", 0o755)
    assert said["clock"][0] == how


def test_of_anothers_settings_it_looks_at_what_is_not_the_machines(host: Deployment) -> None:
    host.machine.succeeds("cp /etc/registry-trust/refresh.env /root/refresh.env")
    host.machine.succeeds("docker stop registry; sleep 1")
    host.machine.run("registry-host check /root/refresh.env")
    said = host.machine.said
    host.machine.succeeds("docker start registry; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done")
    for part in ("container", "boot"):
        assert re.search(rf"^- +{part} +not looked at: ", said, re.MULTILINE)
    assert re.search(r"^ok +TLS ", said, re.MULTILINE)


def test_where_nothing_is_set_up_it_says_so(host: Deployment) -> None:
    assert host.machine.run("registry-host check /no/such/file") == 2
    assert "there is no /no/such/file: nothing was set up here yet" in host.machine.said


def test_rotated_logs_are_let_go_of(host: Deployment) -> None:
    """By the real logrotate, as its unit calls it."""
    logs = "/var/log/registry-trust"
    assert host.status() == "200"
    host.machine.succeeds(
        f"chmod 644 {logs}/access.log; /usr/sbin/logrotate --force --state"
        f" {STATE}/logrotate.status /etc/registry-trust/logrotate.conf"
    )
    host.machine.succeeds("sleep 1; sleep 1; sleep 1; sleep 1; sleep 1")
    before = host.machine.read(f"{logs}/access.log.1")
    assert host.status() == "200"
    assert host.machine.read(f"{logs}/access.log.1") == before
    assert '"status":200' in host.machine.read(f"{logs}/access.log")
    assert host.machine.succeeds(f"stat -c '%a %U' {logs}/access.log").split()[0] == "640"


@pytest.mark.skipif(os.geteuid() != 0, reason="nginx's workers have another user only under root")
@pytest.mark.parametrize(("group", "follows"), [("nogroup", True), ("root", False)])
def test_workers_open_rotated_logs_again_where_the_directory_is_of_their_group(
    group: str, follows: bool
) -> None:
    """Which the machine above cannot show, for it has but one user."""
    with tempfile.TemporaryDirectory() as directory:
        prefix = Path(directory)
        prefix.chmod(0o755)
        made = RealHost(replace(layout_under(prefix / "host"), user="nobody"), scratch=prefix)
        config = Path(made.layout.config_dir, "nginx.conf")
        made.write_files()
        config.write_text(config.read_text().replace("user nobody;", "user nobody nogroup;"))
        for path, mode in {str(prefix / "host"): 0o755, **made.layout.directories}.items():
            Path(path).chmod(mode)  # whatever the umask
        logs = Path(made.layout.log_dir)
        shutil.chown(logs, "root", group)
        with running_nginx(made.layout):
            made.ask(made.client_ca.client())
            (logs / "access.log").rename(logs / "access.log.1")
            os.kill(int(Path(made.layout.run_dir, "nginx.pid").read_text()), signal.SIGUSR1)
            wait_until((logs / "access.log").exists, "nginx to open its log again")

            def is_followed() -> bool:
                made.ask(made.client_ca.client())
                time.sleep(0.1)  # it is written once the answer is sent
                return bool((logs / "access.log").read_text())

            if follows:
                wait_until(is_followed, "the workers to write where the log is now")
            else:
                time.sleep(1)  # they do so a moment after their master
                assert not is_followed()
