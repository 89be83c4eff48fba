"""The queue of instances that are to be looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.enrolment.model import LONGEST_DELAY, Ask
from chalicelib.errors import DependencyFailed

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

_BATCH = 10  # Amazon SQS API Reference, SendMessageBatch


class EnrolmentQueue:
    """sqs: makes or returns the client; called only when something is asked for."""

    def __init__(self, sqs: Callable[[], SQSClient], url: str) -> None:
        self._sqs = sqs
        self._url = url

    def ask(self, asks: Sequence[Ask]) -> None:
        """Ask for these. Raises DependencyFailed when some were not taken; others then may be."""
        refused = 0
        for start in range(0, len(asks), _BATCH):
            entries = [_entry(place, ask) for place, ask in enumerate(asks[start : start + _BATCH])]
            try:
                answer = self._sqs().send_message_batch(QueueUrl=self._url, Entries=entries)
            except (ClientError, BotoCoreError) as error:
                raise _unwritable() from error
            refused += len(answer.get("Failed", []))
        if refused:
            raise _unwritable()


def _entry(place: int, ask: Ask) -> SendMessageBatchRequestEntryTypeDef:
    delay = max(timedelta(), min(ask.delay, LONGEST_DELAY))
    return {
        "Id": str(place),
        "MessageBody": json.dumps({"instance_id": ask.instance_id, "why": ask.why.value}),
        "DelaySeconds": int(delay.total_seconds()),
    }


def _unwritable() -> DependencyFailed:
    return DependencyFailed("queue_unwritable", "the queue did not take it; ask again")
