"""Query parameters: the types that validate and describe them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from chalicelib.domain.enrolment.model import EnrolmentState
from chalicelib.domain.model import Selection, Status
from chalicelib.entrypoints.http.bodies import Owner
from chalicelib.entrypoints.http.reading import refusal
from chalicelib.errors import InvalidRequest

_BAD_TIME = (
    "give a time as RFC 3339 has it: 2026-03-04T05:06:07Z, or with an offset in place of the Z: "
    "+01:00, in a URL %2B01:00"
)
Limit = Annotated[
    int,
    Meta(
        ge=1,
        le=100,
        description="How many at most.",
        extra=refusal("limit_out_of_range", "limit must be from 1 to 100"),
    ),
]
Cursor = Annotated[str, Meta(description="next_cursor of the page before.")]


class Listing(Struct, forbid_unknown_fields=True):
    """Which certificates to list."""

    status: Annotated[Status, Meta(description="Only those that are this.")] | UnsetType = UNSET
    expires_before: (
        Annotated[
            datetime,
            Meta(
                tz=True,
                description="Only those that have not expired yet, and end before this time: so "
                "not with status=expired. A time may have an offset from UTC in place of the Z.",
                examples=["2030-01-01T00:00:00Z"],
                extra=refusal("bad_time", _BAD_TIME),
            ),
        ]
        | UnsetType
    ) = UNSET
    limit: Limit = 50
    cursor: Cursor | UnsetType = UNSET

    @property
    def start(self) -> str | None:
        """Where the page starts; None: at the start."""
        return None if self.cursor is UNSET else self.cursor

    def selection(self) -> Selection:
        """Raises InvalidRequest for a time that has no place in UTC, and for a contradiction."""
        if self.expires_before is not UNSET and self.status is Status.EXPIRED:
            raise InvalidRequest(
                "never_matches",
                "expires_before finds what has not expired yet, so nothing with status=expired: "
                "leave one of the two out",
                field="expires_before",
            )
        return Selection(
            status=None if self.status is UNSET else self.status,
            expires_before=None if self.expires_before is UNSET else _in_utc(self.expires_before),
        )


class AnyonesListing(Listing, forbid_unknown_fields=True, kw_only=True):
    """Whose certificates to list, and which."""

    owner: Annotated[Owner, Meta(description="Only this owner's.")] | UnsetType = UNSET

    def selection(self) -> Selection:
        """Of this owner's."""
        of_all = super().selection()
        return of_all if self.owner is UNSET else replace(of_all, owner=self.owner)


class InstanceListing(Struct, forbid_unknown_fields=True):
    """Which instances to list."""

    state: (
        Annotated[EnrolmentState, Meta(description="Only those that are in this.")] | UnsetType
    ) = UNSET
    limit: Limit = 50
    cursor: Cursor | UnsetType = UNSET

    @property
    def wanted(self) -> EnrolmentState | None:
        """The state they are to be in; None: any."""
        return None if self.state is UNSET else self.state

    @property
    def start(self) -> str | None:
        """Where the page starts; None: at the start."""
        return None if self.cursor is UNSET else self.cursor


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError as error:  # the first or last hours that a datetime can hold
        raise InvalidRequest("bad_time", _BAD_TIME, field="expires_before") from error
