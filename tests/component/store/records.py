"""Records to store, and everything that is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from chalicelib.domain.model import Access, CertificateRecord, Validity
from tests.component.emulated_aws import EmulatedAws

NOW = datetime.now(UTC).replace(microsecond=123456)  # the emulator expires items by a real clock
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
_numbers = count(1)


def new_number() -> int:
    """Greater than any before."""
    return next(_numbers)


def record(owner: str, slot: int | None = 0, **changes: Any) -> CertificateRecord:
    number = new_number()
    start = NOW.replace(microsecond=0)
    made = CertificateRecord(
        serial=f"{number:040x}",
        owner=owner,
        name="ann",
        access=Access.PULL,
        issued_at=NOW + timedelta(milliseconds=number),
        validity=Validity(start, start + 30 * DAY),
        fingerprint_sha256=f"{number:064x}",
        issuer_id="0123456789abcdef",
        key_id=f"{number:064x}",
        made_key=False,
        label="Ann's laptop",
        slot=slot,
        certificate_pem="-----BEGIN CERTIFICATE-----\n",
    )
    return replace(made, **changes)


def rows(aws: EmulatedAws) -> tuple[list[Any], list[Any]]:
    """Everything in both tables."""
    client = aws.client("dynamodb")
    tables = [
        client.get_paginator("scan").paginate(TableName=name) for name in ("certificates", "state")
    ]
    certificates, state = (
        sorted((item for page in pages for item in page["Items"]), key=str) for pages in tables
    )
    return certificates, state
