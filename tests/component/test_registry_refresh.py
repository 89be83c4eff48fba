"""registry-refresh, run by dash, with the real nginx; S3, metadata and API are a stand-in."""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tests.component.cloud_stand_in import (
    BUCKET,
    SECRET_KEY,
    TOKEN,
    Cloud,
    running_cloud,
)
from tests.component.real_host import (
    layout_under,
    running_nginx,
    wait_until,
)
from tests.component.refreshed_host import ADMITTED, REFUSED, SHELL, Host, new_host_in
from tests.component.throwaway_pki import (
    DAY,
    ThrowawayCa,
    certificate_pem,
    crl_pem,
    key_pem,
    new_key,
    now,
)


@pytest.fixture
def new_host(tmp_path: Path) -> Iterator[Host]:
    """A host where registry-refresh has never run."""
    with new_host_in(tmp_path, ThrowawayCa("Servers"), ThrowawayCa("Clients")) as host:
        yield host


@pytest.fixture(scope="module")
def after_first_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    prefix = tmp_path_factory.mktemp("first")
    with new_host_in(prefix, ThrowawayCa("Servers"), ThrowawayCa("Clients")) as host:
        host.succeeds()
        yield host


@pytest.fixture
def host(tmp_path: Path, after_first_run: Host) -> Iterator[Host]:
    """A host that has had its first run: a copy, for the sake of the tests' speed."""
    first = after_first_run
    with new_host_in(tmp_path, first.cloud.server_ca, first.client_ca) as host:
        shutil.copytree(first.path(""), host.path(""), symlinks=True, dirs_exist_ok=True)
        host.cloud.objects = dict(first.cloud.objects)
        yield host


# --- when all goes well ---------------------------------------------------------------------------


def test_the_first_run_makes_all_that_nginx_needs(new_host: Host) -> None:
    leaf = new_host.client_ca.client()
    new_host.succeeds()
    with running_nginx(new_host.layout):
        assert new_host.visit(leaf) == ADMITTED
    modes = {p.name: p.stat().st_mode & 0o777 for p in new_host.path("current").iterdir()}
    assert modes["server.key"] == 0o600
    assert b"BEGIN PRIVATE KEY" not in b"".join(r.body for r in new_host.cloud.requests)
    assert not new_host.path("work").exists()


def test_nothing_new_means_no_reload_and_no_new_generation(host: Host) -> None:
    generation = os.readlink(host.path("current"))
    host.succeeds()
    assert (os.readlink(host.path("current")), host.reloads) == (generation, 0)
    assert host.cloud.count("/registry/cert") == 0


def test_a_new_crl_is_taken_and_its_certificates_refused(host: Host) -> None:
    lost, kept = host.client_ca.client("lost"), host.client_ca.client("kept")
    with running_nginx(host.layout):
        assert (host.visit(lost), host.visit(kept)) == (ADMITTED, ADMITTED)
        host.publish(host.client_ca.crl(6, [lost.serial]))
        host.succeeds()
        wait_until(lambda: host.visit(lost) == REFUSED, "the lost certificate to be refused")
        assert host.visit(kept) == ADMITTED
    assert host.reloads == 1


def test_a_second_client_ca_is_taken_and_the_first_one_retired(host: Host) -> None:
    second = ThrowawayCa(host.client_ca.name)  # of the same name, as after a rotation
    with running_nginx(host.layout):
        host.publish(second.crl(1), host.client_ca.crl(6), cas=(host.client_ca, second))
        host.succeeds()
        wait_until(lambda: host.visit(second.client()) == ADMITTED, "the new CA to be trusted")
        assert host.visit(host.client_ca.client()) == ADMITTED
        host.publish(second.crl(2), cas=(second,))
        host.succeeds()
        wait_until(lambda: host.visit(host.client_ca.client()) == REFUSED, "the old CA to go")
        assert host.visit(second.client()) == ADMITTED


def test_two_generations_are_kept_and_no_more(host: Host) -> None:
    for number in range(6, 9):
        host.publish(host.client_ca.crl(number))
        host.succeeds()
    kept = {p.name for p in host.path("generations").iterdir()}
    links = {os.readlink(host.path(name)).rpartition("/")[2] for name in ("current", "previous")}
    assert (kept, len(links)) == (links, 2)


def test_a_certificate_in_the_last_third_of_its_life_is_renewed_with_a_new_key(
    new_host: Host,
) -> None:
    new_host.cloud.certificate_life = (timedelta(days=-61), timedelta(days=29))
    new_host.run()  # what it gets is due at once, so it says so
    new_host.path("in-vain").unlink()
    new_host.cloud.certificate_life = (timedelta(minutes=-5), timedelta(days=90))
    new_host.succeeds()
    first = new_host.in_use()
    assert new_host.cloud.count("/registry/cert") == 2
    new_host.succeeds()
    assert new_host.in_use() == first


@pytest.mark.parametrize(("days_lived", "renewed"), [(59, False), (61, True)])
def test_the_last_third_begins_after_two_thirds(host: Host, days_lived: int, renewed: bool) -> None:
    life = (timedelta(days=-days_lived), timedelta(days=90 - days_lived))
    put_certificate(host, life)
    before = host.in_use()["server.key"]
    host.succeeds()
    assert (host.in_use()["server.key"] != before) is renewed


def put_certificate(
    host: Host,
    life: tuple[timedelta, timedelta],
    name: str = "localhost",
    ca: ThrowawayCa | None = None,
) -> None:
    """Another certificate for the key in use, as if it had been issued long ago."""
    key = load_pem_private_key(host.in_use()["server.key"], None)
    issued = (ca or host.cloud.server_ca).server(
        key.public_key(),  # type: ignore[arg-type]
        name,
        not_before=now() + life[0],
        not_after=now() + life[1],
    )
    (host.path("current") / "server.crt").write_bytes(certificate_pem(issued))


FRESH = (timedelta(days=-1), timedelta(days=89))


def test_a_certificate_for_another_host_name_is_replaced(host: Host) -> None:
    put_certificate(host, FRESH, name="registry.elsewhere.example")
    host.succeeds()
    assert host.cloud.count("/registry/cert") == 1


def test_a_certificate_of_a_retired_server_ca_is_replaced(host: Host) -> None:
    host.cloud.server_ca = ThrowawayCa("Servers")
    host.publish(host.client_ca.crl(5))
    host.succeeds()
    assert host.cloud.count("/registry/cert") == 1


def test_a_key_that_is_not_the_certificates_is_replaced(host: Host) -> None:
    (host.path("current") / "server.key").write_bytes(key_pem(new_key()))
    host.succeeds()
    assert host.cloud.count("/registry/cert") == 1


def test_two_runs_at_once_do_the_work_once(new_host: Host) -> None:
    new_host.cloud.delay = 0.05
    runs = [new_host.start() for _ in range(3)]
    assert [run.communicate(timeout=20)[1] for run in runs] == ["", "", ""]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert (new_host.cloud.count("/registry/cert"), new_host.reloads) == (1, 1)


# --- what is not taken ----------------------------------------------------------------------------


def refused_crls(host: Host) -> dict[str, tuple[bytes, str]]:
    ca, stranger = host.client_ca, ThrowawayCa(host.client_ca.name)
    good = crl_pem(ca.crl(6))
    short = base64.b64encode(ca.crl(6).public_bytes(Encoding.DER)[:-20])
    return {
        "older": (crl_pem(ca.crl(4)), "older (number 0x04) than the one in use (0x05)"),
        "forged": (crl_pem(ca.crl(6, signed_by=stranger.key)), "no CRL in S3 that it signed"),
        "a stranger's": (crl_pem(stranger.crl(6)), "no CRL in S3 that it signed"),
        "a stranger's too": (good + crl_pem(stranger.crl(6)), "signed by none"),
        "two": (good + crl_pem(ca.crl(7)), "two CRLs"),
        "expired": (
            crl_pem(ca.crl(6, last_update=now() - 9 * DAY, next_update=now() - DAY)),
            "has expired",
        ),
        "of tomorrow": (crl_pem(ca.crl(6, last_update=now() + DAY)), "from the future"),
        "cut short": (good[:-40], "cut short or not PEM"),
        "cut short inside": (
            b"-----BEGIN X509 CRL-----\n" + short + b"\n-----END X509 CRL-----\n",
            "no CRL in S3 that it signed",
        ),
        "empty": (b"", "cut short or not PEM"),
        "HTML": (b"<html><body>Sign in to the hotel's network</body></html>", "not PEM"),
        "followed by something": (good + b"and more\n", "not PEM"),
        "of another kind": (host.client_ca.pem, "not PEM of the kind X509 CRL"),
        "of a huge number": (crl_pem(ca.crl(1 << 100)), "no number that can be read"),
    }


def test_a_crl_with_anything_wrong_is_not_taken(host: Host) -> None:
    for case, (crl, reason) in refused_crls(host).items():
        host.cloud.objects["trust/client-ca.crl"] = crl
        host.fails(reason), case
    host.publish(host.client_ca.crl(6))
    host.succeeds()
    assert host.in_use()["crl-numbers"].split() == [host.client_ca.authority_id.encode(), b"06"]


def test_a_ca_with_anything_wrong_is_not_taken(host: Host) -> None:
    pem, no_ca = host.client_ca.pem, "names something as a CA that is none"
    for name, bad, reason in [
        ("ca.crt", ThrowawayCa("Servers", is_ca=False).pem, no_ca),
        ("client-ca.crt", ThrowawayCa("Clients", is_ca=False).pem, no_ca),
        ("client-ca.crt", pem.replace(b"MII", b"MIJ", 1), no_ca),
        ("ca.crt", pem[:-40], "ca.crt is cut short or not PEM"),
        ("client-ca.crt", pem + b"<html>", "client-ca.crt is cut short or not PEM"),
        ("ca.crt", b"", "ca.crt is cut short or not PEM"),
    ]:
        host.publish(host.client_ca.crl(6))
        host.cloud.objects[f"trust/{name}"] = bad
        host.fails(reason)


def test_a_client_ca_without_a_crl_is_not_taken(host: Host) -> None:
    """nginx would refuse every client of that CA, and so it would on the first one's expiry."""
    host.publish(host.client_ca.crl(6), cas=(host.client_ca, ThrowawayCa("More")))
    host.fails("has no CRL in S3 that it signed")


def test_on_the_first_run_too_a_bad_crl_is_not_taken(new_host: Host) -> None:
    new_host.publish(new_host.client_ca.crl(1, signed_by=ThrowawayCa("x").key))
    new_host.fails("no CRL in S3 that it signed")
    assert not new_host.path("current").exists()
    new_host.publish(new_host.client_ca.crl(1))
    new_host.succeeds()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"host": "registry.elsewhere.example"}, "does not verify for localhost"),
        ({"signer": ThrowawayCa("Servers")}, "does not verify for localhost"),
        ({"certificate_life": (-3 * DAY, -DAY)}, "does not verify for localhost"),
    ],
)
def test_a_certificate_that_is_no_use_is_not_taken_nor_asked_for_at_once_again(
    new_host: Host, changes: dict[str, Any], reason: str
) -> None:
    for name, value in changes.items():
        setattr(new_host.cloud, name, value)
    new_host.fails(reason)
    new_host.fails("so we wait")
    assert new_host.cloud.count("/registry/cert") == 1


# --- what changes while a run reads it ------------------------------------------------------------


def change_after(host: Host, name: str, change: Callable[[], None]) -> None:
    """Have the publisher write, once, between a run's read of *name* and its next one."""

    def answer() -> tuple[int, bytes]:
        read = host.cloud.objects[f"trust/{name}"]
        host.cloud.faults.clear()
        change()
        return 200, read

    host.cloud.faults[f"/trust/{name}"] = answer


def test_a_ca_added_while_a_run_reads_is_taken_by_the_next_run(host: Host) -> None:
    leaf, second = host.client_ca.client(), ThrowawayCa(host.client_ca.name)
    both = (host.client_ca, second)
    change_after(
        host,
        "client-ca.crt",
        lambda: host.publish(host.client_ca.crl(6, [leaf.serial]), second.crl(6), cas=both),
    )
    with running_nginx(host.layout):
        host.fails("a CRL in S3 is signed by none of the client CAs")
        assert host.visit(leaf) == ADMITTED
        host.succeeds()
        wait_until(lambda: host.visit(second.client()) == ADMITTED, "the new CA to be trusted")
        wait_until(lambda: host.visit(leaf) == REFUSED, "the new CRL to count")


def test_a_ca_retired_while_a_run_reads_is_let_go_by_the_next_run(host: Host) -> None:
    leaf, old = host.client_ca.client(), ThrowawayCa("Old")
    host.publish(host.client_ca.crl(6), old.crl(6), cas=(host.client_ca, old))
    host.succeeds()
    change_after(host, "client-ca.crt", lambda: host.publish(host.client_ca.crl(7)))
    with running_nginx(host.layout):
        host.fails("a client CA has no CRL in S3 that it signed")
        assert (host.visit(leaf), host.visit(old.client())) == (ADMITTED, ADMITTED)
        host.succeeds()
        wait_until(lambda: host.visit(old.client()) == REFUSED, "the old CA to go")
        assert host.visit(leaf) == ADMITTED


@pytest.mark.parametrize("name", ["ca.crt", "client-ca.crt"])
def test_a_crl_published_while_a_run_reads_is_taken_by_that_run(host: Host, name: str) -> None:
    """And so it is newer than trust.json says, which is for others and written last."""
    host.cloud.objects["trust/trust.json"] = json.dumps({"crl_number": 5}).encode()
    change_after(host, name, lambda: host.publish(host.client_ca.crl(6)))
    host.succeeds()
    assert host.in_use()["crl-numbers"].split()[1] == b"06"
    host.succeeds()
    assert host.reloads == 1


def test_a_server_ca_added_while_a_run_reads_is_taken_by_the_next_run(host: Host) -> None:
    first, second = host.cloud.server_ca, ThrowawayCa("Servers")

    def add() -> None:
        host.publish(host.client_ca.crl(6))
        host.cloud.objects["trust/ca.crt"] = first.pem + second.pem

    change_after(host, "ca.crt", add)
    host.succeeds()
    assert host.in_use()["ca.crt"] == first.pem
    host.succeeds()
    assert host.in_use()["ca.crt"] == first.pem + second.pem


def test_while_only_one_of_two_client_cas_has_a_crl_both_go_on_as_before(host: Host) -> None:
    second = ThrowawayCa("More")
    both, leaf = (host.client_ca, second), host.client_ca.client()
    with running_nginx(host.layout):
        host.publish(host.client_ca.crl(6), second.crl(6), cas=both)
        host.succeeds()
        wait_until(lambda: host.visit(second.client()) == ADMITTED, "the second CA to be trusted")
        for crl in (host.client_ca.crl(7, [leaf.serial]), second.crl(7)):
            host.publish(crl, cas=both)
            host.fails("a client CA has no CRL in S3 that it signed")
            assert (host.visit(leaf), host.visit(second.client())) == (ADMITTED, ADMITTED)
        host.publish(host.client_ca.crl(7, [leaf.serial]), second.crl(7), cas=both)
        host.succeeds()
        wait_until(lambda: host.visit(leaf) == REFUSED, "the new CRL to count")


def test_one_of_two_crls_that_is_older_keeps_both_from_being_taken(host: Host) -> None:
    """They are published together, so an older one means an older trust."""
    second = ThrowawayCa("More")
    both = (host.client_ca, second)
    host.publish(host.client_ca.crl(6), second.crl(6), cas=both)
    host.succeeds()
    host.publish(host.client_ca.crl(7), second.crl(5), cas=both)
    host.fails("older (number 0x05) than the one in use (0x06)")
    host.publish(host.client_ca.crl(7), second.crl(7), cas=both)
    host.succeeds()


# --- what fails around it -------------------------------------------------------------------------

OUTAGES = {
    "metadata": ("/latest/api/token", lambda: (500, b""), "gave no credentials (no token)"),
    "no role": ("/security-credentials/", lambda: (404, b""), "gave no credentials (no role)"),
    "odd metadata": ("/registry-host", lambda: (200, b"<html>"), "no credentials (no access key)"),
    "S3": ("/trust/ca.crt", lambda: (503, b"<Error><Code>SlowDown</Code></Error>"), "SlowDown"),
    "S3 denies": ("client-ca.crl", lambda: (403, b"<Error><Code>AccessDenied</Code>"), "AccessDen"),
    "S3 is a flood": ("client-ca.crt", lambda: (200, b"x" * 2_000_000), "could not fetch"),
}


def test_in_an_outage_nginx_goes_on_with_what_it_has(host: Host) -> None:
    leaf = host.client_ca.client()
    with running_nginx(host.layout):
        success = host.status()["last_success"]
        host.publish(host.client_ca.crl(6, [leaf.serial]))
        for path, fault, reason in OUTAGES.values():
            host.cloud.faults = {path: fault}
            host.fails(reason)
            assert host.status()["last_success"] == success
        assert host.visit(leaf) == ADMITTED
        host.cloud.faults = {}
        host.succeeds()
        wait_until(lambda: host.visit(leaf) == REFUSED, "the new CRL to count")


def test_a_cloud_that_is_not_there_is_said(host: Host) -> None:
    settings = Path(host.layout.config_dir, "refresh.env")
    settings.write_text(settings.read_text().replace(host.cloud.url, "http://127.0.0.1:1"))
    host.fails("gave no credentials (no token)")


def test_over_https_only_a_cloud_that_a_known_ca_vouches_for_is_believed(tmp_path: Path) -> None:
    web_ca, key = ThrowawayCa("Web"), new_key()
    pair, bundle = tmp_path / "web.pem", tmp_path / "web-ca.pem"
    pair.write_bytes(certificate_pem(web_ca.server(key.public_key(), "127.0.0.1")) + key_pem(key))
    bundle.write_bytes(web_ca.pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair)
    with running_cloud(Cloud(ThrowawayCa("Servers")), tls) as cloud:
        host = Host(layout_under(tmp_path / "host"), cloud, tmp_path)
        host.write_files()
        host.publish(host.client_ca.crl(5))
        host.fails("gave no credentials (no token)")
        result = host.run(CURL_CA_BUNDLE=str(bundle))
        assert (result.returncode, result.stderr) == (0, "")


def test_a_ca_of_the_system_is_not_trusted(host: Host) -> None:
    """OpenSSL would take it from SSL_CERT_DIR, or from where the system keeps its CAs."""
    stranger, directory = ThrowawayCa("Stranger"), host.prefix / "system"
    directory.mkdir()
    command = ["openssl", "x509", "-noout", "-subject_hash"]
    name = subprocess.run(command, input=stranger.pem, capture_output=True, check=True).stdout
    (directory / f"{name.decode().strip()}.0").write_bytes(stranger.pem)
    put_certificate(host, FRESH, ca=stranger)
    host.publish(host.client_ca.crl(6), stranger.crl(1))
    result = host.run(SSL_CERT_DIR=str(directory))
    assert "a CRL in S3 is signed by none of the client CAs" in result.stderr
    assert host.cloud.count("/registry/cert") == 1


def test_a_failing_renewal_does_not_hold_up_a_crl(host: Host) -> None:
    put_certificate(host, (timedelta(days=-61), timedelta(days=29)))
    host.cloud.faults["/registry/cert"] = lambda: (503, b'{"detail": "a \\"bad\\" day"}')
    key = host.in_use()["server.key"]
    host.publish(host.client_ca.crl(6))
    result = host.run()
    assert (result.returncode, "the API answered 503" in result.stderr) == (1, True)
    assert host.in_use()["crl-numbers"].split()[1] == b"06"
    assert host.in_use()["server.key"] == key


def test_a_bad_crl_does_not_hold_up_a_renewal(host: Host) -> None:
    put_certificate(host, (timedelta(days=-61), timedelta(days=29)))
    key = host.in_use()["server.key"]
    host.publish(host.client_ca.crl(1))
    assert host.run().returncode == 1
    assert host.in_use()["crl-numbers"].split()[1] == b"05"
    assert host.in_use()["server.key"] != key


def test_what_nginx_does_not_accept_never_counts(host: Host) -> None:
    leaf = host.client_ca.client()
    config = Path(host.layout.config_dir, "nginx.conf")
    with running_nginx(host.layout):
        good = config.read_text()
        config.write_text(good + "\nnonsense;\n")
        host.publish(host.client_ca.crl(6, [leaf.serial]))
        host.fails("unknown directive nonsense")
        assert host.visit(leaf) == ADMITTED
        config.write_text(good)
        host.succeeds()
        wait_until(lambda: host.visit(leaf) == REFUSED, "the new CRL to count")


def test_nginx_is_tested_with_the_new_files_and_not_with_those_in_use(new_host: Host) -> None:
    seen = new_host.prefix / "seen"
    seen.mkdir()
    new_host.write_files(test_command=f"cp -t '{seen}'")
    new_host.succeeds()
    tested = (seen / "nginx.conf").read_text()
    assert f"{new_host.layout.trust_dir}/" not in tested
    assert f'ssl_crl "{new_host.layout.state_dir}/work/new/client-ca.crl"' in tested


def test_a_reload_that_failed_is_tried_again(new_host: Host) -> None:
    new_host.write_files()
    settings = Path(new_host.layout.config_dir, "refresh.env")
    good = settings.read_text()
    settings.write_text(good + "NGINX_RELOAD_COMMAND='echo it is stuck; false'\n")
    result = new_host.run()
    assert (result.returncode, "could not be reloaded: it is stuck" in result.stderr) == (1, True)
    settings.write_text(good)
    new_host.succeeds()
    assert new_host.reloads == 1


def test_an_answer_that_is_cut_off_is_not_taken_even_if_what_came_looks_whole(host: Host) -> None:
    host.publish(host.client_ca.crl(6))
    host.cloud.cut_short = {f"/{BUCKET}/trust/client-ca.crl"}
    host.fails("could not fetch the trust from S3 (answers: 200 200 200 , cut off")


def test_a_full_disk_changes_nothing(host: Host) -> None:
    """No file may grow past 512 bytes: what a run writes is cut short at every place."""
    before = host.in_use()
    host.publish(host.client_ca.crl(6))
    script, settings = (
        Path(host.layout.config_dir, n) for n in ("registry-refresh", "refresh.env")
    )
    limited = f"trap '' XFSZ; ulimit -f 1; exec {SHELL} '{script}' '{settings}'"
    result = subprocess.run([SHELL, "-c", limited], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert host.in_use() == before
    host.succeeds()


def test_an_expired_crl_in_use_is_said_while_no_other_is_to_be_had(host: Host) -> None:
    (host.path("current") / "crl-until").write_text(str(int(time.time()) - 1))
    host.fails("the CRL in use has expired: nginx refuses every client")


CHANGING = ["cp", "ln", "mv", "sync"]  # what a run changes files with, in all that counts


def stumbling_block(host: Host, deed: str) -> dict[str, str]:
    """An environment in which the call of CHANGING that STUMBLE_AT counts to comes to grief."""
    shims = host.prefix / "shims"
    shims.mkdir(exist_ok=True)
    for program in CHANGING:
        shim = shims / program
        shim.write_text(
            f"""#!/bin/sh
count=$(($(cat '{shims}/count') + 1))
echo "$count" >'{shims}/count'
if [ "$count" -eq "$STUMBLE_AT" ]; then {deed}; fi
exec {shutil.which(program)} "$@"
"""
        )
        shim.chmod(0o755)
    (shims / "count").write_text("0")
    return {"PATH": f"{shims}:{os.environ['PATH']}"}


@pytest.mark.parametrize("deed", ["kill -9 $PPID; exit 1", "exit 1"], ids=["killed", "fails"])
def test_whatever_step_is_its_last_a_whole_generation_is_in_use(host: Host, deed: str) -> None:
    """A new CRL and a renewal together, stopped at each change it makes to files in turn."""
    step, stumbled = 0, True
    while stumbled:
        step += 1
        put_certificate(host, (timedelta(days=-61), timedelta(days=29)))
        before = host.in_use()
        host.publish(host.client_ca.crl(5 + step))
        environment = stumbling_block(host, deed)
        result = host.run(STUMBLE_AT=str(step), **environment)
        stumbled = int((host.prefix / "shims" / "count").read_text()) >= step
        assert (result.returncode != 0) is stumbled
        assert whole(host, host.in_use(), before)
    assert step > 8
    assert host.path("told").read_text() == os.readlink(host.path("current")).rpartition("/")[2]
    assert len(list(host.path("generations").iterdir())) == 2


def whole(host: Host, after: dict[str, bytes], before: dict[str, bytes]) -> bool:
    """Trust and certificate are each the old or the new one, and each in one piece."""
    key = load_pem_private_key(after["server.key"], None)
    certificate = x509.load_pem_x509_certificate(after["server.crt"])
    if after["client-ca.crl"] == host.cloud.objects["trust/client-ca.crl"]:
        trust_is_whole = after["crl-numbers"] > before["crl-numbers"]
    else:
        trust_is_whole = all(after[n] == before[n] for n in ("client-ca.crl", "crl-numbers"))
    return (
        set(after) == set(before)
        and trust_is_whole
        and key.public_key() == certificate.public_key()
    )


# --- what nobody may see --------------------------------------------------------------------------


def test_no_secret_is_ever_an_argument_of_a_program(new_host: Host) -> None:
    """Every process's arguments are read as fast as can be while it runs."""
    new_host.cloud.delay = 0.05
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.update(arguments())

    watcher = threading.Thread(target=watch)
    watcher.start()
    new_host.succeeds()
    done.set()
    watcher.join()
    programs = {line.split(b"\0")[0] for line in seen}
    assert b"curl" in programs
    for line in seen:
        assert SECRET_KEY.encode() not in line
        assert TOKEN.encode() not in line
        assert b"AWS4-HMAC" not in line


def arguments() -> Iterator[bytes]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                yield (process / "cmdline").read_bytes()
            except OSError:
                continue


def test_secrets_of_the_cloud_are_not_left_on_disk(new_host: Host) -> None:
    new_host.succeeds()
    for path in new_host.prefix.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert SECRET_KEY.encode() not in held
            assert TOKEN.encode() not in held


def test_a_curlrc_and_the_callers_environment_change_nothing(new_host: Host) -> None:
    (new_host.prefix / ".curlrc").write_text("fail\nuser-agent = odd\noutput = /dev/null\n")
    hostile = {
        "HOME": str(new_host.prefix),
        "CURRENT": "/x",
        "SECRET_KEY": "y",
        "PROBLEMS": "z",
        "COMPLETE": "yes",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "LC_ALL": "tr_TR.UTF-8",
    }
    result = new_host.run(**hostile)
    assert (result.returncode, result.stderr) == (0, "")


# --- wrong calls ----------------------------------------------------------------------------------


def test_a_wrong_call_says_so(host: Host) -> None:
    script = Path(host.layout.config_dir, "registry-refresh")
    empty = host.prefix / "empty.env"
    empty.write_text("")
    for arguments_given in (["/nonexistent"], [str(empty)], ["a", "b"]):
        result = subprocess.run(
            [SHELL, str(script), *arguments_given], capture_output=True, text=True, check=False
        )
        assert (result.returncode, "usage: " in result.stderr) == (2, True)
