"""What makes a machine a registry host: a script to run on it, and the files that it brings."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shlex
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from chalicelib.domain.registry_host.files import host_files, machine_files
from chalicelib.domain.registry_host.layout import HostLayout
from chalicelib.domain.registry_host.refresh import RefreshSource, aws_functions
from chalicelib.domain.registry_host.storage import FileStorage, S3Storage
from chalicelib.domain.templates import BUCKET, REGION, URL, checked, fill, read

SCRIPT_KEY = "trust/registry-host.sh"

# Whoever reads registry.yml meets these words where a machine puts the secret that it made.
SECRET_PLACE = "the-secret-that-each-host-makes-for-itself"  # noqa: S105  # what stands in its stead

IMAGE = r"[a-z0-9][A-Za-z0-9._:/@-]{0,254}"
_METADATA = "http://169.254.169.254"
_PROGRAM = 0o755


@dataclass(frozen=True)
class HostSetup:
    """All that a registry host is told of its deployment. Nothing in it is secret.

    image: of the registry, as docker knows it. redirect: clients fetch layers from S3 itself; those
    that trust only our CA cannot. Raises Misconfigured, here or below, for an unsafe value.
    """

    layout: HostLayout
    storage: S3Storage | FileStorage
    source: RefreshSource
    image: str = "registry:3"
    redirect: bool = False

    @cached_property
    def release(self) -> bytes:
        """The files, as tar.gz: the same bytes each time. `install` in it puts them in place.

        nginx.conf says what holds for the newest nginx, its user on Debian, and IPv6; `install`
        takes out or changes what differs on its machine.
        """
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, "install", self._installer(), _PROGRAM)
            for path, (mode, text) in sorted(self._files().items()):
                _add(archive, f"files{path}", text, mode)
        return gzip.compress(plain.getvalue(), mtime=0)

    @property
    def release_key(self) -> str:
        """Where the script looks for it. What it holds is its name, so no other can be there."""
        return f"trust/registry-host-{self._digest}.tar.gz"

    @property
    def script(self) -> str:
        """POSIX sh that makes a machine this host: as EC2 user data, by hand, or as an upgrade."""
        metadata = checked("metadata_endpoint", self.source.metadata_endpoint or _METADATA, URL)
        values = {
            "RELEASE": self._digest,
            "REGISTRY": self.layout.registry,
            "CONFIG_BUCKET": checked("config_bucket", self.source.config_bucket, BUCKET),
            "REGION": checked("region", self.source.region, REGION),
            "ENDPOINT": checked("endpoint", self.source.endpoint, rf"({URL})?"),
            "METADATA": metadata,
            "AWS_FUNCTIONS": aws_functions(),
        }
        return _without_comments(fill(read("registry/setup.sh"), values))

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.release).hexdigest()

    def _files(self) -> Mapping[str, tuple[int, str]]:
        files = host_files(
            self.layout,
            self.storage,
            self.source,
            http_secret=SECRET_PLACE,
            redirect=self.redirect,
        )
        return {**files, **machine_files(self.layout)}

    def _installer(self) -> str:
        layout = self.layout
        values = {
            "CONFIG_DIR": layout.config_dir,
            "STATE_DIR": layout.state_dir,
            "LOG_DIR": layout.log_dir,
            "RUN_DIR": layout.run_dir,
            "IMAGE": checked("image", self.image, IMAGE),
            "UPSTREAM": layout.upstream,
            "PORT": layout.listen[0].rpartition(":")[2],
            "METADATA_ENDPOINT": self.source.metadata_endpoint,
            "SECRET_PLACE": SECRET_PLACE,
        }
        quoted = {name: shlex.quote(value) for name, value in values.items()}
        return fill(read("registry/install"), quoted)


def _add(archive: tarfile.TarFile, name: str, text: str, mode: int) -> None:
    content = text.encode()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))


def _without_comments(script: str) -> str:
    """*script* with its head's comments alone, for user data is 16 KB at most.

    No line of a here-document or of a quoted text in it may begin with a number sign and a space.
    """
    head, rest = script.split("\nset -eu\n", 1)
    return head + "\nset -eu\n" + re.sub(r"^ *# .*\n", "", rest, flags=re.MULTILINE)
