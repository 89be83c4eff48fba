"""The rules of replacing a CA: what covers it, what is in the way, what breaks by force. No I/O.

A new CA is first trusted everywhere, then signs, and the former one goes once nothing lives under
it. Whether that is so is read from the hosts' reports, from the records of instances, and from the
certificates, which were handed out together with the CAs of their day.
"""

from chalicelib.domain.rotation.certificates import SETTLING, asked_by_itself
from chalicelib.domain.rotation.model import Facts, HostSight, Obstacle
from chalicelib.domain.rotation.rules import (
    after_distrusting,
    against_activating,
    against_retiring,
    against_rotating,
    lives_under,
    made_at,
    progress,
)

__all__ = [
    "SETTLING",
    "Facts",
    "HostSight",
    "Obstacle",
    "after_distrusting",
    "against_activating",
    "against_retiring",
    "against_rotating",
    "asked_by_itself",
    "lives_under",
    "made_at",
    "progress",
]
