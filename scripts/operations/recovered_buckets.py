"""Make a deleted bucket again under its own name, with the settings of the stack's template."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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

# What each is called in words, and by what it is read.
_READ = {
    "PublicAccessBlockConfiguration": ("block of public access", "get_public_access_block"),
    "OwnershipControls": ("ownership of objects", "get_bucket_ownership_controls"),
    "BucketPolicy": ("policy", "get_bucket_policy"),
    "BucketEncryption": ("encryption", "get_bucket_encryption"),
    "VersioningConfiguration": ("versions", "get_bucket_versioning"),
    "LifecycleConfiguration": ("lifecycle", "get_bucket_lifecycle_configuration"),
}

_BLOCKS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")


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
        """Whether it is. Raises CommandError when S3 does not let us look."""
        try:
            self._s3.head_bucket(Bucket=self._name, ExpectedBucketOwner=self._account)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404:
                return False
            if status == 403:
                raise self._not_shown() from error
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
        """Which of its settings are not those of the template, in words.

        S3 gives every bucket some encryption, ownership and block by itself, so that one is there
        says nothing: what it says is compared.
        """
        policy = {} if self._policy is None else {"BucketPolicy": self._policy}
        wanted = {**self._properties, **policy}
        found = list[str]()
        for name, (words, read) in _READ.items():
            if name in wanted:
                is_ = _SAID[name](self._answer(read))
                should = _SAID[name](_as_answered(name, wanted[name]))
                if missing := [each for each in should if each not in is_]:
                    found.append(f"{words} ({', '.join(missing)})")
        return found

    def _answer(self, read: str) -> Mapping[str, Any]:
        try:
            answer = getattr(self._s3, read)(Bucket=self._name, ExpectedBucketOwner=self._account)
        except ClientError as error:
            if error_code(error).startswith("NoSuch") or "NotFound" in error_code(error):
                return {}
            raise
        return dict(answer)

    def _not_ours(self) -> CommandError:
        return CommandError(
            f"the name {self._name} is another account's now: the bucket needs another name, see "
            "docs/recovery.md, the config bucket"
        )

    def _not_shown(self) -> CommandError:
        """S3 answers both in the same way (S3 API Reference, HeadBucket)."""
        return CommandError(
            f"the name {self._name} is another account's, or you may not look. If "
            f"`aws s3api list-buckets --query \"Buckets[?Name=='{self._name}']\"` shows it, it is "
            "yours: come again with s3:ListBucket on it. If that shows nothing, it needs another "
            "name: docs/recovery.md, the config bucket"
        )


def _as_answered(name: str, wanted: Any) -> dict[str, Any]:
    """A setting of the template, as S3 answers when it is asked for it."""
    if name == "BucketEncryption":
        rules = encryption_rules(wanted["ServerSideEncryptionConfiguration"])
        return {"ServerSideEncryptionConfiguration": {"Rules": rules}}
    if name == "LifecycleConfiguration":
        return {"Rules": [lifecycle_rule(rule) for rule in wanted["Rules"]]}
    if name == "BucketPolicy":
        return {"Policy": json.dumps(wanted)}
    return dict(wanted) if name == "VersioningConfiguration" else {name: wanted}


def _said_of_blocks(answer: Mapping[str, Any]) -> list[str]:
    flags = answer.get("PublicAccessBlockConfiguration", {})
    return [flag for flag in _BLOCKS if flags.get(flag)]


def _said_of_owners(answer: Mapping[str, Any]) -> list[str]:
    rules = answer.get("OwnershipControls", {}).get("Rules", [])
    return [rule["ObjectOwnership"] for rule in rules]


def _said_of_policy(answer: Mapping[str, Any]) -> list[str]:
    """Its statements' names: S3 may write what is in them in another way than it was given."""
    return [
        each.get("Sid", "") for each in json.loads(answer.get("Policy", "{}")).get("Statement", [])
    ]


def _said_of_encryption(answer: Mapping[str, Any]) -> list[str]:
    """A KMS key may be said by its ARN or by its id alone."""
    found = list[str]()
    for rule in answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", []):
        default = rule.get("ApplyServerSideEncryptionByDefault", {})
        key = default.get("KMSMasterKeyID", "").rpartition("/")[2]
        found.append(f"{default.get('SSEAlgorithm', '')} {key}".strip())
        found += ["bucket key"] if rule.get("BucketKeyEnabled") else []
    return found


def _said_of_versions(answer: Mapping[str, Any]) -> list[str]:
    """One where they are suspended still keeps the old ones, and makes no new ones."""
    return [answer["Status"]] if "Status" in answer else []


def _said_of_lifecycle(answer: Mapping[str, Any]) -> list[str]:
    return [rule["ID"] for rule in answer.get("Rules", []) if rule["Status"] == "Enabled"]


# By what two answers are told apart; what else a bucket has does no harm.
_SAID: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "PublicAccessBlockConfiguration": _said_of_blocks,
    "OwnershipControls": _said_of_owners,
    "BucketPolicy": _said_of_policy,
    "BucketEncryption": _said_of_encryption,
    "VersioningConfiguration": _said_of_versions,
    "LifecycleConfiguration": _said_of_lifecycle,
}


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
