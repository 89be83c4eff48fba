"""scripts/ca: the life of the certificate authorities."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import TypeAlias

from chalicelib.domain.pki.authorities import AuthorityKind
from operations import authorities, backup, cloud
from operations.cloud import CommandError
from operations.rotation import Rotation
from operations.stack import of_stage

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    given = _parse(arguments)
    commands = {
        "init": init,
        "show": show,
        "publish": publish,
        "rotate": rotate,
        "activate": activate,
        "retire": retire,
        "distrust": distrust,
        **backup.COMMANDS,
    }
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
    """Print the CAs: id, role, end; and how far a rotation has come."""
    aws = cloud.session()
    outputs = of_stage(aws, given.stage).outputs()
    known = authorities.read(aws, outputs)
    if not known:
        raise CommandError(f"stage {given.stage} has no CA: run scripts/ca init")
    for kind, each in known.items():
        for line in authorities.describe(each, datetime.now(UTC)):
            print(f"{kind:<7} {line}")
    for kind in known:
        Rotation.of(aws, outputs, given.stage, kind).describe()


def publish(given: argparse.Namespace) -> None:
    """Publish the trust now rather than at the next full hour."""
    aws = cloud.session()
    authorities.publish(aws, of_stage(aws, given.stage).outputs())
    print("published the trust")


def rotate(given: argparse.Namespace) -> None:
    """Have another CA trusted."""
    _rotation(given).rotate(given.key_type)


def activate(given: argparse.Namespace) -> None:
    """Have that CA sign."""
    _rotation(given).activate(given.wait, force=given.force, people_told=given.people_told)


def retire(given: argparse.Namespace) -> None:
    """Trust the former CA no more; or take the new one back."""
    if given.abandon:
        _rotation(given).abandon()
    else:
        _rotation(given).retire(force=given.force)


def distrust(given: argparse.Namespace) -> None:
    """Have another CA be the only one, at once."""
    if not given.yes:
        raise CommandError(
            f"this makes another {given.kind} CA and trusts no other from then on: nobody can use "
            "the registry until they have it, instances for minutes, people until they act. It is "
            "for when a CA's key was lost to somebody; else scripts/ca rotate. If so, say --yes"
        )
    _rotation(given).distrust(given.key_type, given.wait, again=given.again)


def _rotation(given: argparse.Namespace) -> Rotation:
    aws = cloud.session()
    outputs = of_stage(aws, given.stage).outputs()
    return Rotation.of(aws, outputs, given.stage, AuthorityKind(given.kind))


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
        ("show", "list them: id, whether it signs, until when; and how far a rotation has come"),
        ("publish", "publish CA certificates and revocation lists now"),
    ):
        command = _declare(commands, name, help_)
        if name == "init":
            _declare_key_type(command)
    _declare_rotation(commands)
    backup.declare(commands)
    return parser.parse_args(arguments)


def _declare_rotation(commands: _Commands) -> None:
    rotate = _declare_step(commands, "rotate", "1st step: make a new CA, which is trusted only")
    _declare_key_type(rotate)
    activate = _declare_step(
        commands, "activate", "2nd step: have it sign, once all hosts and instances trust it"
    )
    _declare_wait(activate, "for so long, for what is still missing to come; 0 by default")
    activate.add_argument(
        "--people-told",
        action="store_true",
        help="server CA: owners of older certificates were told to install today's ca.crt",
    )
    retire = _declare_step(
        commands, "retire", "3rd step: trust the former CA no more, once nothing lives under it"
    )
    for command in (activate, retire):
        command.add_argument("--force", action="store_true", help="go on, and say what breaks")
    retire.add_argument(
        "--abandon", action="store_true", help="take back the new CA, which was not activated"
    )
    distrust = _declare_step(
        commands, "distrust", "when a key was stolen: a new CA, and none beside it, at once"
    )
    _declare_key_type(distrust)
    distrust.add_argument("--yes", action="store_true", help="without it nothing is done")
    _declare_wait(distrust, "for so long for all who enrol again by themselves; 0 by default")
    distrust.add_argument(
        "--again", action="store_true", help="also when the only CA is less than an hour old"
    )


def _declare(commands: _Commands, name: str, help_: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=help_, description=help_)
    command.add_argument("--stage", required=True, help="which deployment, e.g. prod")
    return command


def _declare_step(commands: _Commands, name: str, help_: str) -> argparse.ArgumentParser:
    command = _declare(commands, name, help_)
    command.add_argument("kind", choices=[kind.value for kind in AuthorityKind])
    return command


def _declare_key_type(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--key-type",
        default="ec-p256",
        choices=authorities.KEY_TYPES,
        help="of the new CA; ec-p256 by default",
    )


def _declare_wait(command: argparse.ArgumentParser, help_: str) -> None:
    command.add_argument(
        "--wait", type=_seconds, default=0.0, metavar="SECONDS", help=f"wait {help_}"
    )


def _seconds(text: str) -> float:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return float(text)


if __name__ == "__main__":
    sys.exit(main())
