"""What speaks against a certificate, and what its holder should know: in words of what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from chalicelib.domain.diagnosis.model import Finding, FindingCode, RevocationFacts
from chalicelib.domain.diagnosis.rules import Rules
from chalicelib.domain.model import Access, CertificateRecord
from chalicelib.domain.pki import leaves
from chalicelib.domain.pki.certificates import access_in, unfit_for_clients
from chalicelib.domain.pki.crl import PublishedCrl, Revocation

_ASK_ANEW = "ask for a new certificate with POST /certs"
_TELL = "tell the registry's operators"


@dataclass(frozen=True, slots=True)
class Case:
    """What there is to know.

    record: that of its serial. signer: the client CA that signed it. crl: the signer's list.
    crl_is_true: the signer did sign it. entry: what it then says of the certificate.
    """

    certificate: x509.Certificate
    record: CertificateRecord | None
    rules: Rules
    now: datetime
    signer: x509.Certificate | None
    crl: PublishedCrl | None
    crl_is_true: bool
    entry: Revocation | None

    @property
    def is_recorded(self) -> bool:
        """Whether the record is of this very certificate, not of another with its serial."""
        fingerprint = leaves.fingerprint(self.certificate)
        return self.record is not None and self.record.fingerprint_sha256 == fingerprint

    @property
    def successor(self) -> str | None:
        """The serial of the certificate that it was renewed by."""
        return self.record.superseded_by if self.record and self.is_recorded else None


def findings(case: Case, revocation: RevocationFacts | None) -> Iterator[Finding]:
    """All of them, in the order in which they matter to its holder."""
    yield from _issuer(case)
    yield from _revoked(case, revocation)
    yield from _dates(case)
    yield from _list(case)
    yield from _record(case)
    yield from _subject(case)


def _issuer(case: Case) -> Iterator[Finding]:
    if case.signer is None:
        yield _stranger(case)
    elif unfitness := unfit_for_clients(case.certificate):
        yield Finding(
            FindingCode.NOT_FOR_CLIENTS,
            f"nginx takes it for no client's certificate: {unfitness}; {_ASK_ANEW}",
        )


def _stranger(case: Case) -> Finding:
    """Why our client CA does not stand behind it."""
    if case.rules.is_ca(case.certificate):
        return Finding(
            FindingCode.CA_CERTIFICATE,
            "this is the certificate of a CA (ca.crt), by which others are verified; a client "
            "shows its own (client.cert)",
        )
    if case.rules.is_servers(case.certificate):
        return Finding(
            FindingCode.SERVER_CERTIFICATE,
            "this is the registry's own certificate, which the registry shows to its clients; a "
            "client shows one of its own (client.cert)",
        )
    if case.is_recorded:
        return Finding(
            FindingCode.RETIRED_ISSUER,
            f"we issued it, but the registry does not trust the CA that signed it: {_ASK_ANEW}",
        )
    if case.rules.claims_signer(case.certificate):
        return Finding(
            FindingCode.BAD_SIGNATURE,
            "it names our CA as its issuer, but our CA did not sign it: it is damaged or forged. "
            f"Fetch yours again with GET /certs, or {_ASK_ANEW}; if somebody gave you this one, "
            f"{_TELL}",
        )
    return Finding(
        FindingCode.UNKNOWN_ISSUER,
        f"the registry does not know the CA that signed it: {_ASK_ANEW}",
    )


def _revoked(case: Case, revocation: RevocationFacts | None) -> Iterator[Finding]:
    if revocation is None:
        return
    said = f"revoked on {_at(revocation.revoked_at)}, reason {revocation.reason}"
    if revocation.published:
        number = "" if revocation.crl_number is None else f" number {revocation.crl_number}"
        said += f"; the published revocation list{number} says so, and that is for good"
        if case.successor is None:
            said += f": make a new key and {_ASK_ANEW}"
    elif _has_ended(case.certificate, case.now):
        said += "; it has expired since, so no list needs to name it"
    elif case.signer:
        said += (
            "; the published revocation list does not name it yet, so the registry cannot know. "
            f"The next list, within minutes, will; if it does not, {_TELL}"
        )
    yield Finding(FindingCode.REVOKED, said, refuses=revocation.published)


def _dates(case: Case) -> Iterator[Finding]:
    certificate, now = case.certificate, case.now
    if _is_early(certificate, now):
        start = certificate.not_valid_before_utc
        yield Finding(
            FindingCode.NOT_YET_VALID,
            f"it is valid from {_at(start)} on, {_span(start - now)} from now by our clock "
            f"({_at(now)}); wait, or set the clock right that it was made by",
        )
    if _has_ended(certificate, now):
        end = certificate.not_valid_after_utc
        yield Finding(
            FindingCode.EXPIRED,
            f"it was valid until {_at(end)}, which is {_span(now - end)} ago: {_ASK_ANEW}",
        )
    if case.signer and (_is_early(case.signer, now) or _has_ended(case.signer, now)):
        yield Finding(
            FindingCode.ISSUER_NOT_VALID,
            f"the CA that signed it has expired or is not valid yet, so it counts for nothing: "
            f"{_TELL}",
        )


def _list(case: Case) -> Iterator[Finding]:
    """OpenSSL wants a list in force from every CA, and looks the CA itself up in it too."""
    if case.signer is None:
        return
    nobody = f"so it admits nobody whom this CA certified: {_TELL}"
    if case.crl is None:
        yield Finding(
            FindingCode.CRL_MISSING, f"the registry has no revocation list of the CA, {nobody}"
        )
    elif not case.crl_is_true:
        yield Finding(
            FindingCode.CRL_BAD_SIGNATURE,
            f"the registry's revocation list is not signed by the CA it names, {nobody}",
        )
    elif not case.crl.current(case.now):
        yield _out_of_date(case.crl, case.now, nobody)
    elif case.crl.listed(case.signer.serial_number):
        yield Finding(
            FindingCode.ISSUER_REVOKED, f"the registry's revocation list names the CA, {nobody}"
        )


def _out_of_date(crl: PublishedCrl, now: datetime, nobody: str) -> Finding:
    if crl.this_update > now:
        return Finding(
            FindingCode.CRL_NOT_YET_VALID,
            f"the registry's revocation list holds from {_at(crl.this_update)} on only, {nobody}",
        )
    return Finding(
        FindingCode.CRL_EXPIRED,
        f"the registry's revocation list held until {_at(crl.next_update)}, {nobody}",
    )


def _record(case: Case) -> Iterator[Finding]:
    if case.record is None and case.signer:
        yield Finding(
            FindingCode.NOT_RECORDED,
            "our CA signed it, but we have no record of it, which must not be: the CA's key may be "
            f"in wrong hands. The registry cannot know that. {_TELL.capitalize()} at once",
            refuses=False,
        )
    elif case.record and not case.is_recorded:
        yield Finding(
            FindingCode.RECORD_MISMATCH,
            "the certificate that we recorded with this serial is another one; the registry cannot "
            f"know that. Unless you altered it yourself, {_TELL} at once",
            refuses=False,
        )
    elif case.successor:
        yield Finding(
            FindingCode.SUPERSEDED,
            f"it has been renewed: use its successor, {case.successor}",
            refuses=False,
        )


def _subject(case: Case) -> Iterator[Finding]:
    if case.signer is None:
        return
    access = access_in(case.certificate)
    if access is None:
        yield Finding(
            FindingCode.NO_ACCESS,
            "its subject gives no access: it must be CN=name, OU=push or OU=pull, "
            f"O=registry-trust, in this order; {_ASK_ANEW}",
        )
    elif access is Access.PULL:
        yield Finding(
            FindingCode.PULL_ONLY,
            "it may pull (GET and HEAD) only; to push or delete, ask for one with access push",
            refuses=False,
        )


# OpenSSL counts an end as past in its very second, where RFC 5280 section 4.1.2.5 includes it.


def _is_early(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc > now


def _has_ended(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_after_utc <= now.replace(microsecond=0)


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _span(length: timedelta) -> str:
    """In the largest unit that fits: "3 days"."""
    seconds = int(length.total_seconds())
    units = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    size, unit = next((unit for unit in units if seconds >= unit[0]), units[-1])
    count = seconds // size
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
