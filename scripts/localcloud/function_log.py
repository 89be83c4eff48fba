"""What the functions write to CloudWatch Logs, the audit trail above all, as it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localcloud.aws import SETTINGS, Caller
from localcloud.people import kept_key

PAUSE_SECONDS = 1.0
LATE_MS = 10_000  # an event may come to be seen so long after a later one
OF_LAMBDA = ("START RequestId", "END RequestId", "REPORT RequestId")  # around each call

Event = tuple[int, str, str]  # milliseconds, log stream, message


class FunctionLog:
    """Reads one log group; knows what it has told."""

    def __init__(self, client: Any, group: str) -> None:
        """Read nothing yet. client: boto3's for CloudWatch Logs."""
        self._pages = client.get_paginator("filter_log_events")
        self._group = group
        self._since = 0
        self._told: set[Event] = set()

    def new_lines(self) -> Iterator[str]:
        """What was written since the last call, the oldest first, without Lambda's own lines."""
        # Those of one moment stay in the order in which they are kept.
        found = sorted(self._events(), key=lambda event: event[0])
        for event in dict.fromkeys(found):
            message = event[2]
            if event not in self._told and not message.startswith(OF_LAMBDA):
                yield message.rstrip("\n")
        newest = max((when for when, _, _ in found), default=self._since)
        self._since = max(self._since, newest - LATE_MS)
        self._told = {event for event in found if event[0] >= self._since}

    def _events(self) -> Iterator[Event]:
        for page in self._pages.paginate(logGroupName=self._group, startTime=self._since):
            for event in page["events"]:
                yield event["timestamp"], event["logStreamName"], event["message"]


def main(arguments: list[str]) -> int:
    """Write the log to standard output until ended. arguments: endpoint, key file, log group."""
    endpoint, key_file, group = arguments
    key = kept_key(Path(key_file))
    if key is None:
        print(f"there is no key in {key_file}", file=sys.stderr)
        return 1
    session = Caller(endpoint, key).session
    log = FunctionLog(session.client("logs", endpoint_url=endpoint, config=SETTINGS), group)
    while True:
        for line in log.new_lines():
            print(line, flush=True)
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
