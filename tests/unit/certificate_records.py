"""Records of certificates, without the certificates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from chalicelib.domain.model import Access, CertificateRecord, Validity

ISSUED_AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
RECORD = CertificateRecord(
    serial="5a" * 20,
    owner="arn:aws:iam::123456789012:user/ann",
    name="ann",
    access=Access.PUSH,
    issued_at=ISSUED_AT,
    validity=Validity(
        datetime(2026, 1, 2, 2, 59, 5, tzinfo=UTC), datetime(2026, 4, 2, 3, 4, 5, tzinfo=UTC)
    ),
    fingerprint_sha256="f1" * 32,
    issuer_id="0123456789abcdef",
    key_id="4e" * 32,
    made_key=True,
    label="ann's laptop",
    slot=3,
    certificate_pem="-----BEGIN CERTIFICATE-----",
)


def record(**changes: Any) -> CertificateRecord:
    """The same with other values."""
    return replace(RECORD, **changes)
