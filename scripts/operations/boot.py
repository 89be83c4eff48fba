"""Publish the boot path: what EC2 instances without an SSM agent are given as user data."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.exceptions import ClientError

from chalicelib.domain.instance_host import BootSettings, user_data
from chalicelib.domain.trust import RegistryAddress
from operations.cloud import error_code

KEY = "trust/user-data.sh"
CONTENT_TYPE = "text/x-shellscript"


def publish(
    aws: boto3.Session, outputs: dict[str, str], parameters: dict[str, str], api_url: str
) -> str:
    """Put the stack's user data into its config bucket, if it is not there yet; where it is.

    outputs, parameters: the stack's. api_url: as instances reach the API. The bucket keeps
    versions, so what is there already is not written again.
    """
    text = user_data(_settings(str(aws.region_name), parameters, api_url)).encode()
    s3, bucket = aws.client("s3"), outputs["ConfigBucket"]
    if _published(s3, bucket) != (text, CONTENT_TYPE):
        s3.put_object(Bucket=bucket, Key=KEY, Body=text, ContentType=CONTENT_TYPE)
    return f"s3://{bucket}/{KEY}"


def _settings(region: str, parameters: dict[str, str], api_url: str) -> BootSettings:
    registry = RegistryAddress(parameters["RegistryHost"], int(parameters["RegistryPort"]))
    return BootSettings(api_url, region, registry.name)


def _published(s3: Any, bucket: str) -> tuple[bytes, str] | None:
    try:
        there = s3.get_object(Bucket=bucket, Key=KEY)
    except ClientError as error:
        if error_code(error) == "NoSuchKey":
            return None
        raise
    return there["Body"].read(), there["ContentType"]
