"""What a request to put events says of them, for conditions of policies.

MiniStack checks PutEvents by the bus alone and knows neither `events:source` nor
`events:detail-type`, so a statement that asks for them never matches. Both have many values.
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoneventbridge.html
"""

from __future__ import annotations

import json
from typing import Any

from localcloud.hooks.rebinding import module, rebind

FIELDS = {"events:source": "Source", "events:detail-type": "DetailType"}


def apply() -> None:
    """Add them to what MiniStack reads from a request's body for conditions."""

    def wrap(context_of: Any) -> Any:
        def with_events(service: str, action: str, body: bytes, *rest: Any) -> dict[str, Any]:
            context = context_of(service, action, body, *rest)
            return {**context, **values(body)} if action == "events:PutEvents" else context

        return with_events

    rebind(module("core.iam_actions"), "request_tag_context", wrap)


def values(body: bytes) -> dict[str, list[str]]:
    """The values of the condition keys; none for a body that is no request to put events."""
    try:
        entries = json.loads(body)["Entries"]
        return {
            key: sorted({str(entry[field]) for entry in entries}) for key, field in FIELDS.items()
        }
    except (ValueError, KeyError, TypeError):
        return {}
