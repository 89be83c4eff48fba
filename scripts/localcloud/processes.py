"""Who is who among processes: a PID alone is not an identity, since the system uses it again."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True)
class Identity:
    """A process that cannot be mistaken for another: its PID, when it started, in which boot."""

    pid: int
    started: int  # clock ticks after boot
    boot: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this PID now; None when there is none (or only a zombie)."""
        stat = _stat(pid)
        return None if stat is None else cls(pid, stat.started, _boot_id())

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return Identity.of(self.pid) == self


@dataclass(frozen=True)
class _Stat:
    session: int
    started: int


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> _Stat | None:
    """The fields of /proc/PID/stat that we use; None for no process and for a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; the fields after it are plain (proc(5)).
    fields = text.rpartition(")")[2].split()
    state, session, started = fields[0], int(fields[3]), int(fields[19])
    return None if state in "ZX" else _Stat(session, started)


def session_of(leader: Identity) -> Iterator[Identity]:
    """The processes of the session that the leader began, itself among them if it runs.

    While one of them lives the system gives the leader's PID to nobody else, so what belongs to
    that session id and started after the leader is the leader's, even when it has died.
    """
    boot = _boot_id()
    taken = _stat(leader.pid)
    if boot != leader.boot or (taken is not None and taken.started != leader.started):
        return
    for entry in Path("/proc").iterdir():
        stat = _stat(int(entry.name)) if entry.name.isdigit() else None
        if stat and stat.session == leader.pid and stat.started >= leader.started:
            yield Identity(int(entry.name), stat.started, boot)


def end_session(leader: Identity, patience: float = 5.0) -> int:
    """End every process of the leader's session, politely, then not; says how many there were."""
    members = list(session_of(leader))
    for each in members:
        _signal(each, signal.SIGTERM)
    if not until(lambda: not any(each.alive() for each in members), patience):
        for each in session_of(leader):
            _signal(each, signal.SIGKILL)
        until(lambda: not any(True for _ in session_of(leader)), patience)
    return len(members)


def _signal(process: Identity, number: signal.Signals) -> None:
    if process.alive():
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def until(true: Callable[[], bool], seconds: float, step: float = 0.05) -> bool:
    """Wait for something to become true, so long at most; whether it did."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(step)
    return True


def dying_with_parent(number: signal.Signals) -> Callable[[], None]:
    """For preexec_fn: the child gets this signal when the process that started it ends."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # loaded here: not between fork and exec
    parent = os.getpid()

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before the line above took effect
            os._exit(1)

    return before_exec


class Lock:
    """A file lock that ends with the process that holds it, however that ends."""

    def __init__(self, path: Path) -> None:
        """Take nothing yet."""
        self.path = path
        self._file: int | None = None

    def take(self, seconds: float = 0.0) -> bool:
        """Take the lock, waiting so long at most; whether it is ours now."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

        def attempt() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if until(attempt, seconds):
            self._file = file
            return True
        os.close(file)
        return False

    def release(self) -> None:
        """Let it go; nothing happens when we do not hold it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
