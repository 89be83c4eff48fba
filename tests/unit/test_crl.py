"""Revocation lists: version 2, numbered, with reasons, quick however long, and read back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.model import RevocationReason
from chalicelib.domain.pki.authorities import Authority
from chalicelib.domain.pki.crl import (
    BACKDATE,
    LIFETIME,
    UNKNOWN_DATE,
    Readable,
    Revocation,
    read_bundle,
    readable,
    sign_crl,
)
from chalicelib.domain.pki.leaves import serial_hex
from chalicelib.errors import Misconfigured
from tests.unit.authorities import DAY, NOW, SECOND, client_ca, rsa_client_ca

BEFORE = NOW - 3 * DAY

# RFC 5280 section 5.3.1, but for those that only delta lists and attribute certificates use.
REASONS = [
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
]


def crl_of(
    *revocations: Revocation, number: int = 1, issuer: Authority | None = None
) -> x509.CertificateRevocationList:
    pem = sign_crl(issuer or client_ca(), number, NOW, revocations)
    return x509.load_pem_x509_crl(pem.encode())


def entry(crl: x509.CertificateRevocationList, serial: int) -> x509.RevokedCertificate:
    found = crl.get_revoked_certificate_by_serial_number(serial)
    assert found is not None
    return found


@pytest.mark.parametrize("issuer", [client_ca(), rsa_client_ca()], ids=["ec", "rsa"])
def test_a_list_is_signed_by_its_issuer(issuer: Authority) -> None:
    crl = crl_of(issuer=issuer)
    key = issuer.key.public_key()
    assert isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey))
    assert crl.is_signature_valid(key)
    assert not crl.is_signature_valid(client_ca(2).key.public_key())
    assert crl.issuer == issuer.certificate.subject
    identifier = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    its = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier.key_identifier == its.digest


def test_a_list_holds_for_7_days_and_already_for_a_host_whose_clock_is_behind() -> None:
    crl = crl_of()
    assert crl.last_update_utc == NOW.replace(microsecond=0) - timedelta(minutes=5)
    assert crl.next_update_utc == crl.last_update_utc + 7 * DAY


@pytest.mark.parametrize("number", [1, 2**63])
def test_the_number_is_the_one_given(number: int) -> None:
    crl = crl_of(number=number)
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == number


def test_nothing_in_a_list_is_critical_for_readers_that_do_not_know_it() -> None:
    critical = {type(extension.value): extension.critical for extension in crl_of().extensions}
    assert critical == {x509.CRLNumber: False, x509.AuthorityKeyIdentifier: False}


def test_an_empty_list_is_a_list() -> None:
    assert len(crl_of()) == 0


def test_a_revoked_serial_is_listed_with_its_time_and_another_is_not() -> None:
    crl = crl_of(Revocation(2**158 + 1, BEFORE, "keyCompromise"))
    assert entry(crl, 2**158 + 1).revocation_date_utc == BEFORE.replace(microsecond=0)
    assert crl.get_revoked_certificate_by_serial_number(2**158) is None


@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_is_given_by_its_code(reason: str) -> None:
    listed = entry(crl_of(Revocation(5, BEFORE, reason)), 5)
    said = listed.extensions.get_extension_for_class(x509.CRLReason)
    assert said.value.reason.value == reason
    assert not said.critical


def test_the_reason_unspecified_is_left_out() -> None:
    """RFC 5280 section 5.3.1: it SHOULD be absent rather than say nothing."""
    assert not list(entry(crl_of(Revocation(5, BEFORE, "unspecified")), 5).extensions)


@pytest.mark.parametrize("reason", ["becauseISaidSo", "removeFromCRL", ""])
def test_a_reason_no_list_may_give_is_an_error_and_not_dropped(reason: str) -> None:
    """removeFromCRL most of all: OpenSSL admits whoever is listed with it."""
    with pytest.raises(ValueError, match=f"'{reason}' is no reason"):
        crl_of(Revocation(5, BEFORE, reason))


def test_a_serial_that_comes_twice_is_listed_once_with_its_earliest_date() -> None:
    late, early = Revocation(5, BEFORE, "superseded"), Revocation(5, BEFORE - DAY, "keyCompromise")
    for revocations in ([late, early], [early, late]):
        crl = crl_of(*revocations, Revocation(6, BEFORE, "superseded"))
        assert len(crl) == 2
        assert entry(crl, 5).revocation_date_utc == early.revoked_at.replace(microsecond=0)


def test_time_grows_with_the_list_and_not_with_its_square() -> None:
    """Ten times as many take ten times as long; with the builder's own add method sixty times."""
    assert seconds_for(50_000) < 25 * seconds_for(5_000)


def seconds_for(count: int) -> float:
    """Of this process alone; the least of three, since other things only ever add to it."""
    rows = [stored(serial_hex(n + 1)) for n in range(count)]
    taken = []
    for _ in range(3):
        started = time.process_time()
        pem = sign_crl(client_ca(), 1, NOW, readable(rows).revocations)
        taken.append(time.process_time() - started)
        assert pem
    return min(taken)


# --- what is stored -------------------------------------------------------------------------------

SERIAL = "7f" + 37 * "0" + "1"
OTHER = "7f" + 37 * "0" + "2"
STORED_DATE = "2026-02-23T10:00:00.000000+0000"
DATE = datetime(2026, 2, 23, 10, tzinfo=UTC)
GOOD = Revocation(int(SERIAL, 16), DATE, "keyCompromise")


def stored(of: str, **changes: object) -> dict[str, object]:
    """A row as the table keeps it; a change to None takes the attribute away."""
    row = {
        "sk": f"2026-12-01T00:00:00Z#{of}",
        "serial": of,
        "revoked_at": STORED_DATE,
        "reason": "keyCompromise",
        **changes,
    }
    return {name: value for name, value in row.items() if value is not None}


def test_what_is_stored_is_read() -> None:
    assert readable([stored(SERIAL)]) == Readable((GOOD,), (), ())
    assert readable([stored(SERIAL, revoked_at=DATE)]).revocations == (GOOD,)
    assert readable([]) == Readable((), (), ())


@pytest.mark.parametrize("reason", RevocationReason)
def test_every_reason_of_ours_is_kept(reason: RevocationReason) -> None:
    for said in (reason, reason.value):
        read = readable([stored(SERIAL, reason=said)])
        assert (read.revocations[0].reason, read.mended) == (reason.value, ())


@pytest.mark.parametrize("reason", [None, "", "becauseISaidSo", "removeFromCRL", 1, ["x"]])
def test_a_bad_reason_becomes_unspecified_and_is_named(reason: object) -> None:
    unspecified = Revocation(GOOD.serial, GOOD.revoked_at, "unspecified")
    assert readable([stored(SERIAL, reason=reason)]) == Readable((unspecified,), (), (SERIAL,))


BAD_DATES = [
    None,
    "",
    "yesterday",
    "2026-02-30T10:00:00.000000+0000",
    "0001-01-01T00:00:00+0000",
    "0001-01-01T00:00:00+2359",
    "1949-12-31T23:59:59+0000",
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    1790000000,
]


@pytest.mark.parametrize("date", BAD_DATES)
def test_a_bad_date_becomes_the_fallback_and_is_named(date: object) -> None:
    undated = Revocation(GOOD.serial, UNKNOWN_DATE, GOOD.reason)
    assert readable([stored(SERIAL, revoked_at=date)]) == Readable((undated,), (), (SERIAL,))


@pytest.mark.parametrize("serial", [None, "", "xyz", "0", "8" + 39 * "0", 5, f"{SERIAL}\n"])
def test_a_bad_serial_is_recovered_from_the_key_and_named(serial: object) -> None:
    assert readable([stored(SERIAL, serial=serial)]) == Readable((GOOD,), (), (SERIAL,))


@pytest.mark.parametrize("key", [None, "", "2026", "2026-12-01T00:00:00Z#", 5])
def test_a_bad_key_does_not_cost_the_serial(key: object) -> None:
    assert readable([stored(SERIAL, sk=key)]) == Readable((GOOD,), (), (SERIAL,))


def test_where_serial_and_key_differ_both_are_listed_and_named() -> None:
    read = readable([stored(SERIAL, serial=OTHER)])
    assert {revocation.serial for revocation in read.revocations} == {
        int(SERIAL, 16),
        int(OTHER, 16),
    }
    assert sorted(read.mended) == [SERIAL, OTHER]


@pytest.mark.parametrize("bad", [{}, {"sk": "x#y"}, stored(SERIAL, sk="x#y", serial="")])
def test_a_row_without_any_serial_is_skipped_and_named_and_costs_no_other(
    bad: Mapping[str, object],
) -> None:
    read = readable([bad, stored(SERIAL)])
    assert (read.revocations, read.skipped, read.mended) == ((GOOD,), (str(bad.get("sk")),), ())


anything = (
    st.none() | st.text() | st.integers() | st.binary() | st.datetimes() | st.lists(st.text())
)
near = st.sampled_from([SERIAL, OTHER, STORED_DATE, "superseded", f"2026#{SERIAL}"]) | anything
names = st.sampled_from(["sk", "serial", "revoked_at", "reason"])


@settings(deadline=None)
@given(st.lists(st.dictionaries(names, near)))
def test_whatever_is_stored_a_list_is_signed_and_holds_every_readable_serial(
    rows: list[dict[str, object]],
) -> None:
    read = readable(rows)
    crl = x509.load_pem_x509_crl(sign_crl(client_ca(), 1, NOW, read.revocations).encode())
    for row in rows:
        for serial in (SERIAL, OTHER):
            if row.get("serial") == serial or row.get("sk") == f"2026#{serial}":
                entry(crl, int(serial, 16))


# --- what is published ----------------------------------------------------------------------------


def test_each_list_of_a_bundle_is_read_back() -> None:
    revoked = Revocation(7, BEFORE.replace(microsecond=0), "superseded")
    bundle = sign_crl(client_ca(), 41, NOW, [revoked]) + sign_crl(client_ca(2), 42, NOW, [])
    first, second = read_bundle(bundle)
    assert (first.number, second.number) == (41, 42)
    assert (first.listed(7), first.listed(8), second.listed(7)) == (revoked, None, None)
    assert first.this_update == NOW.replace(microsecond=0) - BACKDATE
    assert first.next_update == first.this_update + LIFETIME


def test_the_reason_unspecified_is_read_back() -> None:
    revoked = Revocation(7, BEFORE.replace(microsecond=0), "unspecified")
    (crl,) = read_bundle(sign_crl(client_ca(), 1, NOW, [revoked]))
    assert crl.listed(7) == revoked


def test_a_list_is_its_issuers_and_nobody_elses() -> None:
    (crl,) = read_bundle(sign_crl(client_ca(), 1, NOW, []))
    ours, other = client_ca().certificate, client_ca(2).certificate
    assert (crl.names(ours), crl.signed_by(ours)) == (True, True)
    assert (crl.names(other), crl.signed_by(other)) == (False, False)
    assert not crl.signed_by(rsa_client_ca().certificate)


def test_a_list_is_current_from_its_first_second_to_the_one_before_its_end() -> None:
    (crl,) = read_bundle(sign_crl(client_ca(), 1, NOW, []))
    almost = timedelta(seconds=0.9)
    assert crl.current(crl.this_update)
    assert not crl.current(crl.this_update - SECOND)
    assert crl.current(crl.next_update - SECOND + almost)
    assert not crl.current(crl.next_update)


def test_a_bundle_without_lists_is_empty() -> None:
    assert read_bundle("") == ()


def test_a_broken_list_is_an_error_and_not_left_out() -> None:
    good = sign_crl(client_ca(), 1, NOW, [])
    with pytest.raises(Misconfigured):
        read_bundle(good + good[:40] + "AAAA" + good[40:])
