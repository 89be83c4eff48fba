"""The boot script run for real: stand-ins for AWS, the real nginx and registry for the rest."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from chalicelib.domain.instance_host import BootSettings, user_data
from tests.component.boot_cloud import BootCloud, Fault, problem
from tests.component.cloud_stand_in import (
    ACCESS_KEY,
    API_PATH,
    REGION,
    SECRET_KEY,
    TOKEN,
    running_cloud,
)
from tests.component.instance_machine import ENGINES, EVERYTHING, INSTANCE, OTHER, Instance, spki
from tests.component.real_host import (
    NAME,
    RealHost,
    layout_under,
    running_nginx,
    running_registry,
    wait_until,
)
from tests.component.sandboxed_machine import ANN, DASH, Shell, shells, snapshot
from tests.component.throwaway_pki import Leaf, ThrowawayCa, crl_pem

GIVEN = "/tmp/part-001"  # noqa: S108  # the machine's own
LEAVE = {"REGISTRY_TRUST_DOCKER": "leave", "REGISTRY_TRUST_NOFILE": "leave"}


@dataclass
class Registry:
    """nginx before a registry, that can be told to revoke."""

    host: RealHost
    pid: int

    def __post_init__(self) -> None:
        self.revoked: list[int] = []

    def revoke(self, *certificates: x509.Certificate) -> None:
        canary = self.host.client_ca.client("canary")
        self.revoked += [canary.serial, *(each.serial_number for each in certificates)]
        crls = [ca.crl(1, self.revoked) for ca in (self.host.client_ca, self.host.second_client_ca)]
        Path(self.host.layout.trust_dir, "client-ca.crl").write_bytes(crl_pem(*crls))
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: b" 403 " in self.first_line_for(canary), "nginx to reload")

    def first_line_for(self, leaf: Leaf) -> bytes:
        """Asked by the name that only the instances know."""
        plain = socket.create_connection(("127.0.0.1", self.host.port), timeout=10)
        with self.host.context(leaf).wrap_socket(plain, server_hostname=NAME) as tls:
            tls.sendall(f"GET /v2/ HTTP/1.0\r\nHost: {NAME}\r\n\r\n".encode())
            return tls.recv(65536).partition(b"\r\n")[0]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    prefix = tmp_path_factory.mktemp("host")
    host = RealHost(layout_under(prefix / "host", NAME), scratch=prefix)
    host.write_files()
    with running_registry(host.layout, prefix / "images"), running_nginx(host.layout) as pid:
        yield Registry(host, pid)


@pytest.fixture
def cloud(registry: Registry) -> Iterator[BootCloud]:
    host = registry.host
    made = BootCloud(
        host.server_ca, client_ca=host.client_ca, registry=host.layout.registry, address="127.0.0.1"
    )
    with running_cloud(made):
        yield made


@dataclass
class Booting(Instance):
    """An instance that was given our user data, as cloud-init keeps it."""

    cloud: BootCloud | None = None
    shell: Shell = DASH

    @property
    def name(self) -> str:
        """Of what stays there: the registry's, as cron would have it."""
        host, port = self.registry.split(":")
        return f"registry-trust-enrol-{host.replace('.', '_')}__{port}"

    @property
    def saved(self) -> str:
        return f"/usr/local/sbin/{self.name}"

    @property
    def script(self) -> str:
        assert self.cloud
        return user_data(BootSettings(f"{self.cloud.url}{API_PATH}", REGION, self.cloud.registry))

    def boot(
        self, *options: str, user: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        (self.tmp / "part-001").write_text(self.script)
        return self.start(GIVEN, *options, user=user, **(LEAVE | variables))

    def renew(self, *options: str) -> subprocess.CompletedProcess[str]:
        """As its timer does."""
        return self.start(self.saved, "--renew", *options)

    def start(
        self, path: str, *options: str, user: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        assert self.cloud
        here = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.cloud.url} | variables
        line = " ".join(["sh", path, *options])
        return self.run(line, shell=self.shell, user=user, **here)

    def calls(self, name: str) -> list[str]:
        """How a shim of `records` was called."""
        log = self.tmp / f"{name}.calls"
        return log.read_text().splitlines() if log.exists() else []

    def records(self, name: str, then: str = "") -> None:
        self.shim(name, f'echo "$*" >>/tmp/{name}.calls\n{then}')

    def installed(self) -> list[x509.Certificate]:
        found = []
        for engine in ENGINES:
            for each in (self.etc / engine / "certs.d").glob("*/client.cert"):
                assert each.with_name("client.key").read_text() == self.key
                found.append(x509.load_pem_x509_certificate(each.read_bytes()))
        return found


@pytest.fixture
def machine(tmp_path: Path, cloud: BootCloud) -> Booting:
    made = Booting(tmp_path, registry=cloud.registry, cloud=cloud)
    (made.etc / "cron.d").mkdir()
    made.records("sleep")
    return made


@pytest.fixture(params=shells(), ids=lambda shell: shell.name)
def shell(request: pytest.FixtureRequest, machine: Booting) -> Shell:
    machine.shell = request.param
    return machine.shell


def is_enrolled(machine: Booting, cloud: BootCloud) -> None:
    """With the one key that is here and the certificate that was issued last, everywhere."""
    certificate = cloud.issued[-1]
    assert machine.installed() == [certificate] * 3
    assert spki(certificate.public_key()) == machine.public_key()
    kept = {p.name for p in machine.directory.iterdir()} - {".lock", f"{INSTANCE}.trust"}
    assert kept == {f"{INSTANCE}.key"}
    assert machine.leftovers() == []


def test_a_first_boot_ends_with_an_instance_that_the_registry_admits(
    machine: Booting, cloud: BootCloud, shell: Shell
) -> None:
    ran = machine.boot()

    assert (ran.returncode, ran.stderr) == (0, "")
    said = f"this instance has a new certificate, and {cloud.registry} admits it"
    assert ran.stdout == f"registry-trust: {said}\n"
    assert len(cloud.issued) == 1
    is_enrolled(machine, cloud)
    assert machine.key_file.stat().st_mode & 0o7777 == 0o600
    assert machine.calls("sleep") == []


def test_where_all_is_well_a_run_asks_for_nothing_and_says_nothing(
    machine: Booting, cloud: BootCloud, shell: Shell
) -> None:
    machine.boot()
    before = snapshot(machine.etc / "docker") | snapshot(machine.etc / "containers")
    key = machine.key

    ran = machine.renew()

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert len(cloud.asks()) == 1
    assert snapshot(machine.etc / "docker") | snapshot(machine.etc / "containers") == before
    again = machine.boot()
    assert again.stdout == f"registry-trust: {cloud.registry} admits this instance already\n"
    assert (len(cloud.asks()), machine.key) == (1, key)


def test_in_the_last_third_it_renews_with_the_same_key(
    machine: Booting, cloud: BootCloud, shell: Shell
) -> None:
    cloud.life = (timedelta(days=-61), timedelta(days=29))
    machine.boot()
    key = machine.key
    cloud.life = (timedelta(days=-1), timedelta(days=89))

    ran = machine.renew()

    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(cloud.issued) == 2
    assert machine.key == key
    is_enrolled(machine, cloud)
    machine.renew()
    assert len(cloud.asks()) == 2


def test_shortly_before_the_last_third_it_does_not(machine: Booting, cloud: BootCloud) -> None:
    cloud.life = (timedelta(days=-59), timedelta(days=31))
    machine.boot()
    machine.renew()
    assert len(cloud.asks()) == 1


def test_refused_by_the_registry_it_asks_again(
    machine: Booting, cloud: BootCloud, registry: Registry
) -> None:
    machine.boot()
    registry.revoke(cloud.issued[0])
    key = machine.key

    ran = machine.renew()

    assert (ran.returncode, ran.stderr) == (0, "")
    assert (len(cloud.issued), machine.key) == (2, key)
    is_enrolled(machine, cloud)


def test_a_registry_that_another_ca_vouches_for_now_has_it_ask_for_that_ca(
    machine: Booting, cloud: BootCloud
) -> None:
    """An answer brings the CAs of the day; the registry's may have changed since the last."""
    machine.boot()
    ca = machine.etc / "docker/certs.d" / cloud.registry / "ca.crt"
    ca.write_bytes(ThrowawayCa("the old").pem)

    ran = machine.renew()

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ca.read_bytes() == cloud.server_ca.pem
    assert len(cloud.issued) == 2


@pytest.mark.parametrize("code", ["key_revoked", "key_in_use"])
def test_a_key_that_the_api_will_not_certify_is_replaced_once(
    machine: Booting, cloud: BootCloud, code: str
) -> None:
    machine.boot()
    cloud.life, key = (timedelta(days=-61), timedelta(days=29)), machine.key
    (machine.etc / "docker/certs.d" / cloud.registry / "client.cert").unlink()
    cloud.before = [problem(409, code)]

    ran = machine.renew()

    assert (ran.returncode, ran.stderr) == (0, "")
    assert machine.key != key
    is_enrolled(machine, cloud)
    *_, second, third = cloud.asks()
    assert second.headers["idempotency-key"] != third.headers["idempotency-key"]


def test_a_second_key_that_is_refused_too_is_not_replaced_again(
    machine: Booting, cloud: BootCloud
) -> None:
    cloud.before = [problem(409, "key_revoked")] * 9
    ran = machine.boot()
    assert (ran.returncode, len(cloud.asks())) == (1, 2)
    assert "the API answered 409 because of key_revoked" in ran.stderr
    assert machine.calls("sleep") == []


def test_a_lost_answer_never_makes_a_second_certificate(
    machine: Booting, cloud: BootCloud, shell: Shell
) -> None:
    """Not within a run, and not across runs."""
    cloud.lost = 1
    assert machine.boot().returncode == 0
    first, second = cloud.asks()
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert (len(cloud.issued), first.body) == (1, second.body)
    is_enrolled(machine, cloud)

    (machine.etc / "docker/certs.d" / cloud.registry / "client.cert").unlink()
    cloud.lost = 1
    assert machine.renew().returncode == 1
    assert machine.renew().returncode == 0
    _, _, third, fourth = cloud.asks()
    assert third.headers["idempotency-key"] == fourth.headers["idempotency-key"]
    assert third.headers["idempotency-key"] != first.headers["idempotency-key"]
    assert len(cloud.issued) == 2
    is_enrolled(machine, cloud)


def test_an_answer_that_breaks_off_is_asked_for_again(machine: Booting, cloud: BootCloud) -> None:
    cloud.cut_short = {f"{API_PATH}/certs"}
    assert machine.boot("--renew").returncode == 1
    assert machine.installed() == []
    cloud.cut_short = set()
    assert machine.boot().returncode == 0
    assert len(cloud.issued) == 1
    is_enrolled(machine, cloud)


def test_half_an_installer_is_not_run(machine: Booting, cloud: BootCloud) -> None:
    cloud.before = [lambda: (201, b"#!/bin/sh\ntouch /tmp/ran\n")]
    assert machine.boot().returncode == 0
    assert not (machine.tmp / "ran").exists()
    assert machine.calls("sleep") == ["5"]
    is_enrolled(machine, cloud)


@pytest.mark.parametrize(
    "fault",
    [
        problem(403, "instance_not_tagged"),
        problem(403, "not_that_instance"),
        problem(503, "busy"),
        problem(429, "quota_exceeded"),
        lambda: (403, b'{"Message": "not authorized"}'),
    ],
    ids=["no tag yet", "not that instance yet", "busy", "quota", "policy not in force yet"],
)
def test_what_may_come_right_is_asked_again_with_growing_pauses(
    machine: Booting, cloud: BootCloud, fault: object
) -> None:
    cloud.before, cloud.no_role = [fault] * 3, 2  # type: ignore[list-item]
    ran = machine.boot()
    assert (ran.returncode, ran.stderr) == (0, "")
    assert machine.calls("sleep") == ["5", "10", "20", "40", "80"]
    assert len(cloud.issued) == 1


def test_it_gives_up_after_five_minutes_and_the_next_run_tries_again(
    machine: Booting, cloud: BootCloud
) -> None:
    cloud.before = [problem(403, "instance_not_tagged")] * 7

    ran = machine.boot()

    assert ran.returncode == 1
    assert ran.stderr == "registry-trust: the API answered 403 because of instance_not_tagged\n"
    assert sum(map(int, machine.calls("sleep"))) == 300
    assert machine.renew().returncode == 0
    is_enrolled(machine, cloud)


def test_a_timer_s_run_asks_once(machine: Booting, cloud: BootCloud) -> None:
    cloud.before = [problem(403, "instance_not_tagged")] * 9
    machine.boot()
    asked = len(cloud.asks())
    assert machine.renew().returncode == 1
    assert len(cloud.asks()) == asked + 1


def test_what_will_not_come_right_is_not_asked_again(machine: Booting, cloud: BootCloud) -> None:
    cloud.before = [problem(400, "unsupported_key")] * 9
    ran = machine.boot()
    assert (ran.returncode, len(cloud.asks())) == (1, 1)
    assert ran.stderr == "registry-trust: the API answered 400 because of unsupported_key\n"


def test_with_a_registry_that_does_not_answer_everything_stays(
    machine: Booting, cloud: BootCloud
) -> None:
    machine.boot()
    host = machine.etc / "hosts"
    host.write_text(host.read_text().replace("127.0.0.1", "127.0.0.2"))
    before = snapshot(machine.etc / "docker") | snapshot(machine.key_file)

    ran = machine.renew()

    assert (ran.returncode, ran.stdout) == (1, "")
    assert "cannot tell whether the certificate is good: 000 " in ran.stderr
    assert len(cloud.asks()) == 1
    assert snapshot(machine.etc / "docker") | snapshot(machine.key_file) == before


def test_without_the_api_what_is_here_stays(machine: Booting, cloud: BootCloud) -> None:
    cloud.life = (timedelta(days=-61), timedelta(days=29))
    machine.boot()
    before = snapshot(machine.etc / "docker") | snapshot(machine.key_file)
    cloud.before = [lambda: (502, b"<html>bad gateway</html>")]

    ran = machine.renew()

    assert ran.returncode == 1
    assert "the API answered 502" in ran.stderr
    assert snapshot(machine.etc / "docker") | snapshot(machine.key_file) == before


def test_a_registry_that_refuses_everything_does_not_use_up_the_quota(
    machine: Booting, cloud: BootCloud, registry: Registry
) -> None:
    """Three new certificates in vain, and then one a day."""
    machine.boot()
    registry.revoke(*cloud.issued)
    cloud.client_ca = ThrowawayCa("strangers")
    for _ in range(5):
        assert machine.renew().returncode == 1
    assert len(cloud.issued) == 4
    last = machine.renew()
    assert (last.returncode, "new certificates do not help" in last.stderr) == (1, True)
    vain = machine.directory / f"{INSTANCE}.vain"
    count, since = vain.read_text().split()
    vain.write_text(f"{count} {int(since) - 86401}\n")
    machine.renew()
    assert len(cloud.issued) == 5


def test_the_keys_of_the_machine_that_the_image_was_made_of_are_removed(
    machine: Booting, cloud: BootCloud
) -> None:
    machine.boot()
    machine.key_file.rename(machine.directory / f"{OTHER}.key")

    assert machine.boot().returncode == 0

    assert len(cloud.issued) == 2
    assert spki(cloud.issued[0].public_key()) != spki(cloud.issued[1].public_key())
    is_enrolled(machine, cloud)


def test_on_a_copy_that_gets_no_certificate_nothing_of_the_other_s_is_left(
    machine: Booting, cloud: BootCloud, shell: Shell
) -> None:
    machine.boot()
    machine.key_file.rename(machine.directory / f"{OTHER}.key")
    cloud.before = [problem(403, "instance_not_tagged")]

    assert machine.renew().returncode == 1

    assert [each for each in machine.engine_files() if each.exists()] == []
    assert sorted(p.name for p in machine.directory.iterdir() if p.suffix == ".key") == [
        f"{INSTANCE}.key"
    ]
    machine.renew()
    is_enrolled(machine, cloud)


def test_without_a_key_that_tells_of_a_copy_a_certificate_works_on_until_there_is_another(
    machine: Booting, cloud: BootCloud
) -> None:
    there = machine.give_engines()
    cloud.before = [problem(403, "instance_not_tagged")] * 9
    assert machine.boot().returncode == 1
    assert all(each.exists() for each in there)
    cloud.before = []
    machine.renew()
    is_enrolled(machine, cloud)


@pytest.fixture
def second(registry: Registry, tmp_path: Path) -> Iterator[BootCloud]:
    """The cloud of another stage, whose registry has the same name and another port."""
    layout = layout_under(tmp_path / "second", NAME)
    host = RealHost(layout, tmp_path)
    host.write_files()
    made = BootCloud(
        host.server_ca, client_ca=host.client_ca, registry=layout.registry, address="127.0.0.1"
    )
    with (
        running_registry(layout, tmp_path / "images"),
        running_nginx(layout),
        running_cloud(made),
    ):
        yield made


def test_two_registries_on_one_instance_leave_each_other_in_peace(
    machine: Booting, cloud: BootCloud, second: BootCloud, shell: Shell
) -> None:
    machine.boot()
    kept = snapshot(machine.directory) | snapshot(machine.etc / "cron.d" / machine.name)
    machine.cloud, machine.registry = second, second.registry
    assert machine.boot().returncode == 0
    second_key = machine.key
    machine.cloud, machine.registry = cloud, cloud.registry

    assert snapshot(machine.directory) | snapshot(machine.etc / "cron.d" / machine.name) == kept
    assert machine.key != second_key
    assert len(list((machine.etc / "cron.d").iterdir())) == 2
    for each in (cloud, second, cloud):
        machine.cloud, machine.registry = each, each.registry
        ran = machine.renew()
        assert (ran.returncode, ran.stderr, len(each.issued)) == (0, "", 1)


def test_no_secret_is_passed_to_a_command_or_shown(
    machine: Booting, cloud: BootCloud, shell: Shell
) -> None:
    (machine.top / "shims/sleep").unlink()
    for name in EVERYTHING:
        machine.shim(name, f'printf "%s\\n" "{name} $*" >>/tmp/argv\nexec {shell.path}/{name} "$@"')
    ran = machine.boot()
    assert (ran.returncode, ran.stderr) == (0, "")
    seen = (machine.tmp / "argv").read_text() + ran.stdout
    assert "curl -q --config -" in seen
    for secret in (SECRET_KEY, TOKEN, ACCESS_KEY, "imds-token", *machine.key.splitlines()):
        assert secret not in seen
    for process in ("openssl", "curl", "sh", "sed"):
        assert f"\n{process} " in seen


# --- the trust ------------------------------------------------------------------------------------


def trust_kept(machine: Booting) -> str:
    return (machine.directory / f"{INSTANCE}.trust").read_text()


def rotated(cloud: BootCloud) -> None:
    """Another server CA is trusted, and what is issued from now on is younger by an hour."""
    cloud.next_server_ca = ThrowawayCa("next")
    cloud.life = (timedelta(hours=-23), timedelta(days=30))


def ca_crt(machine: Booting) -> str:
    return (machine.etc / "docker/certs.d" / machine.registry / "ca.crt").read_text()


def test_a_trust_that_changed_has_it_ask_once_with_the_same_key(
    machine: Booting, cloud: BootCloud, shell: Shell
) -> None:
    machine.boot()
    machine.renew()
    key = machine.key
    assert trust_kept(machine) == f"{cloud.trust.version} 0\n"
    rotated(cloud)

    ran = machine.renew()

    assert (ran.returncode, ran.stderr) == (0, "")
    assert (len(cloud.issued), machine.key) == (2, key)
    assert ca_crt(machine) == cloud.ca_bundle
    is_enrolled(machine, cloud)
    for _ in range(2):
        ran = machine.renew()
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert len(cloud.issued) == 2
    assert trust_kept(machine) == f"{cloud.trust.version} 0\n"


def test_other_lists_or_another_order_of_the_cas_change_nothing(
    machine: Booting, cloud: BootCloud
) -> None:
    rotated(cloud)
    machine.boot()
    machine.renew()
    assert cloud.next_server_ca
    cloud.server_ca, cloud.next_server_ca = cloud.next_server_ca, cloud.server_ca
    ran = machine.renew()
    assert (ran.returncode, ran.stderr, len(cloud.issued)) == (0, "", 1)


def test_what_was_installed_before_this_was_looked_at_is_kept_if_it_is_of_today(
    machine: Booting, cloud: BootCloud
) -> None:
    machine.boot()
    assert not (machine.directory / f"{INSTANCE}.trust").exists()
    machine.renew()
    assert (len(cloud.issued), trust_kept(machine)) == (1, f"{cloud.trust.version} 0\n")


def test_and_replaced_if_it_is_not(machine: Booting, cloud: BootCloud) -> None:
    machine.boot()
    rotated(cloud)
    assert machine.renew().returncode == 0
    assert (len(cloud.issued), ca_crt(machine)) == (2, cloud.ca_bundle)


def test_an_answer_that_brings_the_trust_of_before_is_not_taken_for_the_new_one(
    machine: Booting, cloud: BootCloud
) -> None:
    machine.boot()
    machine.renew()
    rotated(cloud)
    cloud.late = 1
    machine.renew()
    assert ca_crt(machine) != cloud.ca_bundle
    machine.renew()
    assert (len(cloud.issued), ca_crt(machine)) == (3, cloud.ca_bundle)


def test_what_was_issued_as_the_new_ca_was_made_is_asked_for_again(
    machine: Booting, cloud: BootCloud
) -> None:
    """Who counts cannot tell whether it came with that CA."""
    machine.boot()
    cloud.next_server_ca = ThrowawayCa("next")
    machine.renew()
    assert (len(cloud.issued), ca_crt(machine)) == (2, cloud.ca_bundle)
    cloud.life = (timedelta(hours=-23), timedelta(days=30))
    machine.renew()
    machine.renew()
    assert len(cloud.issued) == 3


def test_a_trust_that_no_answer_brings_does_not_use_up_the_quota(
    machine: Booting, cloud: BootCloud
) -> None:
    machine.boot()
    rotated(cloud)
    cloud.late = 99
    for _ in range(6):
        assert machine.renew().returncode == 0
    assert len(cloud.issued) == 4
    assert "new certificates do not bring the published trust" in machine.renew().stderr


def test_another_address_of_the_registry_is_installed(machine: Booting, cloud: BootCloud) -> None:
    machine.boot()
    machine.renew()
    cloud.address = "127.0.0.2"
    ran = machine.renew()
    assert "there is a new certificate, but" in ran.stderr  # nobody is there
    assert "127.0.0.2" in (machine.etc / "hosts").read_text()


def test_a_certificate_whose_ca_is_not_trusted_any_more_is_replaced_at_once(
    machine: Booting, cloud: BootCloud, registry: Registry, shell: Shell
) -> None:
    """Before the registry refuses it; this one trusts both client CAs on."""
    machine.boot()
    machine.renew()
    key, cloud.client_ca = machine.key, registry.host.second_client_ca

    ran = machine.renew()

    assert (ran.returncode, ran.stderr) == (0, "")
    assert (len(cloud.issued), machine.key) == (2, key)
    is_enrolled(machine, cloud)
    machine.renew()
    assert len(cloud.issued) == 2


def test_one_of_a_former_ca_that_is_trusted_on_is_kept(
    machine: Booting, cloud: BootCloud, registry: Registry
) -> None:
    cloud.trusted_clients = [registry.host.client_ca, registry.host.second_client_ca]
    machine.boot()
    machine.renew()
    cloud.trusted_clients.reverse()
    cloud.client_ca = registry.host.second_client_ca
    ran = machine.renew()
    assert (ran.returncode, ran.stderr, len(cloud.issued)) == (0, "", 1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (problem(503, "busy"), "503 because of busy"),
        (lambda: (403, b'{"Message": "not authorized"}'), "403 "),
        (lambda: (200, b"<html>hello</html>"), "200 "),
        (lambda: (200, b'{"version": "../../x", "client_ca": ""}'), "200 "),
    ],
    ids=["busy", "not allowed", "not ours", "no version"],
)
def test_a_trust_that_cannot_be_had_is_told_of_and_everything_stays(
    machine: Booting, cloud: BootCloud, fault: Fault, said: str
) -> None:
    machine.boot()
    before = snapshot(machine.etc / "docker") | snapshot(machine.key_file)
    cloud.trust_fault = fault
    ran = machine.renew()
    assert ran.returncode == 0
    assert ran.stderr.startswith(f"registry-trust: cannot ask for the trust: {said}")
    assert snapshot(machine.etc / "docker") | snapshot(machine.key_file) == before
    assert not (machine.directory / f"{INSTANCE}.trust").exists()
    assert len(cloud.issued) == 1


# --- staying there --------------------------------------------------------------------------------


def test_it_stays_and_cron_renews_where_there_is_no_systemd(machine: Booting) -> None:
    machine.boot()
    saved = machine.top / "sbin" / machine.name
    assert saved.read_text() == machine.script
    assert saved.stat().st_mode & 0o7777 == 0o755
    entry = machine.etc / "cron.d" / machine.name
    assert entry.stat().st_mode & 0o7777 == 0o644
    assert (
        f"0 * * * * root /bin/sh {machine.saved} --renew --jitter" in entry.read_text().splitlines()
    )
    before = snapshot(entry) | snapshot(saved)
    machine.boot()
    assert snapshot(entry) | snapshot(saved) == before


def test_what_cron_starts_waits_for_up_to_an_hour(machine: Booting) -> None:
    machine.boot()
    for _ in range(3):
        assert machine.renew("--jitter").returncode == 0
    waited = list(map(int, machine.calls("sleep")))
    assert len(set(waited)) > 1
    assert all(0 <= each < 3600 for each in waited)


def test_under_systemd_it_gets_a_timer(machine: Booting, shell: Shell) -> None:
    (machine.top / "run/systemd/system").mkdir(parents=True)
    machine.records("systemctl")

    machine.boot()

    timer = (machine.etc / f"systemd/system/{machine.name}.timer").read_text()
    for line in ("OnCalendar=hourly", "RandomizedDelaySec=3600", "Persistent=true"):
        assert line in timer.splitlines()
    service = (machine.etc / f"systemd/system/{machine.name}.service").read_text()
    assert f"ExecStart=/bin/sh {machine.saved} --renew" in service.splitlines()
    enable = f"enable --now {machine.name}.timer"
    assert machine.calls("systemctl") == ["daemon-reload", enable]
    assert list((machine.etc / "cron.d").iterdir()) == []
    machine.boot()
    assert machine.calls("systemctl")[2:] == [enable]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_reads_the_units(machine: Booting) -> None:
    (machine.top / "run/systemd/system").mkdir(parents=True)
    machine.records("systemctl")
    machine.boot()
    units = sorted(map(str, (machine.etc / "systemd/system").glob("registry-trust-enrol*")))
    subprocess.run(["systemd-analyze", "verify", "--man=no", *units], check=True)


def test_without_either_it_says_so_and_enrols_all_the_same(
    machine: Booting, cloud: BootCloud
) -> None:
    (machine.etc / "cron.d").rmdir()
    ran = machine.boot()
    assert ran.returncode == 1
    assert "there is neither systemd nor cron here" in ran.stderr
    is_enrolled(machine, cloud)


def test_where_sbin_cannot_be_written_it_stays_with_its_key(machine: Booting) -> None:
    machine.sealed = True
    ran = machine.boot()
    assert (ran.returncode, ran.stderr) == (0, "")
    saved = machine.directory / machine.name
    assert saved.read_text() == machine.script
    entry = (machine.etc / "cron.d" / machine.name).read_text()
    there = f"/etc/registry-trust/{machine.registry}/{machine.name}"
    assert f"/bin/sh {there} --renew" in entry


def test_from_a_pipe_it_enrols_but_cannot_stay(machine: Booting, cloud: BootCloud) -> None:
    ran = machine.run(machine.script, **LEAVE, AWS_EC2_METADATA_SERVICE_ENDPOINT=cloud.url)
    assert ran.returncode == 1
    assert "was not run from a file" in ran.stderr
    is_enrolled(machine, cloud)


# --- the machine ----------------------------------------------------------------------------------


def test_docker_is_installed_by_apt_where_there_is_no_engine(
    machine: Booting, shell: Shell
) -> None:
    (machine.top / "run/systemd/system").mkdir(parents=True)
    machine.records("systemctl")
    machine.records("apt-get", 'test "$DEBIAN_FRONTEND" = noninteractive')
    ran = machine.boot(REGISTRY_TRUST_DOCKER="install")
    assert (ran.returncode, ran.stderr) == (0, "")
    update, install = machine.calls("apt-get")
    assert update.split()[-1] == "update"
    assert install.endswith("install --no-install-recommends docker.io")
    assert "DPkg::Lock::Timeout=300" in install
    assert "-y" in install.split()
    assert machine.calls("systemctl")[-1] == "enable --now docker"


def test_docker_is_installed_by_dnf_on_amazon_linux(machine: Booting) -> None:
    machine.records("dnf")
    assert machine.boot(REGISTRY_TRUST_DOCKER="install").returncode == 0
    (install,) = machine.calls("dnf")
    assert install.endswith("install docker")


@pytest.mark.parametrize("engine", ["docker", "podman", "containerd", "nerdctl", "crictl"])
def test_where_there_is_an_engine_none_is_installed(machine: Booting, engine: str) -> None:
    machine.records("apt-get")
    machine.shim(engine, "exit 1")
    assert machine.boot(REGISTRY_TRUST_DOCKER="install").returncode == 0
    assert machine.calls("apt-get") == []


def test_where_it_is_to_be_left_none_is_installed(machine: Booting) -> None:
    machine.records("apt-get")
    machine.boot(REGISTRY_TRUST_DOCKER="leave")
    machine.renew()
    assert machine.calls("apt-get") == []


def test_an_engine_that_cannot_be_installed_is_told_of_and_the_rest_goes_on(
    machine: Booting, cloud: BootCloud
) -> None:
    machine.records("apt-get", "case $* in *install*) echo broken >&2; exit 100 ;; esac")
    ran = machine.boot(REGISTRY_TRUST_DOCKER="install")
    assert ran.returncode == 1
    assert "registry-trust: Docker is not installed\n" in ran.stderr
    is_enrolled(machine, cloud)


def test_a_list_of_packages_that_cannot_be_fetched_is_fetched_again(machine: Booting) -> None:
    count = "n=$(cat /tmp/n 2>/dev/null || echo 0); echo $((n + 1)) >/tmp/n; test $n -gt 0"
    machine.records("apt-get", f"case $* in *update*) {count} ;; esac")
    assert machine.boot(REGISTRY_TRUST_DOCKER="install").returncode == 0
    assert len(machine.calls("apt-get")) == 3
    assert machine.calls("sleep") == ["5"]


LIMIT = "1048576"


def nofile_files(machine: Booting) -> dict[str, str]:
    names = [
        f"security/limits.d/{machine.name}.conf",
        f"systemd/system/docker.service.d/{machine.name}.conf",
        f"systemd/system/containerd.service.d/{machine.name}.conf",
    ]
    return {n: (machine.etc / n).read_text() for n in names if (machine.etc / n).exists()}


def test_the_limit_on_open_files_is_raised(machine: Booting, shell: Shell) -> None:
    (machine.top / "run/systemd/system").mkdir(parents=True)
    machine.records("systemctl", "case $1 in show) echo LimitNOFILE=524288 ;; esac")

    assert machine.boot(REGISTRY_TRUST_NOFILE="").returncode == 0

    limits, *drop_ins = nofile_files(machine).values()
    assert limits == f"* - nofile {LIMIT}\nroot - nofile {LIMIT}\n"
    assert drop_ins == [f"[Service]\nLimitNOFILE={LIMIT}\n"] * 2
    assert machine.calls("systemctl").count("daemon-reload") == 2
    before = snapshot(machine.etc / "systemd") | snapshot(machine.etc / "security")
    machine.boot(REGISTRY_TRUST_NOFILE=LIMIT)
    assert snapshot(machine.etc / "systemd") | snapshot(machine.etc / "security") == before
    assert machine.calls("systemctl").count("daemon-reload") == 2


@pytest.mark.parametrize("limit", ["infinity", LIMIT, "2000000"])
def test_a_limit_that_is_as_high_already_is_left(machine: Booting, limit: str) -> None:
    (machine.top / "run/systemd/system").mkdir(parents=True)
    machine.records("systemctl", f"case $1 in show) echo LimitNOFILE={limit} ;; esac")
    assert machine.boot(REGISTRY_TRUST_NOFILE=LIMIT).returncode == 0
    assert list(nofile_files(machine)) == [f"security/limits.d/{machine.name}.conf"]


def test_a_limit_that_is_to_be_left_is_left(machine: Booting) -> None:
    assert machine.boot(REGISTRY_TRUST_NOFILE="leave").returncode == 0
    assert nofile_files(machine) == {}


@pytest.mark.parametrize("more", ["more than the kernel allows", "more than numbers can say"])
def test_a_limit_is_never_one_with_which_nobody_could_log_in(
    machine: Booting, shell: Shell, more: str
) -> None:
    """pam_limits(8): what setrlimit refuses has the session refused, and root's is no exception."""
    (machine.top / "run/systemd/system").mkdir(parents=True)
    machine.records("systemctl", "case $1 in show) echo LimitNOFILE=1024 ;; esac")
    allowed = Path("/proc/sys/fs/nr_open").read_text().strip()
    asked = str(int(allowed) + 1) if more == "more than the kernel allows" else "9" * 40

    assert machine.boot(REGISTRY_TRUST_NOFILE=asked).returncode == 0

    limits, *drop_ins = nofile_files(machine).values()
    assert limits == f"* - nofile {allowed}\nroot - nofile {allowed}\n"
    assert drop_ins == [f"[Service]\nLimitNOFILE={allowed}\n"] * 2


@pytest.mark.parametrize("limit", ["many", "0", "-1", "1e6"])
def test_a_limit_that_is_no_number_is_told_of(
    machine: Booting, cloud: BootCloud, limit: str
) -> None:
    ran = machine.boot(REGISTRY_TRUST_NOFILE=limit)
    assert (ran.returncode, f"REGISTRY_TRUST_NOFILE={limit} is no number" in ran.stderr) == (
        1,
        True,
    )
    assert nofile_files(machine) == {}
    is_enrolled(machine, cloud)


# --- when it cannot -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hidden", "version", "complaint"),
    [
        ({"curl"}, "", "please install: curl (7.75 or later, which signs requests)"),
        ({"openssl"}, "", "please install: openssl"),
        ({"curl", "openssl"}, "", "please install: openssl curl (7.75"),
        (set(), "curl 7.74.0 (x86_64-pc-linux-gnu)", "please install: curl (7.75"),
        (set(), "curl 6.99.1", "please install: curl (7.75"),
        (set(), "nonsense", "please install: curl (7.75"),
    ],
)
def test_what_it_needs_and_does_not_find_it_names(
    machine: Booting, hidden: set[str], version: str, complaint: str
) -> None:
    machine.hidden = hidden
    if version:
        machine.shim("curl", f"echo '{version}'")
    ran = machine.boot()
    assert ran.returncode == 1
    assert complaint in ran.stderr
    assert [p.name for p in machine.etc.iterdir()] == ["cron.d"]


@pytest.mark.parametrize("version", ["7.75.0", "7.88.1", "8.0.1", "10.1.0"])
def test_a_newer_curl_will_do(machine: Booting, version: str) -> None:
    curl = shutil.which("curl")
    machine.shim(
        "curl", f'[ "$1" != --version ] || {{ echo "curl {version} (x)"; exit; }}; exec {curl} "$@"'
    )
    assert machine.boot().returncode == 0


def test_a_wrong_call_is_told_so(machine: Booting) -> None:
    ran = machine.boot("--now")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"usage: {machine.name} " in ran.stderr


def test_not_run_by_root_it_says_so_and_does_nothing(machine: Booting) -> None:
    ran = machine.boot(user=ANN)
    assert (ran.returncode, ran.stderr) == (1, "registry-trust: run this as root\n")
    assert [p.name for p in machine.etc.iterdir()] == ["cron.d"]


def test_without_a_metadata_service_it_says_so(machine: Booting) -> None:
    ran = machine.boot(AWS_EC2_METADATA_SERVICE_ENDPOINT="http://127.0.0.1:1")
    assert ran.returncode == 1
    assert "no instance id from the metadata service" in ran.stderr
    assert sum(map(int, machine.calls("sleep"))) == 300


@pytest.mark.parametrize("before", ["a first boot", "a renewal"])
def test_when_the_power_fails_at_any_command_each_engine_has_a_pair_that_fits(
    machine: Booting, cloud: BootCloud, before: str
) -> None:
    """And the next run ends well, with no certificate more than was needed."""
    if before == "a renewal":
        cloud.life = (timedelta(days=-61), timedelta(days=29))
        machine.boot()
        cloud.life = (timedelta(days=-1), timedelta(days=89))
    start = machine.top / "start"
    shutil.copytree(machine.etc, start, symlinks=True)
    (machine.top / "shims/sleep").unlink()
    had, number, done = len(cloud.issued), 1, False
    while not done:
        shutil.rmtree(machine.etc, ignore_errors=True)
        machine.etc.mkdir(exist_ok=True)
        shutil.copytree(start, machine.etc, symlinks=True, dirs_exist_ok=True)
        del cloud.issued[had:]
        cloud.answered.clear()
        machine.dies_at(number)
        done = "admits it" in machine.boot().stdout
        machine.lives()

        keys = {machine.key} if machine.key_file.exists() else set()
        for engine in ENGINES:
            for each in (machine.etc / engine / "certs.d").glob("*/client.cert"):
                certificate = x509.load_pem_x509_certificate(each.read_bytes())
                assert spki(certificate.public_key()) == machine.public_key()
                assert each.with_name("client.key").read_text() in keys
        if number % 4 == 0 or done:
            assert machine.boot().returncode == 0, number
            assert len(cloud.issued) == had + 1
            is_enrolled(machine, cloud)
        number += 1
    print(f"{number - 2} points")
