"""An EC2 instance as the commands for instances meet it: a machine whose /run is its own too."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chalicelib.domain.enrolment.model import CommandOutcome, CommandStatus
from tests.component.sandboxed_machine import COMMANDS, DASH, NEEDED, Machine, Shell

INSTANCE, OTHER = "i-0123456789abcdef0", "i-00000000000000bad"
ENGINES = ("docker", "containers", "containerd")
NONCE = "0123456789abcdef" * 2
REGISTRY = "registry.team.test:8443"

# coreutils, and what every Linux has beside them.
MORE = (
    *("curl", "cut", "date", "flock", "head", "ln", "od", "sed", "sleep", "sort"),
    *("tail", "timeout", "tr"),
)
EVERYTHING = (*NEEDED, *MORE, "sh")


@dataclass
class Instance(Machine):
    """hidden: commands that it does not have. sealed: whether /usr/local is read-only.

    registry: whose key, CSR and lock `directory` is of.
    """

    registry: str = REGISTRY
    hidden: set[str] = field(default_factory=set)
    sealed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("run", "sbin"):
            (self.top / name).mkdir()

    @property
    def directory(self) -> Path:
        return self.etc / "registry-trust" / self.registry

    def make_directory(self, mode: int = 0o700) -> None:
        self.directory.mkdir(mode, parents=True, exist_ok=True)

    @property
    def key_file(self) -> Path:
        return self.directory / f"{INSTANCE}.key"

    @property
    def key(self) -> str:
        return self.key_file.read_text()

    def engine_files(self, registry: str = "") -> list[Path]:
        """Where engines look for a registry's pair, the certificate of each before the key."""
        at = [self.etc / e / "certs.d" / (registry or self.registry) for e in ENGINES]
        return [each / name for each in at for name in ("client.cert", "client.key")]

    def give_engines(self, registry: str = "") -> list[Path]:
        """The pair of another instance, as far as the names go."""
        files = self.engine_files(registry)
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"another's {file.name}")
        return files

    def public_key(self) -> bytes:
        return spki(self.private_key().public_key())

    def private_key(self) -> ec.EllipticCurvePrivateKey:
        key = serialization.load_pem_private_key(self.key_file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def _mounts(self, shell: Shell) -> list[str]:
        own = ["--bind", str(self.top / "run"), "/run"]
        if not self.sealed:
            own += ["--bind", str(self.top / "sbin"), "/usr/local/sbin"]
        return [*own, *super()._mounts(shell)]

    def _commands(self, shell: Shell) -> Path:
        directory = super()._commands(shell)
        wanted = {name: shutil.which(name) or name for name in MORE}
        if shell.path == COMMANDS:
            wanted["sh"] = shell.command[0]
            (directory / "sh").unlink(missing_ok=True)
        for name, path in wanted.items():
            if not (directory / name).is_symlink():
                (directory / name).symlink_to(path)
        for name in self.hidden:
            (directory / name).unlink(missing_ok=True)
        return directory

    def dies_at(self, number: int) -> None:
        """The power fails right before the machine's *number*-th start of a command."""
        (self.tmp / "starts").write_text("0\n")
        path = DASH.path
        for name in EVERYTHING:
            self.shim(
                name,
                "read -r n </tmp/starts; n=$((n + 1)); echo $n >/tmp/starts\n"
                # -1 leaves out who calls it (kill(2)), which would go on to its command.
                f"[ $n != {number} ] || {{ kill -KILL -1; kill -KILL $$; }}\n"
                f'exec {path}/{name} "$@"',
            )

    def lives(self) -> None:
        """No shims, and nothing of dies_at."""
        (self.tmp / "starts").unlink()
        for shim in (self.top / "shims").iterdir():
            shim.unlink()

    def leftovers(self) -> list[str]:
        """What no run may leave: work directories, files laid aside."""
        hidden = [p for top in (self.etc, self.tmp) for p in top.rglob(".*") if p.name != ".lock"]
        return sorted(p.name for p in [*hidden, *self.tmp.glob("registry-trust*")])


def spki(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.DER, form)


def outcome(ran: subprocess.CompletedProcess[str]) -> CommandOutcome:
    """As SSM would tell of it."""
    status = CommandStatus.FAILED if ran.returncode else CommandStatus.SUCCEEDED
    return CommandOutcome(status, ran.stdout, ran.stderr)


def csr_key(pem: bytes) -> bytes:
    return spki(x509.load_pem_x509_csr(pem).public_key())
