"""Bundles and the published trust, in the config bucket."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypedDict

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.model import BundleLink
from chalicelib.domain.trust import (
    TRUST_DOCUMENT,
    TRUST_KEYS,
    TRUST_LISTS,
    PublishedTrust,
    Trust,
)
from chalicelib.errors import Contended, DependencyFailed, Misconfigured

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef

# Long enough to paste it into a terminal, short enough not to matter in a shell's history.
LINK_LIFETIME = timedelta(minutes=15)

# The bucket's lifecycle rule deletes what carries this tag after a day.
KEY_TAG = "holds-key=true"


# What S3 answers when the object is not the one that the condition names: it is being replaced,
# was replaced, or (404, told by its code from a missing bucket) has gone.
_CHANGING, _CHANGED, _GONE = 409, 412, "NoSuchKey"

# Metadata of the trust's objects: with which CRL number, and of which version, they were published.
_PUBLICATION = "crl-number"
_VERSION = "trust-version"


class _Condition(TypedDict, total=False):
    IfMatch: str
    IfNoneMatch: str


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
        found = self._read(_bundle_key(serial))
        return None if found is None else found.content

    def delete(self, serial: str) -> None:
        """Delete a stored bundle, if it is there. Raises DependencyFailed.

        In a versioned bucket, as ours is, it stays as an old version, which no link or role of
        ours reaches, until the lifecycle rule removes it.
        """
        try:
            self._s3.delete_object(Bucket=self._name, Key=_bundle_key(serial))
        except (ClientError, BotoCoreError) as error:
            raise DependencyFailed("bundle_not_deleted", "the bundle was not deleted") from error

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
        document = self._read(TRUST_DOCUMENT)
        if document is None:
            raise Misconfigured("no_trust", "there is no CA yet; the operator runs scripts/ca init")
        return _trust_in(document.content)

    def trust_version(self) -> str:
        """Of the trust as last published, in one small call. As read_trust() raises."""
        head = self._head(TRUST_DOCUMENT)
        # What was published before this was written says it in the document alone.
        return head.trust_version if head and head.trust_version else self.read_trust().version

    def published(self) -> PublishedTrust:
        """The trust and the versions of all its objects. Raises DependencyFailed."""
        document = self._read(TRUST_DOCUMENT)
        found = {key: self._head(key) for key in TRUST_KEYS if key != TRUST_DOCUMENT}
        found[TRUST_DOCUMENT] = None if document is None else document.head
        there = {key: head for key, head in found.items() if head is not None}
        try:
            trust = None if document is None else _trust_in(document.content)
        except Misconfigured:
            trust = None
        publications = {head.publication for head in there.values()}
        whole = len(there) == len(found) and len(publications) == 1
        lists = "" if trust is None else trust.crl
        if (trust is None or not whole) and (beside := self._read(TRUST_LISTS)) is not None:
            lists += beside.content.decode(errors="replace")
        return PublishedTrust(
            trust,
            {key: head.version for key, head in there.items()},
            number=max(publications | {0 if trust is None else trust.crl_number}),
            whole=whole,
            crl=lists,
        )

    def publish(self, trust: Trust, instead_of: PublishedTrust) -> None:
        """Write the trust's objects, in their order, each only if it still is as *instead_of* says.

        AWS "How to prevent object overwrites with conditional writes".
        Raises Contended when one was changed meanwhile, DependencyFailed.
        """
        try:
            for key, content in trust.objects().items():
                version = instead_of.versions.get(key)
                condition: _Condition = (
                    {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
                )
                self._s3.put_object(
                    Bucket=self._name,
                    Key=key,
                    Body=content,
                    Metadata={_PUBLICATION: str(trust.crl_number), _VERSION: trust.version},
                    **condition,
                )
        except ClientError as error:
            if _changed_meanwhile(error):
                raise Contended("busy", "the trust was published by another") from error
            raise _not_published() from error
        except BotoCoreError as error:
            raise _not_published() from error

    def _head(self, key: str) -> _Head | None:
        try:
            return _head_of(self._s3.head_object(Bucket=self._name, Key=key))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise _unreadable() from error
        except BotoCoreError as error:
            raise _unreadable() from error

    def _read(self, key: str) -> _Object | None:
        try:
            answer = self._s3.get_object(Bucket=self._name, Key=key)
            return _Object(answer["Body"].read(), _head_of(answer))
        except self._s3.exceptions.NoSuchKey:
            return None
        except (ClientError, BotoCoreError) as error:
            raise _unreadable() from error


@dataclass(frozen=True, slots=True)
class _Head:
    """version: entity tag. publication: the CRL number it was published with; 0 if it says none.

    trust_version: of what it was published with; empty if it says none.
    """

    version: str
    publication: int
    trust_version: str


@dataclass(frozen=True, slots=True)
class _Object:
    content: bytes
    head: _Head


def _head_of(answer: GetObjectOutputTypeDef | HeadObjectOutputTypeDef) -> _Head:
    said = answer["Metadata"]
    number = said.get(_PUBLICATION, "")
    publication = int(number) if number.isdecimal() else 0
    return _Head(answer["ETag"], publication, said.get(_VERSION, ""))


def _changed_meanwhile(error: ClientError) -> bool:
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status in (_CHANGING, _CHANGED) or error.response["Error"]["Code"] == _GONE


def _trust_in(document: bytes) -> Trust:
    try:
        return Trust.from_json(json.loads(document))
    except (ValueError, TypeError) as error:
        raise Misconfigured("no_trust", "the published trust cannot be read") from error


def _unreadable() -> DependencyFailed:
    return DependencyFailed("bucket_unreadable", "the bucket did not answer")


def _not_published() -> DependencyFailed:
    return DependencyFailed("trust_not_stored", "the trust was not published")


def _bundle_key(serial: str) -> str:
    return f"certs/{serial}/bundle.tar.gz"
