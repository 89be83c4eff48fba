"""Keep the published trust current: CA certificates and revocation lists."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from cryptography import x509

from chalicelib.domain.model import CertificateRecord
from chalicelib.domain.pki import crl, leaves
from chalicelib.domain.pki.authorities import Authority, authority_id
from chalicelib.domain.policy import LONGEST_LIFETIME
from chalicelib.domain.trust import PublishedTrust, Trust
from chalicelib.errors import Contended, DependencyFailed, Misconfigured

log = logging.getLogger(__name__)

# How old the lists may grow while nothing is revoked.
LONGEST_PAUSE = timedelta(hours=1)

# Of those that publish at once one wins each round, and the others mostly find theirs published.
ATTEMPTS = 8

# No attempt but the first begins later than this: who waits for the answer has 29 seconds (API
# Gateway), and must still hear that the list is not published.
LAST_BEGIN = timedelta(seconds=12)

# How long to let another finish that is in the middle of it: a few writes take well under a second.
PATIENCE = timedelta(seconds=2)
PAUSE_SECONDS = 0.2

# How many of the serials that a message is about it names.
_NAMED = 10

_CLOCKS_DIFFER = timedelta(days=1)


class Authorities(Protocol):
    """The CAs in force."""

    def reread(self) -> None:
        """Forget what was read of them: a rotation may have changed it."""

    def client_signers(self) -> Sequence[Authority]:
        """Every client CA the registry admits clients of: each signs its own CRL."""

    def server_certificates(self) -> Sequence[x509.Certificate]:
        """Those clients trust the registry by."""


class Revocations(Protocol):
    """What has been revoked."""

    def revocations(self, issuer_id: str, since: datetime) -> Iterable[Mapping[str, str]]:
        """The issuer's rows, as they were stored, of what had not ended at *since*."""

    def pending(self) -> Sequence[str]:
        """Serials that no published list is known to show yet."""

    def settle(self, serials: Sequence[str]) -> None:
        """A published list shows these now."""

    def next_crl_number(self, above: int) -> int:
        """Greater than any before, and than *above*."""


class Publication(Protocol):
    """Where the trust is published."""

    def read_trust(self) -> Trust:
        """As last published. Raises Misconfigured when it never was."""

    def published(self) -> PublishedTrust:
        """The same with what publish() compares, and without complaint if it never was."""

    def publish(self, trust: Trust, instead_of: PublishedTrust) -> None:
        """Write it. Raises Contended when other than *instead_of* is there by now."""


@dataclass(frozen=True, slots=True)
class TrustKeeper:
    """registry: host or host:port. registry_address: for hosts whose DNS lacks it, or "".

    pause: wait for so many seconds.
    """

    authorities: Authorities
    revocations: Revocations
    publication: Publication
    registry: str
    registry_address: str
    now: Callable[[], datetime]
    pause: Callable[[float], None]

    def current(self) -> Trust:
        """As last published. Raises Misconfigured when it never was."""
        return self.publication.read_trust()

    def keep(self) -> Trust | None:
        """Refresh what is published if it is time to, or if it lacks a revocation; else None.

        Raises as refresh().
        """
        if not self._due(self.publication.published()) and not self.revocations.pending():
            return None
        return self.refresh()

    def refresh(self) -> Trust:
        """Sign a new CRL for each client CA and publish all of the trust.

        Raises Misconfigured, DependencyFailed; then what was published before stands.
        """
        return self._publish_unless(lambda published: False)

    def show_revoked(self, records: Sequence[CertificateRecord]) -> int | None:
        """Have a published list show these, and return its number; None if it is not to.

        No list is there for a CA that was retired, and nobody is admitted by it. Raises as
        refresh().
        """
        trust = self._publish_unless(lambda published: _shows(published, records))
        return trust.crl_number if _of_its_authorities(trust, records) else None

    def _publish_unless(self, settled: Callable[[Trust], bool]) -> Trust:
        """Publish; where others publish at once, theirs does if it is *settled* with it.

        What was published is read before the CRL number is drawn and all else is read, and must
        still stand when ours is written. So each publication saw what those before it saw, its
        number is greater, and nothing that was revoked before it began is missing from it.
        """
        latest = self.now() + LAST_BEGIN
        for attempt in range(ATTEMPTS):
            before = self._undisturbed()
            if before.trust is not None and before.whole and settled(before.trust):
                return before.trust
            if attempt > 0 and self.now() > latest:
                break
            number = self.revocations.next_crl_number(before.number)
            pending = self.revocations.pending()
            trust = self._trust(number, crl.readable_lists(before.crl))
            try:
                self.publication.publish(trust, before)
            except Contended:
                continue
            log.info("published trust %s with CRL number %d", trust.version, number)
            self.revocations.settle(pending)
            return trust
        raise DependencyFailed("busy", "too many publish at once; ask again")

    def _undisturbed(self) -> PublishedTrust:
        """What is published, once nobody is writing it any more; who never ends was broken off.

        Whoever starts meanwhile overtakes the one that writes, and that one would start again.
        """
        end = self.now() + PATIENCE
        while True:
            published = self.publication.published()
            if published.whole or not published.versions or self.now() >= end:
                return published
            self.pause(PAUSE_SECONDS)

    def _trust(self, number: int, before: Sequence[crl.PublishedCrl]) -> Trust:
        now = self.now()
        self.authorities.reread()
        signers = self.authorities.client_signers()
        return Trust(
            registry=self.registry,
            registry_address=self.registry_address,
            ca_bundle=_pem(self.authorities.server_certificates()),
            client_ca=_pem([signer.certificate for signer in signers]),
            crl="".join(self._crl(signer, number, now, before) for signer in signers),
            crl_number=number,
        )

    def _crl(
        self, signer: Authority, number: int, now: datetime, before: Sequence[crl.PublishedCrl]
    ) -> str:
        """One that lacks a row nobody can read is better than none; but somebody has to look.

        before: the lists that were published last. What this CA's own shows is shown again until
        its row says that the certificate has ended: the rows may be those of a table that was
        restored from a backup, or made anew.
        """
        lists = [each for each in before if each.signed_by(signer.certificate)]
        # A certificate is admitted up to its end by the registry's clock, which may be slow.
        end = now - crl.BACKDATE
        since = min([end, *(each.this_update for each in lists)])
        rows = list(self.revocations.revocations(signer.id, since))
        read = crl.readable(row for row in rows if not crl.ended(row, end))
        for key in read.skipped:
            log.error("UNREADABLE_REVOCATION %r is not on the list of CA %s", key, signer.id)
        for serial in read.mended:
            log.error("UNREADABLE_REVOCATION %s is listed without its date or reason", serial)
        known = {each.serial for each in crl.readable(rows).revocations}
        lost = [each for one in lists for each in one.others_than(known) if _may_stand(each, now)]
        if lost:
            some = ", ".join(format(each.serial, "040x") for each in lost[:_NAMED])
            log.error(
                "UNREADABLE_REVOCATION %d rows of CA %s are lost: %s", len(lost), signer.id, some
            )
        return crl.sign_crl(signer, number, now, [*read.revocations, *lost])

    def _due(self, published: PublishedTrust) -> bool:
        if published.trust is None or not published.whole:
            return True
        try:
            lists = crl.read_bundle(published.trust.crl)
        except Misconfigured:
            return True
        oldest = min((each.this_update for each in lists), default=None)
        return oldest is None or self.now() >= oldest + crl.BACKDATE + LONGEST_PAUSE


def _may_stand(revocation: crl.Revocation, now: datetime) -> bool:
    """Whether what was revoked then may not have ended yet: it was issued before that."""
    date = revocation.revoked_at
    return date == crl.UNKNOWN_DATE or now <= date + LONGEST_LIFETIME + _CLOCKS_DIFFER


def _of_its_authorities(
    trust: Trust, records: Sequence[CertificateRecord]
) -> Sequence[CertificateRecord]:
    """Those that a client CA of the trust signed."""
    certificates = x509.load_pem_x509_certificates(trust.client_ca.encode())
    trusted = {authority_id(certificate) for certificate in certificates}
    return [record for record in records if record.issuer_id in trusted]


def _shows(trust: Trust, records: Sequence[CertificateRecord]) -> bool:
    """Whether its lists show these. What is broken shows nothing, and is to be replaced."""
    try:
        lists = crl.read_bundle(trust.crl)
        expected = _of_its_authorities(trust, records)
    except (Misconfigured, ValueError):
        return False
    return all(any(each.listed(int(one.serial, 16)) for each in lists) for one in expected)


def _pem(certificates: Sequence[x509.Certificate]) -> str:
    return "".join(map(leaves.certificate_pem, certificates))
