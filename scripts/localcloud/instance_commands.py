"""The commands of scripts/local about EC2 instances."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from localcloud import images
from localcloud.instances import Instances
from localcloud.layout import Layout
from localcloud.terminal import note

MOST = 1000  # instances launched by one command


Add = Callable[[str, Callable[..., int], str], argparse.ArgumentParser]


def add_to(add: Add) -> None:
    """Add launch, instances, exec and terminate to the command line."""
    adding = add("launch", launch, "launch EC2 instances; prints their ids when they run")
    adding.add_argument(
        "--access",
        choices=("pull", "push", "none"),
        default="pull",
        help="what the tag asks for; none: no tag, and so no certificate (default: pull)",
    )
    adding.add_argument(
        "--count", type=_count, default=1, metavar="N", help="so many at once (default: 1)"
    )
    kind = adding.add_mutually_exclusive_group()
    kind.add_argument("--no-agent", action="store_true", help="without an SSM agent")
    kind.add_argument(
        "--boot",
        action="store_true",
        help="without an agent: it boots with trust/user-data.sh, whose output is in "
        "`scripts/local logs ID`",
    )
    add("instances", show, "list the instances: id, EC2's state, access, enrolment")
    adding = add("exec", execute, "run a command on an instance as root; ends with its exit code")
    adding.add_argument("id", metavar="ID", help="of the instance")
    adding.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- CMD...",
        help="what to run; $REGISTRY is set for it (default: sh)",
    )
    adding = add("terminate", terminate, "terminate instances; their disks go too")
    adding.add_argument("ids", nargs="+", metavar="ID")


def launch(layout: Layout, options: argparse.Namespace) -> int:
    """Launch instances and print their ids, one a line."""
    known = Instances.of(layout)
    access = "" if options.access == "none" else options.access
    without = options.no_agent or options.boot
    ids = known.launch(
        access,
        image=images.WITHOUT_AGENT if without else images.WITH_AGENT,
        user_data=known.user_data() if options.boot else "",
        count=options.count,
    )
    print("\n".join(ids))
    return 0


def show(layout: Layout, _options: argparse.Namespace) -> int:
    """List the instances, one a line."""
    instances = Instances.of(layout).seen()
    for each in instances:
        enrolment = each.enrolment or "-"
        print(f"{each.instance_id}  {each.state:<10}  {each.access or '-':<4}  {enrolment}")
    if not instances:
        note("none; scripts/local launch makes one")
    return 0


def execute(layout: Layout, options: argparse.Namespace) -> int:
    """Run a command on an instance."""
    given = options.command[1:] if options.command[:1] == ["--"] else options.command
    return Instances.of(layout).run(options.id, given or ["sh"])


def terminate(layout: Layout, options: argparse.Namespace) -> int:
    """Terminate instances."""
    Instances.of(layout).terminate(options.ids)
    note(f"terminated: {' '.join(options.ids)}")
    return 0


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= MOST:
        raise argparse.ArgumentTypeError(f"a count is a number from 1 to {MOST}")
    return count
