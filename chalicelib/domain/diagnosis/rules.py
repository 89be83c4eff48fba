"""What nginx goes by when a client shows its certificate: the published trust, read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from chalicelib.domain.pki.certificates import is_signed_by, owner_in
from chalicelib.domain.pki.crl import PublishedCrl, read_bundle
from chalicelib.domain.trust import Trust
from chalicelib.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Rules:
    """The client CAs, the server CAs, and the revocation lists."""

    clients: tuple[x509.Certificate, ...]
    servers: tuple[x509.Certificate, ...]
    lists: tuple[PublishedCrl, ...]

    @classmethod
    def of(cls, trust: Trust) -> Rules:
        """Raises Misconfigured when the trust cannot be read."""
        return cls(_read(trust.client_ca), _read(trust.ca_bundle), read_bundle(trust.crl))

    def is_ca(self, certificate: x509.Certificate) -> bool:
        """Whether it is one of our CAs itself."""
        return certificate in (*self.clients, *self.servers)

    def signer(self, certificate: x509.Certificate) -> x509.Certificate | None:
        """The client CA that did sign it; None also for a CA itself."""
        if self.is_ca(certificate):
            return None
        return next((ca for ca in self.clients if is_signed_by(certificate, ca)), None)

    def is_servers(self, certificate: x509.Certificate) -> bool:
        """Whether a server CA signed it: then it is the registry's."""
        return any(is_signed_by(certificate, ca) for ca in self.servers)

    def claims_signer(self, certificate: x509.Certificate) -> bool:
        """Whether it names one of our CAs as its issuer, truly or not."""
        return any(certificate.issuer == ca.subject for ca in (*self.clients, *self.servers))

    def list_of(self, ca: x509.Certificate, now: datetime) -> PublishedCrl | None:
        """The one that OpenSSL picks among those that name *ca*: in force, then newest."""
        named = [crl for crl in self.lists if crl.names(ca)]
        return max(named, key=lambda crl: (crl.current(now), crl.this_update), default=None)

    def may_be_told(self, certificate: x509.Certificate, arn: str) -> bool:
        """Whether *certificate* is *arn*'s to ask about.

        Only what our CA signed is anybody's, and its owner stands in it. All else a caller may
        have made himself: to be told that it is refused tells him nothing.
        """
        return self.signer(certificate) is None or owner_in(certificate) == arn


def _read(bundle: str) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(bundle.encode()))
    except ValueError as error:
        raise Misconfigured("unreadable_trust", "a published CA certificate is broken") from error
