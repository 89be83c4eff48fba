"""Who a caller is, read from the ARN that API Gateway's IAM authorizer reports."""

from __future__ import annotations

import re

from chalicelib.domain.model import Caller
from chalicelib.errors import Forbidden

# AWS "IAM and AWS STS quotas": user and session names have 1 to 64 and 2 to 64 characters of
# letters, digits and +=,.@_- ; a user's path ends with a slash and is not part of the name.
_NAME = r"[A-Za-z0-9_+=,.@-]{1,64}"
_USER = re.compile(rf"arn:aws[a-z-]*:iam::[0-9]{{12}}:user/(?:[!-~]*/)?(?P<name>{_NAME})")
_SESSION = re.compile(
    rf"arn:aws[a-z-]*:sts::[0-9]{{12}}:assumed-role/(?P<role>{_NAME})/(?P<name>{_NAME})"
)
# EC2's, in the short form and in the longer one that came after it.
INSTANCE_ID = r"i-([0-9a-f]{8}|[0-9a-f]{17})"


def is_name(text: str) -> bool:
    """Whether an IAM user or session may have this name."""
    return re.fullmatch(_NAME, text) is not None


def is_instance_id(text: str) -> bool:
    """Whether an EC2 instance may have this id."""
    return re.fullmatch(INSTANCE_ID, text) is not None


def identify(arn: str) -> Caller:
    """The caller behind *arn*: an IAM user or a session of an assumed role.

    Raises Forbidden for everything else: the account's root, federated users, no ARN at all.
    That a session is named like an instance does not make it that instance.
    """
    if user := _USER.fullmatch(arn):
        return Caller(arn=arn, name=user["name"])
    if session := _SESSION.fullmatch(arn):
        name = session["name"]
        instance = name if is_instance_id(name) else None
        return Caller(arn=arn, name=name, role=session["role"], instance_id=instance)
    raise Forbidden(
        "unrecognised_caller",
        "certificates are issued to IAM users and to sessions of IAM roles; sign as one of those",
    )
