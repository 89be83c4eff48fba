"""Sign a certificate and record it, in one go: there is never one without its record."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from chalicelib.domain import policy
from chalicelib.domain.model import (
    Caller,
    CertificateRecord,
    Grant,
    Status,
    StoredRequest,
    Succession,
)
from chalicelib.domain.pki import keys, leaves
from chalicelib.domain.pki.authorities import refuse_authority_key
from chalicelib.domain.pki.requests import public_key_of_csr
from chalicelib.errors import Contended, DependencyFailed, QuotaExceeded
from chalicelib.services.issuing.needs import Authorities, Records

log = logging.getLogger(__name__)

# Requests that arrive together may pick the same quota slot; each try picks anew.
ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class LeafKey:
    """What is certified, and with it the private key if we made it."""

    public: keys.LeafPublicKey
    private_pem: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Order:
    """One certificate to issue.

    key: the same at each call; making one is dear, so it waits until all else is well.
    request: the idempotency key and the digest, with the serial still to come.
    issued_by: the admin, for whom the owner's quota does not count. granted_days: as recorded.
    """

    grant: Grant
    key: Callable[[], LeafKey]
    request: StoredRequest | None
    now: datetime
    label: str = ""
    issued_by: str | None = None
    granted_days: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A certificate that is recorded, and in nobody's hands yet."""

    record: CertificateRecord
    private_pem: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Recording:
    """new_serial: positive, below 2**159.

    make_room: has those of an owner taken back that count for nothing; whether there were any.
    """

    authorities: Authorities
    records: Records
    limits: policy.Limits
    new_serial: Callable[[], int]
    chance: random.Random
    make_room: Callable[[str], bool]

    def record(
        self,
        order: Order,
        succession: Succession | None = None,
        reread: Callable[[], Succession | None] = lambda: None,
    ) -> Recorded | StoredRequest:
        """A new certificate, or the request that the order's idempotency key was used for before.

        reread: the succession as it is after somebody else got there first.
        Raises QuotaExceeded, InvalidRequest (the key), DependencyFailed.
        """
        for _ in range(ATTEMPTS):
            try:
                return self._attempt(order, succession)
            except Contended:
                succession = reread()
        raise DependencyFailed("busy", "too many requests of yours at once; ask again")

    def earlier(self, request: StoredRequest | None, now: datetime) -> StoredRequest | None:
        """What its idempotency key was used for before."""
        if request is None:
            return None
        return self.records.earlier_request(request.caller, request.idempotency_key, now)

    def _attempt(self, order: Order, succession: Succession | None) -> Recorded | StoredRequest:
        try:
            slot = self._slot(order, succession)
        except QuotaExceeded:
            earlier = self.earlier(order.request, order.now)
            if earlier is not None:
                return earlier
            if not self.make_room(order.grant.owner):
                raise
            slot = self._slot(order, succession)
        key = order.key()
        record = self._sign(order, key, slot, succession)
        request = order.request and replace(order.request, serial=record.serial)
        earlier = self.records.add(record, request, order.now, succession)
        if earlier is not None:
            return earlier
        log.info("issued %s, %s, to %s", record.serial, record.access, record.owner)
        return Recorded(record, key.private_pem)

    def _slot(self, order: Order, succession: Succession | None) -> int | None:
        """None: outside the quota. Where the predecessor goes, its successor takes its place."""
        if succession is not None and succession.revoke:
            if succession.old.status(order.now) is Status.ACTIVE:
                return succession.old.slot
        elif succession is None and order.issued_by is not None:
            return None
        taken = self.records.slots(order.grant.owner)
        return policy.free_slot(taken, self.limits, order.now, self.chance)

    def _sign(
        self, order: Order, key: LeafKey, slot: int | None, succession: Succession | None
    ) -> CertificateRecord:
        issuer, grant = self.authorities.client(), order.grant
        old = None if succession is None else succession.old
        end = issuer.certificate.not_valid_after_utc
        validity = policy.validity(order.now, grant.lifetime, end)
        certificate = leaves.sign_client_leaf(
            issuer, grant, key.public, self.new_serial(), validity
        )
        return replace(
            leaves.record_of(certificate, issuer, grant, order.now),
            made_key=key.private_pem is not None,
            label=order.label,
            slot=slot,
            issued_by=order.issued_by,
            granted_days=order.granted_days,
            renews=None if old is None else old.serial,
            line=None if old is None else old.line or old.serial,
        )


def key_in(csr_pem: bytes, authorities: Authorities) -> keys.LeafPublicKey:
    """The key that a CSR asks a certificate for. Raises InvalidRequest, also for a CA's key."""
    public = public_key_of_csr(csr_pem)
    refuse_authority_key(public, authorities.client_certificates())
    refuse_authority_key(public, authorities.server_certificates())
    return public


def stored_request(
    caller: Caller, idempotency_key: str | None, digest: str
) -> StoredRequest | None:
    """What is kept of a request; its serial is known once one is drawn."""
    if idempotency_key is None:
        return None
    return StoredRequest(caller.arn, idempotency_key, digest, serial="")
