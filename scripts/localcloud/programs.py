"""Running another program and saying clearly what went wrong with it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from localcloud.processes import dying_with_parent


class ProgramFailed(Exception):
    """It ended with another code than 0; says the last lines it wrote."""


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    log: Path,
    directory: Path | None = None,
    seconds: float = 300.0,
) -> None:
    """Run it to its end or ours, what it writes going to the log. Raises ProgramFailed."""
    with open(log, "ab") as out:
        start = out.tell()
        try:
            code = subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(environment),
                cwd=directory,
                timeout=seconds,
                check=False,
                preexec_fn=dying_with_parent(signal.SIGTERM),
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise ProgramFailed(f"{command[0]} did not end within {seconds:.0f} s") from error
    if code != 0:
        written = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
        last = "\n".join(written[-5:]) or "it wrote nothing"
        raise ProgramFailed(f"{command[0]} ended with {code}:\n{last}")
