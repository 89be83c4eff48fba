"""The local cloud's processes: owned, known, and gone when they should be."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcloud import control, keeper
from localcloud.layout import Layout
from localcloud.parts import Part
from localcloud.processes import Identity, Lock, end_session, session_of, until

# A part that starts a child of its own and, asked politely, ends without it.
WITH_CHILD = "sleep 300 & trap 'exit 0' TERM; echo $! > child; wait"


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    before = os.umask(0o022)
    # Deep, as checkouts are: the address of a socket holds 108 bytes only.
    layout = Layout(tmp_path / ("deep" * 20) / ".local")
    layout.prepare()
    yield layout
    keeper.stop(layout)
    os.umask(before)


def part(layout: Layout, script: str, *, vital: bool = False, every: float | None = None) -> Part:
    path = {"PATH": os.environ["PATH"]}
    return Part("sh", ["sh", "-c", script], path, str(layout.root), vital=vital, every=every)


def supervisor(layout: Layout) -> Identity:
    found = keeper.recorded(layout)
    assert found is not None
    return found


def child(layout: Layout) -> Identity:
    """The child that WITH_CHILD started."""
    file = layout.root / "child"
    assert until(lambda: file.exists() and file.read_text().endswith("\n"), 5)
    found = Identity.of(int(file.read_text()))
    assert found is not None
    return found


def runs(layout: Layout) -> int | None:
    pid: int | None = control.parts(layout)["sh"]["pid"]
    return pid


def test_stop_leaves_neither_the_part_nor_what_the_part_started(layout: Layout) -> None:
    keeper.start(layout)
    control.start(layout, part(layout, WITH_CHILD))
    orphan = child(layout)
    leader = supervisor(layout)

    assert keeper.stop(layout)

    assert not orphan.alive()
    assert list(session_of(leader)) == []
    assert not keeper.stop(layout), "there was nothing left to stop"


def test_parts_end_with_a_killed_supervisor_and_the_next_start_works(layout: Layout) -> None:
    keeper.start(layout)
    control.start(layout, part(layout, "sleep 300"))
    before, member = supervisor(layout), Identity.of(runs(layout) or 0)
    assert member is not None

    os.kill(before.pid, signal.SIGKILL)

    assert until(lambda: not member.alive(), 5)
    keeper.start(layout)
    assert supervisor(layout) != before
    assert control.parts(layout) == {}


def test_what_outlives_a_killed_supervisor_is_ended_by_the_next_start(layout: Layout) -> None:
    keeper.start(layout)
    control.start(layout, part(layout, WITH_CHILD))
    orphan = child(layout)

    os.kill(supervisor(layout).pid, signal.SIGKILL)
    assert orphan.alive()
    keeper.start(layout)

    assert not orphan.alive()


def test_a_recorded_pid_that_is_somebody_elses_now_is_left_alone(layout: Layout) -> None:
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        now = Identity.of(stranger.pid)
        assert now is not None
        record = f'{{"pid": {now.pid}, "started": {now.started - 1}, "boot": "{now.boot}"}}'
        layout.supervisor.write_text(record)

        keeper.start(layout)
        keeper.stop(layout)

        assert now.alive()
        # The twin: with the start time that is its own, it is ours to end.
        assert end_session(now, patience=2) == 1
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_damaged_record_and_a_left_over_socket_do_not_keep_the_cloud_down(
    layout: Layout, damage: str
) -> None:
    layout.supervisor.write_text(damage)
    layout.control.write_text("")

    keeper.start(layout)

    assert keeper.answers(layout)


def test_a_part_that_ends_by_itself_is_started_again(layout: Layout) -> None:
    keeper.start(layout)
    control.start(layout, part(layout, "echo started >> starts; exec sleep 300"))
    first, starts = runs(layout), layout.root / "starts"
    assert first is not None
    assert until(starts.exists, 5)

    os.kill(first, signal.SIGKILL)

    assert until(lambda: runs(layout) not in (None, first), 5)
    assert until(lambda: starts.read_text().count("started") == 2, 5)


def test_the_cloud_ends_with_a_vital_part(layout: Layout) -> None:
    keeper.start(layout)
    control.start(layout, part(layout, "exec sleep 300", vital=True))
    leader = supervisor(layout)

    os.kill(runs(layout) or 0, signal.SIGKILL)

    assert until(lambda: not leader.alive(), 5)
    assert "and the cloud's state with it" in layout.log("supervisor").read_text()


def test_a_part_that_runs_and_ends_is_run_again_and_again(layout: Layout) -> None:
    keeper.start(layout)
    control.start(layout, part(layout, "echo x >> runs", every=0.1))

    runs_so_far = layout.root / "runs"
    assert until(lambda: runs_so_far.exists() and runs_so_far.read_text().count("x") >= 3, 5)


def test_a_paused_part_runs_on_once_the_pause_is_over(layout: Layout) -> None:
    keeper.start(layout)
    control.start(layout, part(layout, "echo x >> runs; echo y >> runs", every=0.1))
    file = layout.root / "runs"
    assert until(lambda: file.exists() and len(file.read_text()) >= 6, 5)

    with control.paused(layout, "sh"):
        before = file.read_text()
        assert before.endswith("y\n"), "its last run was broken off"
        time.sleep(0.5)
        assert file.read_text() == before
        assert control.parts(layout)["sh"]["paused"]

    assert until(lambda: len(file.read_text()) > len(before), 5)


def test_a_paused_part_that_goes_on_for_ever_is_ended_and_started_anew(layout: Layout) -> None:
    keeper.start(layout)
    control.start(layout, part(layout, "exec sleep 300"))
    before = runs(layout)

    with control.paused(layout, "sh"):
        time.sleep(0.5)
        assert runs(layout) is None

    assert until(lambda: runs(layout) not in (None, before), 5)
    with pytest.raises(control.Refused), control.paused(layout, "nobody"):
        pass


def test_the_same_part_twice_is_one_process_and_a_changed_one_replaces_it(layout: Layout) -> None:
    keeper.start(layout)
    control.start(layout, part(layout, "sleep 300"))
    first = runs(layout)
    control.start(layout, part(layout, "sleep 300"))
    assert runs(layout) == first

    control.start(layout, part(layout, "sleep 301"))

    assert runs(layout) != first
    assert Identity.of(first or 0) is None


def test_a_program_that_is_not_there_is_refused_and_nothing_else_falls(layout: Layout) -> None:
    keeper.start(layout)
    missing = Part("gone", ["/no/such/program"], {}, str(layout.root))

    with pytest.raises(control.Refused, match="gone could not be started"):
        control.start(layout, missing)

    assert keeper.answers(layout)


def test_a_second_supervisor_gives_way_to_the_first(layout: Layout) -> None:
    keeper.start(layout)
    before = supervisor(layout)

    second = subprocess.run(
        [sys.executable, "-m", "localcloud.supervisor"],
        env=keeper.supervisor_environment(layout),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )

    assert (second.returncode, supervisor(layout)) == (1, before)
    assert "another one is running" in second.stderr


def test_nonsense_on_the_control_socket_does_not_stop_the_supervisor(layout: Layout) -> None:
    keeper.start(layout)

    for line in (b"\n", b"{\n", b'{"do": "start"}\n', b'{"do": "start", "part": 7}\n', b"[]\n"):
        with socket.socket(socket.AF_UNIX) as connection, control.short_address(layout) as address:
            connection.connect(address)
            connection.sendall(line)
            assert b"that is no request" in connection.makefile("rb").read()

    assert keeper.answers(layout)


def test_what_the_cloud_keeps_is_for_its_owner_alone(layout: Layout) -> None:
    keeper.start(layout)
    control.start(layout, part(layout, "echo secret; echo secret > written"))
    assert until((layout.root / "written").exists, 5)

    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in layout.root.rglob("*")}
    modes[layout.root] = stat.S_IMODE(layout.root.stat().st_mode)
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


def test_a_lock_is_held_by_one_and_ends_with_its_holder(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")

    assert first.take()
    assert not second.take(seconds=0.1)
    first.release()
    assert second.take()
