"""What EC2 says of an instance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.model import Access, InstanceFacts, InstanceState
from chalicelib.errors import DependencyFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import InstanceTypeDef
    from mypy_boto3_iam import IAMClient


class Instances:
    """ec2, iam: make or return the client; called only when an instance asks, which is seldom."""

    def __init__(
        self, ec2: Callable[[], EC2Client], iam: Callable[[], IAMClient], tag_key: str
    ) -> None:
        self._ec2 = ec2
        self._iam = iam
        self._tag_key = tag_key

    def facts(self, instance_id: str) -> InstanceFacts | None:
        """None when this account and region has no such instance. Raises DependencyFailed."""
        try:
            described = self._describe(instance_id)
            return None if described is None else self._facts_of(described)
        except (ClientError, BotoCoreError) as error:
            raise DependencyFailed("ec2_unreadable", "EC2 did not answer; ask again") from error

    def _describe(self, instance_id: str) -> InstanceTypeDef | None:
        try:
            answer = self._ec2().describe_instances(InstanceIds=[instance_id])
        except ClientError as error:
            if error.response["Error"]["Code"].startswith("InvalidInstanceID."):
                return None
            raise
        found = [each for group in answer["Reservations"] for each in group["Instances"]]
        return found[0] if found else None

    def _facts_of(self, instance: InstanceTypeDef) -> InstanceFacts:
        tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
        asked = tags.get(self._tag_key, "")
        role = self._role_of(instance)
        return InstanceFacts(
            instance_id=instance["InstanceId"],
            state=InstanceState(instance["State"]["Name"]),
            role=role,
            access=Access(asked) if asked in set(Access) else None,
            session_arn=None if role is None else _session_arn(instance, role),
            launched_at=instance["LaunchTime"],
        )

    def _role_of(self, instance: InstanceTypeDef) -> str | None:
        """A profile holds one role at most, and may be named otherwise than it."""
        arn = instance.get("IamInstanceProfile", {}).get("Arn")
        if arn is None:
            return None
        profile = self._iam().get_instance_profile(InstanceProfileName=arn.rsplit("/", 1)[1])
        roles = profile["InstanceProfile"]["Roles"]
        return roles[0]["RoleName"] if roles else None


def _session_arn(instance: InstanceTypeDef, role: str) -> str:
    """Whom requests with the instance's own credentials are signed by.

    Amazon EC2 User Guide, "Instance identity roles" and "IAM roles for Amazon EC2": the session
    that an instance profile gives is named as the instance.
    """
    _, partition, _, _, account, _ = instance["IamInstanceProfile"]["Arn"].split(":", 5)
    return f"arn:{partition}:sts::{account}:assumed-role/{role}/{instance['InstanceId']}"
