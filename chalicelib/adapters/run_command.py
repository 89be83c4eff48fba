"""Commands on instances, by the SSM agent that runs there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.enrolment.model import CommandOutcome, CommandStatus
from chalicelib.errors import DependencyFailed

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

_DOCUMENT = "AWS-RunShellScript"

# How long the agent may take to fetch a command, and the command to run.
_DELIVERY_SECONDS = 60
_EXECUTION_SECONDS = 120

# AWS Systems Manager API Reference: InstanceInformationStringFilter, DescribeInstanceInformation,
# SendCommand.
_IDS_A_REQUEST = 100
_NODES_A_PAGE = 50
_LONGEST_COMMENT = 100

# GetCommandInvocation's Status. What is not here is not over yet.
_STATUS = {
    "Success": CommandStatus.SUCCEEDED,
    "Failed": CommandStatus.FAILED,
    "TimedOut": CommandStatus.LOST,
    "Cancelled": CommandStatus.LOST,
}
# Its StatusDetails under which "Failed" means that the command never ran to its end.
_NEVER_ENDED = frozenset({"Undeliverable", "Terminated", "AccessDenied", "InvalidPlatform"})

# There is, or will be, nothing to read. SSM forgets a command after 30 days.
_NO_SUCH_COMMAND = frozenset({"InvalidCommandId", "InvalidInstanceId"})
# SSM also says so right after it took the command.
_NOT_YET = "InvocationDoesNotExist"


class _Page(TypedDict, total=False):
    NextToken: str


class RunCommand:
    """ssm: makes or returns the client; called only when an instance is asked about."""

    def __init__(self, ssm: Callable[[], SSMClient]) -> None:
        self._ssm = ssm

    def online(self, instance_ids: Sequence[str]) -> frozenset[str]:
        """Those of them whose agent can be sent commands now. Raises DependencyFailed."""
        wanted = list(dict.fromkeys(instance_ids))
        found: set[str] = set()
        for start in range(0, len(wanted), _IDS_A_REQUEST):
            found.update(self._online(wanted[start : start + _IDS_A_REQUEST]))
        return frozenset(found & set(wanted))

    def _online(self, ids: Sequence[str]) -> set[str]:
        try:
            return set(self._answering(ids))
        except ClientError as error:
            if _code(error) != "InvalidInstanceId":
                raise _silent() from error
        except BotoCoreError as error:
            raise _silent() from error
        # One that SSM refuses to hear of must not hide the others.
        return set() if len(ids) == 1 else set().union(*(self._online([each]) for each in ids))

    def _answering(self, ids: Sequence[str]) -> Iterator[str]:
        page: _Page = {}
        while True:
            answer = self._ssm().describe_instance_information(
                Filters=[{"Key": "InstanceIds", "Values": ids}], MaxResults=_NODES_A_PAGE, **page
            )
            for node in answer["InstanceInformationList"]:
                if node.get("PingStatus") == "Online":
                    yield node["InstanceId"]
            if not answer.get("NextToken"):
                return
            page = {"NextToken": answer["NextToken"]}

    def send(self, instance_id: str, script: str, comment: str) -> str:
        """The id of the command that runs *script*, by sh as root.

        script, comment: everybody who may read the account's commands can read them.
        Raises DependencyFailed: agent_offline, or command_not_sent, as when too many are sent.
        """
        try:
            answer = self._ssm().send_command(
                InstanceIds=[instance_id],
                DocumentName=_DOCUMENT,
                TimeoutSeconds=_DELIVERY_SECONDS,
                Comment=comment[:_LONGEST_COMMENT],
                Parameters={
                    "commands": [script],
                    "executionTimeout": [str(_EXECUTION_SECONDS)],
                },
            )
        except ClientError as error:
            if _code(error) == "InvalidInstanceId":
                raise DependencyFailed("agent_offline", "the SSM agent is not there") from error
            raise _not_sent() from error
        except BotoCoreError as error:
            raise _not_sent() from error
        return answer["Command"]["CommandId"]

    def outcome(self, command_id: str, instance_id: str) -> CommandOutcome:
        """What became of the command on that instance; RUNNING until SSM knows. Raises
        DependencyFailed.

        The first 24,000 characters of what it printed, and 8,000 of its errors: what the instance
        says, whatever that is.
        """
        try:
            answer = self._ssm().get_command_invocation(
                CommandId=command_id, InstanceId=instance_id
            )
        except ClientError as error:
            if _code(error) == _NOT_YET:
                return CommandOutcome(CommandStatus.RUNNING)
            if _code(error) in _NO_SUCH_COMMAND:
                return CommandOutcome(CommandStatus.LOST)
            raise _silent() from error
        except BotoCoreError as error:
            raise _silent() from error
        status = _STATUS.get(answer["Status"], CommandStatus.RUNNING)
        if answer.get("StatusDetails", "").replace(" ", "") in _NEVER_ENDED:
            status = CommandStatus.LOST
        out = answer.get("StandardOutputContent", "")
        return CommandOutcome(status, out, answer.get("StandardErrorContent", ""))


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def _silent() -> DependencyFailed:
    return DependencyFailed("ssm_unreadable", "SSM did not answer; ask again")


def _not_sent() -> DependencyFailed:
    return DependencyFailed("command_not_sent", "SSM did not take the command; ask again")
