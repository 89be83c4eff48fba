"""The trust as it was last published, read with the operator's own credentials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError
from cryptography import x509

from chalicelib.domain.pki.authorities import AuthorityKind
from operations.cloud import CommandError, error_code

LISTS = "trust/client-ca.crl"

_CERTIFICATES = {
    AuthorityKind.CLIENT: "trust/client-ca.crt",
    AuthorityKind.SERVER: "trust/ca.crt",
}
_NOTHING = ("NoSuchKey", "NoSuchBucket", "NoSuchVersion", "404")


def certificates(s3: Any, outputs: Mapping[str, str], kind: AuthorityKind) -> list[str]:
    """PEM of each CA of the kind that was published last, the one that signs first.

    Of an object that was deleted the version before that; empty when there is none, nor a bucket.
    Raises CommandError for one that holds something else.
    """
    text = _newest(s3, outputs["ConfigBucket"], _CERTIFICATES[kind])
    if text is None:
        return []
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError as error:
        raise CommandError(
            f"{_CERTIFICATES[kind]} in s3://{outputs['ConfigBucket']} is damaged: put back an "
            "older version of it, which the bucket keeps for 30 days"
        ) from error
    end = "-----END CERTIFICATE-----\n"
    return [f"{part.strip()}\n{end}" for part in text.split(end.strip()) if part.strip()]


def was_there(aws: boto3.Session, outputs: Mapping[str, str], kind: AuthorityKind) -> bool:
    """Whether a CA of the kind was published, or has signed, as far as what is left tells."""
    if certificates(aws.client("s3"), outputs, kind):
        return True
    table = outputs["CertificatesTable"]
    try:
        return bool(aws.client("dynamodb").scan(TableName=table, Limit=1)["Items"])
    except ClientError as error:
        if error_code(error) == "ResourceNotFoundException":
            return False
        raise


def every_list(s3: Any, outputs: Mapping[str, str]) -> Iterator[str]:
    """Each version of the published revocation lists that the bucket still has, newest first."""
    bucket = outputs["ConfigBucket"]
    for version in versions(s3, bucket, LISTS):
        text = _read(s3, bucket, LISTS, version)
        if text is not None:
            yield text


def versions(s3: Any, bucket: str, key: str) -> Iterator[str]:
    """The ids of an object's versions, newest first; none when there is no such bucket."""
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key)
    try:
        for page in pages:
            yield from (v["VersionId"] for v in page.get("Versions", []) if v["Key"] == key)
    except ClientError as error:
        if error_code(error) not in _NOTHING:
            raise


def _newest(s3: Any, bucket: str, key: str) -> str | None:
    for version in versions(s3, bucket, key):
        return _read(s3, bucket, key, version)
    return None


def _read(s3: Any, bucket: str, key: str, version: str) -> str | None:
    try:
        body = s3.get_object(Bucket=bucket, Key=key, VersionId=version)["Body"].read()
    except ClientError as error:
        # What was encrypted under a key that has gone can be read by nobody any more.
        if error_code(error) in _NOTHING or error_code(error).startswith("KMS."):
            return None
        raise
    return str(body.decode("utf-8", "replace"))
