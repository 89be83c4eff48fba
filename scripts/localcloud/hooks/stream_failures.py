"""Table streams to Lambda with partial batch failures.

MiniStack reads what a function answers about a batch of messages, but not about a batch of stream
records: whatever did not end in an error counts as done. On AWS the records from the first that is
reported are sent again; our function relies on it.
https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html

Not added: a batch that ends in an error is repeated whole, never in halves, and without limit of
number. A mapping that filters records is not expected.
"""

from __future__ import annotations

from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind


def apply() -> None:
    """Go on from the first record that a function reports as failed."""
    functions = module("services.lambda_svc")
    mappings = attribute(functions, "_esms")
    positions = attribute(functions, "_dynamodb_stream_positions")

    def wrap(execute: Any) -> Any:
        def executing(function: Any, event: Any) -> Any:
            result = execute(function, event)
            done = None if result.get("error") else records_done(event, result.get("body"))
            mapping = None if done is None else _reporting(function, event, mappings.values())
            if mapping is None:
                return result
            # From what ended in an error the poller does not move on, and tries it again.
            positions[mapping["UUID"]] += done
            return {**result, "error": True}

        return executing

    rebind(functions, "_execute_function", wrap)


def records_done(event: Any, answer: Any) -> int | None:
    """How many records precede the first reported one; None if none is, or it is no stream's batch.

    AWS takes a report that names no record of the batch for one of all of them.
    """
    records = event.get("Records") if isinstance(event, dict) else None
    failures = answer.get("batchItemFailures") if isinstance(answer, dict) else None
    if not records or not failures or records[0].get("eventSource") != "aws:dynamodb":
        return None
    numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
    reported = {failure.get("itemIdentifier") for failure in failures}
    return min((numbers.index(each) if each in numbers else 0 for each in reported), default=None)


def _reporting(function: Any, event: Any, mappings: Any) -> Any:
    """The mapping that this batch came by, if it asks for such reports."""
    came = ((function.get("config") or function)["FunctionName"], _stream(event))
    return next(
        (
            mapping
            for mapping in mappings
            if (mapping["FunctionName"], mapping["EventSourceArn"]) == came
            and "ReportBatchItemFailures" in mapping["FunctionResponseTypes"]
        ),
        None,
    )


def _stream(event: Any) -> Any:
    return event["Records"][0]["eventSourceARN"]
