"""The batch calls of SQS, which no policy names.

MiniStack asks for permissions of the calls' own names, such as sqs:SendMessageBatch. AWS has none
of these: who may send, delete or hide one message may do so in batches. Amazon SQS Developer Guide,
"Amazon SQS API permissions: Actions and resource reference".
"""

from __future__ import annotations

from typing import Any

from localcloud.hooks.rebinding import module, rebind

SINGLE = {
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
}


def apply() -> None:
    """Judge a batch as one of its entries."""
    rebind(module("core.iam_actions"), "extract_iam_action", _of_one)


def _of_one(inner: Any) -> Any:
    def action_of(*arguments: Any, **options: Any) -> Any:
        action = inner(*arguments, **options)
        return SINGLE.get(action, action)

    return action_of
