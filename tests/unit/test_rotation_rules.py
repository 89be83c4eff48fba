"""Who counts as along with a new CA, and who does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from chalicelib.domain.enrolment.model import EnrolmentPath, EnrolmentState
from chalicelib.domain.model import Access, CertificateRecord, Validity
from chalicelib.domain.pki.authorities import AuthorityKind
from chalicelib.domain.registry_host.report import HostCertificate, HostReport, Served
from chalicelib.domain.rotation import (
    SETTLING,
    Facts,
    HostSight,
    Obstacle,
    after_distrusting,
    against_activating,
    against_retiring,
    lives_under,
    progress,
)
from tests.unit.authorities import NOW
from tests.unit.rotating_world import CLIENT, DAY, SERVER, enrolment, report

OLD, NEW = "0" * 16, "1" * 16
HOST, INSTANCE = "i-0000000a", "i-0000000b"
SECOND = timedelta(seconds=1)
MADE = NOW - DAY
SERVING = HostCertificate("0" * 40, NEW, NOW + DAY, Served.YES)
WELL = report(HOST, NOW, [OLD, NEW], [OLD, NEW], SERVING)


def facts(**changed: object) -> Facts:
    """All are along, unless told otherwise."""
    made = Facts(
        now=NOW,
        trust_version="new",
        hosts=[HostSight(HOST, running=True, report=WELL)],
        enrolments=[enrolment(INSTANCE, "new")],
        certificates=[],
        running=frozenset({INSTANCE}),
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def in_the_way(kind: AuthorityKind = SERVER, *, told: bool = False, **changed: object) -> list[str]:
    found = against_activating(kind, NEW, MADE, facts(**changed), people_told=told)
    return [each.lacking for each in found]


def detail(found: list[Obstacle]) -> str:
    (obstacle,) = found
    (line,) = obstacle.details
    return line


@pytest.mark.parametrize("kind", list(AuthorityKind))
def test_nothing_is_in_the_way_when_all_are_along(kind: AuthorityKind) -> None:
    assert in_the_way(kind) == []


@pytest.mark.parametrize("kind", list(AuthorityKind))
def test_without_any_host_nothing_is_known(kind: AuthorityKind) -> None:
    assert len(in_the_way(kind, hosts=[])) == 1


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "no report of the last 15 minutes"),
        (replace(WELL, ok=False, last_error="no answer of S3"), "its refresh fails: no answer of"),
        (replace(WELL, taken=False), "its nginx has not taken the newest files"),
        (replace(WELL, client_ca=(OLD,)), "it does not have it yet"),
    ],
    ids=["silent", "failing", "not taken", "without"],
)
def test_a_host_that_may_not_have_it_is_in_the_way(said: HostReport | None, why: str) -> None:
    hosts = [HostSight("i-00000001", True, said), HostSight(HOST, True, WELL)]
    found = list(against_activating(CLIENT, NEW, MADE, facts(hosts=hosts), people_told=False))
    assert found[0].lacking.startswith("1 of 2 registry hosts")
    assert why in detail(found)


def test_a_host_needs_the_ca_of_that_kind() -> None:
    hosts = [HostSight(HOST, True, replace(WELL, client_ca=(OLD,)))]
    assert in_the_way(SERVER, hosts=hosts) == []
    assert len(in_the_way(CLIENT, hosts=hosts)) == 1


@pytest.mark.parametrize(
    ("changed", "late"),
    [
        ({}, False),
        ({"trust_version": "old"}, True),
        ({"trust_version": None}, True),
        ({"state": EnrolmentState.WAITING_FOR_AGENT}, True),
        ({"state": EnrolmentState.INSTALLING}, True),
        ({"state": EnrolmentState.INSTALLING, "enrolled_at": None}, False),
        ({"state": EnrolmentState.INSTALLING, "enrolled_at": None, "trust_version": "old"}, True),
        ({"state": EnrolmentState.PREPARING, "enrolled_at": None, "trust_version": None}, False),
        ({"path": EnrolmentPath.BOOT, "trust_version": None}, False),
    ],
)
def test_an_instance_counts_by_the_trust_that_it_was_seen_to_work_with(
    changed: dict[str, object], late: bool
) -> None:
    known = [enrolment(INSTANCE, "new", **{"trust_version": "new", **changed})]
    assert bool(in_the_way(enrolments=known)) is late
    assert in_the_way(enrolments=known, running=frozenset()) == []


def test_one_that_failed_is_in_the_way_of_a_server_ca_if_it_ever_worked() -> None:
    failed = enrolment(INSTANCE, "new", state=EnrolmentState.FAILED, code="no_agent")
    assert len(in_the_way(SERVER, enrolments=[failed])) == 1
    assert in_the_way(CLIENT, enrolments=[failed]) == []
    assert in_the_way(SERVER, enrolments=[replace(failed, enrolled_at=None)]) == []
    assert in_the_way(SERVER, enrolments=[replace(failed, code="certificate_revoked")]) == []


def certificate(name: str = "ann", **changed: object) -> CertificateRecord:
    made = CertificateRecord(
        serial="0" * 40,
        owner=f"arn:aws:sts::123456789012:assumed-role/docker-instance/{name}",
        name=name,
        access=Access.PULL,
        issued_at=MADE - DAY,
        validity=Validity(MADE - DAY, NOW + 30 * DAY),
        fingerprint_sha256="",
        issuer_id=OLD,
        key_id="",
        certificate_pem="",
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def test_who_was_issued_one_two_minutes_after_a_server_ca_was_made_has_it() -> None:
    late = certificate(issued_at=MADE + SETTLING - SECOND)
    assert len(in_the_way(certificates=[late])) == 1
    assert in_the_way(certificates=[replace(late, issued_at=MADE + SETTLING)]) == []
    assert in_the_way(certificates=[replace(late, superseded_by="1" * 40)]) == []
    assert in_the_way(certificates=[late], told=True) == []
    assert in_the_way(CLIENT, certificates=[late]) == []


def test_an_instance_that_asks_by_itself_counts_by_its_newest_and_no_word_of_people_helps() -> None:
    old = certificate(INSTANCE)
    boot = [enrolment(INSTANCE, "new", path=EnrolmentPath.BOOT)]
    asked = {"enrolments": boot, "told": True}
    assert len(in_the_way(certificates=[old], **asked)) == 1  # type: ignore[arg-type]
    new = replace(old, issued_at=MADE + SETTLING)
    assert in_the_way(certificates=[old, new], **asked) == []  # type: ignore[arg-type]
    assert in_the_way(certificates=[old], running=frozenset(), **asked) == []  # type: ignore[arg-type]
    assert in_the_way(certificates=[old], told=True) == []  # its agent gave it the new one


def test_what_an_instance_was_given_says_nothing_but_what_it_got_for_a_service_does() -> None:
    given = certificate(INSTANCE, label="enrolment")
    assert in_the_way(certificates=[given]) == []
    assert len(in_the_way(certificates=[replace(given, issued_by="arn:admin")])) == 1


def test_a_server_ca_is_not_activated_in_its_first_two_minutes() -> None:
    at = facts(now=MADE + SETTLING - SECOND)
    (found,) = against_activating(SERVER, NEW, MADE, at, people_told=True)
    assert found.lacking.endswith("wait 2 s")
    assert found.passes
    assert not against_activating(CLIENT, NEW, MADE, at, people_told=True)


@pytest.mark.parametrize(
    ("served", "why"),
    [
        (None, "it has no certificate"),
        (replace(SERVING, issuer=OLD), f"its certificate is of CA {OLD}"),
        (replace(SERVING, served=Served.NO), "not seen to serve"),
        (replace(SERVING, served=Served.UNKNOWN), "not seen to serve"),
    ],
)
def test_a_server_ca_stays_until_all_hosts_were_seen_to_serve_under_the_next(
    served: HostCertificate | None, why: str
) -> None:
    assert not against_retiring(SERVER, OLD, NEW, facts(), NOW)
    hosts = [HostSight(HOST, True, replace(WELL, certificate=served))]
    found = list(against_retiring(SERVER, OLD, NEW, facts(hosts=hosts), NOW))
    assert why in detail(found)


def test_a_client_ca_stays_while_anything_lives_under_it() -> None:
    ann, bob = certificate(), certificate("bob", validity=Validity(MADE, NOW + 60 * DAY))
    known = facts(certificates=[ann, bob, replace(ann, serial="2" * 40)])
    (found,) = against_retiring(CLIENT, OLD, NEW, known, NOW)
    assert found.lacking.startswith(f"3 valid certificates are of CA {OLD}, the last until 2026-05")
    assert [line.split("/")[-1].split(",")[0] for line in found.details] == ["ann: 2", "bob: 1"]
    assert not against_retiring(CLIENT, NEW, OLD, known, NOW)
    assert lives_under(CLIENT, OLD, known)
    assert not lives_under(CLIENT, NEW, known)


def test_nothing_is_retired_before_every_process_knows() -> None:
    (found,) = against_retiring(CLIENT, OLD, NEW, facts(), NOW + 5 * SECOND)
    assert found.lacking.endswith("wait 6 s")


def test_after_distrusting_one_that_was_issued_another_and_has_not_installed_it_is_behind() -> None:
    given = certificate(INSTANCE, label="enrolment", issuer_id=NEW)
    known = facts(certificates=[given])
    assert not after_distrusting(CLIENT, NEW, MADE, known)
    installing = [enrolment(INSTANCE, "new", state=EnrolmentState.INSTALLING)]
    (found,) = after_distrusting(CLIENT, NEW, MADE, replace(known, enrolments=installing))
    assert found.passes


def test_long_lists_are_cut_and_counted() -> None:
    known = facts(certificates=[certificate(f"user-{n:02}") for n in range(25)])
    (found,) = against_retiring(CLIENT, OLD, NEW, known, NOW)
    assert len(found.details) == 11
    assert found.details[-1] == "and 15 more"


def test_progress_is_told_in_a_line() -> None:
    known = facts(
        enrolments=[
            enrolment(INSTANCE, "new"),
            enrolment("i-0000000c", "old"),
            enrolment("i-0000000d", "new", path=EnrolmentPath.BOOT),
            enrolment("i-0000000e", "new", state=EnrolmentState.FAILED),
        ],
        running=frozenset({INSTANCE, "i-0000000c"}),
    )
    assert progress(CLIENT, NEW, known) == (
        "registry hosts 1 of 1; enrolled instances 1 of 2; instances that ask by themselves 1; "
        "failed 1"
    )
