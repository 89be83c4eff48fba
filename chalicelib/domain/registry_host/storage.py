"""Where a registry keeps its images, as registry.yml says it."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.templates import BUCKET, PATH, REGION, URL, checked

# S3 takes 10,000 parts an object, so a layer may have 200 GB. The registry holds a part or two of
# each upload in memory; without this they have 10 MiB.
CHUNK_BYTES = 20 * 1024 * 1024


@dataclass(frozen=True)
class S3Storage:
    """The registry's storage in S3; its credentials come from the instance role or the environment.

    endpoint: for an S3 that is not Amazon's; it is asked by path, not by virtual host.
    key_id: the KMS key to encrypt under; without one S3's own is used.
    """

    region: str
    bucket: str
    root_directory: str = ""
    endpoint: str = ""
    encrypt: bool = True
    key_id: str = ""

    def lines(self) -> list[str]:
        """This storage as lines of registry.yml. Raises Misconfigured for an unsafe value."""
        lines = [
            "  s3:",
            f'    region: "{checked("region", self.region, REGION)}"',
            f'    bucket: "{checked("bucket", self.bucket, BUCKET)}"',
            f"    encrypt: {yaml_bool(self.encrypt)}",
            f"    chunksize: {CHUNK_BYTES}",
        ]
        if self.key_id:
            lines.append(f'    keyid: "{checked("key_id", self.key_id, r"[A-Za-z0-9:/_-]+")}"')
        if self.root_directory:
            root = checked("root_directory", self.root_directory, PATH)
            lines.append(f'    rootdirectory: "{root}"')
        return lines + self._endpoint_lines()

    def _endpoint_lines(self) -> list[str]:
        if not self.endpoint:
            return []
        return [
            f'    regionendpoint: "{checked("endpoint", self.endpoint, URL)}"',
            f"    secure: {yaml_bool(self.endpoint.startswith('https:'))}",
            "    v4auth: true",
            "    forcepathstyle: true",
        ]


@dataclass(frozen=True)
class FileStorage:
    """The registry's storage in a directory of its host, for a trial without S3."""

    directory: str

    def lines(self) -> list[str]:
        """This storage as lines of registry.yml. Raises Misconfigured for an unsafe value."""
        directory = checked("directory", self.directory, PATH)
        return ["  filesystem:", f'    rootdirectory: "{directory}"']


def yaml_bool(value: bool) -> str:
    """*value* as YAML writes it."""
    return "true" if value else "false"
