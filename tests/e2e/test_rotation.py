"""Both CAs are replaced on the running cloud while clients pull, and not one pull is refused; and
the same at once, when the CAs' keys were stolen.

On a cloud of its own: nobody else's certificates would last here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from chalicelib.domain.pki.authorities import AuthorityKind
from chalicelib.domain.pki.authority_set import AuthoritySet
from localcloud import control
from localcloud.processes import until
from tests.e2e.conftest import local_cloud
from tests.e2e.drill import Developer, Drill
from tests.e2e.instances import Enrolment

CLIENT, SERVER = AuthorityKind.CLIENT, AuthorityKind.SERVER
KINDS = (CLIENT, SERVER)
REFRESH = "registry-refresh"
HUNG_SECONDS = 20.0  # who is told nothing for so long was not served
# What functions know of CAs and trust is up to a minute old, and the clock looks each minute.
SPREAD_SECONDS = 240
REFUSED_SECONDS = 30.0  # of what is distrusted; the host looks every 2 seconds here
CERTIFIED_SECONDS = 240.0  # functions sign with the CA they know for a minute; the host asks anew


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    with local_cloud("rotation-cloud") as cloud:
        drill = Drill(cloud, tmp_path_factory.mktemp("drill"))
        yield drill
        drill.stop_pulling()


@dataclass
class Cast:
    """Who takes part. looping: pulls all the while; late: does nothing in time.

    pulls: an instance that does, all the while; idle: one that does not; stuck: where nothing can
    be installed.
    """

    looping: Developer
    late: Developer
    pulls: str
    idle: str
    stuck: str

    @property
    def instances(self) -> tuple[str, str, str]:
        return self.pulls, self.idle, self.stuck


@pytest.fixture(scope="module")
def cast(drill: Drill) -> Cast:
    looping, late = drill.developer("looping"), drill.developer("late")
    drill.push(looping)
    instances = drill.fleet.launch("pull", 3)
    for each in instances:
        drill.fleet.enrolled(each)
    return Cast(looping, late, *instances)


def test_both_cas_are_replaced_and_not_one_pull_is_refused(
    drill: Drill, cast: Cast, capsys: pytest.CaptureFixture[str]
) -> None:
    drill.have_pull(cast.looping, cast.pulls)
    before = {kind: drill.authorities(kind) for kind in KINDS}
    try:
        with drill.stage("both CAs made; every next step refused as too early"):
            made(drill, cast)
        with drill.stage("trusted by the host, the developers, the instances; then signing"):
            signing(drill, cast, before)
        with drill.stage("everything renewed"):
            renewed(drill, cast, before)
        with drill.stage("the old ones retired, and trusted by nobody"):
            retired(drill, cast, before)
    finally:
        pullers = drill.stop_pulling()
        with capsys.disabled():
            print(drill.told(pullers))
    assert [pull for puller in pullers for pull in puller.refused] == []
    assert max(puller.longest_pause for puller in pullers) < HUNG_SECONDS


def made(drill: Drill, cast: Cast) -> None:
    """Nobody trusts the new ones yet: the host hears nothing of them, nor can one instance."""
    drill.fleet.run(cast.stuck, "chmod 555 /etc/docker/certs.d/$REGISTRY")
    with control.paused(drill.layout, REFRESH), ThreadPoolExecutor() as pool:
        for kind in KINDS:
            before = drill.authorities(kind)
            drill.ca("rotate", kind)
            known = drill.authorities(kind)
            assert (known.active, known.former) == (before.active, before.former)
            assert drill.keys(kind) == {known.active, *known.pending}
            assert known.pending[0] in drill.refused("rotate", kind)
        client, server = pool.map(lambda kind: drill.refused("activate", kind), KINDS)
        for said in client, server:
            assert drill.host in said
            assert cast.stuck in said
        assert re.search(rf"user/{cast.late.person.name}: 1,", server), server
        assert "is not yet activated" in drill.refused("retire", SERVER)


def signing(drill: Drill, cast: Cast, before: dict[AuthorityKind, AuthoritySet]) -> None:
    """One instance holds all up; once it is mended both go on by themselves."""
    cast.looping.take_trust()
    with ThreadPoolExecutor() as pool:
        wait = ("--wait", str(SPREAD_SECONDS))
        waiting = [
            pool.submit(drill.ca, "activate", CLIENT, *wait),
            pool.submit(drill.ca, "activate", SERVER, *wait, "--people-told"),
        ]
        assert until(
            lambda: all(drill.ca_on(i) == 2 for i in (cast.pulls, cast.idle)), SPREAD_SECONDS
        )
        assert until(lambda: all(map(drill.host_trusts, KINDS)), 30)
        assert not any(each.done() for each in waiting)
        assert cast.stuck in drill.refused("activate", CLIENT)
        with control.paused(drill.layout, REFRESH):
            drill.fleet.run(cast.stuck, "chmod 755 /etc/docker/certs.d/$REGISTRY")
            for each in waiting:
                each.result(SPREAD_SECONDS)
            assert drill.served_by() == before[SERVER].active
            assert drill.host in drill.refused("retire", SERVER)
    assert until(lambda: drill.served_by() == drill.authorities(SERVER).active, 30)


def renewed(drill: Drill, cast: Cast, before: dict[AuthorityKind, AuthoritySet]) -> None:
    """The old certificates work until then; the new ones are of the new CA."""
    new = drill.authorities(CLIENT).active
    assert drill.issuer(cast.looping) == before[CLIENT].active
    newcomer = drill.developer("newcomer")
    assert drill.issuer(newcomer) == new
    assert newcomer.pulls()
    assert cast.late.pulls() is False  # it was not told
    said = drill.refused("retire", CLIENT)
    assert re.search(rf"user/{cast.late.person.name}: 1,", said), said
    held = {each: drill.fleet.enrolled(each)["serial"] for each in cast.instances}
    for each, serial in held.items():
        drill.fleet.make_old(serial)
        drill.fleet.make_due(each)
    drill.fleet.reconcile()
    old = cast.looping.serial
    cast.looping.renew()
    drill.wait_for_pulls()  # or one that began with the old certificate would end without
    cast.looping.revoke(old)
    drill.take_back(cast.late.serial)
    drill.fleet.make_ended(drill.clouds_own)
    for each, serial in held.items():
        now = drill.fleet.wait(each, lambda e, s=serial: in_again(e, s))
        assert drill.fleet.certificate(now["serial"])["issuer_id"] == new
    assert drill.issuer(cast.looping) == new


def retired(drill: Drill, cast: Cast, before: dict[AuthorityKind, AuthoritySet]) -> None:
    """And their keys are gone."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda kind: drill.ca("retire", kind), KINDS))
    for kind in KINDS:
        known = drill.authorities(kind)
        assert list(known.certificates) == [known.active]
        assert drill.keys(kind) == {known.active}
        assert known.active != before[kind].active
    for each in cast.instances:
        assert until(lambda each=each: drill.ca_on(each) == 1, SPREAD_SECONDS)  # type: ignore[misc]
        assert drill.fleet.asks(each) == "200"


def test_with_both_keys_stolen_the_old_is_refused_in_seconds_and_instances_are_back_by_themselves(
    drill: Drill, cast: Cast, capsys: pytest.CaptureFixture[str]
) -> None:
    person, bystander = drill.developer("person"), drill.developer("bystander")
    old_ca, new_ca = drill.directory / "old-ca.crt", drill.directory / "new-ca.crt"
    old_ca.write_bytes((person.certs / "ca.crt").read_bytes())
    held = {each: drill.fleet.enrolled(each)["serial"] for each in cast.instances}
    before = {kind: drill.authorities(kind) for kind in KINDS}
    drill.have_pull(person, cast.pulls)
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        # --again: these CAs are so young that the command would take them for its own.
        wait = ("--yes", "--again", "--wait", str(SPREAD_SECONDS))
        working = [pool.submit(drill.ca, "distrust", kind, *wait) for kind in KINDS]
        with drill.stage("until a certificate of the old client CA is refused"):
            assert until(lambda: bystander.answered() != "200", REFUSED_SECONDS)
        with drill.stage("more, until who goes by the old server CA does not accept the registry"):
            assert until(lambda: person.answered(old_ca) == "not trusted", CERTIFIED_SECONDS)
        new_ca.write_text(person.published_ca())
        assert bystander.answered(new_ca) == "403"
        for each, serial in held.items():
            now = drill.fleet.wait(each, lambda e, s=serial: in_again(e, s), SPREAD_SECONDS)
            assert drill.fleet.certificate(now["serial"])["issuer_id"] not in before[CLIENT].ids
            assert drill.fleet.asks(each) == "200"
        drill.stages.append(f"{time.monotonic() - began:5.0f} s  in all, until all instances pull")
        said = [each.result() for each in working]
    assert bystander.person.name in said[0]
    with drill.stage("for a person to renew, and pull"):
        person.renew()
        assert person.pulls()
    drill.wait_for_pulls()
    with capsys.disabled():
        print(drill.told(drill.stop_pulling()))
    assert bystander.answered(new_ca) == "403"


def in_again(known: Enrolment, serial: str) -> bool:
    return bool(known["state"] == "enrolled" and known["serial"] != serial)


def test_by_force_a_step_is_taken_and_what_breaks_is_named(drill: Drill, cast: Cast) -> None:
    """The last: who is here afterwards does not matter."""
    with control.paused(drill.layout, REFRESH):
        drill.ca("rotate", CLIENT)
        (new,) = drill.authorities(CLIENT).pending
        said = drill.begun("activate", CLIENT, "--force", until_it_says="waiting")
    assert drill.host in said
    assert "breaks: the registry refuses every certificate issued from then on" in said
    assert drill.authorities(CLIENT).active == new
