"""The audit trail: one line for each request that was granted something, refused or failed.

The lines go to standard output as JSON objects with a level and a timestamp, which Lambda hands on
to CloudWatch Logs as they are and filters by level (AWS "Log-level filtering" in the Lambda guide).
What API Gateway refuses by itself, such as a request that is not signed, never gets here: it is in
the access log of the API's stage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

# Longer than any ARN, and than what API Gateway allows of the other texts that a stranger writes.
_LONGEST = {"caller": 1024, "owner": 1024}
_LONGEST_OTHER = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What a request got: the certificate it is about, and what was done with it.

    private_key: a private key was handed out. crl_pending: the registry is not told yet.
    """

    serial: str
    name: str
    owner: str
    access: str | None
    private_key: bool | None = None
    renews: str | None = None
    reason: str | None = None
    also_revoked: tuple[str, ...] | None = None
    crl_pending: bool | None = None


@dataclass(frozen=True, slots=True)
class EnrolmentAsked:
    """What an admin's request got: the instance is to be enrolled afresh."""

    instance_id: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request was answered. code: the problem's; None: there was none."""

    status: int
    code: str | None = None
    granted: Granted | EnrolmentAsked | None = None


def trail(
    context: Mapping[str, Any],
    action: str,
    outcome: Outcome,
    named: Mapping[str, str],
) -> dict[str, Any] | None:
    """The line's content; None for a request that neither got anything nor was refused it.

    context: API Gateway's requestContext. action: the operation's name. named: what the path
    names, a certificate's serial or an instance_id. The path itself is told as its route: what else
    it holds is a stranger's text, be it a private key pasted into the wrong place.
    """
    if outcome.code is None and outcome.granted is None:
        return None
    decision, level = _decision(outcome.status)
    identity = context.get("identity") or {}
    told: dict[str, Any] = {
        "level": level,
        "timestamp": _arrival(context),
        "audit": True,
        "request_id": context.get("requestId"),
        "decision": decision,
        "action": action,
        "status": outcome.status,
        "code": outcome.code,
        "caller": identity.get("userArn"),
        "source_ip": identity.get("sourceIp"),
        "user_agent": identity.get("userAgent"),
        "method": context.get("httpMethod"),
        "path": context.get("resourcePath"),
        **named,
        **(asdict(outcome.granted) if outcome.granted else {}),
    }
    return {name: _tame(name, value) for name, value in told.items() if value is not None}


def write(line: Mapping[str, Any]) -> None:
    """In one piece, and at once: the process may be frozen as soon as the request is answered."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _decision(status: int) -> tuple[str, str]:
    if status < 400:
        return "granted", "INFO"
    return ("refused", "WARN") if status < 500 else ("failed", "ERROR")


def _arrival(context: Mapping[str, Any]) -> str | None:
    epoch_ms = context.get("requestTimeEpoch")
    if epoch_ms is None:
        return None
    time = datetime.fromtimestamp(int(epoch_ms) / 1000, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _tame(name: str, value: Any) -> Any:
    """Texts in a bounded length and without control characters: strangers write some of them."""
    if not isinstance(value, str):
        return value
    bounded = value[: _LONGEST.get(name, _LONGEST_OTHER)]
    return "".join(each if each.isprintable() else "\ufffd" for each in bounded)
