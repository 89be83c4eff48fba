"""The IAM users of the local cloud and their access keys."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.aws import SETTINGS, Caller, Key
from localcloud.layout import read_json, write_private

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

ADMINISTRATOR = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def ensure_operator(root: Caller, key_file: Path) -> Key:
    """A user that may do all but is not root, as an account's administrator is."""
    iam = _iam(root)
    _ensure_user(root, "operator")
    document = json.dumps({"Version": "2012-10-17", **ADMINISTRATOR})
    iam.put_user_policy(UserName="operator", PolicyName="administrator", PolicyDocument=document)
    return _working_key(root, "operator", key_file)


def ensure_person(operator: Caller, name: str, policy_arn: str, key_file: Path) -> Key:
    """A user that has this managed policy, and a key of theirs that works."""
    _ensure_user(operator, name)
    _iam(operator).attach_user_policy(UserName=name, PolicyArn=policy_arn)
    return _working_key(operator, name, key_file)


def user_of(endpoint: str, key: Key) -> str | None:
    """The name of the IAM user whose key it is; None when the key does not work."""
    sts = Caller(endpoint, key).session.client("sts", endpoint_url=endpoint, config=SETTINGS)
    try:
        arn = sts.get_caller_identity()["Arn"]
    except (ClientError, BotoCoreError):
        return None
    return arn.rpartition(":user/")[2] or None


def kept_key(key_file: Path) -> Key | None:
    """The key in the file; None when it is not there or not whole."""
    values = read_json(key_file)
    try:
        return Key(str(values["access_key_id"]), str(values["secret_access_key"]))
    except KeyError:
        return None


def _iam(caller: Caller) -> IAMClient:
    return caller.session.client("iam", endpoint_url=caller.endpoint, config=SETTINGS)


def _ensure_user(caller: Caller, name: str) -> None:
    iam = _iam(caller)
    try:
        iam.create_user(UserName=name)
    except iam.exceptions.EntityAlreadyExistsException:
        return


def _working_key(caller: Caller, name: str, key_file: Path) -> Key:
    """The kept key if it still is this user's, else a new one in its place."""
    kept = kept_key(key_file)
    if kept is not None and user_of(caller.endpoint, kept) == name:
        return kept
    iam = _iam(caller)
    for old in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=name, AccessKeyId=old["AccessKeyId"])
    made = iam.create_access_key(UserName=name)["AccessKey"]
    key = Key(made["AccessKeyId"], made["SecretAccessKey"])
    write_private(key_file, json.dumps(asdict(key)) + "\n")
    return key
