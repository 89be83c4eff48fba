"""A machine of its own for what changes machines: its own /etc, home and /tmp, in bubblewrap."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT, ANN = 0, 1000
SHIMS, COMMANDS, APPLETS = "/opt/shims", "/opt/commands", "/opt/applets"
# All that a machine has, lest the engines of the one that runs the tests be found.
NEEDED = (
    *("cat", "chmod", "cp", "grep", "id", "ls", "mkdir", "mktemp", "mv", "openssl", "rm"),
    *("sha256sum", "uname"),
)


@dataclass(frozen=True)
class Shell:
    """A shell, and where it finds its commands."""

    name: str
    command: tuple[str, ...]
    path: str = COMMANDS


def shells() -> list[Shell]:
    """Those at hand. busybox comes with its own commands too, as on Alpine."""
    known = [
        Shell("dash", ("dash",)),
        Shell("bash", ("bash", "--posix")),
        Shell("busybox", ("busybox", "sh"), APPLETS),
    ]
    found = [(shell, shutil.which(shell.command[0])) for shell in known]
    return [Shell(s.name, (at, *s.command[1:]), s.path) for s, at in found if at]


DASH = shells()[0]


@dataclass
class Machine:
    """Below *top*: etc, home and tmp as the machine has them. Everything else is read-only.

    read_only: paths below /etc that cannot be written. mounted: files there that are mounts.
    """

    top: Path
    read_only: list[str] = field(default_factory=list)
    mounted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("etc", "home", "tmp", "shims"):
            (self.top / name).mkdir()

    @property
    def etc(self) -> Path:
        return self.top / "etc"

    @property
    def home(self) -> Path:
        return self.top / "home"

    @property
    def tmp(self) -> Path:
        return self.top / "tmp"

    def shim(self, name: str, text: str) -> None:
        """A command of this *name* that is found before all others."""
        file = self.top / "shims" / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def run(
        self,
        script: str,
        *options: str,
        shell: Shell = DASH,
        user: int = ROOT,
        flags: Sequence[str] = (),
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """*script* as from a pipe, by *user*. Options and variables speak of the machine's paths.

        Nobody in there is more than the one who runs the tests: root is so in a namespace.
        """
        environment = {"HOME": "/home/ann", "PATH": f"{SHIMS}:{shell.path}", **variables}
        command = [
            *("bwrap", "--unshare-user", "--unshare-pid", "--new-session"),
            *("--die-with-parent", "--clearenv"),
            *("--uid", str(user), "--gid", str(user), "--chdir", "/"),
            *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
            *self._mounts(shell),
            *(part for name, value in environment.items() for part in ("--setenv", name, value)),
            *("--", *shell.command, *flags, "-s", "--", *options),
        ]
        return subprocess.run(
            command,
            input=script,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            preexec_fn=_as_from_a_terminal,  # no thread of ours is about
        )

    def _mounts(self, shell: Shell) -> list[str]:
        mounts = ["--bind", str(self.etc), "/etc"]
        for path in self.read_only:
            mounts += ["--ro-bind", str(self.etc / path), f"/etc/{path}"]
        for path in self.mounted:
            mounts += ["--bind", str(self.etc / path), f"/etc/{path}"]
        mounts += ["--tmpfs", "/home", "--bind", str(self.home), "/home/ann"]
        mounts += ["--tmpfs", "/opt", "--ro-bind", str(self.top / "shims"), SHIMS]
        mounts += ["--bind", str(self.tmp), "/tmp"]  # noqa: S108  # the machine's own
        mounts += ["--ro-bind", str(self._commands(shell)), shell.path]
        return mounts

    def _commands(self, shell: Shell) -> Path:
        directory = self.top / Path(shell.path).name
        if directory.exists():
            return directory
        directory.mkdir()
        if shell.path == APPLETS:
            subprocess.run([shell.command[0], "--install", "-s", str(directory)], check=True)
        for name in NEEDED if shell.path in (COMMANDS, APPLETS) else ():
            if not (directory / name).is_symlink():
                (directory / name).symlink_to(shutil.which(name) or name)
        return directory


def _as_from_a_terminal() -> None:
    """What was ignored when a shell began it cannot trap; under nohup that is a hang-up."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


Snapshot = dict[str, tuple[int, ...]]


def snapshot(top: Path) -> Snapshot:
    """What a change of a file or of anything below it shows in; not the times of reading."""
    found: Snapshot = {}
    for path in [top, *top.rglob("*")]:
        about = path.lstat()
        found[str(path)] = (about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_mode)
    return found
