"""Events about the state of instances, and when they were last started.

MiniStack changes an instance's state at once and tells nobody; its launch time stays that of the
first launch. On AWS each state is told to EventBridge, best effort, and a start renews the launch
time.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instance-state-changes.html "Monitor
state changes for your instances"

Not added: the states on the way are told, but EC2 shows the last one at once.
"""

from __future__ import annotations

from typing import Any, Protocol

from localcloud.hooks.rebinding import attribute, module, rebind_entry
from localcloud.hooks.service_events import ServiceEvents

KIND = "EC2 Instance State-change Notification"
ON_THE_WAY_SECONDS = 0.1
ON_THE_WAY = {"running": "pending", "stopped": "stopping", "terminated": "shutting-down"}
ACTIONS = ("RunInstances", "StartInstances", "StopInstances", "TerminateInstances")


class Machines(Protocol):
    """What runs behind the records."""

    def changed(self, record: dict[str, Any], state: str, after: float) -> None:
        """The instance has come to this state, which is to be told so many seconds from now."""
        ...


def apply(events: ServiceEvents, machines: Machines) -> None:
    """Tell of each change of state: the bus, and the machines that are behind the instances."""
    computers = module("services.ec2")
    actions, instances = attribute(computers, "_ACTION_MAP"), attribute(computers, "_instances")
    now = attribute(computers, "_now_ts")

    def wrap(act: Any) -> Any:
        def acting(request: Any) -> Any:
            before = {name: each["State"]["Name"] for name, each in instances.items()}
            answer = act(request)
            for name, record in list(instances.items()):
                state = record["State"]["Name"]
                if state == before.get(name):
                    continue
                if state == "running":
                    record["LaunchTime"] = now()
                _tell(name, state)
                machines.changed(record, state, ON_THE_WAY_SECONDS)
            return answer

        return acting

    def _tell(name: str, state: str) -> None:
        first = {"instance-id": name, "state": ON_THE_WAY[state]}
        events.tell("aws.ec2", KIND, name, first)
        last = {"instance-id": name, "state": state}
        events.tell("aws.ec2", KIND, name, last, after=ON_THE_WAY_SECONDS)

    for action in ACTIONS:
        rebind_entry(actions, action, wrap)
