"""Certificates for EC2 instances that ask for nothing themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from chalicelib.domain import policy
from chalicelib.domain.enrolment.changes import ENROLMENT_LABEL
from chalicelib.domain.identity import identify
from chalicelib.domain.model import (
    CertificateRecord,
    InstanceFacts,
    IssueRequest,
    Status,
    StoredRequest,
    Succession,
)
from chalicelib.domain.pki import keys, leaves
from chalicelib.errors import Contended, DependencyFailed, Forbidden
from chalicelib.services.issuing.delivering import unfinished
from chalicelib.services.issuing.needs import Authorities, Records
from chalicelib.services.issuing.recording import (
    LeafKey,
    Order,
    Recording,
    key_in,
    stored_request,
)


@dataclass(frozen=True, slots=True)
class InstanceIssuing:
    """As Issuing, for callers that are instances; hands nothing out and stores no bundle.

    admitting: ids of the client CAs in the published trust, which is what instances are given.
    """

    authorities: Authorities
    records: Records
    recording: Recording
    limits: policy.Limits
    admitting: Callable[[], Collection[str]]
    now: Callable[[], datetime]

    def certify(
        self,
        instance: InstanceFacts,
        csr_pem: bytes,
        old: CertificateRecord | None,
        request_key: str,
    ) -> CertificateRecord:
        """A certificate of the CSR's key. What *old* certifies already, and well, is not repeated.

        old: what the instance has, or had. request_key: gets the same certificate for 24 hours.
        Raises Forbidden (no such instance runs with its role and tag), InvalidRequest (the CSR or
        its key), QuotaExceeded, DependencyFailed.
        """
        key = key_in(csr_pem, self.authorities)
        if old is not None and old.key_id == keys.key_id(key) and self.is_good(old, instance):
            return old
        return self._issue(instance, key, old, request_key)

    def renew(
        self, instance: InstanceFacts, old: CertificateRecord, request_key: str
    ) -> CertificateRecord:
        """A certificate of the same key as *old*, with the access that the tag has now.

        Raises as certify().
        """
        return self._issue(instance, leaves.public_key_in(old.certificate_pem), old, request_key)

    def is_good(self, record: CertificateRecord, instance: InstanceFacts) -> bool:
        """Whether the instance may go on with it: until the last third of its life, or until the
        registry does not trust its CA any more."""
        return (
            record.status(self.now()) is Status.ACTIVE
            and record.issuer_id in self.admitting()
            and self.now() < policy.renewal_due(record.validity)
            and record.access is instance.access
            and record.owner == instance.session_arn
        )

    def _issue(
        self,
        instance: InstanceFacts,
        key: keys.LeafPublicKey,
        old: CertificateRecord | None,
        request_key: str,
    ) -> CertificateRecord:
        if instance.session_arn is None:
            raise Forbidden("no_instance_profile", "the instance has no instance profile")
        if self.authorities.client().id not in self.admitting():
            self.authorities.reread()  # what was known of them may be of before a CA was distrusted
            if self.authorities.client().id not in self.admitting():
                # Each look would issue another that is no good until then.
                raise DependencyFailed("busy", "the CA that signs is not published yet; ask again")
        caller, now = identify(instance.session_arn), self.now()
        order = Order(
            grant=policy.grant(IssueRequest(), caller, instance, self.limits),
            key=lambda: LeafKey(key, None),
            request=stored_request(caller, request_key, keys.key_id(key)),
            now=now,
            label=ENROLMENT_LABEL,
        )
        succession = self._succession(old, caller.arn)
        recorded = self.recording.record(order, succession, lambda: self._reread(succession))
        if isinstance(recorded, StoredRequest):
            return self._earlier(recorded, keys.key_id(key))
        return recorded.record

    def _succession(self, old: CertificateRecord | None, owner: str) -> Succession | None:
        """What is revoked, or was another's, is followed by nothing: that begins a line anew."""
        if old is None or old.owner != owner or old.revoked_at is not None:
            return None
        return Succession(old, revoke=False)

    def _reread(self, succession: Succession | None) -> Succession | None:
        if succession is None:
            return None
        old = succession.old
        return self._succession(self.records.get(old.serial), old.owner)

    def _earlier(self, earlier: StoredRequest, key_id: str) -> CertificateRecord:
        record = self.records.get(earlier.serial)
        if record is None:
            raise unfinished()
        if record.key_id != key_id:
            raise Contended("busy", "this was asked for another key before")
        return record
