"""What a registry host reports of itself, by the real script, as those who ask for it read it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chalicelib.domain.registry_host.report import report_key
from tests.component import refreshed_host
from tests.component.cloud_stand_in import INSTANCE
from tests.component.real_host import running_nginx
from tests.component.refreshed_host import Host, new_host_in
from tests.component.throwaway_pki import ThrowawayCa

OBJECT = report_key(INSTANCE)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with new_host_in(tmp_path, ThrowawayCa("Servers"), ThrowawayCa("Clients")) as host:
        host.succeeds()
        yield host


def reports(host: Host) -> int:
    return sum(r.method == "PUT" and r.path.endswith(OBJECT) for r in host.cloud.requests)


def test_it_says_what_is_in_use_and_that_it_serves(host: Host) -> None:
    second, next_server = ThrowawayCa("More"), ThrowawayCa("Servers")
    crls = host.client_ca.crl(6), second.crl(1)
    both = (host.client_ca, second)
    host.publish(*crls, cas=both, server_cas=(host.cloud.server_ca, next_server))
    with running_nginx(host.layout):
        host.succeeds()
    said, held = host.report(), host.certificate()
    assert (said.instance_id, said.ok, said.taken, said.last_error) == (INSTANCE, True, True, "")
    assert abs(said.time - datetime.now(UTC)) < timedelta(seconds=30)
    assert said.last_success == said.time
    assert said.ca == (host.cloud.server_ca.authority_id[:16], next_server.authority_id[:16])
    assert said.client_ca == (host.client_ca.authority_id[:16], second.authority_id[:16])
    assert said.crl_until == min(crl.next_update_utc for crl in crls if crl.next_update_utc)
    assert said.certificate is not None
    assert said.certificate.serial == f"{held.serial_number:040x}"
    assert said.certificate.issuer == host.cloud.server_ca.authority_id[:16]
    assert said.certificate.not_after == held.not_valid_after_utc
    assert said.certificate.served == "yes"


def test_it_is_written_when_it_says_something_new_and_each_five_minutes(host: Host) -> None:
    for _ in range(2):
        host.succeeds()
    assert reports(host) == 1
    host.publish(host.client_ca.crl(6))
    host.succeeds()
    assert reports(host) == 2
    for age, expected in [(250, 2), (301, 3), (-60, 4)]:  # the last: the clock was set back
        at, said = host.path("reported").read_text().splitlines()
        host.path("reported").write_text(f"{int(time.time()) - age}\n{said}\n")
        assert at
        host.succeeds()
        assert reports(host) == expected


def test_a_problem_is_reported_and_so_is_its_end(host: Host) -> None:
    host.publish(host.client_ca.crl(4))
    for _ in range(2):
        host.fails("older (number 0x04)")
    assert reports(host) == 2
    assert (host.report().ok, "older" in host.report().last_error) == (False, True)
    host.publish(host.client_ca.crl(6))
    host.succeeds()
    assert (host.report().ok, "older" in host.report().last_error) == (True, True)


@pytest.mark.parametrize(
    ("path", "answer", "reason"),
    [
        (OBJECT, (403, b"<Error><Code>AccessDenied</Code>"), "to S3 (answer: 403 AccessDenied)"),
        (OBJECT, (200, b"x" * 100_000), "could not write the report to S3"),
        ("/meta-data/instance-id", (404, b"i-0123456789abcdef0"), "gave no instance id"),
        ("/meta-data/instance-id", (200, b"../trust/ca.crt"), "gave no instance id"),
        ("/meta-data/instance-id", (200, b"i-01234567 x"), "gave no instance id"),
    ],
)
def test_a_report_that_cannot_be_written_is_a_problem_and_holds_up_nothing(
    host: Host, path: str, answer: tuple[int, bytes], reason: str
) -> None:
    host.cloud.faults[path] = lambda: answer
    host.publish(host.client_ca.crl(6))
    result = host.run()
    assert (result.returncode, reason in result.stderr) == (1, True)
    assert reason in host.status()["last_error"]
    assert host.in_use()["crl-numbers"].split()[1] == b"06"
    host.cloud.faults.clear()
    host.succeeds()
    assert host.report().ok


def test_without_credentials_that_alone_is_said(host: Host) -> None:
    host.cloud.faults["/latest/api/token"] = lambda: (500, b"")
    host.publish(host.client_ca.crl(6))
    host.fails("gave no credentials")
    assert "report" not in host.status()["last_error"]


def test_a_host_that_has_nothing_to_serve_with_says_so(tmp_path: Path) -> None:
    with new_host_in(tmp_path, ThrowawayCa("Servers"), ThrowawayCa("Clients")) as host:
        host.cloud.faults["/registry/cert"] = lambda: (403, b"{}")
        assert host.run().returncode == 1
        said = host.report()
        assert (said.ok, said.taken, said.certificate, said.ca) == (False, False, None, ())
        assert said.last_success is None
        assert "the API answered 403" in said.last_error


def test_the_issuer_of_a_certificate_is_known_after_it_was_distrusted(host: Host) -> None:
    old = host.cloud.server_ca
    host.cloud.server_ca = ThrowawayCa("Servers")
    host.cloud.faults["/registry/cert"] = lambda: (503, b"{}")
    host.publish(host.client_ca.crl(6))
    assert host.run().returncode == 1
    said = host.report()
    assert said.ca == (host.cloud.server_ca.authority_id[:16],)
    assert said.certificate is not None
    assert said.certificate.issuer == old.authority_id[:16]


def test_a_reload_that_failed_is_reported_as_not_taken(host: Host) -> None:
    host.set("NGINX_RELOAD_COMMAND", "false")
    host.publish(host.client_ca.crl(6))
    assert host.run().returncode == 1
    assert host.report().taken is False


@pytest.mark.parametrize("shell", ["bash --posix", "busybox sh"])
def test_other_shells_do_the_same(
    tmp_path: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshed_host, "SHELL", wrapper(tmp_path, shell))
    with new_host_in(tmp_path, ThrowawayCa("Servers"), ThrowawayCa("Clients")) as host:
        host.succeeds()
        with running_nginx(host.layout):
            host.succeeds()
            old, host.cloud.server_ca = host.cloud.server_ca, ThrowawayCa("Servers")
            host.publish(host.client_ca.crl(6), server_cas=(host.cloud.server_ca, old))
            host.succeeds()
            assert host.shown() == host.certificate()
            said = host.report()
            assert said.certificate is not None
            assert said.certificate.issuer == host.cloud.server_ca.authority_id[:16]
            assert said.certificate.served == "yes"
            former = host.certificate()
            host.is_stuck()
            host.publish(host.client_ca.crl(7), server_cas=(old, host.cloud.server_ca))
            host.cloud.server_ca = old
            assert "former one is in use again" in host.run().stderr
            assert host.certificate() == former


def wrapper(directory: Path, shell: str) -> str:
    path = directory / "shell"
    path.write_text(f'#!/bin/sh\nexec {shell} "$@"\n')
    path.chmod(0o755)
    return str(path)
