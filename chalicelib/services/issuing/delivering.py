"""Hand certificates out: now, and again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from chalicelib.domain.bundle import KEY_BUNDLE_LIFETIME, Bundle, expired, private_key_in
from chalicelib.domain.model import CertificateRecord
from chalicelib.domain.pki import leaves
from chalicelib.domain.pki.authorities import authority_id
from chalicelib.errors import Conflict, DependencyFailed
from chalicelib.services.issuing.needs import Authorities, Bundles, Issued

log = logging.getLogger(__name__)

# API Gateway lets no request live longer (29 seconds), so what is older is not in progress.
_LONGEST_REQUEST = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Delivering:
    """registry: host or host:port. registry_address: for hosts whose DNS lacks it, or ""."""

    authorities: Authorities
    bundles: Bundles
    registry: str
    registry_address: str

    def deliver(self, record: CertificateRecord, private_pem: str | None, now: datetime) -> Issued:
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

    def again(self, record: CertificateRecord, now: datetime) -> Issued:
        """The answer to a request that was answered before. Raises Conflict, DependencyFailed."""
        _refuse_revoked(record)
        self._refuse_of_no_use(record)
        if not record.made_key:
            return self.deliver(record, None, now)
        archive = self.bundles.get(record.serial)
        if archive is None and now < record.issued_at + _LONGEST_REQUEST:
            raise unfinished()
        if archive is None:
            raise Conflict(
                "key_lost",
                f"certificate {record.serial} was recorded, but its private key was lost on the "
                "way; revoke it and ask again with a new Idempotency-Key",
            )
        return self._from_archive(record, archive, now)

    def later(self, record: CertificateRecord, now: datetime) -> Issued:
        """A bundle asked for again. Raises Conflict, DependencyFailed, NotFound (the key is gone).

        A key is kept for a day; what is left of one after that is not handed out.
        """
        _refuse_revoked(record)
        if not record.made_key:
            return self.deliver(record, None, now)
        archive = None
        if now < record.issued_at + KEY_BUNDLE_LIFETIME:
            archive = self.bundles.get(record.serial)
        if archive is None:
            raise expired()
        return self._from_archive(record, archive, now)

    def withdraw(self, record: CertificateRecord) -> None:
        """Have a stored private key gone; should that fail, it goes by itself within days."""
        if not record.made_key:
            return
        try:
            self.bundles.delete(record.serial)
        except DependencyFailed:
            log.error("the bundle of revoked %s was not deleted", record.serial)

    def _refuse_of_no_use(self, record: CertificateRecord) -> None:
        """The same request again is to bring something that works."""
        if self._issuer_pem(record):
            return
        self.authorities.reread()  # its CA may be newer than what is known
        if not self._issuer_pem(record):
            raise Conflict(
                "certificate_revoked",
                f"certificate {record.serial} is of a CA that is not trusted any more; ask for a "
                "new one",
            )

    def _from_archive(self, record: CertificateRecord, archive: bytes, now: datetime) -> Issued:
        """What was delivered before: the private key is in the stored bundle and nowhere else."""
        bundle = self._bundle(record, private_key_in(archive))
        return Issued(record, bundle, self.bundles.link(record.serial, now))

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


def unfinished() -> DependencyFailed:
    """What to raise when an earlier request of the same key still runs."""
    return DependencyFailed("busy", "the first request is not finished yet; ask again")


def _refuse_revoked(record: CertificateRecord) -> None:
    if record.revoked_at is not None:
        raise revoked(record)


def revoked(record: CertificateRecord) -> Conflict:
    """What to raise when something is asked of a certificate that is revoked."""
    return Conflict(
        "certificate_revoked",
        f"certificate {record.serial} was revoked ({record.revocation_reason}); ask for a new one",
    )
