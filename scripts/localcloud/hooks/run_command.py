"""Run Command in the instances' machines, with its time limits and its events.

MiniStack runs AWS-RunShellScript in Docker containers, without a limit of time, and tells nobody;
of the instances that SSM knows it describes all. On AWS a command that no agent took within
TimeoutSeconds, or that took longer than its executionTimeout, is TimedOut; EventBridge is told of
each change of an invocation's and a command's status, best effort; and InstanceIds selects.
https://docs.aws.amazon.com/systems-manager/latest/userguide/monitor-commands.html "Understanding
command statuses"
https://docs.aws.amazon.com/systems-manager/latest/userguide/monitoring-systems-manager-event-examples.html
"Amazon EventBridge event examples for Systems Manager"

Not added: cancelling, other documents, delivery to more than is named by instance id. A command on
a machine that is stopped meanwhile fails at once; on AWS it runs into its time limit.
"""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from typing import Any

from localcloud.hooks.machines import Machine, Machines, Ran
from localcloud.hooks.rebinding import attribute, module, rebind
from localcloud.hooks.service_events import ServiceEvents
from localcloud.sandbox import NotRunning

INVOCATION = "EC2 Command Invocation Status-change Notification"
COMMAND = "EC2 Command Status-change Notification"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
NOT_RUN = -1
STOPPED_EARLY = 137  # what the agent answers for a script that it ended
# The machines share the processors of this one: without a limit a storm of them starves the rest.
AT_ONCE = 8

# Whom DescribeInstanceInformation asks about; everybody when it says nothing.
asked_about: ContextVar[frozenset[str] | None] = ContextVar("asked_about", default=None)


Record = dict[str, Any]  # the emulator's, of a command or of an invocation


def apply(machines: Machines, events: ServiceEvents) -> None:
    """Run what SendCommand sends; describe those instances that are asked for."""
    systems = module("services.ssm")
    command = RunCommand(systems, machines, events)
    rebind(systems, "_finish_invocation", lambda _: command.carry_out)

    def asking(describe: Any) -> Any:
        def describing(request: dict[str, Any]) -> Any:
            token = asked_about.set(instance_ids(request))
            try:
                return describe(request)
            finally:
                asked_about.reset(token)

        return describing

    def selecting(managed: Any) -> Any:
        def selected() -> set[str]:
            ids, wanted = set(managed()), asked_about.get()
            return ids if wanted is None else ids & wanted

        return selected

    rebind(systems, "_describe_instance_information", asking)
    rebind(systems, "_managed_instance_ids", selecting)


def instance_ids(request: dict[str, Any]) -> frozenset[str] | None:
    """The instances that DescribeInstanceInformation selects; None when it selects by nothing."""
    named = [each.get("Values") for each in request.get("Filters") or [] if _is_ids(each, "Key")]
    listed = request.get("InstanceInformationFilterList") or []
    named += [each.get("valueSet") for each in listed if _is_ids(each, "key")]
    if not named:
        return None
    return frozenset.intersection(*(frozenset(values or []) for values in named))


def _agents(code: int | None) -> str:
    """What the SSM agent adds to the errors of a script that failed (amazon-ssm-agent,
    agent/plugins/runscript)."""
    return f"failed to run commands: exit status {code}" if code else ""


def _is_ids(each: dict[str, Any], key: str) -> bool:
    return each.get(key) == "InstanceIds"


class RunCommand:
    """Carries out invocations: one command on one machine."""

    def __init__(self, systems: Any, machines: Machines, events: ServiceEvents) -> None:
        """Find what is needed of the emulator's SSM; raises Missing."""
        self._machines, self._events = machines, events
        self._commands = attribute(systems, "_commands")
        self._sum_up = attribute(systems, "_refresh_command_status")
        self._now = attribute(systems, "_now_iso")
        self._most_out = attribute(systems, "_STDOUT_LIMIT")
        self._most_err = attribute(systems, "_STDERR_LIMIT")
        self._slots = threading.BoundedSemaphore(AT_ONCE)

    def carry_out(self, command_id: str, instance_id: str, argv: list[str]) -> None:
        """Deliver, run, and tell how it ended; returns when it has, so call it in a thread."""
        record = self._commands.get(command_id)
        invocation = record["Invocations"][instance_id]
        until = time.monotonic() + float(record["TimeoutSeconds"])
        started = 0.0
        while machine := self._machines.await_answering(instance_id, until - time.monotonic()):
            with self._slots:
                if not machine.online:  # any more, when its turn came
                    continue
                self._open(record, invocation)
                started = time.monotonic()
                ran = _run(machine, record, argv[-1])
            break
        else:
            self._close(record, invocation, ("TimedOut", "Delivery Timed Out"), NOT_RUN)
            return
        invocation["StandardOutputContent"] = ran.out[: self._most_out]
        invocation["StandardErrorContent"] = f"{ran.err}{_agents(ran.code)}"[: self._most_err]
        invocation["ExecutionElapsedTime"] = f"PT{time.monotonic() - started:.3f}S"
        invocation["ExecutionEndDateTime"] = self._now()
        if ran.code is None:
            self._close(record, invocation, ("TimedOut", "Execution Timed Out"), STOPPED_EARLY)
        else:
            status = "Success" if ran.code == 0 else "Failed"
            self._close(record, invocation, (status, status), ran.code)

    def _open(self, record: Record, invocation: Record) -> None:
        invocation["ExecutionStartDateTime"] = self._now()
        invocation["StatusDetails"] = "In Progress"
        invocation["Status"] = "InProgress"
        self._tell(record, invocation)

    def _close(self, record: Record, invocation: Record, ended: tuple[str, str], code: int) -> None:
        invocation["ResponseCode"] = code
        status, invocation["StatusDetails"] = ended
        invocation["Status"] = status  # last: who sees that it ended must see how
        self._tell(record, invocation)
        self._sum_up(record)
        statuses = [each["Status"] for each in record["Invocations"].values()]
        if "TimedOut" in statuses and record["Status"] == "Success":
            record["Status"] = record["StatusDetails"] = "TimedOut"
        if record["Status"] != "InProgress":
            self._tell_of_command(record, invocation["InstanceId"])

    def _tell(self, record: Record, invocation: Record) -> None:
        name = invocation["InstanceId"]
        detail = {**_about(record), "instance-id": name, "status": invocation["Status"]}
        self._events.tell("aws.ssm", INVOCATION, name, detail)

    def _tell_of_command(self, record: Record, name: str) -> None:
        detail = {
            **_about(record),
            "expire-after": _time(record["ExpiresAfter"]),
            "parameters": record["Parameters"],
            "status": record["Status"],
        }
        self._events.tell("aws.ssm", COMMAND, name, detail)


def _about(record: Record) -> dict[str, str]:
    return {
        "command-id": record["CommandId"],
        "document-name": record["DocumentName"],
        "requested-date-time": _time(record["RequestedDateTime"]),
    }


def _time(seconds: float) -> str:
    return time.strftime(TIME_FORMAT, time.gmtime(seconds))


def _run(machine: Machine, record: Record, script: str) -> Ran:
    name, command = machine.sandbox.instance_id, record["CommandId"]
    directory = f"/var/lib/amazon/ssm/{name}/document/orchestration/{command}/awsrunShellScript"
    (seconds,) = record["Parameters"].get("executionTimeout") or ["3600"]
    try:
        return machine.run(script, directory, float(seconds))
    except NotRunning as error:
        return Ran(1, "", str(error))
