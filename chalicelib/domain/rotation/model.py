"""What a rotation goes by, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from chalicelib.domain.enrolment.model import Enrolment
from chalicelib.domain.model import CertificateRecord
from chalicelib.domain.registry_host.report import HostReport

# Of a list that an operator reads; the rest is counted.
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class HostSight:
    """A registry host. running: EC2 shows it so. report: a fresh one, or None."""

    instance_id: str
    running: bool
    report: HostReport | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What can be seen of everybody who has to do with the CAs.

    trust_version: of what is published. enrolments: all that are not gone. certificates: clients',
    neither expired nor revoked. running: which instances run, of those that the others name.
    """

    now: datetime
    trust_version: str
    hosts: Sequence[HostSight]
    enrolments: Sequence[Enrolment]
    certificates: Sequence[CertificateRecord]
    running: frozenset[str]


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What stands in the way of a step.

    lacking: what it is; details: of whom, a line each. breaks: what becomes of them by force.
    passes: whether waiting is enough.
    """

    lacking: str
    details: Sequence[str]
    breaks: str
    passes: bool = True


def lines(reasons: Mapping[str, object]) -> Sequence[str]:
    """A line for each of these ids."""
    return shortened([f"{id_}: {reason}" for id_, reason in sorted(reasons.items())])


def shortened(full: Sequence[str]) -> Sequence[str]:
    """The first of them, and how many more there are."""
    more = len(full) - _SHOWN
    return full if more <= 0 else [*full[:_SHOWN], f"and {more} more"]
