"""How the hooks tell EventBridge what happens in EC2, SSM and with tags.

MiniStack's EC2 and SSM tell it nothing. On AWS they put events on the account's default bus, with
the source `aws.SERVICE`; which, each hook says for itself.
https://docs.aws.amazon.com/eventbridge/latest/ref/welcome.html "Events Reference"
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from localcloud.hooks.faults import Faults
from localcloud.hooks.rebinding import attribute, module
from localcloud.hooks.timetable import Timetable


class ServiceEvents:
    """Tells the default bus of the account and region in which something was asked for."""

    def __init__(self, timetable: Timetable, faults: Faults) -> None:
        """Find what is needed of the emulator; raises Missing."""
        responses = module("core.responses")
        self._put = attribute(module("services.eventbridge"), "_put_events")
        self._account = attribute(responses, "get_account_id")
        self._region = attribute(responses, "get_region")
        self._timetable, self._faults = timetable, faults

    def instance_arn(self, instance_id: str) -> str:
        """The instance's ARN, in the account and region of the request at hand."""
        return f"arn:aws:ec2:{self._region()}:{self._account()}:instance/{instance_id}"

    def tell(
        self, source: str, kind: str, instance_id: str, detail: Mapping[str, Any], after: float = 0
    ) -> None:
        """Put an event about an instance on the bus so many seconds from now, not before.

        kind: the event's detail-type.
        """
        entry = {
            "Source": source,
            "DetailType": kind,
            "Detail": json.dumps(detail),
            "Resources": [self.instance_arn(instance_id)],
        }
        self._timetable.after(after, self._deliver, entry)

    def _deliver(self, entry: dict[str, Any]) -> None:
        for _ in range(self._faults.copies()):
            self._put({"Entries": [entry]}, allow_aws_source=True)
