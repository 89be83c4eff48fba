"""Look certificates up. An owner's do not exist for anybody but the owner and admins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from chalicelib.domain.model import Caller, CertificatePage, CertificateRecord, Selection
from chalicelib.domain.ownership import existing, owned


class Records(Protocol):
    """Where certificates are recorded."""

    def get(self, serial: str) -> CertificateRecord | None:
        """The record, read consistently."""


class Listing(Protocol):
    """The records in order."""

    def page(
        self, selection: Selection, limit: int, cursor: str | None, now: datetime
    ) -> CertificatePage:
        """Up to *limit* of those selected."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Certificates, one by one and in pages."""

    records: Records
    listing: Listing
    now: Callable[[], datetime]

    def look_up(self, serial: str, caller: Caller) -> CertificateRecord:
        """The caller's own certificate. Raises NotFound for anybody else's, as for none."""
        return owned(self.records.get(serial), caller)

    def look_up_any(self, serial: str) -> CertificateRecord:
        """Whose it may be; for admins. Raises NotFound."""
        return existing(self.records.get(serial))

    def own(
        self, caller: Caller, selection: Selection, limit: int, cursor: str | None
    ) -> CertificatePage:
        """Up to *limit* of the caller's own, newest first. Raises InvalidRequest (cursor)."""
        mine = replace(selection, owner=caller.arn)
        return self.listing.page(mine, limit, cursor, self.now())

    def everyones(self, selection: Selection, limit: int, cursor: str | None) -> CertificatePage:
        """Up to *limit*, for admins: newest first, or, asked for what ends, the soonest first.

        Raises InvalidRequest (cursor).
        """
        return self.listing.page(selection, limit, cursor, self.now())
