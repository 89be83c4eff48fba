"""Publish the registry host: the script that makes a machine one, and the files that it fetches."""

from __future__ import annotations

import os
from typing import Any

import boto3
from botocore.exceptions import ClientError

from chalicelib.domain.registry_host import (
    KEEPALIVE_TIME_SINCE,
    SCRIPT_KEY,
    HostLayout,
    HostSetup,
    RefreshSource,
    S3Storage,
)
from chalicelib.domain.trust import RegistryAddress
from operations.cloud import error_code

RELOAD_COMMAND = "systemctl try-reload-or-restart registry-nginx.service"
SCRIPT_TYPE, RELEASE_TYPE = "text/x-shellscript", "application/gzip"
_NOT_THERE = ("NoSuchKey", "404", "NotFound")


def publish(
    aws: boto3.Session, outputs: dict[str, str], parameters: dict[str, str], api_url: str
) -> str:
    """Put the host's release and then its script into the config bucket; where the script is.

    outputs, parameters: the stack's. api_url: as hosts reach the API. What is there already is not
    written again. Releases of former scripts stay: a script that somebody kept goes on working.
    """
    setup = setup_of(str(aws.region_name), outputs, parameters, api_url)
    s3, bucket = aws.client("s3"), outputs["ConfigBucket"]
    script = setup.script.encode()
    if not _is_there(s3, bucket, setup.release_key):
        s3.put_object(
            Bucket=bucket, Key=setup.release_key, Body=setup.release, ContentType=RELEASE_TYPE
        )
    if _published(s3, bucket) != (script, SCRIPT_TYPE):
        s3.put_object(Bucket=bucket, Key=SCRIPT_KEY, Body=script, ContentType=SCRIPT_TYPE)
    return f"s3://{bucket}/{SCRIPT_KEY}"


def setup_of(
    region: str, outputs: dict[str, str], parameters: dict[str, str], api_url: str
) -> HostSetup:
    """What the registry host of a stack is to be. Raises Misconfigured for an unsafe value."""
    registry = RegistryAddress(parameters["RegistryHost"], int(parameters["RegistryPort"])).name
    endpoint = _emulator()
    return HostSetup(
        HostLayout.system(registry, nginx_version=KEEPALIVE_TIME_SINCE),
        S3Storage(
            region,
            outputs["RegistryBucket"],
            endpoint=endpoint,
            encrypt=not endpoint,  # an emulator has no keys to encrypt under
        ),
        RefreshSource(
            outputs["ConfigBucket"],
            region,
            api_url,
            reload_command=RELOAD_COMMAND,
            endpoint=endpoint,
        ),
        image=parameters["RegistryImage"],
        redirect=parameters["RegistryRedirects"] == "true",
    )


def _emulator() -> str:
    """Where the emulator answers, if it is one that the stack is on; plain HTTP tells."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "").rstrip("/")
    return endpoint if endpoint.startswith("http://") else ""


def _is_there(s3: Any, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error_code(error) in _NOT_THERE:
            return False
        raise
    return True


def _published(s3: Any, bucket: str) -> tuple[bytes, str] | None:
    try:
        there = s3.get_object(Bucket=bucket, Key=SCRIPT_KEY)
    except ClientError as error:
        if error_code(error) in _NOT_THERE:
            return None
        raise
    return there["Body"].read(), there["ContentType"]
