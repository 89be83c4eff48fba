"""The commands of scripts/local."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

from botocore.exceptions import BotoCoreError, ClientError

from localcloud import (
    bring_up,
    control,
    health,
    instance_commands,
    instances,
    keeper,
    ports,
    push_certificate,
    sandbox,
)
from localcloud.demo.telling import tell
from localcloud.layout import Layout, read_json
from localcloud.processes import Lock
from localcloud.programs import ProgramFailed
from localcloud.terminal import complain, note, styled
from operations.packaging import source_digest

DESCRIPTION = """\
The local cloud: an emulated AWS with IAM enforced, our stack deployed on it, and beside it the
real registry behind the real nginx. Everything on loopback, all state in .local/ (or where
REGISTRY_TRUST_LOCAL says)."""
LOCK_SECONDS = 300.0
DOWN = "the local cloud is not running: scripts/local up starts it"
EXPECTED = (
    BotoCoreError,
    ClientError,
    OSError,
    ProgramFailed,
    bring_up.NotReady,
    control.NotRunning,
    control.Refused,
    keeper.SupervisorFailed,
    ports.PortTaken,
    push_certificate.NotIssued,
    instances.NotUp,
    instances.NoUserData,
    instances.NoInstance,
    sandbox.NotRunning,
)


def main(arguments: list[str]) -> int:
    """Do what the command line says; 0 done, 1 failed, 2 wrong call."""
    given = ["--help"] if arguments == ["help"] else arguments
    options = _parser().parse_args(given)
    layout = Layout.from_environment()
    layout.prepare()
    command: Callable[[Layout, argparse.Namespace], int] = options.run
    try:
        return command(layout, options)
    except KeyboardInterrupt:
        return 130
    except EXPECTED as error:
        complain(str(error))
        return 1


def up(layout: Layout, options: argparse.Namespace) -> int:
    """Bring the cloud up, or say that it is."""
    lock = Lock(layout.command_lock)
    if not lock.take(LOCK_SECONDS):
        complain("another scripts/local is at work, for too long")
        return 1
    try:
        wanted = {"gateway": options.gateway_port, "registry": options.registry_port}
        if _is_up(layout, wanted):
            note(f"the local cloud is up already; `. {_shown(layout.environment)}`")
            return 0
        return _bring_up(bring_up.BringUp(layout, wanted))
    finally:
        lock.release()


def _is_up(layout: Layout, wanted: dict[str, int | None]) -> bool:
    """Whole, built from what the checkout holds now, and on the ports that are wanted."""
    built_from = read_json(layout.ready).get("sources")
    if built_from != source_digest() or health.ailments(layout):
        return False
    now = ports.kept(layout.ports)
    return all(port in (None, getattr(now, name)) for name, port in wanted.items())


def _bring_up(work: bring_up.BringUp) -> int:
    began = time.monotonic()
    for name, step, log in bring_up.STEPS:
        start = time.monotonic()
        try:
            step(work)
        except EXPECTED as error:
            complain(f"{name}: {error}\n  log: {_shown(work.layout.log(log))}")
            return 1
        took = styled(f"{time.monotonic() - start:.1f} s", "faint", sys.stderr)
        note(f"{styled('✓', 'good', sys.stderr)} {name:<17} {took}")
    note(f"up in {time.monotonic() - began:.1f} s; `. {_shown(work.layout.environment)}`")
    return 0


def down(layout: Layout, _options: argparse.Namespace) -> int:
    """End the cloud and everything it started."""
    lock = Lock(layout.command_lock)
    if not lock.take(LOCK_SECONDS):
        complain("another scripts/local is at work, for too long")
        return 1
    try:
        note("down" if keeper.stop(layout) else "the local cloud was not running")
    except keeper.SupervisorFailed as error:
        complain(f"down: {error}")
        return 1
    finally:
        lock.release()
    layout.environment.unlink(missing_ok=True)
    return 0


def status(layout: Layout, _options: argparse.Namespace) -> int:
    """Say what runs, and what is wrong if something is."""
    try:
        parts = control.parts(layout)
    except control.NotRunning:
        print(DOWN)
        return 1
    for name, report in parts.items():
        running = report["pid"] is not None or report["every"] is not None
        mark = styled("✓", "good") if running else styled("✗", "bad")
        what = f"pid {report['pid']}" if report["pid"] else "between two runs"
        what = what if running else f"ended with {report['last_exit']}"
        what = "paused" if report["paused"] else what
        again = f", started {report['starts']} times" if report["starts"] > 1 else ""
        print(f"{mark} {name:<17} {what}{'' if report['every'] else again}")
    ailments = health.ailments(layout)
    for each in ailments:
        print(styled(each, "bad"))
    if not ailments:
        print(f"variables: {_shown(layout.environment)}")
    print(f"logs: {_shown(layout.logs)}")
    return 1 if ailments else 0


def logs(layout: Layout, options: argparse.Namespace) -> int:
    """Show the ends of the logs, or follow them."""
    known = layout.log_files()
    if not known or options.log not in {None, *known}:
        complain(f"no such log; there are: {', '.join(known)}" if known else f"no logs yet; {DOWN}")
        return 1
    files = [known[options.log]] if options.log else list(known.values())
    follow = ["-F"] if options.follow else []
    command = ["tail", "-n", "40", *follow, "--", *map(str, files)]
    os.execvp("tail", command)  # noqa: S606  no shell is what we want


def env(layout: Layout, _options: argparse.Namespace) -> int:
    """Print the variables, for `eval "$(scripts/local env)"`."""
    if not layout.environment.exists():
        complain(DOWN)
        return 1
    print(layout.environment.read_text(), end="")
    return 0


def demo(layout: Layout, options: argparse.Namespace) -> int:
    """Tell the whole story, on the cloud that is up or one brought up for it."""
    code = up(layout, options)
    return code or (0 if tell(layout) else 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/local",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    adding = add("up", up, "bring the local cloud up, in the background; returns when it is ready")
    adding.add_argument(
        "--gateway-port", type=_port, metavar="N", help="of the emulated AWS (else kept, or free)"
    )
    adding.add_argument(
        "--registry-port", type=_port, metavar="N", help="of the registry (else kept, or free)"
    )
    adding = add("demo", demo, "tell the whole story with real clients; exit 1 if a step fails")
    adding.set_defaults(gateway_port=None, registry_port=None)
    add("down", down, "end the local cloud; no process of it is left")
    add("status", status, "say what runs; exit 1 if the cloud is not whole")
    adding = add("logs", logs, "show the ends of the logs (-f: go on showing them)")
    adding.add_argument("-f", "--follow", action="store_true", help="go on showing them")
    adding.add_argument(
        "log",
        nargs="?",
        metavar="LOG",
        help="functions (the audit trail), access (nginx's), a part that status lists, deploy",
    )
    instance_commands.add_to(add)
    add("env", env, "print the variables of the running cloud, for sh")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 1024 <= port <= 65535:
        raise argparse.ArgumentTypeError("a port is a number from 1024 to 65535")
    return port


def _shown(path: os.PathLike[str]) -> str:
    """A path as short as it can be said from here."""
    return min(os.path.relpath(path), os.fspath(path), key=len)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
