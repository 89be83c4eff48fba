"""Whose a certificate is: its owner sees and touches it, and for others it does not exist."""

from __future__ import annotations

import re

from chalicelib.domain.model import Caller, CertificateRecord
from chalicelib.errors import NotFound

_SERIAL = re.compile(r"[0-9a-f]{1,40}")


def owned(record: CertificateRecord | None, caller: Caller) -> CertificateRecord:
    """The record, which is the caller's. Raises NotFound, for anybody else's as for none."""
    if record is None or record.owner != caller.arn:
        raise NotFound("certificate_not_found", "you have no certificate with this serial")
    return record


def existing(record: CertificateRecord | None) -> CertificateRecord:
    """The record, whose it may be; for admins. Raises NotFound."""
    if record is None:
        raise NotFound("certificate_not_found", "there is no certificate with this serial")
    return record


def canonical_serial(text: str) -> str | None:
    """40 lower-case hex digits; None for what is no serial.

    Understands what people paste: openssl and nginx print capitals, unpadded, or with colons.
    """
    digits = text.strip().lower().replace(":", "")
    return digits.zfill(40) if _SERIAL.fullmatch(digits) else None
