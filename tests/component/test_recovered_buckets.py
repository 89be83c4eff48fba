"""A bucket that is there is compared with the stack's template, on a real emulator.

Like S3 since 2023 it gives a new bucket SSE-S3, a block of public access and
BucketOwnerEnforced by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from operations.cloud import CommandError
from operations.recovered_buckets import Bucket
from tests.component.emulated_aws import EmulatedAws, emulated_aws

NAME = "some-config"
PRIVATE = {
    "BlockPublicAcls": True,
    "BlockPublicPolicy": True,
    "IgnorePublicAcls": True,
    "RestrictPublicBuckets": True,
}
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [f"arn:aws:s3:::{NAME}", f"arn:aws:s3:::{NAME}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ],
}


def encryption(algorithm: str, key: str = "") -> dict[str, Any]:
    named = {"KMSMasterKeyID": key} if key else {}
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm, **named}}
    return {"Rules": [{**rule, "BucketKeyEnabled": bool(key)}]}


class Session:
    """A session of the operator's, in the region that buckets are made in."""

    region_name = "us-east-1"

    def __init__(self, aws: EmulatedAws) -> None:
        self.client = aws.client


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture(scope="module")
def key(aws: EmulatedAws) -> str:
    return str(aws.client("kms").create_key()["KeyMetadata"]["Arn"])


@pytest.fixture
def bucket(aws: EmulatedAws, key: str) -> Iterator[Any]:
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    rule = {"BucketKeyEnabled": True, "ServerSideEncryptionByDefault": default}
    properties = {
        "VersioningConfiguration": {"Status": "Enabled"},
        "PublicAccessBlockConfiguration": PRIVATE,
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "BucketEncryption": {"ServerSideEncryptionConfiguration": [rule]},
        "LifecycleConfiguration": {
            "Rules": [{"Id": "a-day", "Status": "Enabled", "ExpirationInDays": 1}]
        },
    }
    made = Bucket(Session(aws), NAME, properties, POLICY)  # type: ignore[arg-type]
    made.make()
    yield made
    aws.client("s3").delete_bucket(Bucket=NAME)


def test_what_s3_gives_every_bucket_is_not_taken_for_the_stacks(bucket: Any, key: str) -> None:
    assert bucket.lacking() == [
        "policy (TlsOnly)",
        f"encryption (aws:kms {key.rpartition('/')[2]}, bucket key)",
        "versions (Enabled)",
        "lifecycle (a-day)",
    ]
    bucket.put_settings_right()
    assert bucket.lacking() == []


def test_each_setting_that_is_another_is_told_and_put_right(
    aws: EmulatedAws, bucket: Any, key: str
) -> None:
    s3: Any = aws.client("s3")
    other = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    suspended = {"Status": "Suspended"}
    open_ = {**PRIVATE, "RestrictPublicBuckets": False}
    written = {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    rules = [{"ID": "a-day", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
    off = {"Rules": [{**rule, "Status": "Disabled"} for rule in rules]}
    wrong = {
        "encryption (aws:kms": (
            s3.put_bucket_encryption,
            {"ServerSideEncryptionConfiguration": encryption("aws:kms", other)},
        ),
        "versions (Enabled)": (
            s3.put_bucket_versioning,
            {"VersioningConfiguration": suspended},
        ),
        "block of public access (RestrictPublicBuckets)": (
            s3.put_public_access_block,
            {"PublicAccessBlockConfiguration": open_},
        ),
        "ownership of objects (BucketOwnerEnforced)": (
            s3.put_bucket_ownership_controls,
            {"OwnershipControls": written},
        ),
        "lifecycle (a-day)": (
            s3.put_bucket_lifecycle_configuration,
            {"LifecycleConfiguration": off},
        ),
    }
    for words, (put, setting) in wrong.items():
        bucket.put_settings_right()
        put(Bucket=NAME, **setting)
        (said,) = bucket.lacking()
        assert said.startswith(words)
    bucket.put_settings_right()
    assert bucket.lacking() == []


def test_a_key_that_is_said_by_its_id_is_the_same_key(
    aws: EmulatedAws, bucket: Any, key: str
) -> None:
    bucket.put_settings_right()
    aws.client("s3").put_bucket_encryption(
        Bucket=NAME,
        ServerSideEncryptionConfiguration=encryption("aws:kms", key.rpartition("/")[2]),
    )
    assert bucket.lacking() == []


class Forbidding:
    """S3 as it answers to somebody without s3:ListBucket; the emulator's operator may do all."""

    def head_bucket(self, **given: Any) -> None:
        status = {"HTTPStatusCode": 403}
        raise ClientError({"Error": {"Code": "403"}, "ResponseMetadata": status}, "HeadBucket")  # type: ignore[typeddict-item]


def test_one_that_may_not_be_looked_at_is_not_called_a_strangers(bucket: Any) -> None:
    bucket._s3 = Forbidding()
    with pytest.raises(CommandError) as caught:
        bucket.there()
    for each in ("another account's, or you may not look", "s3:ListBucket", "list-buckets"):
        assert each in str(caught.value)
