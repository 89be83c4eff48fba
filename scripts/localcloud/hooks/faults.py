"""What goes wrong on purpose. A fake, for tests of what stands a bad day; never there otherwise.

AWS loses, doubles and throttles too, but not when a test wants it. A JSON object in the file
`faults.json` of the cloud's directory, read at each use:

    {"drop_events": 0.2, "double_events": 0.2, "fail_ssm": 0.1, "seed": 7, "agent_seconds": 2}

Shares of what EC2, SSM and tags tell EventBridge that is dropped or told twice, and of calls for
Run Command that are throttled; whence the dice start; and how long an agent takes to come Online.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind
from localcloud.layout import read_json

AGENT_SECONDS = 2.0
THROTTLED = ("_send_command", "_get_command_invocation", "_describe_instance_information")


class Faults:
    """The dice, loaded as the file says."""

    def __init__(self, file: Path) -> None:
        """Nothing goes wrong while there is no such file."""
        self._file = file
        self._dice = random.Random()  # noqa: S311  nothing is kept secret by it
        self._seed: object = None

    def copies(self) -> int:
        """How often the next event is to be told: once, unless the dice say never or twice."""
        faults = self._read()
        dropped, doubled = (float(faults.get(f"{each}_events", 0)) for each in ("drop", "double"))
        thrown = self._dice.random()
        return 0 if thrown < dropped else 2 if thrown < dropped + doubled else 1

    def throttles(self) -> bool:
        """Whether the next call for Run Command is refused."""
        return self._dice.random() < float(self._read().get("fail_ssm", 0))

    @property
    def agent_seconds(self) -> float:
        """From running to the agent's being Online."""
        return float(self._read().get("agent_seconds", AGENT_SECONDS))

    def _read(self) -> dict[str, Any]:
        faults = read_json(self._file)
        if faults.get("seed") != self._seed:
            self._seed = faults.get("seed")
            self._dice.seed(repr(self._seed))
        return faults


def apply(faults: Faults) -> None:
    """Have the calls of Run Command throttled as often as the dice say."""
    systems, responses = module("services.ssm"), module("core.responses")
    refuse = attribute(responses, "error_response_json")

    def wrap(answer: Any) -> Any:
        def answering(request: Any) -> Any:
            if faults.throttles():
                return refuse("ThrottlingException", "Rate exceeded", 400)
            return answer(request)

        return answering

    for name in THROTTLED:
        rebind(systems, name, wrap)
