"""Parts of a deployed template, made ready to be made again."""

from __future__ import annotations

import pytest

from operations.cloud import CommandError
from operations.recovered_buckets import encryption_rules, lifecycle_rule
from operations.template_parts import Template

VALUES = {"Key.Arn": "arn:aws:kms:x", "Config.Arn": "arn:aws:s3:::c", "Config": "c"}


def properties(given: dict[str, object]) -> dict[str, object]:
    return Template({"Part": {"Properties": given}}, VALUES).properties("Part")


def test_references_are_replaced_wherever_they_stand() -> None:
    assert properties(
        {
            "Bucket": {"Ref": "Config"},
            "Rules": [{"Key": {"Fn::GetAtt": ["Key", "Arn"]}}, {"Key": {"Fn::GetAtt": "Key.Arn"}}],
            "Resource": {"Fn::Sub": "${Config.Arn}/*"},
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ) == {
        "Bucket": "c",
        "Rules": [{"Key": "arn:aws:kms:x"}, {"Key": "arn:aws:kms:x"}],
        "Resource": "arn:aws:s3:::c/*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def test_what_is_not_understood_is_not_guessed_at() -> None:
    with pytest.raises(CommandError, match="Other"):
        properties({"Bucket": {"Ref": "Other"}})
    with pytest.raises(CommandError, match="no Part"):
        Template({}, VALUES).properties("Part")


def test_lifecycle_rules_in_the_words_of_s3() -> None:
    tag = {"Key": "holds-key", "Value": "true"}
    assert lifecycle_rule(
        {"Id": "a", "Status": "Enabled", "TagFilters": [tag], "ExpirationInDays": 1}
    ) == {"ID": "a", "Filter": {"Tag": tag}, "Status": "Enabled", "Expiration": {"Days": 1}}
    noncurrent = {"NoncurrentVersionExpiration": {"NoncurrentDays": 30}}
    said = {"Id": "b", "Status": "Enabled", "ExpiredObjectDeleteMarker": True, **noncurrent}
    assert lifecycle_rule(said) == {
        "ID": "b",
        "Filter": {"Prefix": ""},
        "Status": "Enabled",
        "Expiration": {"ExpiredObjectDeleteMarker": True},
        **noncurrent,
    }
    with pytest.raises(CommandError, match="Transitions"):
        lifecycle_rule({"Id": "c", "Status": "Enabled", "Transitions": []})


def test_encryption_in_the_words_of_s3() -> None:
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"}
    assert encryption_rules(
        [{"ServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}]
    ) == [{"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}]
