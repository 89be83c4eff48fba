"""Bringing the supervisor up and down, whatever state the last one was left in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from localcloud import control
from localcloud.layout import CHECKOUT, Layout, read_json
from localcloud.processes import Identity, Lock, end_session, until

START_SECONDS = 10.0
END_SECONDS = 15.0


class SupervisorFailed(Exception):
    """The supervisor did not come up, or did not go."""


def recorded(layout: Layout) -> Identity | None:
    """Which process the last supervisor was; None when nothing usable is written down."""
    values = read_json(layout.supervisor)
    try:
        return Identity(int(values["pid"]), int(values["started"]), str(values["boot"]))
    except (KeyError, TypeError, ValueError):
        return None


def answers(layout: Layout) -> bool:
    """Whether a supervisor answers now."""
    try:
        control.parts(layout)
    except (control.NotRunning, control.Refused):
        return False
    return True


def start(layout: Layout) -> None:
    """Have a supervisor that answers, after clearing away what one that does not left behind."""
    if answers(layout):
        return
    clear(layout)
    layout.prepare()
    for old in layout.logs.glob("*.log"):
        old.replace(old.with_suffix(".log.before"))
    with open(layout.log("supervisor"), "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "localcloud.supervisor"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.root,
            env=supervisor_environment(layout),
            start_new_session=True,
        )
    if not until(lambda: answers(layout), START_SECONDS):
        raise SupervisorFailed(f"it did not answer within {START_SECONDS:.0f} s")


def supervisor_environment(layout: Layout) -> dict[str, str]:
    """Nothing of the caller's environment but where programs are."""
    return {
        "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin",
        "PYTHONPATH": f"{CHECKOUT / 'scripts'}:{CHECKOUT}",
        "PYTHONUNBUFFERED": "1",
        "REGISTRY_TRUST_LOCAL": str(layout.root),
    }


def stop(layout: Layout) -> bool:
    """End the cloud; whether there was anything to end. Nothing of it runs afterwards."""
    try:
        control.stop(layout)
        asked = True
    except (control.NotRunning, control.Refused):
        asked = False
    leader = recorded(layout)
    if asked and leader is not None:
        until(lambda: not leader.alive(), END_SECONDS)
    return clear(layout) or asked


def clear(layout: Layout) -> bool:
    """End what is left of a supervisor that does not answer; whether anything was."""
    leader = recorded(layout)
    left = end_session(leader) if leader is not None else 0
    lock = Lock(layout.supervisor_lock)
    if not lock.take(seconds=2.0):
        raise SupervisorFailed(
            f"something that is not in {layout.supervisor} holds {layout.supervisor_lock}"
        )
    lock.release()
    for stale in (layout.supervisor, layout.control, layout.ready, layout.api_calls):
        stale.unlink(missing_ok=True)
    for stale in (layout.temporary, layout.metadata, layout.instances):
        shutil.rmtree(stale, ignore_errors=True)
    return left > 0
