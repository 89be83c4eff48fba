"""From what services return to the documents and forms that the API answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from chalicelib.domain.diagnosis import Diagnosis
from chalicelib.domain.enrolment.model import Enrolment, EnrolmentPage
from chalicelib.domain.installer import installer
from chalicelib.domain.model import CertificatePage, CertificateRecord
from chalicelib.domain.trust import Trust
from chalicelib.entrypoints.http import documents
from chalicelib.entrypoints.http.audit import EnrolmentAsked, Granted
from chalicelib.entrypoints.http.blueprint import Answer, json_answer
from chalicelib.entrypoints.http.forms import GZIP, JSON, PEM, SHELL
from chalicelib.entrypoints.http.instance_documents import Instance, InstanceList
from chalicelib.entrypoints.http.operations import Answers
from chalicelib.services.issuing import Issued
from chalicelib.services.revoking import Revoked
from chalicelib.services.serving import ServerCertificate

FORMS = (JSON, PEM, GZIP, SHELL)
REVOKED = {
    200: Answers(
        description="It is revoked, and a published list names what has to be named.",
        document=documents.RevokedCertificate,
    ),
    202: Answers(
        description="It is revoked in the records; the list that tells the registry could not be "
        "published yet, which happens by itself within minutes, or with the next revocation.",
        document=documents.RevokedCertificate,
    ),
}

_Value = TypeVar("_Value")


def list_answer(page: CertificatePage, now: datetime) -> Answer:
    """One page."""
    shown = [documents.CertificateSummary(**_summary(each, now)) for each in page.records]
    return json_answer(documents.CertificateList(shown, page.cursor))


def certificate_answer(record: CertificateRecord, now: datetime) -> Answer:
    """One certificate."""
    return json_answer(documents.Certificate(**_certificate(record, now)))


def issued_answer(issued: Issued, form: str, now: datetime, collection: str) -> Answer:
    """A new certificate. collection: the path that it is found below."""
    document = documents.IssuedCertificate(**_issued(issued, now))
    return _created(issued, form, document, collection, _handed_out(issued))


def renewed_answer(issued: Issued, form: str, now: datetime, *, revoked_old: bool) -> Answer:
    """A successor."""
    pending, old = issued.crl_pending, issued.record.renews
    document = documents.RenewedCertificate(**_issued(issued, now), crl_pending=pending)
    granted = _handed_out(issued, renews=old)
    if revoked_old and old is not None:
        granted = _handed_out(issued, renews=old, also_revoked=(old,), crl_pending=pending)
    return _created(issued, form, document, "/certs", granted)


def bundle_answer(issued: Issued, form: str, now: datetime) -> Answer:
    """A bundle again. It grants something if it holds a private key; the rest is no secret."""
    granted = _handed_out(issued) if issued.bundle.private_key is not None else None
    document = documents.IssuedCertificate(**_issued(issued, now))
    return _in_form(issued, form, document, granted=granted)


def revoked_answer(revoked: Revoked, now: datetime) -> Answer:
    """Done, or accepted if the registry is still to be told."""
    record = revoked.record
    document = documents.RevokedCertificate(
        **_certificate(record, now),
        crl_pending=revoked.crl_pending,
        crl_number=revoked.crl_number,
        also_revoked=list(revoked.also_revoked),
    )
    granted = _about(
        record,
        reason=record.revocation_reason,
        also_revoked=revoked.also_revoked,
        crl_pending=revoked.crl_pending,
    )
    return json_answer(document, 202 if revoked.crl_pending else 200, granted=granted)


def server_certificate_answer(issued: ServerCertificate, form: str, now: datetime) -> Answer:
    """The registry's own."""
    granted = _about(issued.record)
    if form == PEM:
        text = issued.record.certificate_pem + issued.chain
        return Answer(text, PEM, 201, granted=granted)
    document = documents.ServerCertificate(**_certificate(issued.record, now), chain=issued.chain)
    return json_answer(document, 201, granted=granted)


def trust_answer(trust: Trust) -> Answer:
    """As last published."""
    return json_answer(msgspec.convert(trust.to_json(), documents.TrustDocument))


def diagnosis_answer(diagnosis: Diagnosis) -> Answer:
    """Asking changes and grants nothing, whatever is found."""
    document = msgspec.convert(diagnosis, documents.DiagnosisDocument, from_attributes=True)
    document.at = _second(document.at)
    return json_answer(document)


def instances_answer(page: EnrolmentPage) -> Answer:
    """One page."""
    shown = [_instance(each) for each in page.enrolments]
    return json_answer(InstanceList(shown, page.cursor))


def instance_answer(known: Enrolment) -> Answer:
    """One instance."""
    return json_answer(_instance(known))


def enrolling_answer(instance_id: str, known: Enrolment | None) -> Answer:
    """Accepted; with what was known of the instance until now."""
    document = _unseen(instance_id) if known is None else _instance(known)
    return json_answer(document, 202, granted=EnrolmentAsked(instance_id))


def _summary(record: CertificateRecord, now: datetime) -> dict[str, Any]:
    return {
        "serial": record.serial,
        "name": record.name,
        "owner": record.owner,
        "access": record.access,
        "status": record.status(now),
        "issued_at": _second(record.issued_at),
        "not_before": record.validity.not_before,
        "not_after": record.validity.not_after,
        "fingerprint_sha256": record.fingerprint_sha256,
        "issuer_id": record.issuer_id,
        "label": record.label,
        "issued_by": _or_unset(record.issued_by),
        "renews": _or_unset(record.renews),
        "superseded_by": _or_unset(record.superseded_by),
        "revoked_at": UNSET if record.revoked_at is None else _second(record.revoked_at),
        "revocation_reason": _or_unset(record.revocation_reason),
        "revoked_by": _or_unset(record.revoked_by),
    }


def _certificate(record: CertificateRecord, now: datetime) -> dict[str, Any]:
    return {**_summary(record, now), "certificate": record.certificate_pem}


def _issued(issued: Issued, now: datetime) -> dict[str, Any]:
    bundle, link = issued.bundle, issued.link
    return {
        **_certificate(issued.record, now),
        "chain": bundle.issuer,
        "ca_bundle": bundle.ca_bundle,
        "registry": bundle.registry,
        "bundle": link and documents.BundleLocation(link.uri, link.url, _second(link.expires_at)),
        "private_key": _or_unset(bundle.private_key),
    }


def _instance(known: Enrolment) -> Instance:
    document = msgspec.convert(known, Instance, from_attributes=True)
    for name, value in msgspec.structs.asdict(document).items():
        if isinstance(value, datetime):
            setattr(document, name, _second(value))
    return document


def _unseen(instance_id: str) -> Instance:
    empty = {"owners": [], "tries": 0, "failures": 0, "code": "", "reason": ""}
    nothing: dict[str, Any] = {**dict.fromkeys(Instance.__struct_fields__), **empty}
    return Instance(**{**nothing, "instance_id": instance_id})


def _created(
    issued: Issued, form: str, document: msgspec.Struct, collection: str, granted: Granted
) -> Answer:
    answer = _in_form(issued, form, document, status=201, granted=granted)
    answer.headers["Location"] = f"{collection}/{issued.record.serial}"
    return answer


def _in_form(
    issued: Issued,
    form: str,
    document: msgspec.Struct,
    *,
    granted: Granted | None,
    status: int = 200,
) -> Answer:
    bundle, record = issued.bundle, issued.record
    if form == JSON:
        return json_answer(document, status, granted=granted)
    if form == GZIP:
        named = {"Content-Disposition": f'attachment; filename="{record.name}.tar.gz"'}
        archive = bundle.tar_gz(record.issued_at)
        return Answer(archive, GZIP, status, headers=named, granted=granted)
    text = bundle.pem() if form == PEM else installer(bundle)
    return Answer(text, form, status, granted=granted)


def _handed_out(issued: Issued, **more: Any) -> Granted:
    return _about(issued.record, private_key=issued.bundle.private_key is not None, **more)


def _about(record: CertificateRecord, **more: Any) -> Granted:
    return Granted(
        serial=record.serial, name=record.name, owner=record.owner, access=record.access, **more
    )


def _or_unset(value: _Value | None) -> _Value | UnsetType:
    return UNSET if value is None else value


def _second(time: datetime) -> datetime:
    """All times of the API are told to the second."""
    return time.replace(microsecond=0)
