"""scripts/ca: the life of the certificate authorities."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

from operations import authorities, backup, cloud
from operations.cloud import CommandError
from operations.stack import of_stage


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    given = _parse(arguments)
    commands = {"init": init, "show": show, "publish": publish, **backup.COMMANDS}
    return cloud.run("scripts/ca", lambda: commands[given.command](given))


def init(given: argparse.Namespace) -> None:
    """Make the CAs. Raises CommandError when they are there."""
    aws = cloud.session()
    outputs = of_stage(aws, given.stage).outputs()
    made = authorities.make_missing(aws, outputs, given.key_type)
    if not made:
        raise CommandError("the CAs are there already, and everything trusts them; nothing done")
    authorities.publish(aws, outputs)
    show(given)


def show(given: argparse.Namespace) -> None:
    """Print the CAs: id, role, end."""
    aws = cloud.session()
    known = authorities.read(aws, of_stage(aws, given.stage).outputs())
    if not known:
        raise CommandError(f"stage {given.stage} has no CA: run scripts/ca init")
    for kind, each in known.items():
        for line in authorities.describe(each, datetime.now(UTC)):
            print(f"{kind:<7} {line}")


def publish(given: argparse.Namespace) -> None:
    """Publish the trust now rather than at the next full hour."""
    aws = cloud.session()
    authorities.publish(aws, of_stage(aws, given.stage).outputs())
    print("published the trust")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/ca",
        description="The life of the certificate authorities. Uses your AWS credentials and "
        "AWS_REGION; honours AWS_ENDPOINT_URL.",
        epilog="exit codes: 0 done, 1 failed or refused, 2 wrong call",
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, help_ in (
        ("init", "make the client CA and the server CA; refuses when they are there"),
        ("show", "list them: id, whether it signs, until when"),
        ("publish", "publish CA certificates and revocation lists now"),
    ):
        command = commands.add_parser(name, help=help_, description=help_)
        command.add_argument("--stage", required=True, help="which deployment, e.g. prod")
        if name == "init":
            command.add_argument(
                "--key-type",
                default="ec-p256",
                choices=authorities.KEY_TYPES,
                help="ec-p256 by default",
            )
    backup.declare(commands)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
