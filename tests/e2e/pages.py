"""The commands of our pages, and somebody who pastes them into a shell."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.client import Person
from tests.e2e.conftest import CHECKOUT, Cloud

BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
ENGINES = ("docker", "containers", "containerd")


def block(holding: str, page: str, language: str = "sh") -> str:
    """The one block of this language on the page that holds this."""
    found = BLOCK.findall((CHECKOUT / page).read_text())
    (only,) = [text for _, kind, text in found if kind == language and holding in text]
    return only


def functions() -> str:
    """What the README has its reader define: api, save, serial."""
    (serial,) = re.findall(r"(?m)^serial\(\) .*$", (CHECKOUT / "README.md").read_text())
    return block("\nsave() {", "README.md") + serial + "\n"


@dataclass(frozen=True)
class Desk:
    """Where somebody with an access key works, with a system of their own below root/."""

    directory: Path
    cloud: Cloud
    person: Person

    @property
    def registry(self) -> str:
        return self.cloud.variables["REGISTRY"]

    def certs(self, engine: str) -> Path:
        """What stands for that engine's certs.d."""
        return self.directory / "root/etc" / engine / "certs.d"

    def run(
        self, script: str, shell: str = "sh", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """These commands pasted into one shell, which ends with the first that fails."""
        for engine in ENGINES:
            script = script.replace(f"/etc/{engine}/certs.d", str(self.certs(engine)))
        own = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        key = {
            "AWS_ACCESS_KEY_ID": self.person.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.person.secret_access_key,
            "AWS_REGION": self.person.region,
            "API_URL": self.person.api_url,
            "CREDENTIALS": str(self.directory / "credentials"),
        }
        return subprocess.run(
            [shell, "-euc", script],
            cwd=self.directory,
            env={**own, **key, "REGISTRY": self.registry, **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def get_certificate(self) -> None:
        """One for pushing, unpacked here and installed for every engine below root/."""
        for kind, file in (("application/gzip", "bundle.tgz"), ("text/x-shellscript", "inst.sh")):
            answer = self.person.ask("POST", "/certs", "--header", f"Accept: {kind}")
            assert answer.status == 201
            (self.directory / file).write_bytes(answer.body)
        (self.directory / "root").mkdir()
        done = self.run("tar -xzf bundle.tgz; sh inst.sh --containerd --root root")
        assert done.returncode == 0, done.stderr
