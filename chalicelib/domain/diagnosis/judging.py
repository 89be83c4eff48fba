"""One certificate, judged."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509

from chalicelib.domain.diagnosis.findings import Case, findings
from chalicelib.domain.diagnosis.model import CertificateFacts, CrlFacts, Diagnosis, RevocationFacts
from chalicelib.domain.diagnosis.rules import Rules
from chalicelib.domain.model import CertificateRecord, RevocationReason
from chalicelib.domain.pki import leaves
from chalicelib.domain.pki.certificates import access_in
from chalicelib.domain.pki.crl import PublishedCrl


def judge(
    certificate: x509.Certificate, record: CertificateRecord | None, rules: Rules, now: datetime
) -> Diagnosis:
    """record: the one with the certificate's serial, if who asks may know of it."""
    signer = rules.signer(certificate)
    crl = rules.list_of(signer, now) if signer else None
    true = bool(signer and crl and crl.signed_by(signer))
    entry = crl.listed(certificate.serial_number) if crl and true else None
    case = Case(certificate, record, rules, now, signer, crl, true, entry)
    revocation = _revocation(case)
    found = sorted(findings(case, revocation), key=lambda finding: not finding.refuses)
    return Diagnosis(
        admitted=not any(finding.refuses for finding in found),
        access=access_in(certificate) if signer else None,
        findings=tuple(found),
        certificate=_facts(certificate),
        revocation=revocation,
        superseded_by=case.successor,
        crl=_crl_facts(crl, now) if crl else None,
        at=now,
    )


def _facts(certificate: x509.Certificate) -> CertificateFacts:
    return CertificateFacts(
        serial=leaves.serial_hex(certificate.serial_number),
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint_sha256=leaves.fingerprint(certificate),
    )


def _crl_facts(crl: PublishedCrl, now: datetime) -> CrlFacts:
    return CrlFacts(crl.number, crl.this_update, crl.next_update, crl.current(now))


def _revocation(case: Case) -> RevocationFacts | None:
    """The record knows best when and why; the list says whether nginx knows."""
    number = case.crl.number if case.crl and case.entry else None
    listed, record = case.entry is not None, case.record
    if record and record.revoked_at and (case.signer or case.is_recorded):
        reason = record.revocation_reason or RevocationReason.UNSPECIFIED
        return RevocationFacts(record.revoked_at, str(reason), number, listed)
    if case.entry:
        return RevocationFacts(case.entry.revoked_at, case.entry.reason, number, listed)
    return None
