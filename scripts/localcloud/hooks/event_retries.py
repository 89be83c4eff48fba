"""EventBridge to Lambda with retries.

MiniStack starts the function once and forgets a failure. On AWS the invocation is asynchronous:
up to two retries, then the function's dead-letter target. Our event handlers rely on it.
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

from __future__ import annotations

import json
from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind


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
                invoke(record_for(function, config), json.loads(payload))
            else:
                deliver_once(arn, payload)  # it says that there is no such function

        return deliver

    rebind(module("services.eventbridge"), "_dispatch_to_lambda", wrap)
