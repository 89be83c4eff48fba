"""Where the local cloud keeps what: one directory, readable by its owner alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Layout:
    """The files below the local cloud's directory."""

    root: Path

    @classmethod
    def from_environment(cls) -> Layout:
        """`.local` in the checkout, or where REGISTRY_TRUST_LOCAL says."""
        return cls(Path(os.environ.get("REGISTRY_TRUST_LOCAL") or CHECKOUT / ".local").resolve())

    def prepare(self) -> None:
        """Make the directories, private; everything made from here on is private too."""
        os.umask(0o077)
        directories = (self.logs, self.temporary, self.metadata, self.instances, self.keys)
        for each in (self.root, *directories):
            each.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)

    @property
    def environment(self) -> Path:
        """For people and tests: variables that sh can source."""
        return self.root / "env"

    @property
    def ports(self) -> Path:
        """The chosen ports, kept from one start to the next."""
        return self.root / "ports.json"

    @property
    def ready(self) -> Path:
        """What the running cloud was built from; there only while it is whole."""
        return self.root / "ready.json"

    @property
    def command_lock(self) -> Path:
        """Held by the one command that changes things."""
        return self.root / "command.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.root / "supervisor.lock"

    @property
    def supervisor(self) -> Path:
        """Which process the supervisor is, or was."""
        return self.root / "supervisor.json"

    @property
    def control(self) -> Path:
        """The socket on which the supervisor takes orders."""
        return self.root / "control.sock"

    @property
    def logs(self) -> Path:
        """A log a part."""
        return self.root / "logs"

    @property
    def temporary(self) -> Path:
        """For the parts' temporary files; emptied at start."""
        return self.root / "tmp"

    @property
    def metadata(self) -> Path:
        """One file an instance: the URL of its metadata service."""
        return self.root / "instance-metadata"

    @property
    def instances(self) -> Path:
        """A directory an EC2 instance that is a sandbox: its disk, and whether it runs."""
        return self.root / "instances"

    @property
    def faults(self) -> Path:
        """What goes wrong on purpose, for tests; usually not there."""
        return self.root / "faults.json"

    @property
    def api_calls(self) -> Path:
        """How often whom the emulated AWS was called by, written a moment after the calls."""
        return self.root / "api-calls.json"

    @property
    def keys(self) -> Path:
        """One file a person: the access key."""
        return self.root / "keys"

    @property
    def slack(self) -> Path:
        """What Slack received, a JSON document a line."""
        return self.root / "slack.jsonl"

    @property
    def slack_webhook(self) -> Path:
        """The address that stands in for Slack's."""
        return self.root / "slack-webhook"

    @property
    def registry_host(self) -> Path:
        """What on EC2 would be the root of the registry host's own files."""
        return self.root / "registry-host"

    @property
    def certificates(self) -> Path:
        """A certs.d with a push certificate, as Docker and skopeo read it."""
        return self.root / "certs.d"

    @property
    def demo(self) -> Path:
        """Where the demo keeps its files."""
        return self.root / "demo"

    def log(self, part: str) -> Path:
        """The log of one part."""
        return self.logs / f"{part}.log"

    def log_files(self) -> dict[str, Path]:
        """Every log there is, by its name: of the parts, and nginx's own on the registry host."""
        directories = (self.logs, self.registry_host / "log")
        return {file.stem: file for each in directories for file in sorted(each.glob("*.log"))}


def write_private(path: Path, text: str) -> None:
    """Replace a file whole or not at all; only its owner can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """What is in the file; nothing when there is no such file or it is not whole."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
