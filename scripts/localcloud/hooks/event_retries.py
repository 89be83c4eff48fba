"""EventBridge to Lambda with retries, and a few at a time.

MiniStack starts the function once and forgets a failure. On AWS the invocation is asynchronous:
up to two retries, then the function's dead-letter target. Our event handlers rely on it.

MiniStack also starts a process for each event that comes while others are at work, so that hundreds
at once starve the machine. On AWS they wait in the function's own queue when there is no room.
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"How Lambda handles errors and retries with asynchronous invocation"
"""

from __future__ import annotations

import json
import threading
from contextvars import ContextVar
from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind

AT_ONCE = 4  # asynchronous invocations, of all functions

# Set for an event's invocations, which happen in threads that inherit it.
is_event: ContextVar[bool] = ContextVar("is_event", default=False)


def apply() -> None:
    """Deliver events through MiniStack's own asynchronous invocation, which retries."""
    functions = module("services.lambda_svc")
    find = attribute(functions, "_get_func_record_for_ref")
    record_for = attribute(functions, "_execution_record_for_config")
    invoke = attribute(functions, "invoke_async_with_retry")
    room = threading.BoundedSemaphore(AT_ONCE)

    def delivering(deliver_once: Any) -> Any:
        def deliver(arn: str, payload: str) -> None:
            function, config, _ = find(arn)
            if not function or not config:
                deliver_once(arn, payload)  # it says that there is no such function
                return
            token = is_event.set(True)
            try:
                invoke(record_for(function, config), json.loads(payload))
            finally:
                is_event.reset(token)

        return deliver

    def executing(execute: Any) -> Any:
        def executed(function: Any, event: Any) -> Any:
            if not is_event.get():
                return execute(function, event)
            with room:
                return execute(function, event)

        return executed

    rebind(module("services.eventbridge"), "_dispatch_to_lambda", delivering)
    rebind(functions, "_execute_function", executing)
