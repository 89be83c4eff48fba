"""Say whether the registry would admit a certificate, and if not why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509

from chalicelib.domain.diagnosis import Diagnosis, Evidence, Rules, judge
from chalicelib.domain.model import Caller, CertificateRecord
from chalicelib.domain.ownership import canonical_serial
from chalicelib.domain.pki.certificates import certificate_of_pem
from chalicelib.domain.pki.leaves import serial_hex
from chalicelib.domain.trust import Trust
from chalicelib.errors import InvalidRequest, Misconfigured, NotFound

_DIGITS = 40  # of every serial of ours; a stranger's may have more


class Records(Protocol):
    """Where certificates are recorded."""

    def get(self, serial: str) -> CertificateRecord | None:
        """The record, read consistently."""


class Publication(Protocol):
    """Where the trust is published."""

    def read_trust(self) -> Trust:
        """As last published."""


@dataclass(frozen=True, slots=True)
class Diagnosing:
    """By PEM certificate, or by the serial of one on record."""

    records: Records
    publication: Publication
    now: Callable[[], datetime]

    def diagnose(self, evidence: Evidence, caller: Caller) -> Diagnosis:
        """Of the caller's own, or of what no CA of ours signed.

        Raises NotFound for somebody else's, as for an unknown one, InvalidRequest,
        DependencyFailed, Misconfigured.
        """
        return self._diagnose(evidence, caller.arn)

    def diagnose_any(self, evidence: Evidence) -> Diagnosis:
        """Of anybody's. Raises NotFound for an unknown serial, and as diagnose()."""
        return self._diagnose(evidence, None)

    def _diagnose(self, evidence: Evidence, owner: str | None) -> Diagnosis:
        """owner: who may know of what; None: of everything."""
        if isinstance(evidence, str):
            record = self._record(_canonical(evidence), owner)
            if record is None:
                raise _not_found(owner)
            return judge(_certificate_of(record), record, self._rules(), self.now())
        certificate = certificate_of_pem(evidence)
        rules = self._rules()
        if owner is not None and not rules.may_be_told(certificate, owner):
            raise _not_found(owner)
        record = self._record(serial_hex(certificate.serial_number), owner)
        return judge(certificate, record, rules, self.now())

    def _rules(self) -> Rules:
        return Rules.of(self.publication.read_trust())

    def _record(self, serial: str, owner: str | None) -> CertificateRecord | None:
        """Somebody else's record is none: whoever shows a certificate may have made it up, with
        a serial whose record it is not his to know of."""
        record = self.records.get(serial) if len(serial) == _DIGITS else None
        return record if record and owner in (None, record.owner) else None


def _canonical(serial: str) -> str:
    canonical = canonical_serial(serial)
    if canonical is None:
        raise InvalidRequest("invalid_serial", "a serial is 1 to 40 hex digits", field="serial")
    return canonical


def _certificate_of(record: CertificateRecord) -> x509.Certificate:
    try:
        return certificate_of_pem(record.certificate_pem.encode())
    except InvalidRequest as error:
        raise Misconfigured("unreadable_record", "the recorded certificate is broken") from error


def _not_found(owner: str | None) -> NotFound:
    said = "there is no such certificate"
    if owner is not None:
        said = "you have no such certificate; if it is somebody else's, ask its owner or an admin"
    return NotFound("certificate_not_found", said)
