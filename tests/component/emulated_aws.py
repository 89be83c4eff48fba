"""A real emulator process with our hooks, for one test module."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud import health, ports
from localcloud.aws import ROOT, SETTINGS, Caller, Key
from localcloud.layout import CHECKOUT, Layout
from localcloud.processes import until


@dataclass(frozen=True)
class EmulatedAws:
    """Where it is, and the directory that is its cloud's."""

    endpoint: str
    layout: Layout

    @property
    def metadata(self) -> Path:
        """Where the addresses of instances' metadata services are written."""
        return self.layout.metadata

    def client(self, service: str, key: Key = ROOT, token: str | None = None) -> Any:
        """A client of the service that signs with this key."""
        return Caller(self.endpoint, key).session.client(
            service,
            endpoint_url=self.endpoint,
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
            aws_session_token=token,
            config=SETTINGS,
        )


@contextmanager
def emulated_aws(directory: Path) -> Iterator[EmulatedAws]:
    """Up when entered, gone when left."""
    chosen = ports.choose(directory / "ports.json", {})
    layout = Layout(directory)
    layout.prepare()
    process = subprocess.Popen(
        [sys.executable, "-m", "localcloud.emulator", str(chosen.gateway), str(directory)],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(CHECKOUT / "scripts"),
            "HOME": str(directory),
            "TMPDIR": str(directory),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert until(lambda: health.emulator_answers(chosen), 20), "the emulator did not come up"
        yield EmulatedAws(f"http://127.0.0.1:{chosen.gateway}", layout)
    finally:
        process.terminate()
        process.wait(10)
