"""A stand-in for what a booting instance talks to: the metadata service, and our POST /certs.

Real signatures are demanded, real certificates handed out in real installers, and an
Idempotency-Key is kept as our API keeps it. What it is for are the faults: an answer that is lost,
a tag that comes late, a key that was revoked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography import x509

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.installer import installer
from chalicelib.domain.trust import Trust
from tests.component.cloud_stand_in import API_PATH, Cloud, Request, signature_fault
from tests.component.instance_machine import INSTANCE, spki
from tests.component.throwaway_pki import ThrowawayCa, certificate_pem, now, subject

CERTS = f"{API_PATH}/certs"
Fault = Callable[[], tuple[int, bytes]]


def problem(status: int, code: str) -> Fault:
    """An answer that our API would give."""
    body = {"title": code, "status": status, "detail": f"because of {code}", "code": code}
    return lambda: (status, json.dumps(body).encode())


@dataclass
class BootCloud(Cloud):
    """issued: one entry a certificate, not an answer. life: from now on, of those to come.

    before: how the next requests are answered instead. lost: how many answers get lost after that.
    next_server_ca: trusted, signs nothing yet. late: how many installers come without it all the
    same. trusted_clients: client CAs in the trust; without any, the one that signs.
    trust_fault: how GET /trust is answered instead. no_role: how often the metadata service knows
    of no role yet.
    """

    client_ca: ThrowawayCa = field(default_factory=lambda: ThrowawayCa("Clients"))
    registry: str = ""
    address: str = ""
    life: tuple[timedelta, timedelta] = (timedelta(days=-1), timedelta(days=30))
    issued: list[x509.Certificate] = field(default_factory=list)
    revoked_keys: set[bytes] = field(default_factory=set)
    before: list[Fault] = field(default_factory=list)
    lost: int = 0
    next_server_ca: ThrowawayCa | None = None
    late: int = 0
    trusted_clients: list[ThrowawayCa] = field(default_factory=list)
    trust_fault: Fault | None = None
    no_role: int = 0
    answered: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def asks(self) -> list[Request]:
        return [each for each in self.requests if each.path == CERTS]

    def answer(self, request: Request) -> tuple[int, bytes]:
        if request.path == "/latest/meta-data/instance-id":
            super().answer(request)
            known = request.headers.get("x-aws-ec2-metadata-token") == "imds-token=="
            return (200, INSTANCE.encode()) if known else (401, b"")
        if request.path.endswith("/security-credentials/") and self.no_role:
            self.no_role -= 1
            return 404, b""
        if (request.method, request.path) == ("POST", CERTS):
            self.requests.append(request)
            return self.certs(request)
        if (request.method, request.path) == ("GET", f"{API_PATH}/trust"):
            self.requests.append(request)
            return self.published(request)
        return super().answer(request)

    @property
    def trust(self) -> Trust:
        crl = "-----BEGIN X509 CRL-----\n" + "A" * 300_000  # of tens of thousands of revocations
        clients = self.trusted_clients or [self.client_ca]
        client_ca = "".join(each.pem.decode() for each in clients)
        return Trust(self.registry, self.address, self.ca_bundle, client_ca, crl, 7)

    @property
    def ca_bundle(self) -> str:
        pending = [self.next_server_ca] if self.next_server_ca else []
        return "".join(each.pem.decode() for each in [self.server_ca, *pending])

    def published(self, request: Request) -> tuple[int, bytes]:
        if wrong := signature_fault(request, self.url, "execute-api"):
            return 403, json.dumps({"message": wrong}).encode()
        if self.trust_fault:
            return self.trust_fault()
        return 200, json.dumps(self.trust.to_json(), separators=(",", ":")).encode()

    def certs(self, request: Request) -> tuple[int, bytes]:
        if wrong := signature_fault(request, self.url, "execute-api"):
            return 403, json.dumps({"message": wrong}).encode()
        if self.before:
            return self.before.pop(0)()
        asked = (request.headers["accept"], request.headers["content-type"])
        assert asked == ("text/x-shellscript", "application/x-pem-file")
        csr = x509.load_pem_x509_csr(request.body)
        assert csr.is_signature_valid
        key = request.headers["idempotency-key"]
        assert 1 <= len(key) <= 64
        body, script = self.answered.get(key, (request.body, b""))
        if body != request.body:
            return problem(409, "idempotency_key_reused")()
        if not script:
            if spki(csr.public_key()) in self.revoked_keys:
                return problem(409, "key_revoked")()
            script = self.issue(csr)
            self.answered[key] = (body, script)
        if self.lost:
            self.lost -= 1
            return 504, b'{"message": "Endpoint request timed out"}'
        return 201, script

    def issue(self, csr: x509.CertificateSigningRequest) -> bytes:
        start, end = (now() + each for each in self.life)
        certificate = self.client_ca.certify(
            csr.public_key(),
            subject(INSTANCE, "pull"),
            not_before=start,
            not_after=end,  # type: ignore[arg-type]
        )
        self.issued.append(certificate)
        pem, ca = certificate_pem(certificate).decode(), self.ca_bundle
        if self.late:
            self.late, ca = self.late - 1, self.server_ca.pem.decode()
        return installer(Bundle(self.registry, ca, pem, ca, None, self.address)).encode()
