"""A tiny container image, made on the spot: an OCI layout with one file in one layer.

https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image"


def write_image(directory: Path, text: str) -> None:
    """Make *directory* an OCI layout whose image holds the file /hello with this text."""
    shutil.rmtree(directory, ignore_errors=True)
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer = _tar("hello", text.encode())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/hello"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _keep(blobs, json.dumps(config).encode(), f"{OCI}.config.v1+json"),
        # Packed, or clients pack it on the way and it is another image when it arrives.
        "layers": [_keep(blobs, gzip.compress(layer, mtime=0), f"{OCI}.layer.v1.tar+gzip")],
    }
    described = _keep(blobs, json.dumps(manifest).encode(), f"{OCI}.manifest.v1+json")
    index = {"schemaVersion": 2, "manifests": [described]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _tar(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _keep(blobs: Path, content: bytes, media_type: str) -> dict[str, Any]:
    """Put the content where its digest says; its descriptor."""
    digest = _digest(content)
    (blobs / digest.partition(":")[2]).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
