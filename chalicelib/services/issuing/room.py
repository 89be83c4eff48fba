"""Make room among an owner's certificates: what no registry admits must not be in the way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from chalicelib.domain.model import CertificatePage, CertificateRecord, Selection, Status
from chalicelib.domain.pki.authorities import authority_id
from chalicelib.services.issuing.needs import Authorities

log = logging.getLogger(__name__)

_PAGE = 100


class Listing(Protocol):
    """The records in order."""

    def page(
        self, selection: Selection, limit: int, cursor: str | None, now: datetime
    ) -> CertificatePage:
        """Up to *limit* of those selected."""


@dataclass(frozen=True, slots=True)
class Room:
    """take_back: has these revoked as superseded, by the plane."""

    authorities: Authorities
    listing: Listing
    take_back: Callable[[Sequence[CertificateRecord]], None]
    now: Callable[[], datetime]

    def make(self, owner: str) -> bool:
        """Take back the owner's certificates of CAs that are not trusted any more.

        Whether there were any. They are refused everywhere, and would else keep the owner from
        asking for one that is not. Raises DependencyFailed, Misconfigured.
        """
        self.authorities.reread()  # of a CA that is newer than what is known nothing may go
        trusted = {authority_id(each) for each in self.authorities.client_certificates()}
        found = [
            each
            for each in self._active_of(owner)
            if each.access is not None and each.issuer_id not in trusted
        ]
        if found:
            log.info("taking back %d of %s, whose CA is not trusted any more", len(found), owner)
            self.take_back(found)
        return bool(found)

    def _active_of(self, owner: str) -> Iterator[CertificateRecord]:
        now, cursor = self.now(), None
        while True:
            page = self.listing.page(Selection(owner, Status.ACTIVE), _PAGE, cursor, now)
            yield from page.records
            cursor = page.cursor
            if cursor is None:
                return
