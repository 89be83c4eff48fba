"""What the API shows of a certificate, and the forms a bundle is answered in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from chalice import Response

from chalicelib.domain.installer import installer
from chalicelib.domain.model import CertificateRecord
from chalicelib.entrypoints.http import GZIP, JSON, PEM, SHELL, json_answer
from chalicelib.services.issuing import Issued

FORMS = (JSON, PEM, GZIP, SHELL)


def certificate_summary(record: CertificateRecord, now: datetime) -> dict[str, Any]:
    """As lists show it."""
    shown: dict[str, Any] = {
        "serial": record.serial,
        "name": record.name,
        "owner": record.owner,
        "access": record.access,
        "status": record.status(now),
        "issued_at": rfc3339(record.issued_at),
        "not_before": rfc3339(record.validity.not_before),
        "not_after": rfc3339(record.validity.not_after),
        "fingerprint_sha256": record.fingerprint_sha256,
        "issuer_id": record.issuer_id,
        "label": record.label,
    }
    if record.revoked_at is not None:
        shown["revoked_at"] = rfc3339(record.revoked_at)
        shown["revocation_reason"] = record.revocation_reason
    return shown


def certificate_document(record: CertificateRecord, now: datetime) -> dict[str, Any]:
    """One certificate, with its PEM."""
    return {**certificate_summary(record, now), "certificate": record.certificate_pem}


def issued_answer(issued: Issued, form: str, now: datetime, status: int) -> Response:
    """The certificate in the chosen *form*."""
    bundle, record = issued.bundle, issued.record
    headers = {"Cache-Control": "no-store"}
    if status == 201:
        headers["Location"] = f"/certs/{record.serial}"
    if form == JSON:
        return json_answer(_issued_document(issued, now), status, **headers)
    content: str | bytes
    if form == GZIP:
        content = bundle.tar_gz(record.issued_at)
        headers["Content-Disposition"] = f'attachment; filename="{record.name}.tar.gz"'
    else:
        content = bundle.pem() if form == PEM else installer(bundle)
    return Response(body=content, status_code=status, headers={"Content-Type": form, **headers})


def _issued_document(issued: Issued, now: datetime) -> dict[str, Any]:
    bundle, link = issued.bundle, issued.link
    document = {
        **certificate_document(issued.record, now),
        "chain": bundle.issuer,
        "ca_bundle": bundle.ca_bundle,
        "registry": bundle.registry,
        "bundle": link
        and {"uri": link.uri, "url": link.url, "expires_at": rfc3339(link.expires_at)},
    }
    if bundle.private_key is not None:
        document["private_key"] = bundle.private_key
    return document


def rfc3339(time: datetime) -> str:
    """UTC to the second, as all times in the API are."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
