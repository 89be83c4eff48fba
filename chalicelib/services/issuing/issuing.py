"""Issue and renew: refuse first, then record, then hand out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    StoredRequest,
    Succession,
)
from chalicelib.domain.ownership import owned
from chalicelib.domain.pki import keys, leaves
from chalicelib.errors import Conflict, DependencyFailed, Misconfigured
from chalicelib.services.issuing.delivering import Delivering, revoked, unfinished
from chalicelib.services.issuing.needs import Authorities, InstanceCallers, Issued, Records
from chalicelib.services.issuing.recording import (
    LeafKey,
    Order,
    Recording,
    key_in,
    stored_request,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Issuing:
    """publish_revoked: has a published list show these."""

    authorities: Authorities
    records: Records
    recording: Recording
    delivering: Delivering
    instances: InstanceCallers
    publish_revoked: Callable[[Sequence[CertificateRecord]], int | None]
    limits: policy.Limits
    now: Callable[[], datetime]
    make_key: Callable[[KeyType], keys.PrivateKey]

    def issue(self, request: IssueRequest, caller: Caller) -> Issued:
        """Nothing leaves here, in an answer or a bundle, before its record is durable.

        Raises InvalidRequest, Forbidden, QuotaExceeded, Conflict, DependencyFailed.
        """
        grant = policy.grant(request, caller, self._facts(caller), self.limits)
        return self._told(caller, self._record(self._order(grant, request, caller)))

    def issue_named(self, named: NamedRequest, caller: Caller) -> Issued:
        """As issue(), for a service, by an admin's word and outside the quota."""
        grant = policy.grant_named(named, caller, self._facts(caller), self.limits)
        order = self._order(grant, named.request, caller)
        days = grant.lifetime.days
        return self._record(replace(order, issued_by=caller.arn, granted_days=days))

    def renew(self, serial: str, request: RenewRequest, caller: Caller) -> Issued:
        """A successor of the caller's own certificate: same name, access and owner.

        Raises as issue(), and NotFound; Conflict when it is revoked or has an active successor.
        """
        stored = stored_request(caller, request.idempotency_key, request.digest)
        earlier = self.recording.earlier(stored, self.now())
        if earlier is not None:
            return self._renewed_before(earlier, serial, request, caller)
        try:
            return self._renew(serial, request, caller, stored)
        except Conflict:
            # It may be the same request, which got there first, that is in the way.
            earlier = self.recording.earlier(stored, self.now())
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
        order = Order(
            grant=policy.grant_successor(old, request.days, caller, facts, self.limits, now),
            key=self._successor_key(old, request.csr_pem),
            request=stored,
            now=now,
            label=old.label,
            issued_by=old.issued_by,
            granted_days=old.granted_days,
        )
        issued = self._record(
            order,
            Succession(old, request.revoke_old),
            lambda: Succession(self._renewable(serial, caller, now), request.revoke_old),
        )
        self._told(caller, issued)
        return self._after_revoking(issued, old) if request.revoke_old else issued

    def bundle_again(self, serial: str, caller: Caller) -> Issued:
        """A bundle of the caller's own certificate. Raises NotFound, also when the key is gone."""
        return self.delivering.later(owned(self.records.get(serial), caller), self.now())

    def _facts(self, caller: Caller) -> InstanceFacts | None:
        return self.instances.facts(caller.instance_id) if caller.instance_id else None

    def _told(self, caller: Caller, issued: Issued) -> Issued:
        if caller.instance_id is not None:
            self.instances.was_issued(caller.instance_id)
        return issued

    def _order(self, grant: Grant, request: IssueRequest, caller: Caller) -> Order:
        return Order(
            grant=grant,
            key=self._key(request.csr_pem, request.key_type),
            request=stored_request(caller, request.idempotency_key, request.digest),
            now=self.now(),
            label=request.label,
        )

    def _key(self, csr_pem: bytes | None, key_type: KeyType) -> Callable[[], LeafKey]:
        """The CSR's key, refused here if it is to be; or one of ours, made when asked for."""
        if csr_pem is None:
            return cache(partial(self._made_key, key_type))
        public = key_in(csr_pem, self.authorities)
        return lambda: LeafKey(public, None)

    def _made_key(self, key_type: KeyType) -> LeafKey:
        made = self.make_key(key_type)
        return LeafKey(made.public_key(), keys.private_key_pem(made).decode())

    def _successor_key(
        self, old: CertificateRecord, csr_pem: bytes | None
    ) -> Callable[[], LeafKey]:
        public = leaves.public_key_in(old.certificate_pem)
        if csr_pem is None and not old.made_key:
            return lambda: LeafKey(public, None)
        return self._key(csr_pem, keys.type_of(public) if csr_pem is None else KeyType.EC_P256)

    def _record(
        self,
        order: Order,
        succession: Succession | None = None,
        reread: Callable[[], Succession | None] = lambda: None,
    ) -> Issued:
        """Record it and hand it out; or what the same request got before."""
        recorded = self.recording.record(order, succession, reread)
        if isinstance(recorded, StoredRequest):
            digest = "" if order.request is None else order.request.digest
            return self._again(recorded, digest, order.now)
        return self.delivering.deliver(recorded.record, recorded.private_pem, order.now)

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
