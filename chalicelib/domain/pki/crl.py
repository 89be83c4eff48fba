"""Certificate revocation lists, version 2 (RFC 5280 section 5): made, and read back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes

from chalicelib.domain.pki.authorities import Authority
from chalicelib.domain.pki.keys import signing_hash
from chalicelib.errors import Misconfigured

# nginx refuses every client once a CRL has expired, so an outage of ours must have days, not
# hours, before it matters. The list is replaced every hour all the same.
LIFETIME = timedelta(days=7)

# OpenSSL takes a list whose thisUpdate lies ahead of the host's clock for not yet valid, and nginx
# then refuses everyone; a host's clock may run a little behind ours.
BACKDATE = timedelta(minutes=5)

# Stands in for a date that cannot be read: revoked for as long as anybody can ask.
UNKNOWN_DATE = datetime(1970, 1, 1, tzinfo=UTC)

# What a whole list may say (RFC 5280 section 5.3.1). removeFromCRL is for delta lists alone:
# OpenSSL takes an entry that says so for not revoked.
_REASONS = {flag.value for flag in x509.ReasonFlags} - {x509.ReasonFlags.remove_from_crl.value}
_UNSPECIFIED = x509.ReasonFlags.unspecified.value

_EARLIEST_DATE = datetime(1950, 1, 1, tzinfo=UTC)  # RFC 5280 section 5.1.2.4: nothing encodes less
_SERIAL_LIMIT = 2**159
_SERIAL = re.compile(r"[0-9A-Fa-f]{1,40}")
_END_IN_KEY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_SERIAL_IN_KEY = re.compile(r"#([0-9A-Fa-f]{40})\Z")
_PEM = re.compile(r"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry. reason: an RFC 5280 section 5.3.1 name, such as keyCompromise."""

    serial: int
    revoked_at: datetime
    reason: str


def sign_crl(
    issuer: Authority, number: int, now: datetime, revocations: Iterable[Revocation]
) -> str:
    """The CRL in PEM. Time grows linearly with *revocations*, which need not be sorted.

    A serial that comes twice is listed once, with its earliest date.
    number: must be greater than that of any list *issuer* signed before.
    Raises ValueError for a reason that a whole list may not give; readable() gives none such.
    """
    start = now.replace(microsecond=0) - BACKDATE
    identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    # Given all at once: the builder's own add method copies the list each time it is called.
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=issuer.certificate.subject,
        last_update=start.replace(tzinfo=None),
        next_update=(start + LIFETIME).replace(tzinfo=None),
        revoked_certificates=[_entry(revocation) for revocation in _each_once(revocations)],
    )
    crl = (
        builder.add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value),
            critical=False,
        )
        .sign(issuer.key, signing_hash(issuer.key))
    )
    return crl.public_bytes(serialization.Encoding.PEM).decode()


def _each_once(revocations: Iterable[Revocation]) -> Iterable[Revocation]:
    earliest: dict[int, Revocation] = {}
    for revocation in revocations:
        held = earliest.setdefault(revocation.serial, revocation)
        if revocation.revoked_at < held.revoked_at:
            earliest[revocation.serial] = revocation
    return earliest.values()


def _entry(revocation: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(revocation.serial)
        .revocation_date(revocation.revoked_at)
    )
    if revocation.reason not in _REASONS:
        raise ValueError(f"{revocation.reason!r} is no reason to be on a list")
    # "unspecified" is said by leaving the reason out (RFC 5280 section 5.3.1).
    if revocation.reason != _UNSPECIFIED:
        reason = x509.CRLReason(x509.ReasonFlags(revocation.reason))
        builder = builder.add_extension(reason, critical=False)
    return builder.build()


@dataclass(frozen=True, slots=True)
class Readable:
    """What the stored revocations come to.

    skipped: sort keys of rows without any serial: what they revoked is not on the list.
    mended: serials that are on the list, but whose date, reason or key had to be made good.
    Somebody should look at both.
    """

    revocations: tuple[Revocation, ...]
    skipped: tuple[str, ...]
    mended: tuple[str, ...]


def readable(rows: Iterable[Mapping[str, object]]) -> Readable:
    """The revocations in *rows*; never fails, whatever they hold, and drops no readable serial.

    rows: as stored: sk (NOT-AFTER#SERIAL), serial (hex), revoked_at (a datetime, or text in ISO
    8601), reason (an RFC 5280 name); each may lack, or be of any kind. The serial is taken from
    either place; where they differ, both are listed, since revoking one certificate too many is
    the smaller harm. A bad date becomes UNKNOWN_DATE, a bad reason unspecified.
    """
    revocations: list[Revocation] = []
    skipped: list[str] = []
    mended: list[str] = []
    for row in rows:
        found, whole = _read(row)
        revocations += found
        if not found:
            skipped.append(str(row.get("sk"))[:100])
        elif not whole:
            mended += [format(revocation.serial, "040x") for revocation in found]
    return Readable(tuple(revocations), tuple(skipped), tuple(mended))


def _read(row: Mapping[str, object]) -> tuple[list[Revocation], bool]:
    """What a row revokes, and whether all of it could be read."""
    serials = {_serial(row.get("serial")), _serial(_serial_in_key(row.get("sk")))}
    date, reason = _date(row.get("revoked_at")), row.get("reason")
    known = isinstance(reason, str) and reason in _REASONS
    said = str(reason) if known else _UNSPECIFIED
    found = [
        Revocation(serial, date or UNKNOWN_DATE, said) for serial in serials if serial is not None
    ]
    return found, known and date is not None and len(serials) == 1


def _serial_in_key(key: object) -> object:
    found = _SERIAL_IN_KEY.search(key) if isinstance(key, str) else None
    return found[1] if found else None


def _serial(text: object) -> int | None:
    if not isinstance(text, str) or not _SERIAL.fullmatch(text):
        return None
    serial = int(text, 16)
    return serial if 0 < serial < _SERIAL_LIMIT else None


def _date(value: object) -> datetime | None:
    try:
        date = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(date, datetime):
            return None
        date = (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return date if date >= _EARLIEST_DATE else None


def ended(row: Mapping[str, object], now: datetime) -> bool:
    """Whether the certificate that *row* revokes had ended at *now*; its key says when it ends.

    A row whose key says nothing of the kind has not.
    """
    end = _END_IN_KEY.match(str(row.get("sk")))
    return end is not None and end[0] < f"{now:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class PublishedCrl:
    """One list of a published bundle."""

    crl: x509.CertificateRevocationList

    @property
    def number(self) -> int | None:
        """None in a list that is not of our making."""
        try:
            return self.crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        except x509.ExtensionNotFound:
            return None

    @property
    def this_update(self) -> datetime:
        """From when on it holds."""
        return self.crl.last_update_utc

    @property
    def next_update(self) -> datetime:
        """Until when it holds; a list that does not say holds for ever."""
        return self.crl.next_update_utc or datetime.max.replace(tzinfo=UTC)

    def current(self, now: datetime) -> bool:
        """Whether nginx goes by it at *now*.

        OpenSSL takes this_update for the first and next_update for one past the last second
        (X509_cmp_time: what is equal counts as past).
        """
        return self.this_update <= now.replace(microsecond=0) < self.next_update

    def names(self, ca: x509.Certificate) -> bool:
        """Whether it says that *ca* signed it."""
        return self.crl.issuer == ca.subject

    def signed_by(self, ca: x509.Certificate) -> bool:
        """Whether *ca* did sign it."""
        try:
            return self.crl.is_signature_valid(
                cast(CertificateIssuerPublicKeyTypes, ca.public_key())
            )
        except (TypeError, ValueError, UnsupportedAlgorithm):
            return False

    def listed(self, serial: int) -> Revocation | None:
        """The entry that revokes *serial*. Looks through the whole list."""
        entry = self.crl.get_revoked_certificate_by_serial_number(serial)
        return None if entry is None else _revocation_in(entry)

    def others_than(self, serials: Set[int]) -> list[Revocation]:
        """The entries that revoke others than these."""
        found = (_revocation_in(each) for each in self.crl if each.serial_number not in serials)
        return [revocation for revocation in found if revocation is not None]


def _revocation_in(entry: x509.RevokedCertificate) -> Revocation | None:
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:
        reason = _UNSPECIFIED
    revokes = reason in _REASONS
    return Revocation(entry.serial_number, entry.revocation_date_utc, reason) if revokes else None


def readable_lists(pem: str) -> tuple[PublishedCrl, ...]:
    """Those of a bundle's lists that can be read, in their order; never fails."""
    found: list[PublishedCrl] = []
    for block in _PEM.findall(pem):
        try:
            found += read_bundle(block)
        except Misconfigured:
            continue
    return tuple(found)


def read_bundle(pem: str) -> tuple[PublishedCrl, ...]:
    """The lists in a bundle of PEM blocks, in their order. Raises Misconfigured."""
    try:
        return tuple(
            PublishedCrl(x509.load_pem_x509_crl(block.encode())) for block in _PEM.findall(pem)
        )
    except ValueError as error:
        raise Misconfigured("unreadable_crl", "a published revocation list is broken") from error
