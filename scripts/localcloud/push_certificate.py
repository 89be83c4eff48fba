"""A push certificate for `dev`, fetched as a developer would, in the form that Docker reads."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from localcloud.aws import REGION, Key

FILES = {"ca.crt": 0o644, "client.cert": 0o644, "client.key": 0o600}
SECONDS = "30"  # for one request, at most


class NotIssued(Exception):
    """The API gave no certificate; says what it answered."""


@dataclass(frozen=True)
class PushCertificate:
    """The certificate of one person for one registry.

    directory: a certs.d; what is ours lies below it in a directory named as the registry.
    """

    registry: str
    directory: Path

    def works(self) -> bool:
        """Whether the registry lets this certificate in now."""
        files = self.directory / self.registry
        if not files.is_dir():
            return False
        command = [
            *("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"),
            *("--max-time", SECONDS, "--noproxy", "*", "--cacert", "ca.crt"),
            *("--cert", "client.cert", "--key", "client.key", f"https://{self.registry}/v2/"),
        ]
        # From inside the directory: curl takes what follows a colon in --cert for a passphrase.
        answered = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False)
        return answered.stdout == "200"

    def fetch(self, api_url: str, key: Key) -> None:
        """Ask the API for a new one and put it in the old one's place. Raises NotIssued."""
        incoming = self.directory.with_name(self.directory.name + ".new")
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        archive = incoming / "bundle.tar.gz"
        self._ask(api_url, key, archive)
        files = incoming / self.registry
        files.mkdir()
        try:
            with tarfile.open(archive) as bundle:
                for name, mode in FILES.items():
                    content = bundle.extractfile(f"{self.registry}/{name}")
                    (files / name).write_bytes(content.read() if content else b"")
                    (files / name).chmod(mode)
        except (tarfile.TarError, KeyError) as error:
            raise NotIssued(f"{archive} is not the archive we asked for: {error}") from error
        archive.unlink()
        shutil.rmtree(self.directory, ignore_errors=True)
        incoming.rename(self.directory)

    def _ask(self, api_url: str, key: Key, answer: Path) -> None:
        command: list[str | Path] = [
            *("curl", "--silent", "--show-error", "--fail-with-body", "--max-time", SECONDS),
            *("--noproxy", "*", "--config", "-", "--aws-sigv4", f"aws:amz:{REGION}:execute-api"),
            *("--header", "Accept: application/gzip", "--header", "Content-Type: application/json"),
            *("--data-binary", '{"access": "push", "label": "scripts/local"}'),
            *("--output", answer, f"{api_url}/certs"),
        ]
        # By standard input, since everybody on the machine can read a command line.
        user = f'user = "{key.access_key_id}:{key.secret_access_key}"\n'
        done = subprocess.run(command, input=user, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = answer.read_text(errors="replace") if answer.exists() else ""
            raise NotIssued(f"{done.stderr.strip()} {said}".strip())
