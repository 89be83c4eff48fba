"""Make a deleted bucket again under its own name, with the settings of the stack's template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.exceptions import ClientError

from operations.cloud import CommandError, error_code

# CloudFormation's words for parts of a lifecycle rule that S3 has by the same name, or another.
_SAME = ("Status", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload")
_EXPIRATION = {"ExpirationInDays": "Days", "ExpiredObjectDeleteMarker": "ExpiredObjectDeleteMarker"}
_RULE = {"Id", "Prefix", "TagFilters", *_SAME, *_EXPIRATION}

_PROPERTIES = {
    "VersioningConfiguration",
    "PublicAccessBlockConfiguration",
    "OwnershipControls",
    "BucketEncryption",
    "LifecycleConfiguration",
}

# By what each is read, and what it is called in words.
_READ = {
    "PublicAccessBlockConfiguration": ("block of public access", "get_public_access_block"),
    "OwnershipControls": ("ownership of objects", "get_bucket_ownership_controls"),
    "BucketPolicy": ("policy", "get_bucket_policy"),
    "BucketEncryption": ("encryption", "get_bucket_encryption"),
    "VersioningConfiguration": ("versions", "get_bucket_versioning"),
    "LifecycleConfiguration": ("lifecycle", "get_bucket_lifecycle_configuration"),
}


class Bucket:
    """One of the stack's buckets, be it there or not.

    properties: as in the template. policy: its bucket policy; None for one without.
    """

    def __init__(
        self,
        aws: boto3.Session,
        name: str,
        properties: Mapping[str, Any],
        policy: Mapping[str, Any] | None,
    ) -> None:
        self._s3: Any = aws.client("s3")
        self._region = str(aws.region_name)
        self._account = str(aws.client("sts").get_caller_identity()["Account"])
        self._name = name
        self._properties = properties
        self._policy = policy

    def there(self) -> bool:
        """Whether it is. Raises CommandError for one that is not this account's."""
        try:
            self._s3.head_bucket(Bucket=self._name, ExpectedBucketOwner=self._account)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404:
                return False
            if status == 403:
                raise self._not_ours() from error
            raise
        return True

    def make(self) -> None:
        """It must not be there. Raises CommandError."""
        where: dict[str, Any] = {}
        if self._region != "us-east-1":  # which is the one that must not be named
            where["CreateBucketConfiguration"] = {"LocationConstraint": self._region}
        try:
            self._s3.create_bucket(Bucket=self._name, **where)
        except ClientError as error:
            if error_code(error) == "BucketAlreadyExists":
                raise self._not_ours() from error
            if error_code(error) == "OperationAborted":
                raise CommandError(
                    f"S3 is not done with deleting {self._name}: run this again in some minutes"
                ) from error
            raise

    def put_settings_right(self) -> None:
        """As the template says. Those that shut strangers out come first. Raises CommandError."""
        given = self._properties
        odd = sorted(set(given) - _PROPERTIES - {"BucketName", "Tags"})
        if odd:
            raise CommandError(f"cannot set {', '.join(odd)} of {self._name}: do it by hand")
        name = {"Bucket": self._name, "ExpectedBucketOwner": self._account}
        if block := given.get("PublicAccessBlockConfiguration"):
            self._s3.put_public_access_block(**name, PublicAccessBlockConfiguration=block)
        if controls := given.get("OwnershipControls"):
            self._s3.put_bucket_ownership_controls(**name, OwnershipControls=controls)
        if self._policy is not None:
            self._s3.put_bucket_policy(**name, Policy=json.dumps(self._policy))
        if encryption := given.get("BucketEncryption"):
            rules = encryption["ServerSideEncryptionConfiguration"]
            self._s3.put_bucket_encryption(
                **name, ServerSideEncryptionConfiguration={"Rules": encryption_rules(rules)}
            )
        if versioning := given.get("VersioningConfiguration"):
            self._s3.put_bucket_versioning(**name, VersioningConfiguration=versioning)
        if lifecycle := given.get("LifecycleConfiguration"):
            rules = [lifecycle_rule(rule) for rule in lifecycle["Rules"]]
            self._s3.put_bucket_lifecycle_configuration(
                **name, LifecycleConfiguration={"Rules": rules}
            )

    def lacking(self) -> list[str]:
        """Which of its settings are not there at all, in words."""
        wanted = [*self._properties, *(["BucketPolicy"] if self._policy is not None else [])]
        return [
            words for name, (words, read) in _READ.items() if name in wanted and not self._has(read)
        ]

    def _has(self, read: str) -> bool:
        try:
            answer = getattr(self._s3, read)(Bucket=self._name, ExpectedBucketOwner=self._account)
        except ClientError as error:
            if error_code(error).startswith("NoSuch") or "NotFound" in error_code(error):
                return False
            raise
        return any(key != "ResponseMetadata" for key in answer)

    def _not_ours(self) -> CommandError:
        return CommandError(
            f"the name {self._name} is another account's now, or you may not look: if so, the "
            "bucket needs another name, see docs/recovery.md"
        )


def encryption_rules(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """CloudFormation's encryption rules in the words of the S3 API."""
    return [
        {
            "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
            "BucketKeyEnabled": rule.get("BucketKeyEnabled", False),
        }
        for rule in rules
    ]


def lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """CloudFormation's lifecycle rule in the words of the S3 API. Raises CommandError."""
    odd = sorted(set(rule) - _RULE)
    if odd:
        raise CommandError(f"cannot set {', '.join(odd)} of a lifecycle rule: do it by hand")
    prefix, tags = rule.get("Prefix", ""), rule.get("TagFilters", [])
    if len(tags) == 1 and not prefix:
        filter_: dict[str, Any] = {"Tag": tags[0]}
    elif tags:
        filter_ = {"And": {"Prefix": prefix, "Tags": tags}}
    else:
        filter_ = {"Prefix": prefix}
    made: dict[str, Any] = {"ID": rule["Id"], "Filter": filter_}
    made |= {key: rule[key] for key in _SAME if key in rule}
    expiration = {ours: rule[theirs] for theirs, ours in _EXPIRATION.items() if theirs in rule}
    return {**made, "Expiration": expiration} if expiration else made
