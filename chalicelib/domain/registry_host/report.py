"""What a registry host says of itself, in the config bucket: read from JSON that anybody on that
machine may have written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from chalicelib.domain.identity import is_instance_id
from chalicelib.errors import InvalidRequest

# One object for each host: registry-hosts/INSTANCE-ID.json.
REPORT_PREFIX = "registry-hosts/"

# A host writes when something changed, and else each five minutes.
REPORT_FRESH = timedelta(minutes=15)

MAXIMUM_REPORT = 16 * 1024

_ID = re.compile(r"[0-9a-f]{16}")
_SERIAL = re.compile(r"[0-9a-f]{1,40}")
_MOST_AUTHORITIES = 16


class Served(StrEnum):
    """Which certificate a TLS handshake on the host itself showed."""

    YES = "yes"  # the one of the report
    NO = "no"
    UNKNOWN = "unknown"  # nobody answered, or it has not been tried


@dataclass(frozen=True, slots=True)
class HostCertificate:
    """The registry's certificate on that host. serial: hex, lower case. issuer: authority id."""

    serial: str
    issuer: str
    not_after: datetime
    served: Served


@dataclass(frozen=True, slots=True)
class HostReport:
    """time: when it was written. ok: whether its last refresh had nothing to complain of.

    last_success: of a run; None if there never was one. last_error: in words; what it was the last
    time something was wrong. taken: nginx has taken these files. ca, client_ca: ids of the
    authorities in them; each client CA has its CRL there. crl_until: when the first of those ends.
    certificate: None while there is none.
    """

    instance_id: str
    time: datetime
    ok: bool
    last_success: datetime | None
    last_error: str
    taken: bool
    ca: Sequence[str]
    client_ca: Sequence[str]
    crl_until: datetime | None
    certificate: HostCertificate | None

    def is_fresh(self, now: datetime) -> bool:
        """Whether it is of so late that the host can be said to be as it says."""
        return now - self.time < REPORT_FRESH

    @classmethod
    def from_json(cls, text: bytes | str) -> HostReport:
        """Raises InvalidRequest for anything that is not of the form that hosts write."""
        try:
            said = json.loads(text[:MAXIMUM_REPORT])
            return cls(
                instance_id=_instance_id(said["instance_id"]),
                time=_time(said["time"]),
                ok=said["ok"] is True,
                last_success=_time_or_none(said["last_success"]),
                last_error=_printable(said["last_error"]),
                taken=said["taken"] is True,
                ca=_ids(said["ca"]),
                client_ca=_ids(said["client_ca"]),
                crl_until=_time_or_none(said["crl_until"]),
                certificate=_certificate(said["certificate"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidRequest("odd_report", "not the report of a registry host") from error


def report_key(instance_id: str) -> str:
    """Where that host's report is."""
    return f"{REPORT_PREFIX}{instance_id}.json"


def _instance_id(said: Any) -> str:
    if not isinstance(said, str) or not is_instance_id(said):
        raise ValueError("no instance id")
    return said


def _certificate(said: Mapping[str, Any] | None) -> HostCertificate | None:
    if said is None:
        return None
    (issuer,) = _ids([said["issuer"]])
    if not isinstance(said["serial"], str) or not _SERIAL.fullmatch(said["serial"]):
        raise ValueError("no serial")
    return HostCertificate(
        said["serial"].rjust(40, "0"), issuer, _time(said["not_after"]), Served(said["served"])
    )


def _ids(said: Any) -> Sequence[str]:
    if not isinstance(said, list) or len(said) > _MOST_AUTHORITIES:
        raise ValueError("no list of ids")
    if not all(isinstance(each, str) and _ID.fullmatch(each) for each in said):
        raise ValueError("not ids")
    return tuple(said)


def _time(said: Any) -> datetime:
    return datetime.strptime(said, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _time_or_none(said: Any) -> datetime | None:
    return None if said == "" else _time(said)


def _printable(said: Any) -> str:
    if not isinstance(said, str):
        raise TypeError("no text")
    return re.sub(r"[^ -~]", "?", said)[:1000]
