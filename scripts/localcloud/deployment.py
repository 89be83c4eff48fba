"""Our stack on the emulated AWS, put there by scripts/deploy as it would be on the real one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from localcloud import programs
from localcloud.aws import SETTINGS, Caller
from localcloud.layout import CHECKOUT
from operations.cloud import api_address

STAGE = "local"
STACK = f"registry-trust-{STAGE}"
INSTANCE_TAG = "registry-trust"  # the template's default, which deploy() leaves


def deploy(operator: Caller, registry: str, webhook_file: Path, log: Path) -> None:
    """Create or update the stack. Raises programs.ProgramFailed."""
    programs.run(
        [
            CHECKOUT / "scripts" / "deploy",
            *("--stage", STAGE),
            *("--registry-host", registry),
            *("--slack-webhook-file", webhook_file),
        ],
        environment=plain_environment() | operator.environment(),
        log=log,
        directory=CHECKOUT,
    )


KEPT = frozenset({"PATH", "HOME", "LANG", "PYTHON", "SSL_CERT_FILE", "SSL_CERT_DIR"})
PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})


def plain_environment() -> dict[str, str]:
    """Of the caller's environment only what says where things are, and how pip reaches them."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in KEPT or name.startswith("PIP_") or name.lower() in PROXIES
    }


def outputs(operator: Caller) -> dict[str, str]:
    """The stack's outputs, by key."""
    formation = operator.session.client(
        "cloudformation", endpoint_url=operator.endpoint, config=SETTINGS
    )
    stack = formation.describe_stacks(StackName=STACK)["Stacks"][0]
    return {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}


def api_url(stack_outputs: Mapping[str, str], gateway_port: int) -> str:
    """The API's address here, without a slash at its end."""
    return api_address(stack_outputs["ApiUrl"], f"http://127.0.0.1:{gateway_port}")
