"""How often the emulated AWS was called: by action, and by whom.

AWS tells that in CloudTrail and on the bill, minutes and days later; MiniStack not at all. Tests
read it here, from a JSON object in the cloud's directory: {"ssm:SendCommand": {"role or user":
3}}. What is answered without being asked for as an action, such as the API itself, is not counted.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind
from localcloud.hooks.timetable import Timetable
from localcloud.layout import write_private

WRITE_SECONDS = 0.3  # from a call to its being in the file, at most


def apply(file: Path, timetable: Timetable) -> None:
    """Count each request that is for an action."""
    caller = attribute(module("core.iam_evaluator"), "caller_arn")
    counts = CallCounts(file, timetable)

    def wrap(action_of: Any) -> Any:
        def counting(*request: Any) -> str | None:
            action: str | None = action_of(*request)
            if action is not None:
                counts.add(action, name_in(caller()))
            return action

        return counting

    rebind(module("core.iam_actions"), "extract_iam_action", wrap)


def name_in(arn: str) -> str:
    """The role or user that an ARN of a caller names; a session's name is left out."""
    kind, _, rest = arn.rpartition(":")[2].partition("/")
    return rest.partition("/")[0] if kind == "assumed-role" else rest or kind


class CallCounts:
    """Counts, written a moment later rather than at every call."""

    def __init__(self, file: Path, timetable: Timetable) -> None:
        """Nobody has called yet."""
        self._file, self._timetable = file, timetable
        self._counts: Counter[tuple[str, str]] = Counter()
        self._written = True

    def add(self, action: str, who: str) -> None:
        """One more call."""
        self._counts[action, who] += 1
        if self._written:
            self._written = False
            self._timetable.after(WRITE_SECONDS, self._write)

    def _write(self) -> None:
        self._written = True
        by_action: dict[str, dict[str, int]] = {}
        for (action, who), count in sorted(self._counts.copy().items()):
            by_action.setdefault(action, {})[who] = count
        write_private(self._file, json.dumps(by_action, indent=1) + "\n")
