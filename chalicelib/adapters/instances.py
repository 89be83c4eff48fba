"""What EC2 says of instances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypedDict

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.model import ENDED, Access, InstanceFacts, InstanceState
from chalicelib.errors import DependencyFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeDef
    from mypy_boto3_iam import IAMClient

_INSTANCES_A_PAGE = 200  # more might not come within the time that a client waits
_IDS_A_REQUEST = 100

# Amazon EC2 "Filter values": at most 200 of one filter. An hour's instances are one value.
_MOST_HOURS = 200

# Roles of profiles change seldom, and IAM answers few requests a second.
_ROLES_KEPT = timedelta(minutes=5)

_STARTING = (InstanceState.PENDING, InstanceState.RUNNING)


class _Page(TypedDict, total=False):
    NextToken: str


class Instances:
    """ec2, iam: make or return the client; called only when an instance is asked about.

    What the filters of a request say is looked at in its answer, too.
    """

    def __init__(
        self,
        ec2: Callable[[], EC2Client],
        iam: Callable[[], IAMClient],
        tag_key: str,
        now: Callable[[], datetime],
    ) -> None:
        self._ec2 = ec2
        self._iam = iam
        self._tag_key = tag_key
        self._now = now
        self._roles: dict[str, tuple[datetime, str | None]] = {}

    def facts(self, instance_id: str) -> InstanceFacts | None:
        """None when this account and region has no such instance. Raises DependencyFailed."""
        with _our_errors():
            found = self._describe(instance_id)
            return None if found is None else self._facts_of(found, self._ask_role(found))

    def glance(self, instance_id: str) -> InstanceFacts | None:
        """As facts(), in one call: without role and session. Raises DependencyFailed."""
        with _our_errors():
            found = self._describe(instance_id)
            return None if found is None else self._facts_of(found)

    def facts_of_all(self, instance_ids: Sequence[str]) -> Mapping[str, InstanceFacts]:
        """Of those that this account and region has; roles may be five minutes old.

        One call for each hundred, and one for each instance profile. Raises DependencyFailed.
        """
        wanted = list(dict.fromkeys(instance_ids))
        facts: dict[str, InstanceFacts] = {}
        with _our_errors():
            for start in range(0, len(wanted), _IDS_A_REQUEST):
                ids = wanted[start : start + _IDS_A_REQUEST]
                for found in self._find([{"Name": "instance-id", "Values": ids}]):
                    if found["InstanceId"] in ids:
                        role = self._kept_role(found)
                        facts[found["InstanceId"]] = self._facts_of(found, role)
        return facts

    def launched_since(self, since: datetime) -> Mapping[str, InstanceFacts]:
        """Of tagged ones that were launched or started since then and have not ended or stopped.

        As glance() tells of them. Raises DependencyFailed.
        """
        found = self._tagged(_STARTING, _hours(since, self._now()))
        return {id_: facts for id_, facts in found.items() if facts.launched_at >= since}

    def ended(self) -> Mapping[str, InstanceFacts]:
        """Of tagged ones that end or have ended; EC2 shows them for about an hour.

        As glance() tells of them. Raises DependencyFailed.
        """
        return self._tagged(ENDED, [])

    def tagged(self) -> Mapping[str, InstanceFacts]:
        """Of all that carry the tag, with whatever value, and those that ended, as ended().

        As glance() tells of them. Raises DependencyFailed.
        """
        return self._tagged(tuple(InstanceState), [])

    def _tagged(
        self, states: Collection[InstanceState], more: list[FilterTypeDef]
    ) -> dict[str, InstanceFacts]:
        filters: list[FilterTypeDef] = [
            {"Name": "tag-key", "Values": [self._tag_key]},
            {"Name": "instance-state-name", "Values": [state.value for state in states]},
            *more,
        ]
        with _our_errors():
            return {
                found["InstanceId"]: self._facts_of(found)
                for found in self._find(filters)
                if self._tag_key in _tags(found) and found["State"]["Name"] in states
            }

    def _find(self, filters: list[FilterTypeDef]) -> Iterator[InstanceTypeDef]:
        """A filter passes ids by that do not exist, where InstanceIds would refuse them all."""
        page: _Page = {}
        while True:
            answer = self._ec2().describe_instances(
                Filters=filters, MaxResults=_INSTANCES_A_PAGE, **page
            )
            for group in answer["Reservations"]:
                yield from group["Instances"]
            if not answer.get("NextToken"):
                return
            page = {"NextToken": answer["NextToken"]}

    def _describe(self, instance_id: str) -> InstanceTypeDef | None:
        try:
            answer = self._ec2().describe_instances(InstanceIds=[instance_id])
        except ClientError as error:
            if error.response["Error"]["Code"].startswith("InvalidInstanceID."):
                return None
            raise
        found = [each for group in answer["Reservations"] for each in group["Instances"]]
        return found[0] if found else None

    def _facts_of(self, instance: InstanceTypeDef, role: str | None = None) -> InstanceFacts:
        asked = _tags(instance).get(self._tag_key, "")
        return InstanceFacts(
            instance_id=instance["InstanceId"],
            state=InstanceState(instance["State"]["Name"]),
            role=role,
            access=Access(asked) if asked in set(Access) else None,
            session_arn=None if role is None else _session_arn(instance, role),
            launched_at=instance["LaunchTime"],
        )

    def _kept_role(self, instance: InstanceTypeDef) -> str | None:
        profile = _profile_arn(instance)
        if profile is None:
            return None
        now = self._now()
        until, role = self._roles.get(profile, (now, None))
        if until <= now:
            role = self._ask_role(instance)
            self._roles[profile] = (now + _ROLES_KEPT, role)
        return role

    def _ask_role(self, instance: InstanceTypeDef) -> str | None:
        """A profile holds one role at most, and may be named otherwise than it."""
        arn = _profile_arn(instance)
        if arn is None:
            return None
        try:
            answer = self._iam().get_instance_profile(InstanceProfileName=arn.rsplit("/", 1)[1])
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchEntity":  # deleted under the instance
                return None
            raise
        roles = answer["InstanceProfile"]["Roles"]
        return roles[0]["RoleName"] if roles else None


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise DependencyFailed("ec2_unreadable", "EC2 did not answer; ask again") from error


def _hours(since: datetime, now: datetime) -> list[FilterTypeDef]:
    """Launch times as EC2 filters them: a value with a wildcard for each hour; none if too many.

    Amazon EC2 API Reference, DescribeInstances. EC2's clock may be a little ahead of ours.
    """
    end = now + timedelta(minutes=5)
    count = int((end - since) / timedelta(hours=1)) + 2
    if count > _MOST_HOURS:
        return []
    times = [since + timedelta(hours=hours) for hours in range(count)]
    return [{"Name": "launch-time", "Values": [f"{time:%Y-%m-%dT%H}:*" for time in times]}]


def _tags(instance: InstanceTypeDef) -> Mapping[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}


def _profile_arn(instance: InstanceTypeDef) -> str | None:
    return instance.get("IamInstanceProfile", {}).get("Arn")


def _session_arn(instance: InstanceTypeDef, role: str) -> str:
    """Whom requests with the instance's own credentials are signed by.

    Amazon EC2 User Guide, "Instance identity roles" and "IAM roles for Amazon EC2": the session
    that an instance profile gives is named as the instance.
    """
    _, partition, _, _, account, _ = instance["IamInstanceProfile"]["Arn"].split(":", 5)
    return f"arn:{partition}:sts::{account}:assumed-role/{role}/{instance['InstanceId']}"
