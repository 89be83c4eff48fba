"""Issue certificates, and look them up. Owners see their own; all else does not exist for them."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Protocol

from cryptography import x509

from chalicelib.domain import policy
from chalicelib.domain.bundle import KEY_BUNDLE_LIFETIME, Bundle, expired, private_key_in
from chalicelib.domain.model import (
    BundleLink,
    Caller,
    CertificatePage,
    CertificateRecord,
    Grant,
    InstanceFacts,
    IssueRequest,
    KeyType,
    QuotaSlot,
    Status,
    StoredRequest,
)
from chalicelib.domain.pki import keys, leaves
from chalicelib.domain.pki.authorities import Authority, authority_id, refuse_authority_key
from chalicelib.domain.pki.requests import public_key_of_csr
from chalicelib.errors import (
    Conflict,
    Contended,
    DependencyFailed,
    NotFound,
    QuotaExceeded,
)

log = logging.getLogger(__name__)

# Requests that arrive together may pick the same quota slot; each try picks anew.
ATTEMPTS = 8

# API Gateway lets no request live longer (29 seconds), so what is older is not in progress.
_LONGEST_REQUEST = timedelta(seconds=30)


class Records(Protocol):
    """Where certificates are recorded."""

    def slots(self, owner: str) -> Sequence[QuotaSlot]:
        """The owner's taken quota slots, read consistently."""

    def add(
        self, record: CertificateRecord, request: StoredRequest | None, now: datetime
    ) -> StoredRequest | None:
        """Write it all, or nothing and answer what the idempotency key was used for before.

        Raises Contended when another request won the slot; InvalidRequest for a key that is
        revoked or another owner's.
        """

    def earlier_request(
        self, owner: str, idempotency_key: str, now: datetime
    ) -> StoredRequest | None:
        """What the key was used for in the last 24 hours."""

    def get(self, serial: str) -> CertificateRecord | None:
        """The record, read consistently."""

    def page(
        self, owner: str, status: Status | None, limit: int, cursor: str | None, now: datetime
    ) -> CertificatePage:
        """Up to *limit* of the owner's, newest first."""


class Bundles(Protocol):
    """Where bundles are kept."""

    def put(self, serial: str, tar_gz: bytes, *, holds_key: bool) -> None:
        """Store it."""

    def get(self, serial: str) -> bytes | None:
        """It, or None when it is not, or no longer, there."""

    def link(self, serial: str, now: datetime) -> BundleLink:
        """A link to it; makes no call."""


class Authorities(Protocol):
    """The CAs in force."""

    def client(self) -> Authority:
        """The one that signs client certificates."""

    def client_certificates(self) -> Sequence[x509.Certificate]:
        """Those the registry admits clients of."""

    def server_certificates(self) -> Sequence[x509.Certificate]:
        """Those clients trust the registry by."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with all its owner needs. link: None when the bundle could not be stored."""

    record: CertificateRecord
    bundle: Bundle
    link: BundleLink | None


@dataclass(frozen=True, slots=True)
class _LeafKey:
    public: keys.LeafPublicKey
    private_pem: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Issuing:
    """instance_facts: what EC2 says of an instance id. new_serial: positive, below 2**159.

    registry: host or host:port. registry_address: for hosts whose DNS lacks it, or "".
    """

    authorities: Authorities
    records: Records
    bundles: Bundles
    instance_facts: Callable[[str], InstanceFacts | None]
    limits: policy.Limits
    registry: str
    registry_address: str
    now: Callable[[], datetime]
    new_serial: Callable[[], int]
    make_key: Callable[[KeyType], keys.PrivateKey]
    chance: random.Random

    def issue(self, request: IssueRequest, caller: Caller) -> Issued:
        """Nothing leaves here, in an answer or a bundle, before its record is durable.

        Raises InvalidRequest, Forbidden, QuotaExceeded, Conflict, DependencyFailed.
        """
        now = self.now()
        facts = self.instance_facts(caller.instance_id) if caller.instance_id else None
        grant = policy.grant(request, caller, facts, self.limits)
        leaf_key = cache(partial(self._leaf_key, request))
        if request.csr_pem is not None:
            leaf_key()  # a refusal comes before any effect; making a key is dear, and waits
        for _ in range(ATTEMPTS):
            try:
                return self._issue_once(request, grant, leaf_key, now)
            except Contended:
                continue
        raise DependencyFailed("busy", "too many requests of yours at once; ask again")

    def _leaf_key(self, request: IssueRequest) -> _LeafKey:
        if request.csr_pem is None:
            made = self.make_key(request.key_type)
            return _LeafKey(made.public_key(), keys.private_key_pem(made).decode())
        public = public_key_of_csr(request.csr_pem)
        refuse_authority_key(public, self.authorities.client_certificates())
        refuse_authority_key(public, self.authorities.server_certificates())
        return _LeafKey(public, None)

    def _issue_once(
        self,
        request: IssueRequest,
        grant: Grant,
        leaf_key: Callable[[], _LeafKey],
        now: datetime,
    ) -> Issued:
        taken = self.records.slots(grant.owner)
        try:
            slot = policy.free_slot(taken, self.limits, now, self.chance)
        except QuotaExceeded:
            earlier = self._earlier(request, grant.owner, now)
            if earlier is None:
                raise
            return self._again(earlier, request, now)

        key = leaf_key()
        record = self._sign(request, grant, key, slot, now)
        earlier = self.records.add(record, _stored(request, record.serial), now)
        if earlier is not None:
            return self._again(earlier, request, now)
        log.info("issued %s, %s, to %s", record.serial, record.access, record.owner)
        return self._deliver(record, key.private_pem, now)

    def _sign(
        self, request: IssueRequest, grant: Grant, key: _LeafKey, slot: int, now: datetime
    ) -> CertificateRecord:
        issuer, serial = self.authorities.client(), self.new_serial()
        validity = policy.validity(now, grant.lifetime, issuer.certificate.not_valid_after_utc)
        certificate = leaves.sign_client_leaf(issuer, grant, key.public, serial, validity)
        return CertificateRecord(
            serial=leaves.serial_hex(serial),
            owner=grant.owner,
            name=grant.name,
            access=grant.access,
            issued_at=now,
            validity=validity,
            fingerprint_sha256=leaves.fingerprint(certificate),
            issuer_id=issuer.id,
            key_id=keys.key_id(key.public),
            made_key=key.private_pem is not None,
            label=request.label,
            slot=slot,
            certificate_pem=leaves.certificate_pem(certificate),
        )

    def _deliver(self, record: CertificateRecord, private_pem: str | None, now: datetime) -> Issued:
        """Store the bundle. Without it the answer still holds everything, so a failure is told
        by the missing link, and does not cost the caller the certificate just recorded."""
        bundle = self._bundle(record, private_pem)
        link = None
        try:
            archive = bundle.tar_gz(record.issued_at)
            self.bundles.put(record.serial, archive, holds_key=record.made_key)
            link = self.bundles.link(record.serial, now)
        except DependencyFailed:
            log.error("the bundle of %s was not stored", record.serial)
        return Issued(record, bundle, link)

    def _earlier(self, request: IssueRequest, owner: str, now: datetime) -> StoredRequest | None:
        if request.idempotency_key is None:
            return None
        return self.records.earlier_request(owner, request.idempotency_key, now)

    def _again(self, earlier: StoredRequest, request: IssueRequest, now: datetime) -> Issued:
        """The answer to a request that was answered before: the same certificate."""
        if earlier.digest != request.digest:
            raise Conflict(
                "idempotency_key_reused",
                "this Idempotency-Key was used for another request; choose a new one",
                field="Idempotency-Key",
            )
        record = self.records.get(earlier.serial)
        if record is None:
            raise _unfinished()
        if not record.made_key:
            return self._deliver(record, None, now)
        archive = self.bundles.get(record.serial)
        if archive is None and now < record.issued_at + _LONGEST_REQUEST:
            raise _unfinished()
        if archive is None:
            raise Conflict(
                "key_lost",
                f"certificate {record.serial} was recorded, but its private key was lost on the "
                "way; revoke it and ask again with a new Idempotency-Key",
            )
        return self._from_archive(record, archive, now)

    def _from_archive(self, record: CertificateRecord, archive: bytes, now: datetime) -> Issued:
        """What was delivered before: the private key is in the stored bundle and nowhere else."""
        bundle = self._bundle(record, private_key_in(archive))
        return Issued(record, bundle, self.bundles.link(record.serial, now))

    def look_up(self, serial: str, caller: Caller) -> CertificateRecord:
        """The caller's own certificate. Raises NotFound for anybody else's, as for none."""
        record = self.records.get(serial)
        if record is None or record.owner != caller.arn:
            raise NotFound("certificate_not_found", "you have no certificate with this serial")
        return record

    def page(
        self, caller: Caller, status: Status | None, limit: int, cursor: str | None
    ) -> CertificatePage:
        """Up to *limit* of the caller's own, newest first."""
        return self.records.page(caller.arn, status, limit, cursor, self.now())

    def bundle_again(self, serial: str, caller: Caller) -> Issued:
        """A bundle of the caller's own certificate. Raises NotFound, also when the key is gone."""
        record, now = self.look_up(serial, caller), self.now()
        if not record.made_key:
            return self._deliver(record, None, now)
        archive = None
        if now < record.issued_at + KEY_BUNDLE_LIFETIME:
            archive = self.bundles.get(serial)
        if archive is None:
            raise expired()
        return self._from_archive(record, archive, now)

    def _bundle(self, record: CertificateRecord, private_pem: str | None) -> Bundle:
        return Bundle(
            registry=self.registry,
            ca_bundle="".join(map(leaves.certificate_pem, self.authorities.server_certificates())),
            certificate=record.certificate_pem,
            issuer=self._issuer_pem(record),
            private_key=private_pem,
            registry_address=self.registry_address,
        )

    def _issuer_pem(self, record: CertificateRecord) -> str:
        """The CA that signed it; nothing once that CA has been retired."""
        known = self.authorities.client_certificates()
        return "".join(
            leaves.certificate_pem(ca) for ca in known if authority_id(ca) == record.issuer_id
        )


def _unfinished() -> DependencyFailed:
    return DependencyFailed("busy", "the first request is not finished yet; ask again")


def _stored(request: IssueRequest, serial: str) -> StoredRequest | None:
    if request.idempotency_key is None:
        return None
    return StoredRequest(request.idempotency_key, request.digest, serial)
