"""The processes of the local cloud, as the supervisor keeps them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localcloud import processes

PATIENCE_SECONDS = 5.0  # between asking a part to end and making it
PAUSE_SECONDS = 1.0  # before a part that ended by itself is started again


@dataclass(frozen=True)
class Part:
    """What to run.

    vital: the cloud ends with it, because its state does; other parts are started again.
    every: seconds from the end of one run to the start of the next, for what runs and ends.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    vital: bool = False
    every: float | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Part:
        """What to_json made."""
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """For the control socket."""
        return {**asdict(self), "command": list(self.command)}


@dataclass
class Running:
    """A part and the process that it is now, if any. All times are of time.monotonic()."""

    part: Part
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    last_exit: int | None = None
    due: float = 0.0  # when it may be started (again)
    paused: bool = False  # until then, not at all

    def start(self) -> None:
        """Start the process: own group, own log, and it ends when the supervisor does."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                list(self.part.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.part.environment),
                cwd=self.part.directory,
                process_group=0,
                preexec_fn=processes.dying_with_parent(signal.SIGTERM),
            )
        self.starts += 1

    def has_ended(self) -> bool:
        """Whether the process ended since it was last asked; what it left behind is ended too."""
        if self.process is None:
            return False
        found = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return False
        # Not waited for yet, so its PID is still its own and the group is no one else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.last_exit = self.process.wait()
        self.process = None
        pause = PAUSE_SECONDS if self.part.every is None else self.part.every
        self.due = time.monotonic() + pause
        return True

    def stop(self, patience: float = PATIENCE_SECONDS) -> None:
        """End the process, politely first, and everything in its group."""
        if self.process is None:
            return
        self.process.terminate()
        if not processes.until(self.has_ended, patience, step=0.02):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            processes.until(self.has_ended, patience, step=0.02)

    def pause(self) -> None:
        """Start it no more; what runs again and again ends its present run in its own time."""
        self.paused = True
        if self.part.every is None:
            self.stop()

    def resume(self) -> None:
        """Start it when it is due, which it is now."""
        self.paused, self.due = False, 0.0

    @property
    def is_due(self) -> bool:
        """Whether it does not run, and should."""
        return self.process is None and not self.paused and time.monotonic() >= self.due

    def report(self) -> dict[str, Any]:
        """For status."""
        return {
            "pid": self.process.pid if self.process else None,
            "starts": self.starts,
            "last_exit": self.last_exit,
            "every": self.part.every,
            "paused": self.paused,
        }
