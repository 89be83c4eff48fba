"""The values that travel: what they say of themselves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from chalicelib.domain.model import Access, CertificateRecord, Status, Validity
from tests.unit.authorities import DAY, NOW, SECOND

WHOLE = NOW.replace(microsecond=0)
VALIDITY = Validity.starting(NOW, DAY, timedelta(minutes=5))
RECORD = CertificateRecord(
    serial="ab".zfill(40),
    owner="arn:aws:iam::123456789012:user/ann",
    name="ann",
    access=Access.PULL,
    issued_at=WHOLE,
    validity=VALIDITY,
    fingerprint_sha256="0" * 64,
    issuer_id="0" * 16,
    key_id="0" * 64,
    made_key=False,
    label="",
    slot=0,
    certificate_pem="",
)


def test_a_validity_is_whole_seconds_and_the_backdating_is_not_taken_off_its_end() -> None:
    assert Validity(WHOLE - timedelta(minutes=5), WHOLE + DAY) == VALIDITY


def test_a_validity_is_cut_at_the_latest_end_and_never_made_longer() -> None:
    assert VALIDITY.ending_by(WHOLE) == Validity(VALIDITY.not_before, WHOLE)
    assert VALIDITY.ending_by(WHOLE + 2 * DAY) == VALIDITY


@pytest.mark.parametrize(
    ("later", "status"),
    [
        (timedelta(0), Status.ACTIVE),
        (DAY, Status.ACTIVE),
        (DAY + SECOND, Status.EXPIRED),
    ],
)
def test_a_certificate_is_active_through_its_last_second(later: timedelta, status: Status) -> None:
    assert RECORD.status(WHOLE + later) is status


@pytest.mark.parametrize("later", [timedelta(0), 2 * DAY])
def test_a_revoked_certificate_stays_revoked_after_its_end(later: timedelta) -> None:
    assert replace(RECORD, revoked_at=WHOLE).status(WHOLE + later) is Status.REVOKED
