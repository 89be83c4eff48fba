"""Which server certificate a host shows: renewed under another CA, seen to serve, taken back."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.component.real_host import running_nginx, wait_until
from tests.component.refreshed_host import ADMITTED, REFUSED, Host, new_host_in
from tests.component.throwaway_pki import ThrowawayCa, certificate_pem, now

OLD, NEW = ThrowawayCa("Servers"), ThrowawayCa("Servers")  # of one name, as after a rotation
ENDING = (timedelta(days=-61), timedelta(days=29))


@pytest.fixture(scope="module")
def after_first_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with new_host_in(tmp_path_factory.mktemp("first"), OLD, ThrowawayCa("Clients")) as host:
        host.succeeds()
        yield host


@pytest.fixture
def host(tmp_path: Path, after_first_run: Host) -> Iterator[Host]:
    """A host that has had its first run, without nginx."""
    with new_host_in(tmp_path, OLD, after_first_run.client_ca) as host:
        shutil.copytree(after_first_run.path(""), host.path(""), symlinks=True, dirs_exist_ok=True)
        host.cloud.objects = dict(after_first_run.cloud.objects)
        yield host


@pytest.fixture
def serving(host: Host) -> Iterator[Host]:
    """A host whose certificate has been seen to serve."""
    with running_nginx(host.layout):
        host.succeeds()
        yield host


def rotate(host: Host) -> None:
    """Both CAs are trusted, and the new one signs from now on, as the API knows."""
    host.cloud.server_ca = NEW
    host.publish(host.client_ca.crl(6), server_cas=(NEW, OLD))


def is_of(certificate: x509.Certificate, ca: ThrowawayCa) -> bool:
    try:
        certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


# --- whose certificate ----------------------------------------------------------------------------


def test_a_ca_that_is_only_trusted_so_far_changes_no_certificate(serving: Host) -> None:
    before = serving.certificate()
    serving.publish(serving.client_ca.crl(6), server_cas=(OLD, NEW))
    serving.succeeds()
    assert (serving.certificate(), serving.cloud.count("/registry/cert")) == (before, 0)


def test_the_ca_that_signs_now_replaces_a_certificate_of_the_former_at_once(serving: Host) -> None:
    leaf = serving.client_ca.client()
    rotate(serving)
    serving.succeeds()
    assert is_of(serving.certificate(), NEW)
    assert serving.shown() == serving.certificate()
    assert serving.visit(leaf, trusting=NEW) == ADMITTED
    with pytest.raises(ssl.SSLError):
        serving.visit(leaf, trusting=OLD)
    serving.succeeds()
    assert serving.cloud.count("/registry/cert") == 1


def test_while_the_api_still_signs_with_the_former_ca_its_certificate_serves_on(
    serving: Host,
) -> None:
    """It keeps its CAs for a minute. The tries become ever more seldom, and nothing is lost."""
    leaf, before = serving.client_ca.client(), serving.certificate()
    rotate(serving)
    serving.cloud.signer = OLD
    for tries, wait in [(1, 15), (2, 30), (3, 60)]:
        result = serving.run()
        assert "the certificate we got is no use: it is not of the CA that signs" in result.stderr
        serving.fails("the last try was in vain, so we wait: it is not of the CA that signs now")
        assert serving.cloud.count("/registry/cert") == tries
        assert serving.wait() == wait
        assert serving.certificate() == serving.shown() == before
        assert serving.visit(leaf, trusting=OLD) == ADMITTED
        set_since(serving, int(time.time()) - wait)
    serving.cloud.signer = None
    serving.succeeds()
    assert is_of(serving.shown(), NEW)
    serving.succeeds()
    assert not serving.path("in-vain").exists()


def set_since(host: Host, since: int) -> None:
    rest = host.path("in-vain").read_text().split(" ", 1)[1]
    host.path("in-vain").write_text(f"{since} {rest}")


@pytest.mark.parametrize(("ca", "taken"), [(OLD, True), (ThrowawayCa("Servers"), False)])
def test_a_certificate_that_ends_gives_way_to_any_that_clients_take(
    host: Host, ca: ThrowawayCa, taken: bool
) -> None:
    """Even where our API never learns of the CA that is to sign: nobody is locked out by that."""
    use_ending_certificate(host)
    before = host.certificate()
    rotate(host)
    host.cloud.signer = ca
    assert host.run().returncode == 1
    assert (host.certificate() != before) is taken
    host.fails("so we wait")
    assert host.cloud.count("/registry/cert") == 1


def use_ending_certificate(host: Host) -> None:
    """Another certificate for the key in use, in the last third of its life."""
    key = load_pem_private_key(host.in_use()["server.key"], None)
    start, end = (now() + offset for offset in ENDING)
    issued = OLD.server(key.public_key(), "localhost", not_before=start, not_after=end)  # type: ignore[arg-type]
    (host.path("current") / "server.crt").write_bytes(certificate_pem(issued))


def test_an_api_that_refuses_is_asked_ever_more_seldom_but_never_given_up(host: Host) -> None:
    use_ending_certificate(host)
    host.cloud.faults["/registry/cert"] = lambda: (403, b'{"detail": "you are no registry host"}')
    waits = []
    for tries in range(1, 11):
        host.run()
        if tries in (1, 2, 10):
            host.fails(
                "so we wait: asked for a certificate, the API answered 403 you are no regist"
            )
        assert host.cloud.count("/registry/cert") == tries
        waits.append(host.wait())
        set_since(host, int(time.time()) - waits[-1])
    assert waits == [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    host.cloud.faults.clear()
    host.succeeds()


def test_without_any_certificate_no_wait_is_long(tmp_path: Path) -> None:
    with new_host_in(tmp_path, OLD, ThrowawayCa("Clients")) as host:
        host.cloud.faults["/registry/cert"] = lambda: (503, b"")
        host.run()
        in_vain = host.path("in-vain").read_text().split(" ", 2)
        host.path("in-vain").write_text(f"{int(time.time()) - 301} 3600 {in_vain[2]}")
        host.cloud.faults.clear()
        host.succeeds()


def test_another_ca_is_asked_for_at_once_however_vain_the_last_try_was(serving: Host) -> None:
    serving.set("SERVE_PAUSES", "0.1")  # nginx does not know of that one
    use_ending_certificate(serving)
    serving.cloud.faults["/registry/cert"] = lambda: (403, b"")
    assert serving.run().returncode == 1
    serving.cloud.faults.clear()
    rotate(serving)
    serving.run()
    assert is_of(serving.certificate(), NEW)


@pytest.mark.parametrize("content", ["", "x y z\n", "99999999999 3600 0 clock\n", "1\n"])
def test_an_odd_note_of_a_vain_try_keeps_nothing_from_being_done(host: Host, content: str) -> None:
    host.path("in-vain").write_text(content)
    rotate(host)
    host.succeeds()
    assert is_of(host.certificate(), NEW)


def test_a_certificate_that_nginx_does_not_accept_is_not_asked_for_again_and_again(
    host: Host,
) -> None:
    config = Path(host.layout.config_dir, "nginx.conf")
    good = config.read_text()
    config.write_text(good + "\nnonsense;\n")
    rotate(host)
    for _ in range(3):
        host.fails("unknown directive nonsense")
    config.write_text(good)
    host.succeeds()
    assert is_of(host.certificate(), NEW)
    assert host.cloud.count("/registry/cert") == 1


# --- seen to serve --------------------------------------------------------------------------------


def test_a_certificate_that_nginx_does_not_show_is_taken_back_and_the_trust_is_not(
    serving: Host,
) -> None:
    lost, kept = serving.client_ca.client("lost"), serving.client_ca.client("kept")
    before = serving.certificate()
    serving.is_stuck()
    rotate(serving)
    serving.publish(serving.client_ca.crl(6, [lost.serial]), server_cas=(NEW, OLD))
    result = serving.run()
    assert result.returncode == 1
    assert "did not show the new certificate, so the former one is in use again" in result.stderr
    assert serving.certificate() == before
    assert serving.in_use()["crl-numbers"].split()[1] == b"06"
    assert serving.in_use()["ca.crt"] == NEW.pem + OLD.pem
    assert serving.report().certificate.served == "yes"  # type: ignore[union-attr]

    serving.works_again()
    serving.fails("so we wait: nginx did not take it")  # and so neither asks nor reloads
    assert serving.wait() == 600
    serving.let_the_wait_pass()
    serving.succeeds()
    assert is_of(serving.shown(), NEW)
    assert serving.cloud.count("/registry/cert") == 1
    assert serving.visit(lost) == REFUSED
    assert serving.visit(kept) == ADMITTED
    assert not serving.path("got").exists()


def test_nginx_has_some_seconds_to_show_a_new_certificate(serving: Host) -> None:
    serving.set("NGINX_RELOAD_COMMAND", f"(sleep 3; {serving.layout.reload_command}) >&- 2>&- &")
    rotate(serving)
    serving.succeeds()
    assert is_of(serving.shown(), NEW)


def test_while_nobody_answers_there_is_no_verdict_and_the_former_certificate_is_kept(
    host: Host,
) -> None:
    with running_nginx(host.layout):
        host.succeeds()
    former = host.certificate()
    rotate(host)
    host.succeeds()
    assert is_of(host.certificate(), NEW)
    host.publish(host.client_ca.crl(7), server_cas=(NEW, OLD))
    host.succeeds()
    assert previous(host) == former
    assert host.status()["certificate"]["served"] == "unknown"
    with running_nginx(host.layout):
        host.succeeds()
        assert host.status()["certificate"]["served"] == "yes"
        host.publish(host.client_ca.crl(8), server_cas=(NEW, OLD))
        host.succeeds()
    assert is_of(previous(host), NEW)


def previous(host: Host) -> x509.Certificate:
    pem = host.path("previous").joinpath("server.crt").read_bytes()
    return x509.load_pem_x509_certificate(pem)


def test_a_run_that_ended_before_it_looked_leaves_the_look_to_the_next(serving: Host) -> None:
    before = serving.certificate()
    with replaced_program(serving, "timeout", "kill -9 $PPID"):
        serving.is_stuck()
        rotate(serving)
        assert serving.run(PATH=path_with_shims(serving)).returncode != 0
    assert is_of(serving.certificate(), NEW)
    assert "former one is in use again" in serving.run().stderr
    assert serving.certificate() == before


def path_with_shims(host: Host) -> str:
    return f"{host.prefix}/shims:{os.environ['PATH']}"


@contextmanager
def replaced_program(host: Host, name: str, text: str) -> Iterator[None]:
    shim = host.prefix / "shims" / name
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f"#!/bin/sh\n{text}\n")
    shim.chmod(0o755)
    yield
    shim.unlink()


def test_a_former_certificate_that_is_distrusted_since_does_not_come_back(serving: Host) -> None:
    """Clients refuse it; the new one is right, and nginx is told of it again, not too often."""
    serving.is_stuck()
    serving.cloud.server_ca = NEW
    serving.publish(serving.client_ca.crl(6))
    reason = "does not show the new certificate, and the former one is no use: it does not verify"
    assert reason in serving.run().stderr
    assert is_of(serving.certificate(), NEW)
    assert serving.report().taken is False
    serving.run()
    told = serving.reloads
    for _ in range(2):
        serving.fails(reason)
    serving.let_the_wait_pass()
    serving.fails(reason)
    serving.works_again()
    serving.succeeds()
    assert serving.reloads == told + 1
    assert is_of(serving.shown(), NEW)
    assert serving.report().taken is True


def test_the_first_certificate_of_all_is_not_judged(tmp_path: Path, serving: Host) -> None:
    """Somebody else's nginx is on our port: that is said, and there is nothing to go back to."""
    with new_host_in(tmp_path / "other", NEW, ThrowawayCa("Clients")) as other:
        other.set("SERVE_ADDRESS", serving.layout.listen[0])
        other.set("SERVE_PAUSES", "0.1")
        said = other.run().stderr
        assert "nginx shows another certificate than the one in use" in said
        assert is_of(other.certificate(), NEW)
        other.fails("nginx shows another certificate than the one in use")


def test_a_server_that_is_no_nginx_of_ours_is_said_and_changes_nothing(
    tmp_path: Path, serving: Host
) -> None:
    serving.set("SERVE_ADDRESS", "127.0.0.1:1")
    serving.succeeds()
    with new_host_in(tmp_path / "other", OLD, ThrowawayCa("Clients")) as other:
        other.succeeds()
        with running_nginx(other.layout):
            serving.set("SERVE_ADDRESS", other.layout.listen[0])
            serving.fails("nginx shows another certificate than the one in use")
            assert serving.status()["certificate"]["served"] == "no"


def test_one_that_does_not_speak_tls_or_at_all_is_no_verdict(host: Host, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        host.set("SERVE_ADDRESS", f"127.0.0.1:{mute.getsockname()[1]}")
        host.succeeds()
    assert host.status()["certificate"]["served"] == "unknown"


def test_settings_of_a_former_version_do_without_looking(host: Host) -> None:
    settings = Path(host.layout.config_dir, "refresh.env")
    lines = settings.read_text().splitlines(keepends=True)
    settings.write_text("".join(line for line in lines if not line.startswith("SERVE_ADDRESS")))
    rotate(host)
    host.succeeds()
    assert is_of(host.certificate(), NEW)


# --- whenever it is killed ------------------------------------------------------------------------

# What is made below `work` is thrown away at the start of each run: what counts is that a file
# comes out of it or goes from beside it, and that nginx is told to reload. By program, patterns of
# sh: which arguments count, which of them do not.
COUNTED = {
    "mv": ("*", "*/work/*/work/*"),
    "rm": ("*", "*/work | */work/*"),
    "sh": ("*/reloads*", "''"),
}


@pytest.mark.parametrize("stuck", [False, True], ids=["shown", "taken back"])
def test_killed_at_any_change_the_next_runs_end_as_if_it_had_not_been(
    serving: Host, stuck: bool
) -> None:
    """A new CRL and a new CA at once, on an nginx that takes them and on one that does not.

    Killed before each rename that puts something in its place (the certificate that we got, the
    generation, `previous`, `current`, `told`, `seen.crt`, the notes, the report, the status),
    before nginx is told to reload, and before each removal of what was in such a place.
    """
    saved = serving.prefix / "saved"
    shutil.copytree(serving.path(""), saved, symlinks=True)
    step, killed = 0, True
    while killed:
        step += 1
        serving.path("").rename(serving.prefix / f"state-{step}")
        shutil.copytree(saved, serving.path(""), symlinks=True)
        serving.write_files()
        subprocess.run(["sh", "-c", serving.layout.reload_command], check=True)
        wait_until(lambda: serving.shown() == serving.certificate(), "nginx to have the old ones")
        if stuck:
            serving.is_stuck()
        before = serving.certificate()
        rotate(serving)
        count = serving.prefix / "count"
        count.write_text("0")
        make_shims(serving, count)
        result = serving.run(STUMBLE_AT=str(step), PATH=path_with_shims(serving))
        killed = int(count.read_text()) >= step
        assert (result.returncode < 0) is killed or stuck
        serving.run()
        serving.run()
        assert serving.in_use()["crl-numbers"].split()[1] == b"06", step
        assert serving.in_use()["ca.crt"] == NEW.pem + OLD.pem, step
        assert serving.certificate() == serving.shown(), step
        assert (serving.certificate() == before) is stuck, step
        assert is_of(serving.certificate(), OLD if stuck else NEW), step
        if stuck:
            serving.works_again()
            serving.let_the_wait_pass()
        serving.succeeds()
        assert is_of(serving.shown(), NEW), step
        assert serving.cloud.count("/registry/cert") <= step * 2
    before_which = (serving.prefix / "count.before").read_text()
    places = ("generations/", "previous", "current", "told", "got", "status.json")
    for place in (*places, "in-vain" if stuck else "seen.crt"):
        assert re.search(rf"^mv .*/{place}[^/]*$", before_which, re.MULTILINE), place
    assert "\nsh -c " in before_which
    assert re.search(r"^rm .*/got$", before_which, re.MULTILINE)


def make_shims(host: Host, count: Path) -> None:
    shims = host.prefix / "shims"
    shims.mkdir(exist_ok=True)
    for program, (counted, spared) in COUNTED.items():
        shim = shims / program
        shim.write_text(
            f"""#!/bin/sh
case "$*" in
  {spared}) ;;
  {counted})
    read -r count <'{count}'
    count=$((count + 1))
    echo "$count" >'{count}'
    [ "$count" -ne "$STUMBLE_AT" ] || echo "{program} $*" >>'{count}.before'
    if [ "$count" -eq "$STUMBLE_AT" ]; then kill -9 $PPID; exit 1; fi ;;
esac
exec {shutil.which(program)} "$@"
"""
        )
        shim.chmod(0o755)
