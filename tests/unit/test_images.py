"""What the table's stream shows of an item, read back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.adapters.store.images import record_in
from chalicelib.adapters.store.items import item_of
from chalicelib.domain.model import CertificateRecord
from chalicelib.errors import InvalidRequest
from tests.unit.certificate_records import RECORD, record


def image_of(made: CertificateRecord) -> dict[str, Any]:
    return item_of(made).to_dynamodb_dict()


@pytest.mark.parametrize(
    "made", [RECORD, record(access=None, slot=None, label=""), record(renews="0b" * 20)]
)
def test_a_record_is_read_as_it_was_written(made: CertificateRecord) -> None:
    assert record_in(image_of(made)) == made


def test_what_revoking_adds_is_read() -> None:
    added = {
        "revoked_at": {"S": "2026-02-03T04:05:06.000000+0000"},
        "revocation_reason": {"S": "keyCompromise"},
        "revoked_by": {"S": "arn:aws:iam::123456789012:user/adm"},
    }
    read = record_in({**image_of(RECORD), **added})

    assert read.revoked_at == datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert read.revocation_reason == "keyCompromise"
    assert read.revoked_by == "arn:aws:iam::123456789012:user/adm"


def test_a_reason_that_there_is_not_leaves_it_revoked() -> None:
    added = {"revoked_at": {"S": "2026-02-03T04:05:06.000000+0000"}}
    read = record_in({**image_of(RECORD), **added, "revocation_reason": {"S": "boredom"}})

    assert read.revoked_at is not None
    assert read.revocation_reason == "unspecified"


def test_an_attribute_of_a_later_version_is_passed_over() -> None:
    assert record_in({**image_of(RECORD), "colour": {"S": "blue"}}) == RECORD


@pytest.mark.parametrize(
    "name",
    [
        "serial",
        "owner",
        "name",
        "issuer_id",
        "fingerprint_sha256",
        "issued_at",
        "not_before",
        "not_after",
    ],
)
def test_an_image_that_lacks_what_an_event_says_is_refused(name: str) -> None:
    image = image_of(RECORD)
    del image[name]
    with pytest.raises(InvalidRequest, match=name):
        record_in(image)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("not_after", {"S": "tomorrow"}),
        ("owner", {"N": "7"}),
        ("access", {"S": "admin"}),
        ("owner", {"NULL": True}),
    ],
)
def test_an_image_with_a_malformed_attribute_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as told:
        record_in({**image_of(RECORD), name: value})
    assert told.value.code == "malformed_image"


def test_reading_leaves_the_image_as_it_was() -> None:
    image = image_of(RECORD)
    copy = {name: dict(value) for name, value in image.items()}
    record_in(image)
    assert image == copy
