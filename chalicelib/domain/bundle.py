"""The forms a bundle takes: what a Docker host needs to use the registry."""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from chalicelib.errors import NotFound

# How long a bundle that holds a private key is kept for its owner to fetch again.
KEY_BUNDLE_LIFETIME = timedelta(days=1)

_MODE_PUBLIC = 0o644
_MODE_SECRET = 0o600


@dataclass(frozen=True, slots=True)
class Bundle:
    """registry: host, or host:port when the port is not 443; Docker names the directory so.

    registry_address: the registry's IP address for hosts whose DNS lacks it, else "".
    ca_bundle: the server CAs; certificate: the client's; issuer: the client CA that signed it;
    private_key: only when we made it. All PEM.
    """

    registry: str
    ca_bundle: str
    certificate: str
    issuer: str
    private_key: str | None = field(default=None, repr=False)
    registry_address: str = ""

    def pem(self) -> str:
        """Private key if we made it, certificate, and the CA that signed it."""
        return (self.private_key or "") + self.certificate + self.issuer

    def tar_gz(self, made_at: datetime) -> bytes:
        """REGISTRY/ca.crt, client.cert and, if we made it, client.key; the same bytes each time."""
        files = [("ca.crt", self.ca_bundle, _MODE_PUBLIC)]
        files.append(("client.cert", self.certificate, _MODE_PUBLIC))
        if self.private_key is not None:
            files.append(("client.key", self.private_key, _MODE_SECRET))
        plain = io.BytesIO()
        # The one standard format with room for the longest of host names.
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, text, mode in files:
                _add(archive, f"{self.registry}/{name}", text.encode(), mode, made_at)
        return gzip.compress(plain.getvalue(), mtime=0)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int, made_at: datetime) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), mode, int(made_at.timestamp())
    archive.addfile(member, io.BytesIO(content))


def private_key_in(tar_gz: bytes) -> str:
    """The private key out of a stored bundle. Raises NotFound if it holds none."""
    with tarfile.open(fileobj=io.BytesIO(tar_gz), mode="r:gz") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if member.name.endswith("/client.key") and content is not None:
                return content.read().decode()
    raise expired()


def expired() -> NotFound:
    """What to raise when a bundle that held a key has gone."""
    return NotFound(
        "bundle_expired",
        "the private key was kept for a day and has gone; renew the certificate to get a new one",
    )
