"""Bundles and the published trust, in the config bucket."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypedDict

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.model import BundleLink
from chalicelib.domain.trust import Trust
from chalicelib.errors import DependencyFailed, Misconfigured

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Long enough to paste it into a terminal, short enough not to matter in a shell's history.
LINK_LIFETIME = timedelta(minutes=15)

# The bucket's lifecycle rule deletes what carries this tag after a day.
KEY_TAG = "holds-key=true"


class _Tags(TypedDict, total=False):
    Tagging: str


class ConfigBucket:
    """Objects certs/SERIAL/bundle.tar.gz and trust/..."""

    def __init__(self, s3: S3Client, name: str) -> None:
        self._s3 = s3
        self._name = name

    def put(self, serial: str, tar_gz: bytes, *, holds_key: bool) -> None:
        """Store a bundle. Raises DependencyFailed."""
        tags: _Tags = {"Tagging": KEY_TAG} if holds_key else {}
        try:
            self._s3.put_object(
                Bucket=self._name,
                Key=_bundle_key(serial),
                Body=tar_gz,
                ContentType="application/gzip",
                **tags,
            )
        except (ClientError, BotoCoreError) as error:
            raise DependencyFailed("bundle_not_stored", "the bundle could not be stored") from error

    def get(self, serial: str) -> bytes | None:
        """A stored bundle; None when it is not, or no longer, there. Raises DependencyFailed."""
        return self._read(_bundle_key(serial))

    def link(self, serial: str, now: datetime) -> BundleLink:
        """A presigned GET; made here, without a call."""
        key = _bundle_key(serial)
        url = self._s3.generate_presigned_url(
            "get_object",
            Params={"Bucket": self._name, "Key": key},
            ExpiresIn=int(LINK_LIFETIME.total_seconds()),
        )
        return BundleLink(f"s3://{self._name}/{key}", url, now + LINK_LIFETIME)

    def read_trust(self) -> Trust:
        """The trust as last published. Raises Misconfigured when it never was."""
        document = self._read("trust/trust.json")
        if document is None:
            raise Misconfigured("no_trust", "there is no CA yet; the operator runs scripts/ca init")
        return Trust.from_json(json.loads(document))

    def publish(self, trust: Trust) -> None:
        """Write the trust's objects, in their order. Raises DependencyFailed."""
        try:
            for key, content in trust.objects().items():
                self._s3.put_object(Bucket=self._name, Key=key, Body=content)
        except (ClientError, BotoCoreError) as error:
            raise DependencyFailed("trust_not_stored", "the trust was not published") from error

    def _read(self, key: str) -> bytes | None:
        try:
            return self._s3.get_object(Bucket=self._name, Key=key)["Body"].read()
        except self._s3.exceptions.NoSuchKey:
            return None
        except (ClientError, BotoCoreError) as error:
            raise DependencyFailed("bucket_unreadable", "the bucket did not answer") from error


def _bundle_key(serial: str) -> str:
    return f"certs/{serial}/bundle.tar.gz"
