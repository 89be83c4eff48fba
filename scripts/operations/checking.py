"""scripts/registry-host: have registry hosts say how they are."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chalicelib.adapters.run_command import RunCommand
from chalicelib.domain.enrolment.model import CommandOutcome, CommandStatus
from chalicelib.domain.registry_host import COMMAND_PATH, HostLayout, host_command
from operations import cloud
from operations.cloud import CommandError
from operations.stack import of_stage

ANSWER_SECONDS = 180.0
_POLL_SECONDS = 1.0
_OURS = f"{COMMAND_PATH} check"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    given = _parse(arguments)
    body = _here if given.here else _of_stage
    return cloud.run("scripts/registry-host", lambda: body(given))


def _of_stage(given: argparse.Namespace) -> None:
    aws = cloud.session()
    outputs = of_stage(aws, given.stage).outputs()
    hosts = list(running_hosts(aws.client("ec2"), outputs["RegistryHostInstanceProfileName"]))
    if not hosts:
        raise CommandError(
            f"no registry host of stage {given.stage} runs: none under the instance profile "
            f"{outputs['RegistryHostInstanceProfileName']}"
        )
    check(hosts, RunCommand(lambda: aws.client("ssm")))


def check(
    hosts: Sequence[str],
    commands: RunCommand,
    now: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Print what each of these instances says of itself.

    Raises CommandError when one says that something failed, or says nothing; DependencyFailed.
    """
    online = commands.online(hosts)
    sent = {
        host: commands.send(host, _OURS, "registry-trust: check")
        for host in hosts
        if host in online
    }
    failed = [host for host in hosts if host not in online]
    for host in failed:
        print(f"{host}: its SSM agent does not answer: look at the machine, and at its network")
    deadline = now() + ANSWER_SECONDS
    for host, command in sent.items():
        outcome = _outcome(commands, command, host, deadline, now, wait)
        for line in _told(host, outcome):
            print(f"{host}: {line}")
        if outcome.status is not CommandStatus.SUCCEEDED:
            failed.append(host)
    if failed:
        raise CommandError(f"not all is well on {', '.join(failed)}")


def _outcome(
    commands: RunCommand,
    command: str,
    host: str,
    deadline: float,
    now: Callable[[], float],
    wait: Callable[[float], None],
) -> CommandOutcome:
    while True:
        outcome = commands.outcome(command, host)
        if outcome.status is not CommandStatus.RUNNING or now() > deadline:
            return outcome
        wait(_POLL_SECONDS)


def _told(host: str, outcome: CommandOutcome) -> Iterator[str]:
    """What it printed, whatever that is: without what a terminal would take for orders."""
    if outcome.status is CommandStatus.RUNNING:
        yield "has not answered in time"
    elif outcome.status is CommandStatus.LOST:
        yield "the command did not get there, or did not end"
    for line in (outcome.out + outcome.err).splitlines():
        plain = "".join(each if each.isprintable() else " " for each in line).rstrip()
        if plain:
            yield plain


def running_hosts(ec2: Any, profile: str) -> Iterator[str]:
    """Ids of the instances that run under the instance profile of this name."""
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    for page in ec2.get_paginator("describe_instances").paginate(Filters=running):
        for reservation in page["Reservations"]:
            for each in reservation["Instances"]:
                arn = each.get("IamInstanceProfile", {}).get("Arn", "")
                if each["State"]["Name"] == "running" and arn.endswith(f"/{profile}"):
                    yield str(each["InstanceId"])


def _here(given: argparse.Namespace) -> None:
    if given.settings is None:
        if not Path(COMMAND_PATH).exists():
            raise CommandError("this machine is no registry host; --settings names another's files")
        code = subprocess.run([COMMAND_PATH, "check"], check=False).returncode
    else:
        code = _check_with(given.settings)
    if code:
        raise CommandError("not all is well here")


def _check_with(settings: Path) -> int:
    """The same look at a host that was set up without its commands, like the local cloud's."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "registry-host"
        script.write_text(host_command(HostLayout.system("localhost")))
        command = ["sh", str(script), "check", str(settings.resolve())]
        return subprocess.run(command, check=False).returncode


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/registry-host",
        description="Have registry hosts say how they are, in plain words. For a stage it uses "
        "your AWS credentials and AWS_REGION, honours AWS_ENDPOINT_URL, and asks by SSM.",
        epilog="exit codes: 0 all is well, 1 something failed, 2 wrong call",
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    help_ = "each part of a host: containers, certificate, trust, last refresh"
    command = commands.add_parser("check", help=help_, description=help_)
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--stage", help="all running hosts of this deployment, e.g. prod")
    where.add_argument("--here", action="store_true", help="this machine")
    command.add_argument(
        "--settings",
        type=_file,
        metavar="FILE",
        help="with --here: the refresh.env of a host that is not the machine's own",
    )
    given = parser.parse_args(arguments)
    if given.settings is not None and not given.here:
        parser.error("--settings goes with --here")
    return given


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
