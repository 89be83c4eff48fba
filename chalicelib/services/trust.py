"""Keep the published trust current: CA certificates and revocation lists."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509

from chalicelib.domain.pki import crl, leaves
from chalicelib.domain.pki.authorities import Authority
from chalicelib.domain.trust import Trust

log = logging.getLogger(__name__)


class Authorities(Protocol):
    """The CAs in force."""

    def client_signers(self) -> Sequence[Authority]:
        """Every client CA the registry admits clients of: each signs its own CRL."""

    def server_certificates(self) -> Sequence[x509.Certificate]:
        """Those clients trust the registry by."""


class Revocations(Protocol):
    """What has been revoked."""

    def revocations(self, issuer_id: str, now: datetime) -> Sequence[crl.Revocation]:
        """Those that the issuer's CRL must list."""

    def next_crl_number(self) -> int:
        """Greater than any before."""


class Publication(Protocol):
    """Where the trust is published."""

    def publish(self, trust: Trust) -> None:
        """Write it."""

    def read_trust(self) -> Trust:
        """As last published."""


@dataclass(frozen=True, slots=True)
class TrustKeeper:
    """registry: host or host:port. registry_address: for hosts whose DNS lacks it, or ""."""

    authorities: Authorities
    revocations: Revocations
    publication: Publication
    registry: str
    registry_address: str
    now: Callable[[], datetime]

    def current(self) -> Trust:
        """As last published. Raises Misconfigured when it never was."""
        return self.publication.read_trust()

    def refresh(self) -> Trust:
        """Sign a new CRL for each client CA and publish all of the trust.

        Raises Misconfigured, DependencyFailed; then what was published before stands.
        """
        now, number = self.now(), self.revocations.next_crl_number()
        signers = self.authorities.client_signers()
        trust = Trust(
            registry=self.registry,
            registry_address=self.registry_address,
            ca_bundle=_pem(self.authorities.server_certificates()),
            client_ca=_pem([signer.certificate for signer in signers]),
            crl="".join(self._crl(signer, number, now) for signer in signers),
            crl_number=number,
        )
        self.publication.publish(trust)
        log.info("published trust %s with CRL number %d", trust.version, number)
        return trust

    def _crl(self, signer: Authority, number: int, now: datetime) -> str:
        return crl.sign_crl(signer, number, now, self.revocations.revocations(signer.id, now))


def _pem(certificates: Sequence[x509.Certificate]) -> str:
    return "".join(map(leaves.certificate_pem, certificates))
