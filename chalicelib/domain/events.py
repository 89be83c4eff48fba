"""What the rest of the account is told, and which change of a record is worth telling.

A detail is for whoever may read the bus: no PEM, and no label, which is free text and may hold
anything. docs/events.md says what a field means. A change that could break a reader
makes a new VERSION.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from chalicelib.domain.model import CertificateRecord

SOURCE = "registry-trust"
VERSION = 1

Detail = Mapping[str, str | int | None]


class DetailType(StrEnum):
    """The kinds of events."""

    CERTIFICATE_ISSUED = "CertificateIssued"
    CERTIFICATE_REVOKED = "CertificateRevoked"


@dataclass(frozen=True, slots=True)
class Event:
    """*serial*: whose it is. *time*: when it happened, not when it is told."""

    detail_type: DetailType
    serial: str
    time: datetime
    detail: Detail


def event_of(
    stage: str, before: CertificateRecord | None, after: CertificateRecord | None
) -> Event | None:
    """What a change of one record means to others; None when it means nothing to them.

    stage: the deployment that it is of; all of an account share one bus.
    before, after: None where there is no record. The registry's own server certificates, those
    without access, let nobody in, follow one another without an act of anybody's and are not
    revoked: they make no events.
    """
    if after is None or after.access is None:
        return None
    if before is None:
        return _issued(stage, after)
    if before.revoked_at is None and after.revoked_at is not None:
        return _revoked(stage, after, after.revoked_at)
    return None


def _issued(stage: str, record: CertificateRecord) -> Event:
    detail = _certificate(stage, record)
    return Event(DetailType.CERTIFICATE_ISSUED, record.serial, record.issued_at, detail)


def _revoked(stage: str, record: CertificateRecord, revoked_at: datetime) -> Event:
    detail = {
        **_certificate(stage, record),
        "revoked_at": _rfc3339(revoked_at),
        "reason": record.revocation_reason,
        "revoked_by": record.revoked_by,
    }
    return Event(DetailType.CERTIFICATE_REVOKED, record.serial, revoked_at, detail)


def _certificate(stage: str, record: CertificateRecord) -> Detail:
    return {
        "version": VERSION,
        "stage": stage,
        "serial": record.serial,
        "name": record.name,
        "owner": record.owner,
        "access": record.access,
        "issuer_id": record.issuer_id,
        "fingerprint_sha256": record.fingerprint_sha256,
        "not_before": _rfc3339(record.validity.not_before),
        "not_after": _rfc3339(record.validity.not_after),
        "issued_at": _rfc3339(record.issued_at),
        "issued_by": record.issued_by,
        "renews": record.renews,
    }


def _rfc3339(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
