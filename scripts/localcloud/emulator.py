"""The emulated AWS: MiniStack with IAM enforced and our hooks, in the foreground.

Its state lives in memory and ends with it. MiniStack can save it, but on a polite end only, and
with every secret in clear; a state older than the last certificate is worse than a new start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from localcloud import hooks
from localcloud.hooks.rebinding import module
from localcloud.layout import Layout

SETTINGS = {
    "AUTH": "true",  # signatures and policies count
    "BIND_HOST": "127.0.0.1",
    "IOT_MTLS_ENABLED": "0",
    "SFTP_ENABLED": "0",
    "LOG_LEVEL": "INFO",
}


def main(arguments: list[str]) -> int:
    """Serve on the gateway port until the process is ended.

    arguments: the port, and the local cloud's directory.
    """
    port, root = arguments
    # Lambda functions inherit the environment: nothing of the checkout may be importable there.
    os.environ.pop("PYTHONPATH", None)
    # MiniStack reads its settings while it is imported.
    os.environ.update(SETTINGS, GATEWAY_PORT=port)
    sys.argv = ["ministack"]
    application = module("app")
    hooks.apply_all(Layout(Path(root)))
    application.main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
