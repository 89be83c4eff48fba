"""Machines behind instances: each a sandbox, with or without an SSM agent.

MiniStack's instances are records, unless Docker runs one, with the agent of such a one always
there. On AWS an instance has a machine with a disk that outlives a stop; the first time it boots,
it runs its user data as root; and its agent, if its image has one, comes Online a while after it
runs.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html "Amazon EC2
instance state changes"
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html "Run commands when you launch an
EC2 instance with user data input"

Not added: an agent that loses its connection while its machine runs. What a command leaves running
ends with it.
"""

from __future__ import annotations

import base64
import binascii
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localcloud.hooks.faults import Faults
from localcloud.hooks.rebinding import module, rebind
from localcloud.hooks.timetable import Timetable
from localcloud.images import SANDBOXES, WITH_AGENT
from localcloud.layout import Layout
from localcloud.processes import until
from localcloud.sandbox import NotRunning, Sandbox

ONLINE_STEP_SECONDS = 0.1
BOOT_SECONDS = 600.0
# A file of its own, as the agent and cloud-init make it. Written from within, where no link in the
# machine leads out of it.
RUN_SCRIPT = (
    'umask 077; mkdir -p "$1" && cat > "$1/script" && chmod 700 "$1/script" || exit 1; '
    'umask 022; cd "$1"; exec < /dev/null; exec "$1/script"'
)


@dataclass(frozen=True)
class Ran:
    """What a script did. code: None when it was ended for taking too long."""

    code: int | None
    out: str
    err: str


@dataclass
class Machine:
    """A sandbox, what runs in it for the emulator, and whether its agent answers."""

    sandbox: Sandbox
    online: bool = False
    boots: int = 0
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def run(self, script: str, directory: str, seconds: float) -> Ran:
        """Run the script as root in a directory of its own in the machine, so long at most.

        Raises NotRunning.
        """
        command = self.sandbox.command(["/bin/sh", "-c", RUN_SCRIPT, "sh", directory])
        text = script if script.startswith("#!") else f"#!/bin/sh\n{script}"
        return self._finish(command, text.encode(), seconds)

    def _finish(self, command: Sequence[str], text: bytes, seconds: float) -> Ran:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.running.add(process)
        late = False
        try:
            out, err = process.communicate(text, timeout=seconds)
        except subprocess.TimeoutExpired:
            late = True
            process.kill()
            out, err = process.communicate()
        finally:
            self.running.discard(process)
        code = None if late else process.returncode
        return Ran(code, out.decode(errors="replace"), err.decode(errors="replace"))

    def halt(self) -> None:
        """Nothing runs in it any more."""
        self.online = False
        self.sandbox.halt()
        for process in list(self.running):
            process.kill()


class Machines:
    """All sandboxes, by instance id."""

    def __init__(self, layout: Layout, timetable: Timetable, faults: Faults) -> None:
        """None yet."""
        self._layout, self._timetable, self._faults = layout, timetable, faults
        self._removals = Timetable()  # of their own: events are not to wait for disks
        self._machines: dict[str, Machine] = {}

    def changed(self, record: dict[str, Any], state: str, after: float) -> None:
        """Make the machine of an instance, if it has one, as its state says."""
        if record["ImageId"] not in SANDBOXES:
            return
        name = record["InstanceId"]
        sandbox = Sandbox.of(self._layout.instances, name)
        machine = self._machines.setdefault(name, Machine(sandbox))
        if state == "running":
            self._timetable.after(0, self._boot, machine, record, after)
            return
        machine.halt()
        if state == "terminated":
            self._removals.after(0, sandbox.remove)

    def answering(self, name: str) -> Machine | None:
        """The machine with this instance id, if an agent answers on it now."""
        machine = self._machines.get(name)
        return machine if machine is not None and machine.online else None

    def await_answering(self, name: str, seconds: float) -> Machine | None:
        """The same, waiting so long at most."""
        until(lambda: self.answering(name) is not None, seconds, ONLINE_STEP_SECONDS)
        return self.answering(name)

    def _boot(self, machine: Machine, record: dict[str, Any], after: float) -> None:
        if record["State"]["Name"] != "running":
            return  # stopped again meanwhile
        endpoint = (self._layout.metadata / machine.sandbox.instance_id).read_text().strip()
        machine.sandbox.boot(endpoint)
        machine.boots += 1
        if record["ImageId"] == WITH_AGENT:
            wait = after + self._faults.agent_seconds
            self._timetable.after(wait, self._connect, machine, record, machine.boots)
        script = _user_data(record)
        if script and machine.boots == 1:
            threading.Thread(
                target=self._run_user_data, args=(machine, script), daemon=True
            ).start()

    def _connect(self, machine: Machine, record: dict[str, Any], boot: int) -> None:
        if machine.boots == boot and record["State"]["Name"] == "running":
            machine.online = True

    def _run_user_data(self, machine: Machine, script: str) -> None:
        log = self._layout.log(machine.sandbox.instance_id)
        try:
            ran = machine.run(script, "/var/lib/cloud/instance/scripts", BOOT_SECONDS)
        except NotRunning:
            return
        ended = "did not end" if ran.code is None else f"ended with {ran.code}"
        _append(log, f"{ran.out}{ran.err}user data {ended}\n")


def apply(machines: Machines) -> None:
    """Have SSM reach those instances on whose machine an agent answers."""

    def wrap(is_managed: Any) -> Any:
        def managed(name: str) -> bool:
            return machines.answering(name) is not None or bool(is_managed(name))

        return managed

    rebind(module("services.ec2"), "instance_is_managed", wrap)


def _user_data(record: dict[str, Any]) -> str | None:
    try:
        text = base64.b64decode(record.get("UserData") or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text if text.startswith("#!") else None


def _append(log: Path, text: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with open(log, "a") as out:
        out.write(f"{stamp} {text}")
