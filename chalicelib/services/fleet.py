"""Look enrolments up, for admins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.enrolment.model import Enrolment, EnrolmentPage, EnrolmentState
from chalicelib.errors import NotFound


class Enrolments(Protocol):
    """Where enrolments are recorded."""

    def get(self, instance_id: str) -> Enrolment | None:
        """It, read consistently."""

    def page(self, state: EnrolmentState | None, limit: int, cursor: str | None) -> EnrolmentPage:
        """Up to *limit*: who came into the state last comes first."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Instances, one by one and in pages."""

    enrolments: Enrolments

    def look_up(self, instance_id: str) -> Enrolment:
        """Raises NotFound for one that was never seen with the tag, or is long gone."""
        known = self.enrolments.get(instance_id)
        if known is None:
            raise NotFound(
                "instance_not_found",
                "nothing is known of this instance: was it seen to run with the tag?",
            )
        return known

    def page(self, state: EnrolmentState | None, limit: int, cursor: str | None) -> EnrolmentPage:
        """Up to *limit* in this state, or in any. Raises InvalidRequest (cursor)."""
        return self.enrolments.page(state, limit, cursor)
