"""scripts/registry-host check --stage: what hosts say is shown, and what they cannot say is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from chalicelib.domain.enrolment.model import CommandOutcome, CommandStatus
from operations import checking
from operations.cloud import CommandError

ONE, TWO = "i-0123456789abcdef0", "i-00000000000000bad"
PROFILE = "registry-trust-prod-RegistryHostInstanceProfile-X"
WELL = CommandOutcome(CommandStatus.SUCCEEDED, "ok       nginx        runs\nall is well\n", "")


class Commands:
    """As much of Run Command as checking uses. outcomes: by instance, in their order."""

    def __init__(self, outcomes: dict[str, list[CommandOutcome]], offline: str = "") -> None:
        self.outcomes, self.offline = outcomes, offline
        self.sent: list[tuple[str, str]] = []

    def online(self, instance_ids: Sequence[str]) -> frozenset[str]:
        return frozenset(each for each in instance_ids if each != self.offline)

    def send(self, instance_id: str, script: str, comment: str) -> str:
        self.sent.append((instance_id, script))
        return f"command of {instance_id}"

    def outcome(self, command_id: str, instance_id: str) -> CommandOutcome:
        assert command_id == f"command of {instance_id}"
        left = self.outcomes[instance_id]
        return left.pop(0) if len(left) > 1 else left[0]


def check(commands: Commands, hosts: Sequence[str] = (ONE, TWO)) -> None:
    clock = iter(range(10_000))
    checking.check(
        hosts,
        commands,  # type: ignore[arg-type]
        now=lambda: float(next(clock)),
        wait=lambda _: None,
    )


def test_each_host_is_asked_and_what_it_says_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    running = CommandOutcome(CommandStatus.RUNNING, "", "")
    commands = Commands({ONE: [running, running, WELL], TWO: [WELL]})
    check(commands)
    assert commands.sent == [(each, "/usr/local/sbin/registry-host check") for each in (ONE, TWO)]
    assert capsys.readouterr().out.splitlines() == [
        f"{each}: {line}" for each in (ONE, TWO) for line in WELL.out.splitlines()
    ]


def test_one_that_says_that_something_failed_fails_it_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = CommandOutcome(CommandStatus.FAILED, "FAILED   nginx        does not run\n", "")
    with pytest.raises(CommandError, match=f"not all is well on {ONE}$"):
        check(Commands({ONE: [failed], TWO: [WELL]}))
    said = capsys.readouterr().out
    assert f"{ONE}: FAILED   nginx        does not run\n" in said
    assert f"{TWO}: all is well\n" in said


def test_one_whose_agent_is_silent_is_named_and_the_others_are_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(CommandError, match=ONE):
        check(Commands({TWO: [WELL]}, offline=ONE))
    said = capsys.readouterr().out
    assert f"{ONE}: its SSM agent does not answer" in said
    assert f"{TWO}: all is well" in said


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (CommandStatus.RUNNING, "has not answered in time"),
        (CommandStatus.LOST, "the command did not get there, or did not end"),
    ],
)
def test_one_that_never_answers_is_given_up(
    capsys: pytest.CaptureFixture[str], status: CommandStatus, said: str
) -> None:
    with pytest.raises(CommandError, match=ONE):
        check(Commands({ONE: [CommandOutcome(status, "", "")]}), hosts=[ONE])
    assert capsys.readouterr().out == f"{ONE}: {said}\n"


def test_a_host_gives_the_terminal_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = CommandOutcome(CommandStatus.SUCCEEDED, "\x1b[2Jgone\x9b0m\r\n", "\x07")
    check(Commands({ONE: [hostile]}), hosts=[ONE])
    assert capsys.readouterr().out == f"{ONE}:  [2Jgone 0m\n"


class Ec2:
    """DescribeInstances, in pages of one."""

    def __init__(self, *instances: dict[str, Any]) -> None:
        self.instances = instances

    def get_paginator(self, name: str) -> Ec2:
        assert name == "describe_instances"
        return self

    def paginate(self, **_: object) -> list[dict[str, Any]]:
        return [{"Reservations": [{"Instances": [each]}]} for each in self.instances]


def instance(instance_id: str, profile: str = PROFILE, state: str = "running") -> dict[str, Any]:
    arn = f"arn:aws:iam::123456789012:instance-profile/{profile}"
    return {
        "InstanceId": instance_id,
        "State": {"Name": state},
        **({"IamInstanceProfile": {"Arn": arn}} if profile else {}),
    }


def test_hosts_are_what_runs_under_the_profile() -> None:
    ec2 = Ec2(
        instance(ONE),
        instance(TWO, state="stopped"),
        instance("i-1", profile=""),
        instance("i-2", profile=f"{PROFILE}-other"),
        instance("i-3", profile=f"x{PROFILE}"),
    )
    assert list(checking.running_hosts(ec2, PROFILE)) == [ONE]


@pytest.mark.parametrize(
    "wrong",
    [
        *([], ["check"], ["check", "--stage", "s", "--here"], ["chek", "--here"]),
        ["check", "--stage", "s", "--settings", __file__],
        ["check", "--here", "--settings", "/no/such/file"],
    ],
)
def test_a_wrong_call_exits_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        checking.main(wrong)
    assert ended.value.code == 2
