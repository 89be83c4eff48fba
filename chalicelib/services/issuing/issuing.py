"""Issue and renew: refuse first, then record, then hand out."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, partial

from chalicelib.domain import policy
from chalicelib.domain.model import (
    Caller,
    CertificateRecord,
    Grant,
    InstanceFacts,
    IssueRequest,
    KeyType,
    NamedRequest,
    RenewRequest,
    Status,
    StoredRequest,
    Succession,
)
from chalicelib.domain.ownership import owned
from chalicelib.domain.pki import keys, leaves
from chalicelib.domain.pki.authorities import refuse_authority_key
from chalicelib.domain.pki.requests import public_key_of_csr
from chalicelib.errors import (
    Conflict,
    Contended,
    DependencyFailed,
    Misconfigured,
    QuotaExceeded,
)
from chalicelib.services.issuing.delivering import Delivering, revoked, unfinished
from chalicelib.services.issuing.needs import Authorities, Issued, Records

log = logging.getLogger(__name__)

# Requests that arrive together may pick the same quota slot; each try picks anew.
ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class _LeafKey:
    public: keys.LeafPublicKey
    private_pem: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Order:
    """One certificate to issue.

    key: the same at each call; making one is dear, so it waits until all else is well.
    request: the idempotency key and the digest, with the serial still to come.
    issued_by: the admin, for whom the owner's quota does not count. granted_days: as recorded.
    """

    grant: Grant
    key: Callable[[], _LeafKey]
    request: StoredRequest | None
    now: datetime
    label: str
    issued_by: str | None = None
    granted_days: int | None = None


@dataclass(frozen=True, slots=True)
class Issuing:
    """instance_facts: what EC2 says of an instance id. new_serial: positive, below 2**159.

    publish_revoked: has a published list show these.
    """

    authorities: Authorities
    records: Records
    delivering: Delivering
    instance_facts: Callable[[str], InstanceFacts | None]
    publish_revoked: Callable[[Sequence[CertificateRecord]], int | None]
    limits: policy.Limits
    now: Callable[[], datetime]
    new_serial: Callable[[], int]
    make_key: Callable[[KeyType], keys.PrivateKey]
    chance: random.Random

    def issue(self, request: IssueRequest, caller: Caller) -> Issued:
        """Nothing leaves here, in an answer or a bundle, before its record is durable.

        Raises InvalidRequest, Forbidden, QuotaExceeded, Conflict, DependencyFailed.
        """
        grant = policy.grant(request, caller, self._facts(caller), self.limits)
        return self._until_uncontended(self._order(grant, request, caller))

    def issue_named(self, named: NamedRequest, caller: Caller) -> Issued:
        """As issue(), for a service, by an admin's word and outside the quota."""
        grant = policy.grant_named(named, caller, self._facts(caller), self.limits)
        order = self._order(grant, named.request, caller)
        days = grant.lifetime.days
        return self._until_uncontended(replace(order, issued_by=caller.arn, granted_days=days))

    def renew(self, serial: str, request: RenewRequest, caller: Caller) -> Issued:
        """A successor of the caller's own certificate: same name, access and owner.

        Raises as issue(), and NotFound; Conflict when it is revoked or has an active successor.
        """
        stored = _stored(caller, request.idempotency_key, request.digest)
        earlier = self._earlier(stored, self.now())
        if earlier is not None:
            return self._renewed_before(earlier, serial, request, caller)
        try:
            return self._renew(serial, request, caller, stored)
        except Conflict:
            # It may be the same request, which got there first, that is in the way.
            earlier = self._earlier(stored, self.now())
            if earlier is None:
                raise
            return self._renewed_before(earlier, serial, request, caller)

    def _renewed_before(
        self, earlier: StoredRequest, serial: str, request: RenewRequest, caller: Caller
    ) -> Issued:
        """The first time may have ended before the predecessor's revocation was published."""
        issued = self._again(earlier, request.digest, self.now())
        if not request.revoke_old:
            return issued
        return self._after_revoking(issued, owned(self.records.get(serial), caller))

    def _renew(
        self, serial: str, request: RenewRequest, caller: Caller, stored: StoredRequest | None
    ) -> Issued:
        now = self.now()
        old = self._renewable(serial, caller, now)
        facts = self._facts(caller)
        order = _Order(
            grant=policy.grant_successor(old, request.days, caller, facts, self.limits, now),
            key=self._successor_key(old, request.csr_pem),
            request=stored,
            now=now,
            label=old.label,
            issued_by=old.issued_by,
            granted_days=old.granted_days,
        )
        issued = self._until_uncontended(
            order,
            Succession(old, request.revoke_old),
            lambda: Succession(self._renewable(serial, caller, now), request.revoke_old),
        )
        return self._after_revoking(issued, old) if request.revoke_old else issued

    def bundle_again(self, serial: str, caller: Caller) -> Issued:
        """A bundle of the caller's own certificate. Raises NotFound, also when the key is gone."""
        return self.delivering.later(owned(self.records.get(serial), caller), self.now())

    def _facts(self, caller: Caller) -> InstanceFacts | None:
        return self.instance_facts(caller.instance_id) if caller.instance_id else None

    def _order(self, grant: Grant, request: IssueRequest, caller: Caller) -> _Order:
        return _Order(
            grant=grant,
            key=self._key(request.csr_pem, request.key_type),
            request=_stored(caller, request.idempotency_key, request.digest),
            now=self.now(),
            label=request.label,
        )

    def _key(self, csr_pem: bytes | None, key_type: KeyType) -> Callable[[], _LeafKey]:
        """The CSR's key, refused here if it is to be; or one of ours, made when asked for."""
        if csr_pem is None:
            return cache(partial(self._made_key, key_type))
        public = public_key_of_csr(csr_pem)
        refuse_authority_key(public, self.authorities.client_certificates())
        refuse_authority_key(public, self.authorities.server_certificates())
        return lambda: _LeafKey(public, None)

    def _made_key(self, key_type: KeyType) -> _LeafKey:
        made = self.make_key(key_type)
        return _LeafKey(made.public_key(), keys.private_key_pem(made).decode())

    def _successor_key(
        self, old: CertificateRecord, csr_pem: bytes | None
    ) -> Callable[[], _LeafKey]:
        public = leaves.public_key_in(old.certificate_pem)
        if csr_pem is None and not old.made_key:
            return lambda: _LeafKey(public, None)
        return self._key(csr_pem, keys.type_of(public) if csr_pem is None else KeyType.EC_P256)

    def _until_uncontended(
        self,
        order: _Order,
        succession: Succession | None = None,
        reread: Callable[[], Succession | None] = lambda: None,
    ) -> Issued:
        """reread: the succession as it is after somebody else got there first."""
        for _ in range(ATTEMPTS):
            try:
                return self._attempt(order, succession)
            except Contended:
                succession = reread()
        raise DependencyFailed("busy", "too many requests of yours at once; ask again")

    def _attempt(self, order: _Order, succession: Succession | None) -> Issued:
        now = order.now
        try:
            slot = self._slot(order, succession)
        except QuotaExceeded:
            earlier = self._earlier(order.request, now)
            if earlier is None or order.request is None:
                raise
            return self._again(earlier, order.request.digest, now)

        key = order.key()
        record = self._sign(order, key, slot, succession)
        request = order.request and replace(order.request, serial=record.serial)
        earlier = self.records.add(record, request, now, succession)
        if earlier is not None and request is not None:
            return self._again(earlier, request.digest, now)
        log.info("issued %s, %s, to %s", record.serial, record.access, record.owner)
        return self.delivering.deliver(record, key.private_pem, now)

    def _slot(self, order: _Order, succession: Succession | None) -> int | None:
        """None: outside the quota. Where the predecessor goes, its successor takes its place."""
        if succession is not None and succession.revoke:
            if succession.old.status(order.now) is Status.ACTIVE:
                return succession.old.slot
        elif succession is None and order.issued_by is not None:
            return None
        taken = self.records.slots(order.grant.owner)
        return policy.free_slot(taken, self.limits, order.now, self.chance)

    def _sign(
        self, order: _Order, key: _LeafKey, slot: int | None, succession: Succession | None
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

    def _earlier(self, request: StoredRequest | None, now: datetime) -> StoredRequest | None:
        if request is None:
            return None
        return self.records.earlier_request(request.caller, request.idempotency_key, now)

    def _again(self, earlier: StoredRequest, digest: str, now: datetime) -> Issued:
        """The answer to a request that was answered before: the same certificate."""
        if earlier.digest != digest:
            raise Conflict(
                "idempotency_key_reused",
                "this Idempotency-Key was used for another request; choose a new one",
                field="Idempotency-Key",
            )
        record = self.records.get(earlier.serial)
        if record is None:
            raise unfinished()
        return self.delivering.again(record, now)

    def _renewable(self, serial: str, caller: Caller, now: datetime) -> CertificateRecord:
        old = owned(self.records.get(serial), caller)
        if old.revoked_at is not None:
            raise revoked(old)
        successor = None if old.superseded_by is None else self.records.get(old.superseded_by)
        policy.refuse_second_successor(old, successor, now)
        return old

    def _after_revoking(self, issued: Issued, old: CertificateRecord) -> Issued:
        """Publish that the predecessor is revoked; should that fail, the schedule does."""
        if issued.link is None:
            # The bucket that the bundle could not be stored in would have the caller wait again,
            # for longer than there is, and the answer holds the one private key.
            return replace(issued, crl_pending=True)
        try:
            if self.now() <= old.validity.not_after:
                self.publish_revoked([old])
        except (DependencyFailed, Misconfigured) as error:
            log.error("%s: the revocation of %s is not published yet", error.code, old.serial)
            return replace(issued, crl_pending=True)
        self.delivering.withdraw(old)
        return issued


def _stored(caller: Caller, idempotency_key: str | None, digest: str) -> StoredRequest | None:
    """What is kept of a request; its serial is known once one is drawn."""
    if idempotency_key is None:
        return None
    return StoredRequest(caller.arn, idempotency_key, digest, serial="")
