"""Commands sent to machines behind a real emulator, and what we make of SSM's answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from chalicelib.adapters.run_command import RunCommand
from chalicelib.domain.enrolment.model import CommandOutcome, CommandStatus
from chalicelib.errors import DependencyFailed
from localcloud import images
from localcloud.processes import until
from tests.component.emulated_aws import EmulatedAws, emulated_aws

NOWHERE = "i-00000000000000000"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        running.layout.faults.write_text(json.dumps({"agent_seconds": 0.3}))
        yield running


@pytest.fixture(scope="module")
def commands(aws: EmulatedAws) -> RunCommand:
    client = aws.client("ssm")
    return RunCommand(lambda: client)


def launch(aws: EmulatedAws, image: str = images.WITH_AGENT) -> str:
    launched = aws.client("ec2").run_instances(ImageId=image, MinCount=1, MaxCount=1)
    return str(launched["Instances"][0]["InstanceId"])


@pytest.fixture(scope="module")
def instance(aws: EmulatedAws, commands: RunCommand) -> Iterator[str]:
    """One whose agent answers."""
    instance_id = launch(aws)
    assert until(lambda: commands.online([instance_id]), 10)
    yield instance_id
    aws.client("ec2").terminate_instances(InstanceIds=[instance_id])


def ended(commands: RunCommand, command_id: str, instance_id: str) -> CommandOutcome:
    seen: list[CommandOutcome] = []

    def is_over() -> bool:
        seen.append(commands.outcome(command_id, instance_id))
        return seen[-1].status is not CommandStatus.RUNNING

    assert until(is_over, 20)
    return seen[-1]


def test_a_script_of_many_lines_runs_as_root_and_what_it_printed_is_told(
    commands: RunCommand, instance: str
) -> None:
    script = "set -eu\nid -u\nprintf '%s\\n' \"it's\" >&2\n"
    command_id = commands.send(instance, script, "a test")
    outcome = ended(commands, command_id, instance)
    assert outcome == CommandOutcome(CommandStatus.SUCCEEDED, "0\n", "it's\n")


def test_one_that_fails_is_told_with_what_it_and_the_agent_printed(
    commands: RunCommand, instance: str
) -> None:
    command_id = commands.send(instance, "echo out; echo why >&2; exit 3", "a test")
    outcome = ended(commands, command_id, instance)
    errors = "why\nfailed to run commands: exit status 3"
    assert outcome == CommandOutcome(CommandStatus.FAILED, "out\n", errors)


def test_one_that_runs_is_running(commands: RunCommand, instance: str) -> None:
    command_id = commands.send(instance, "sleep 2", "a test")
    assert commands.outcome(command_id, instance).status is CommandStatus.RUNNING
    assert ended(commands, command_id, instance).status is CommandStatus.SUCCEEDED


def test_how_long_it_may_take_is_limited(
    aws: EmulatedAws, commands: RunCommand, instance: str
) -> None:
    """A comment that is too long is cut: SSM would refuse the command."""
    command_id = commands.send(instance, "true", "c" * 200)
    (sent,) = aws.client("ssm").list_commands(CommandId=command_id)["Commands"]
    assert sent["TimeoutSeconds"] == 60
    assert sent["Parameters"]["executionTimeout"] == ["120"]
    assert sent["Comment"] == "c" * 100


def test_only_those_whose_agent_answers_are_online(
    aws: EmulatedAws, commands: RunCommand, instance: str
) -> None:
    silent = launch(aws, "ami-1")  # has no agent
    assert commands.online([instance, silent, NOWHERE, instance]) == {instance}
    assert commands.online([silent]) == frozenset()
    assert commands.online([]) == frozenset()
    assert commands.online([NOWHERE] + [f"i-{n:017x}" for n in range(1, 104)] + [instance]) == {
        instance
    }


def test_an_instance_without_an_agent_is_offline(aws: EmulatedAws, commands: RunCommand) -> None:
    for instance_id in (launch(aws, "ami-1"), NOWHERE):
        with pytest.raises(DependencyFailed) as caught:
            commands.send(instance_id, "true", "a test")
        assert caught.value.code == "agent_offline"


def test_a_command_that_ssm_does_not_know_yet_is_running(
    commands: RunCommand, instance: str
) -> None:
    nobodys = "00000000-0000-4000-8000-000000000000"
    assert commands.outcome(nobodys, instance) == CommandOutcome(CommandStatus.RUNNING)


def test_a_command_of_another_instance_is_not_this_ones(
    commands: RunCommand, instance: str
) -> None:
    command_id = commands.send(instance, "echo of the first", "a test")
    ended(commands, command_id, instance)
    assert commands.outcome(command_id, NOWHERE).out == ""


class Answering:
    """A client that answers as it is told: what the emulator never answers.

    The answers are those of the AWS Systems Manager API Reference.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def answer(self, **asked: Any) -> Any:
        self.asked.append(asked)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    get_command_invocation = send_command = describe_instance_information = answer


def told(*answers: Any) -> RunCommand:
    client: Any = Answering(*answers)
    return RunCommand(lambda: client)


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}}, "Any")


@pytest.mark.parametrize(
    ("status", "details", "expected"),
    [
        ("Pending", "Pending", CommandStatus.RUNNING),
        ("InProgress", "InProgress", CommandStatus.RUNNING),
        ("Delayed", "Delayed", CommandStatus.RUNNING),
        ("Cancelling", "Cancelling", CommandStatus.RUNNING),
        ("Success", "Success", CommandStatus.SUCCEEDED),
        ("Failed", "Failed", CommandStatus.FAILED),
        ("Failed", "Undeliverable", CommandStatus.LOST),
        ("Failed", "Terminated", CommandStatus.LOST),
        ("Failed", "AccessDenied", CommandStatus.LOST),
        ("Failed", "InvalidPlatform", CommandStatus.LOST),
        ("TimedOut", "Delivery Timed Out", CommandStatus.LOST),
        ("TimedOut", "ExecutionTimedOut", CommandStatus.LOST),
        ("Cancelled", "Cancelled", CommandStatus.LOST),
        ("SomethingNew", "", CommandStatus.RUNNING),
    ],
)
def test_each_status_is_one_of_ours(status: str, details: str, expected: CommandStatus) -> None:
    answer = {"Status": status, "StatusDetails": details, "StandardOutputContent": "o"}
    assert told(answer).outcome("c", NOWHERE) == CommandOutcome(expected, "o", "")


@pytest.mark.parametrize("code", ["InvalidCommandId", "InvalidInstanceId"])
def test_a_command_that_ssm_will_never_know_is_lost(code: str) -> None:
    assert told(error(code)).outcome("c", NOWHERE) == CommandOutcome(CommandStatus.LOST)


FAILURES = [
    error("ThrottlingException"),
    error("InternalServerError"),
    error("AccessDeniedException"),
    ReadTimeoutError(endpoint_url="https://ssm.invalid"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_what_ssm_does_not_answer_is_a_dependency_that_failed(failure: Exception) -> None:
    commands = told(failure)
    with pytest.raises(DependencyFailed) as sent:
        commands.send(NOWHERE, "true", "a test")
    assert sent.value.code == "command_not_sent"
    with pytest.raises(DependencyFailed) as asked:
        commands.outcome("c", NOWHERE)
    with pytest.raises(DependencyFailed) as looked:
        commands.online([NOWHERE])
    assert {asked.value.code, looked.value.code} == {"ssm_unreadable"}


def test_an_agent_that_lost_its_connection_is_not_online_and_all_pages_are_read() -> None:
    pages = [
        {
            "InstanceInformationList": [
                {"InstanceId": "i-1", "PingStatus": "Online"},
                {"InstanceId": "i-2", "PingStatus": "ConnectionLost"},
            ],
            "NextToken": "more",
        },
        {"InstanceInformationList": [{"InstanceId": "i-3", "PingStatus": "Online"}]},
    ]
    assert told(*pages).online(["i-1", "i-2", "i-3"]) == {"i-1", "i-3"}


def test_one_that_ssm_refuses_to_hear_of_does_not_hide_the_others() -> None:
    online = {"InstanceInformationList": [{"InstanceId": "i-2", "PingStatus": "Online"}]}
    refused = error("InvalidInstanceId")
    assert told(refused, refused, online).online(["i-1", "i-2"]) == {"i-2"}


def test_nobody_to_look_for_makes_no_client() -> None:
    def no_client() -> Any:
        raise AssertionError("a client was made")

    assert RunCommand(no_client).online([]) == frozenset()
