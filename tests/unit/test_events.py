"""Which changes of a record the account hears of, and in which words."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chalicelib.domain.events import DetailType, Event, event_of
from chalicelib.domain.model import Access, CertificateRecord, RevocationReason
from tests.unit.certificate_records import ISSUED_AT, RECORD, record

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
ADMIN = "arn:aws:iam::123456789012:user/adm"
REVOKED_AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
REVOKED = record(
    revoked_at=REVOKED_AT,
    revocation_reason=RevocationReason.KEY_COMPROMISE,
    revoked_by=ADMIN,
)
CERTIFICATE = {
    "version": 1,
    "stage": "prod",
    "serial": "5a" * 20,
    "name": "ann",
    "owner": "arn:aws:iam::123456789012:user/ann",
    "access": "push",
    "issuer_id": "0123456789abcdef",
    "fingerprint_sha256": "f1" * 32,
    "not_before": "2026-01-02T02:59:05Z",
    "not_after": "2026-04-02T03:04:05Z",
    "issued_at": "2026-01-02T03:04:05Z",
    "issued_by": None,
    "renews": None,
}


def told(before: CertificateRecord | None, after: CertificateRecord | None) -> Event:
    event = event_of("prod", before, after)
    assert event is not None
    return event


def as_json(event: Event) -> object:
    """The detail as a reader gets it: enumerations are their values."""
    return json.loads(json.dumps(event.detail))


def test_a_new_certificate_is_told_as_issued() -> None:
    event = told(None, RECORD)

    assert (event.detail_type, event.serial) == (DetailType.CERTIFICATE_ISSUED, "5a" * 20)
    assert event.time == ISSUED_AT
    assert as_json(event) == CERTIFICATE


def test_a_successor_names_its_predecessor_and_who_had_it_issued() -> None:
    event = told(None, record(renews="0b" * 20, issued_by=ADMIN))

    assert event.detail_type == DetailType.CERTIFICATE_ISSUED
    assert as_json(event) == {**CERTIFICATE, "renews": "0b" * 20, "issued_by": ADMIN}


def test_a_revocation_is_told_with_its_time_reason_and_author() -> None:
    event = told(RECORD, REVOKED)

    assert (event.detail_type, event.time) == (DetailType.CERTIFICATE_REVOKED, REVOKED_AT)
    assert as_json(event) == {
        **CERTIFICATE,
        "revoked_at": "2026-02-03T04:05:06Z",
        "reason": "keyCompromise",
        "revoked_by": ADMIN,
    }


def test_a_revocation_by_renewing_is_told_once_though_two_attributes_appear() -> None:
    revoked_and_superseded = record(
        revoked_at=REVOKED_AT,
        revocation_reason=RevocationReason.SUPERSEDED,
        superseded_by="0c" * 20,
    )

    event = told(RECORD, revoked_and_superseded)
    assert event.detail_type == DetailType.CERTIFICATE_REVOKED
    assert event.detail["reason"] == "superseded"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (RECORD, record(superseded_by="0c" * 20)),
        (REVOKED, record(revoked_at=REVOKED_AT, superseded_by="0c" * 20)),
        (RECORD, RECORD),
        (RECORD, None),
        (None, None),
    ],
    ids=["superseded", "superseded after its revocation", "rewritten", "removed", "nothing"],
)
def test_other_changes_are_told_to_nobody(
    before: CertificateRecord | None, after: CertificateRecord | None
) -> None:
    assert event_of("prod", before, after) is None


def test_the_registrys_own_certificate_is_told_to_nobody() -> None:
    """A twin with any access is told."""
    assert event_of("prod", None, record(access=None)) is None
    assert event_of("prod", None, record(access=Access.PULL)) is not None


@pytest.mark.parametrize(("before", "after"), [(None, RECORD), (RECORD, REVOKED)])
def test_neither_the_label_nor_the_certificate_leaves_with_an_event(
    before: CertificateRecord | None, after: CertificateRecord
) -> None:
    text = json.dumps(told(before, after).detail)
    assert "laptop" not in text
    assert "CERTIFICATE" not in text


def test_the_page_shows_the_fields_that_are_sent() -> None:
    envelope, more = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    detail = json.loads(envelope)["detail"]

    assert list(detail) == list(told(None, RECORD).detail)
    assert [*detail, *json.loads(f"{{{more}}}")] == list(told(RECORD, REVOKED).detail)
    assert detail["version"] == told(None, RECORD).detail["version"]
