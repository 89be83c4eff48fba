"""Instances when their CA is replaced: in steps nothing is hurried, and at once all enrol again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from chalicelib.domain.enrolment.model import EnrolmentPath, EnrolmentState
from chalicelib.domain.model import CertificateRecord, Status
from chalicelib.domain.pki.authorities import Authority
from tests.unit.authorities import client_ca
from tests.unit.enrolling_world import Faults, Plane

OLD, NEW = client_ca(), client_ca(2)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def enrolled(
    agent: float | None = 20.0, count: int = 1, **options: object
) -> tuple[Plane, list[str]]:
    plane = Plane(**options)  # type: ignore[arg-type]
    ids = [plane.launch(number, agent=agent) for number in range(count)]
    plane.run(5 * MINUTE)
    return plane, ids


def of(plane: Plane, id_: str) -> CertificateRecord:
    """The certificate that is on the instance."""
    return plane.world.records.by_serial[plane.hosts[id_].certificate]


def test_while_the_former_ca_is_trusted_its_certificates_are_kept() -> None:
    plane, (id_,) = enrolled()
    before = of(plane, id_)
    plane.sign_with(OLD, NEW)
    plane.run(5 * MINUTE)
    plane.sign_with(NEW, OLD)
    plane.run(2 * DAY)
    assert of(plane, id_).serial == before.serial
    assert plane.enrolments.kept[id_].trust_version == plane.trust_now.version


def test_what_is_renewed_then_comes_from_the_new_one() -> None:
    plane, (id_,) = enrolled(every=HOUR)
    before = of(plane, id_)
    plane.sign_with(NEW, OLD)
    plane.run(61 * DAY)
    after = of(plane, id_)
    assert (after.issuer_id, after.renews) == (NEW.id, before.serial)
    assert after.key_id == before.key_id


def test_when_its_ca_is_not_trusted_any_more_it_is_renewed_at_once_with_the_same_key() -> None:
    plane, (id_,) = enrolled()
    before = of(plane, id_)
    plane.sign_with(NEW)
    plane.run(3 * MINUTE)
    after = of(plane, id_)
    assert (after.issuer_id, after.key_id) == (NEW.id, before.key_id)
    assert plane.state(id_) is EnrolmentState.ENROLLED
    assert [each.serial for each in plane.active(id_)] == [after.serial]
    assert plane.hosts[id_].commands.count("registry-trust: prepare") == 1


@pytest.mark.parametrize("seed", range(8))
def test_all_instances_enrol_again_whatever_goes_wrong_meanwhile(seed: int) -> None:
    plane, ids = enrolled(count=12, seed=seed)
    plane.faults = Faults(drop=0.3, double=0.2, late=0.3, ssm=0.2, crash=0.05)
    plane.sign_with(NEW)
    plane.run(2 * HOUR)
    assert {of(plane, id_).issuer_id for id_ in ids} == {NEW.id}


class Stale:
    """A process's own knowledge of the CAs: reread() brings it up to date."""

    def __init__(self, plane: Plane, known: Sequence[Authority]) -> None:
        self.current = plane.world.authorities
        self.known, self.rereads = list(known), 0
        plane.world.authorities = self  # type: ignore[assignment]

    def reread(self) -> None:
        self.rereads += 1
        self.known = list(self.current.clients)

    def client(self) -> Authority:
        return self.known[0]

    def client_signers(self) -> Sequence[Authority]:
        return self.known

    def client_certificates(self) -> Sequence[object]:
        return [each.certificate for each in self.known]

    def server_certificates(self) -> Sequence[object]:
        return self.current.server_certificates()


def test_a_process_that_knows_the_old_ca_alone_does_not_sign_with_it() -> None:
    plane, _ = enrolled()
    plane.sign_with(NEW)
    stale = Stale(plane, [OLD])
    plane.run(3 * MINUTE)
    issued = plane.world.records.by_serial.values()
    assert [each.issuer_id for each in issued] == [OLD.id, NEW.id]
    assert stale.rereads


def test_nothing_is_issued_under_a_ca_that_is_not_published_yet() -> None:
    """Another signs, and the publication failed: what is due waits for that, and issues nothing."""
    plane, (id_,) = enrolled(every=HOUR)
    held = of(plane, id_)
    plane.world.authorities.clients[:] = [NEW]
    plane.run(61 * DAY)
    assert list(plane.world.records.by_serial) == [held.serial]
    assert plane.enrolments.kept[id_].code == "busy"
    plane.sign_with(NEW)
    plane.run(DAY)
    assert of(plane, id_).issuer_id == NEW.id


def test_one_that_enrols_just_then_is_not_left_with_a_certificate_of_the_old_ca() -> None:
    """What it is given may be of a minute ago; then it is recorded as such, and found."""
    plane = Plane()
    id_ = plane.launch()
    before = plane.trust_now
    plane.trusting = lambda: before
    plane.run(27 * timedelta(seconds=1))
    plane.sign_with(NEW)
    plane.run(MINUTE)
    plane.trusting = lambda: plane.trust_now
    plane.run(10 * MINUTE)
    assert of(plane, id_).issuer_id == NEW.id
    assert plane.enrolments.kept[id_].trust_version == plane.trust_now.version


def test_one_that_asks_by_itself_is_not_enrolled_by_what_is_refused() -> None:
    plane, (id_,) = enrolled(agent=None)
    first = plane.ask_by_itself(id_)
    plane.run(MINUTE)
    assert plane.state(id_) is EnrolmentState.ENROLLED
    plane.sign_with(NEW)
    plane.run(2 * DAY)
    known = plane.enrolments.kept[id_]
    assert (known.state, known.code) == (EnrolmentState.FAILED, "not_asked_yet")
    second = plane.ask_by_itself(id_)
    plane.run(MINUTE)
    known = plane.enrolments.kept[id_]
    assert (known.state, known.path) == (EnrolmentState.ENROLLED, EnrolmentPath.BOOT)
    assert known.serial == second.serial
    assert plane.world.records.by_serial[first.serial].status(plane.world.time) is Status.REVOKED


def test_a_certificate_of_a_ca_that_is_newer_than_the_known_trust_is_not_taken_back() -> None:
    plane, (id_,) = enrolled(agent=None)
    plane.ask_by_itself(id_)
    plane.run(MINUTE)
    before = plane.trust_now
    plane.sign_with(NEW)
    plane.trusting = lambda: before
    second = plane.ask_by_itself(id_)
    plane.run(MINUTE)
    assert second.serial in {each.serial for each in plane.active(id_)}


def test_a_full_quota_of_certificates_that_are_refused_is_in_nobodys_way() -> None:
    plane, (id_,) = enrolled()
    plane.world.limits = replace(plane.world.limits, certificates_per_owner=1)
    before = of(plane, id_)
    plane.sign_with(NEW)
    plane.run(5 * MINUTE)
    after = of(plane, id_)
    assert (after.issuer_id, plane.state(id_)) == (NEW.id, EnrolmentState.ENROLLED)
    assert [each.serial for each in plane.active(id_)] == [after.serial]
    assert plane.world.records.by_serial[before.serial].revoked_by == "registry-trust"
