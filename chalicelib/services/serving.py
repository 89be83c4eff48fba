"""The registry's own certificate, for the machine that serves it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509

from chalicelib.domain import policy
from chalicelib.domain.model import Caller, CertificateRecord
from chalicelib.domain.pki import leaves
from chalicelib.domain.pki.authorities import Authority, refuse_authority_key
from chalicelib.domain.pki.requests import public_key_of_csr
from chalicelib.errors import Forbidden

log = logging.getLogger(__name__)


class Records(Protocol):
    """Where certificates are recorded."""

    def add_outside_quota(self, record: CertificateRecord) -> None:
        """Write it."""


class Authorities(Protocol):
    """The CAs in force."""

    def reread(self) -> None:
        """Read which there are now: what is known of them may be a minute old."""

    def server(self) -> Authority:
        """The one that signs the registry's certificate."""

    def client_certificates(self) -> Sequence[x509.Certificate]:
        """Those the registry admits clients of."""

    def server_certificates(self) -> Sequence[x509.Certificate]:
        """Those clients trust the registry by."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The certificate, and the CAs that clients verify it with, in PEM."""

    record: CertificateRecord
    chain: str


@dataclass(frozen=True, slots=True)
class Serving:
    """host: the registry's, without port. role: the one that registry hosts run under."""

    authorities: Authorities
    records: Records
    host: str
    role: str
    now: Callable[[], datetime]
    new_serial: Callable[[], int]

    def issue(self, csr_pem: bytes, caller: Caller) -> ServerCertificate:
        """A certificate for the configured host name, whatever names the CSR asks for.

        By the CA that signs at this moment. Raises Forbidden for all callers but the registry host,
        InvalidRequest for the CSR, DependencyFailed.
        """
        if caller.role != self.role:
            raise Forbidden("not_the_registry_host", "only the registry host may have this")
        key = public_key_of_csr(csr_pem)
        # It asks every two months, or because another CA signs since just now.
        self.authorities.reread()
        refuse_authority_key(key, self.authorities.client_certificates())
        refuse_authority_key(key, self.authorities.server_certificates())
        now, issuer, serial = self.now(), self.authorities.server(), self.new_serial()
        end = issuer.certificate.not_valid_after_utc
        validity = policy.validity(now, policy.SERVER_LIFETIME, end)
        certificate = leaves.sign_server_leaf(issuer, self.host, key, serial, validity)
        record = leaves.record_of_server(certificate, issuer, self.host, caller.arn, now)
        self.records.add_outside_quota(record)
        log.info("issued %s for the registry to %s", record.serial, record.owner)
        trusted = self.authorities.server_certificates()
        return ServerCertificate(record, "".join(map(leaves.certificate_pem, trusted)))
