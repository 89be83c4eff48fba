"""EventBridge to Lambda with retries, and not all at once.

MiniStack starts the function once and forgets a failure. On AWS the invocation is asynchronous:
up to two retries, then the function's dead-letter target. Our event handlers rely on it.
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html

MiniStack also starts a process for each event that comes while others are busy, and two hundred
instances launched at once are four hundred events. AWS has machines enough for that; here what is
asynchronous waits its turn, as it may on AWS when the account's concurrency is used up.
"""

from __future__ import annotations

import json
import threading
from contextvars import ContextVar
from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind

AT_ONCE = 6

_is_event: ContextVar[bool] = ContextVar("is_event", default=False)


def apply() -> None:
    """Deliver events through MiniStack's own asynchronous invocation, which retries."""
    functions = module("services.lambda_svc")
    find = attribute(functions, "_get_func_record_for_ref")
    record_for = attribute(functions, "_execution_record_for_config")
    invoke = attribute(functions, "invoke_async_with_retry")

    def wrap(deliver_once: Any) -> Any:
        def deliver(arn: str, payload: str) -> None:
            function, config, _ = find(arn)
            if function and config:
                marked = _is_event.set(True)  # for the thread that it starts
                invoke(record_for(function, config), json.loads(payload))
                _is_event.reset(marked)
            else:
                deliver_once(arn, payload)  # it says that there is no such function

        return deliver

    rebind(functions, "_execute_function", _in_turn)
    rebind(module("services.eventbridge"), "_dispatch_to_lambda", wrap)


def _in_turn(inner: Any) -> Any:
    turns = threading.BoundedSemaphore(AT_ONCE)

    def execute(*arguments: Any, **options: Any) -> Any:
        if not _is_event.get():
            return inner(*arguments, **options)
        with turns:
            return inner(*arguments, **options)

    return execute
