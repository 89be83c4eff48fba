"""A registry host's report: what it says is read, and nothing else is believed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.registry_host.report import (
    REPORT_FRESH,
    HostCertificate,
    HostReport,
    Served,
    report_key,
)
from chalicelib.errors import InvalidRequest

AT = datetime(2026, 11, 24, 0, 15, tzinfo=UTC)
SAID: dict[str, Any] = {
    "instance_id": "i-0123456789abcdef0",
    "time": "2026-11-24T00:15:00Z",
    "ok": True,
    "last_success": "2026-11-24T00:15:00Z",
    "last_failure": "",
    "last_error": "",
    "generation": "20261124T001500Z",
    "taken": True,
    "ca": ["0123456789abcdef", "fedcba9876543210"],
    "client_ca": ["00000000ffffffff"],
    "crl_until": "2026-12-01T00:00:00Z",
    "certificate": {
        "serial": "abc123",
        "issuer": "0123456789abcdef",
        "not_after": "2027-02-22T00:00:00Z",
        "served": "yes",
    },
}


def read(**changed: Any) -> HostReport:
    return HostReport.from_json(json.dumps({**SAID, **changed}))


def test_a_report_is_read() -> None:
    report = read()
    assert report == HostReport(
        instance_id="i-0123456789abcdef0",
        time=AT,
        ok=True,
        last_success=AT,
        last_error="",
        taken=True,
        ca=("0123456789abcdef", "fedcba9876543210"),
        client_ca=("00000000ffffffff",),
        crl_until=datetime(2026, 12, 1, tzinfo=UTC),
        certificate=HostCertificate(
            serial="0" * 34 + "abc123",
            issuer="0123456789abcdef",
            not_after=datetime(2027, 2, 22, tzinfo=UTC),
            served=Served.YES,
        ),
    )


def test_a_host_that_has_no_certificate_yet_says_so() -> None:
    report = read(certificate=None, ca=[], client_ca=[], crl_until="", last_success="")
    assert (report.certificate, report.crl_until, report.last_success) == (None, None, None)


def test_a_report_is_fresh_for_a_quarter_of_an_hour() -> None:
    assert read().is_fresh(AT + REPORT_FRESH - timedelta(seconds=1))
    assert not read().is_fresh(AT + REPORT_FRESH)


def test_what_a_host_says_in_words_cannot_take_over_a_terminal() -> None:
    assert read(last_error="\x1b[2Jgone\n").last_error == "?[2Jgone?"


@pytest.mark.parametrize("truth", ["true", 1, None, [True]])
def test_only_true_is_true(truth: object) -> None:
    assert not read(ok=truth).ok
    assert not read(taken=truth).taken


ODD: list[tuple[str, Any]] = [
    ("instance_id", "../trust/ca.crt"),
    ("instance_id", 7),
    ("time", "yesterday"),
    ("time", 1764000000),
    ("last_error", None),
    ("ca", "0123456789abcdef"),
    ("ca", ["0123456789ABCDEF"]),
    ("ca", ["0123456789abcdef0"]),
    ("ca", ["0123456789abcdef"] * 17),
    ("client_ca", [None]),
    ("crl_until", "soon"),
    ("certificate", {}),
    ("certificate", {**SAID["certificate"], "serial": "x"}),
    ("certificate", {**SAID["certificate"], "serial": "1" * 41}),
    ("certificate", {**SAID["certificate"], "served": "perhaps"}),
    ("certificate", {**SAID["certificate"], "issuer": ["0123456789abcdef"]}),
]


@pytest.mark.parametrize(("name", "value"), ODD)
def test_what_is_not_of_the_form_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest):
        read(**{name: value})


@pytest.mark.parametrize("name", [n for n in SAID if n not in ("last_failure", "generation")])
def test_what_lacks_a_part_is_refused(name: str) -> None:
    said = {each: value for each, value in SAID.items() if each != name}
    with pytest.raises(InvalidRequest):
        HostReport.from_json(json.dumps(said))


@given(st.binary() | st.text() | st.just("[" * 100_000))
def test_whatever_is_there_it_is_a_report_or_refused(text: bytes | str) -> None:
    with pytest.raises(InvalidRequest):
        HostReport.from_json(text)


def test_each_host_has_an_object_of_its_own() -> None:
    assert report_key("i-0123456789abcdef0") == "registry-hosts/i-0123456789abcdef0.json"
