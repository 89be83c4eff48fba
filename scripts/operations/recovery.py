"""scripts/recover: say what of a stack is lost or damaged, and bring it back."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import boto3

from operations import authorities, boot, cloud, host, recovered_state, soundness
from operations.cloud import CommandError
from operations.recovered_buckets import Bucket
from operations.recovered_tables import Table
from operations.stack import of_stage
from operations.state_rows import Losses, losses
from operations.template_parts import BUCKETS, TABLES, Template


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    given = _parse(arguments)
    return cloud.run("scripts/recover", lambda: given.body(given))


@dataclass(frozen=True, slots=True)
class _Stage:
    """A deployed stage. parameters: of its stack."""

    name: str
    aws: boto3.Session
    outputs: dict[str, str]
    parameters: dict[str, str]
    template: Template

    def table(self, name: str) -> Table:
        """One of TABLES."""
        logical_id = TABLES[name]
        properties = self.template.properties(logical_id)
        return Table(self.aws, self.outputs[logical_id], properties, _say)

    def bucket(self, name: str) -> Bucket:
        """One of BUCKETS."""
        logical_id, policy = BUCKETS[name], None
        if self.parameters.get("RequireTls") != "false":
            policy = self.template.properties(f"{logical_id}Policy")["PolicyDocument"]
        properties = self.template.properties(logical_id)
        return Bucket(self.aws, self.outputs[logical_id], properties, policy)


def _stage(given: argparse.Namespace) -> _Stage:
    aws = cloud.session()
    stack = of_stage(aws, given.stage)
    outputs = stack.outputs()
    template = Template.of_stage(aws, given.stage, outputs)
    return _Stage(given.stage, aws, outputs, stack.parameters(), template)


def check(given: argparse.Namespace) -> None:
    """Print a line for each part. Raises CommandError when something is not sound."""
    stage = _stage(given)
    tables = {name: stage.table(name) for name in TABLES}
    buckets = {name: stage.bucket(name) for name in BUCKETS}
    tell(soundness.look(stage.aws, stage.outputs, tables, buckets), stage.name)


def tell(found: Iterable[soundness.Finding], stage: str) -> None:
    """Print each as it comes. Raises CommandError when something is not sound."""
    bad = list[str]()
    for each in found:
        print(f"{'ok' if each.sound else 'BAD':<5}{each.part}: {each.said}", flush=True)
        if each.command:
            print(f"     {each.command.replace('STAGE', stage)}", flush=True)
        if not each.sound:
            bad.append(each.part)
    if bad:
        raise CommandError(f"not sound: {', '.join(bad)}")


def table(given: argparse.Namespace) -> None:
    """Raises CommandError; run again, it goes on where it ended."""
    stage = _stage(given)
    lost = stage.table(given.name)
    there = lost.there()
    if there:
        _say(f"the table {given.name} is there")
        lost.wait()
        if given.empty or given.backup:
            raise CommandError("it is there, and nothing that is there is replaced")
        if given.to_time:
            _say(f"reading it as it was at {given.to_time:%Y-%m-%dT%H:%M:%SZ}, beside it")
            _say(f"put back {lost.merge(given.to_time)} items that it lacked")
    elif given.to_time:
        raise CommandError("a table that was deleted comes back from a backup: leave out --to-time")
    elif given.empty:
        lost.make_empty()
        _say(f"made {given.name} anew, empty")
    else:
        _say(f"restored {given.name} as of {lost.restore(given.backup):%Y-%m-%dT%H:%M:%SZ}")
    if given.name == "instances" and not there:
        _bar_instances(stage, datetime.now(UTC))  # before the clock finds them
    lost.put_settings_right()
    moved = lost.move_mappings()
    if moved:
        _say(f"{moved} function now follows its new stream")
    _put_back(stage, restored=not there and given.name == "state")


def revocations(given: argparse.Namespace) -> None:
    """Raises CommandError; safe to run at any time."""
    _put_back(_stage(given), restored=given.new_number)


def _put_back(stage: _Stage, *, restored: bool) -> None:
    """What the tables lack of what else is known; then it is published."""
    now = datetime.now(UTC)
    missing = [name for name in TABLES if not stage.table(name).there()]
    for name in missing:
        _say(f"the table {name} is missing: scripts/recover table {name} --stage {stage.name}")
    if set(missing) - {"instances"}:
        new = " --new-number" if restored else ""
        _say(f"once it is there: scripts/recover revocations --stage {stage.name}{new}")
        return
    gathered = recovered_state.gather(stage.aws, stage.outputs)
    found = losses(gathered.evidence, now, restored=restored)
    recovered_state.put_back(stage.aws, stage.outputs, found)
    _tell(found)
    for serial in gathered.unreadable:
        _say(f"the record of {serial} is damaged, and told nothing")
    if not missing:
        _bar_instances(stage, now)
    authorities.publish(stage.aws, stage.outputs)
    _say("published the trust")


def _bar_instances(stage: _Stage, now: datetime) -> None:
    """By the records as they are by now, with what was just marked in them."""
    if not stage.table("certificates").there():
        return
    records, _ = recovered_state.read_records(stage.aws, stage.outputs)
    put = recovered_state.put_bars(stage.aws, stage.outputs, recovered_state.bars(records, now))
    if put:
        _say(f"{put} instances stay out, whose certificates were revoked by hand")


def _tell(found: Losses) -> None:
    if not found.any:
        _say("no revocation, key or slot is missing")
        return
    standing = sum(len(each.items) for each in found.standing)
    for number, what in (
        (len(found.entries), "revocations put back on the lists"),
        (len(found.marks), "certificates marked as revoked in their records"),
        (len(found.keys), "public keys with their owners put back"),
        (len(found.retired), "public keys refused again"),
        (len(found.stale), "slots and places of revoked certificates freed"),
        (standing, "slots and places of standing certificates put back"),
    ):
        if number:
            _say(f"{number} {what}")
    if found.counter is not None:
        _say(f"the next CRL number is above {found.counter}")
    if found.unrecorded:
        shown = ", ".join(found.unrecorded[:10])
        _say(f"{len(found.unrecorded)} of what is revoked have no record: {shown}")


def bucket(given: argparse.Namespace) -> None:
    """Raises CommandError; run again, it goes on where it ended."""
    stage = _stage(given)
    lost = stage.bucket(given.name)
    if lost.there():
        _say(f"the {given.name} bucket is there")
    else:
        lost.make()
        _say(f"made the {given.name} bucket anew")
    lost.put_settings_right()
    _say("its settings are those of the stack")
    if given.name == "config":
        api_url = cloud.api_address(stage.outputs["ApiUrl"], os.environ.get("AWS_ENDPOINT_URL", ""))
        for each in (boot, host):
            where = each.publish(stage.aws, stage.outputs, stage.parameters, api_url)
            _say(f"published {where}")
        authorities.publish(stage.aws, stage.outputs)
        _say("published the trust")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/recover",
        description="Bring back what was deleted or damaged of a stack; the CAs are with "
        "scripts/ca restore. Uses your AWS credentials and AWS_REGION; honours AWS_ENDPOINT_URL.",
        epilog="exit codes: 0 done or sound, 1 failed or something is not sound, 2 wrong call",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add(commands, "check", check, "say of every part whether it is there and sound")
    command = _add(commands, "table", table, "bring a deleted table back under its name")
    command.add_argument("name", choices=TABLES)
    how = command.add_mutually_exclusive_group()
    how.add_argument("--backup", metavar="ARN", help="instead of its newest backup")
    how.add_argument(
        "--to-time",
        type=_time,
        metavar="TIME",
        help="of a table that is there: put back what it had then and lacks now; RFC 3339, UTC",
    )
    how.add_argument("--empty", action="store_true", help="make it anew, when there is no backup")
    command = _add(
        commands, "revocations", revocations, "put back what the tables lack of revocations"
    )
    command.add_argument(
        "--new-number",
        action="store_true",
        help="go on from a CRL number above any that registry hosts may hold",
    )
    command = _add(commands, "bucket", bucket, "make a deleted bucket again under its name")
    command.add_argument("name", nargs="?", default="config", choices=BUCKETS)
    return parser.parse_args(arguments)


def _add(commands: Any, name: str, body: Any, said: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=said, description=said)
    command.add_argument("--stage", required=True, help="which deployment, e.g. prod")
    command.set_defaults(body=body)
    return command


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no time like 2026-03-04T05:06:07Z") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def _say(text: str) -> None:
    print(f"recover: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
