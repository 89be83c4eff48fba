"""The steps of a rotation: each in its time, and well in the end wherever it was broken off."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.pki.authorities import AuthorityKind
from operations.cloud import CommandError
from operations.rotation import Rotation
from tests.unit.authorities import client_ca
from tests.unit.rotating_world import CLIENT, DAY, MINUTE, SERVER, BrokenOff, RotatingWorld

HOUR = timedelta(hours=1)

Step = Callable[[Rotation], None]
KINDS = pytest.mark.parametrize("kind", [CLIENT, SERVER])


def rotate(rotation: Rotation) -> None:
    rotation.rotate("ec-p256")


def activate(rotation: Rotation) -> None:
    rotation.activate(0.0, force=False, people_told=True)


def retire(rotation: Rotation) -> None:
    rotation.retire(force=False)


def abandon(rotation: Rotation) -> None:
    rotation.abandon()


def distrust(rotation: Rotation) -> None:
    rotation.distrust("ec-p256", 0.0, again=False)


def refusal(world: RotatingWorld, kind: AuthorityKind, step: Step) -> str:
    before = (world.sets[kind], world.public[kind], set(world.keys[kind]))
    with pytest.raises(CommandError) as caught:
        step(world.rotation(kind))
    assert (world.sets[kind], world.public[kind], set(world.keys[kind])) == before
    return str(caught.value)


def pending(kind: AuthorityKind) -> RotatingWorld:
    """A new one is trusted by all that are told."""
    world = RotatingWorld()
    rotate(world.rotation(kind))
    world.time += 3 * MINUTE
    world.all_follow()
    return world


def activated(kind: AuthorityKind) -> RotatingWorld:
    """It signs, and nothing lives under the one before."""
    world = pending(kind)
    for client in world.clients:
        client.servers = world.hosts["i-0000000a"].servers
    activate(world.rotation(kind))
    world.all_follow()
    for client in world.clients:
        world.client_renews(client)
    world.time += MINUTE
    return world


@KINDS
def test_a_rotation_from_its_beginning_to_its_end(kind: AuthorityKind) -> None:
    world = RotatingWorld()
    old = world.sets[kind].active
    rotate(world.rotation(kind))
    new = world.sets[kind].pending[0]
    assert list(world.public[kind].ids) == [old, new]
    assert world.effects == ["key", "set", "publish"]

    world = activated(kind)
    assert world.sets[kind].former
    world.effects.clear()
    retire(world.rotation(kind))

    assert world.effects == ["set", "publish", "wait", "no key"]
    assert list(world.public[kind].ids) == [world.sets[kind].active]
    assert world.keys[kind] == {world.sets[kind].active}
    assert world.misunderstandings == []


@KINDS
def test_after_an_activation_everybody_knows_when_it_ends(kind: AuthorityKind) -> None:
    world = pending(kind)
    world.effects.clear()
    began = world.time
    activate(world.rotation(kind))
    assert world.effects == ["set", "publish", "wait"]
    assert world.time - began == MINUTE


@KINDS
def test_there_is_one_rotation_at_a_time(kind: AuthorityKind) -> None:
    assert "activate" in refusal(pending(kind), kind, rotate)
    assert "retire" in refusal(activated(kind), kind, rotate)


@KINDS
def test_an_activation_before_the_hosts_have_it_is_refused(kind: AuthorityKind) -> None:
    world = RotatingWorld()
    rotate(world.rotation(kind))
    world.time += 3 * MINUTE
    for client in world.clients:
        world.client_takes_trust(client)
    said = refusal(world, kind, activate)
    assert "1 of 1 registry hosts are not known to have CA" in said
    assert "i-0000000a: it does not have it yet" in said
    assert f"scripts/ca activate {kind} --stage prod" in said


@KINDS
def test_an_activation_before_the_instances_have_it_is_refused(kind: AuthorityKind) -> None:
    world = pending(kind)
    world.clients[0].version = "older"
    said = refusal(world, kind, activate)
    assert "1 enrolled instances do not have the published trust yet" in said
    assert "i-0000000b" in said


def test_people_have_to_be_told_of_a_server_ca_and_of_no_other() -> None:
    ask: Step = lambda rotation: rotation.activate(0.0, force=False, people_told=False)  # noqa: E731
    said = refusal(pending(SERVER), SERVER, ask)
    assert "assumed-role/role/ann: 1, the last until" in said
    assert "--people-told" in said
    ask(pending(CLIENT).rotation(CLIENT))


def test_waiting_goes_on_once_all_have_it() -> None:
    world = RotatingWorld()
    rotate(world.rotation())
    world.while_waiting = lambda: world.all_follow() if world.time > began + 2 * MINUTE else None
    began = world.time
    world.rotation().activate(600.0, force=False, people_told=False)
    assert not world.sets[CLIENT].pending
    assert began + 2 * MINUTE < world.time < began + 4 * MINUTE


def test_waiting_ends_in_time_and_changes_nothing() -> None:
    world = RotatingWorld()
    rotate(world.rotation())
    began = world.time
    refusal(world, CLIENT, lambda r: r.activate(600.0, force=False, people_told=False))
    assert world.time == began + 10 * MINUTE


def test_force_says_whom_it_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    world = RotatingWorld()
    rotate(world.rotation())
    world.rotation().activate(0.0, force=True, people_told=False)
    said = capsys.readouterr().out
    assert "breaks: the registry refuses every certificate issued from then on" in said
    assert not world.sets[CLIENT].pending


@KINDS
def test_a_second_activation_says_so_and_is_well(
    kind: AuthorityKind, capsys: pytest.CaptureFixture[str]
) -> None:
    world = activated(kind)
    before = world.sets[kind]
    activate(world.rotation(kind))
    assert "signs already" in capsys.readouterr().out
    assert world.sets[kind] == before


def test_a_client_ca_is_not_retired_while_certificates_of_it_are_valid() -> None:
    world = pending(CLIENT)
    activate(world.rotation())
    world.time += MINUTE
    said = refusal(world, CLIENT, retire)
    assert "3 valid certificates are of CA" in said
    assert "role/ann: 1, the last until 2026-06-02" in said
    world.time += 91 * DAY
    retire(world.rotation())
    assert len(world.sets[CLIENT].certificates) == 1


def test_a_server_ca_is_not_retired_while_a_host_serves_under_it() -> None:
    world = activated(SERVER)
    host = world.hosts["i-0000000a"]
    host.issuer = world.sets[SERVER].former[0]
    assert "may not serve under CA" in refusal(world, SERVER, retire)
    host.issuer, host.reports = world.sets[SERVER].active, False
    assert "no report of the last 15 minutes" in refusal(world, SERVER, retire)
    host.reports = True
    retire(world.rotation(SERVER))


def test_by_force_its_key_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    world = pending(CLIENT)
    activate(world.rotation())
    world.time += MINUTE
    old = world.sets[CLIENT].former[0]
    world.rotation().retire(force=True)
    assert old in world.keys[CLIENT]
    assert f"aws ssm delete-parameter --name /client-ca-key/{old}" in capsys.readouterr().out
    retire(world.rotation())
    assert old in world.keys[CLIENT]
    world.time += 91 * DAY
    retire(world.rotation())
    assert old not in world.keys[CLIENT]


@KINDS
def test_what_was_not_activated_is_not_retired_but_taken_back(kind: AuthorityKind) -> None:
    world = pending(kind)
    assert "not yet activated" in refusal(world, kind, retire)
    abandon(world.rotation(kind))
    assert world.keys[kind] == {world.sets[kind].active} == set(world.public[kind].ids)


@KINDS
def test_a_ca_that_is_distrusted_is_out_at_once(kind: AuthorityKind) -> None:
    world = pending(kind)
    before = set(world.sets[kind].certificates)
    distrust(world.rotation(kind))
    known = world.sets[kind]
    assert world.public[kind] == known
    assert len(known.certificates) == 1
    assert not before & known.certificates.keys()
    again = world.sets[kind]
    world.time += 5 * MINUTE
    distrust(world.rotation(kind))
    assert world.sets[kind] == again
    world.rotation(kind).distrust("ec-p256", 0.0, again=True)
    assert world.sets[kind] != again


def test_one_that_was_made_with_the_stage_just_now_can_be_distrusted_too() -> None:
    world = RotatingWorld()
    world.time -= DAY - 5 * MINUTE
    before = world.sets[CLIENT].active
    distrust(world.rotation())
    assert before not in world.public[CLIENT].certificates


def test_who_has_to_act_after_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    world = RotatingWorld()
    distrust(world.rotation())
    said = capsys.readouterr().out
    assert "registry hosts are not known to have CA" in said
    assert "2 instances have no certificate of CA" in said
    assert "role/ann" in said
    world.all_follow()
    capsys.readouterr()
    distrust(world.rotation())
    said = capsys.readouterr().out
    assert "instances have no certificate" not in said
    assert "needs somebody's hand" in said
    assert "role/ann" in said


WHERE = {
    "rotate": (RotatingWorld, rotate),
    "activate": (lambda: pending(CLIENT), activate),
    "activate server": (lambda: pending(SERVER), activate),
    "retire": (lambda: activated(CLIENT), retire),
    "retire server": (lambda: activated(SERVER), retire),
    "abandon": (lambda: pending(CLIENT), abandon),
    "distrust": (RotatingWorld, distrust),
}


@pytest.mark.parametrize("after", range(1, 5))
@pytest.mark.parametrize("name", WHERE)
def test_broken_off_anywhere_the_next_run_ends_well(name: str, after: int) -> None:
    """After each effect in turn; whatever is left is what a run in one go leaves, or a key more."""
    make, step = WHERE[name]
    kind = SERVER if name.endswith("server") else CLIENT
    whole, world = make(), make()
    step(whole.rotation(kind))
    world.effects.clear()
    world.crash_at = after
    with suppress(BrokenOff):
        step(world.rotation(kind))
    world.crash_at = -1
    if name == "abandon":  # before that its key may be of a CA that somebody is making
        world.time += HOUR + MINUTE
    if name == "rotate" and after >= 3:  # it had come to its end, and is not done twice
        assert "waits to be activated" in refusal(world, kind, step)
    else:
        step(world.rotation(kind))
    known, expected = world.sets[kind], whole.sets[kind]
    assert world.public[kind] == known
    assert [len(known.certificates), len(known.pending), len(known.former)] == [
        len(expected.certificates),
        len(expected.pending),
        len(expected.former),
    ]
    assert world.keys[kind] >= known.certificates.keys()
    if name not in ("rotate", "distrust"):
        assert world.keys[kind] == set(known.certificates)


def test_the_key_of_a_ca_that_another_operator_is_making_is_left_alone() -> None:
    world, made = RotatingWorld(), client_ca(7)
    world.add_key(made)
    retire(world.rotation())
    assert made.id in world.keys[CLIENT]


def test_who_tidies_up_looks_again_after_the_wait() -> None:
    """The key of the CA that somebody named meanwhile stays, however old it is."""
    world, made = RotatingWorld(), client_ca(7)
    world.add_key(made)
    world.time += 2 * HOUR
    world.changed[CLIENT] = world.time
    world.while_waiting = lambda: world._write(world.sets[CLIENT].with_trusted(made.id, "PEM"))
    retire(world.rotation())
    assert made.id in world.sets[CLIENT].certificates
    assert made.id in world.keys[CLIENT]


def test_a_key_that_nobody_names_goes_after_an_hour() -> None:
    world, made = RotatingWorld(), client_ca(7)
    world.add_key(made)
    world.time += HOUR + MINUTE
    retire(world.rotation())
    assert made.id not in world.keys[CLIENT]


@pytest.mark.parametrize("force", [False, True])
def test_a_ca_without_its_key_does_not_come_to_sign(force: bool) -> None:
    world = pending(CLIENT)
    (new,) = world.sets[CLIENT].pending
    world.keys[CLIENT].discard(new)
    with pytest.raises(CommandError, match=f"the key of CA {new} is not there"):
        world.rotation().activate(0, force=force, people_told=False)
    assert new in world.sets[CLIENT].pending


@pytest.mark.parametrize("name", WHERE)
def test_of_two_operators_at_once_one_is_told(name: str) -> None:
    make, step = WHERE[name]
    kind = SERVER if name.endswith("server") else CLIENT
    world = make()

    def other() -> None:
        world.before_write = lambda: None
        world._write(world.sets[kind].with_trusted("f" * 16, "PEM"))

    world.before_write = other
    with pytest.raises(CommandError, match="another operator"):
        step(world.rotation(kind))
    assert "f" * 16 in world.sets[kind].certificates


@dataclass(frozen=True)
class Turn:
    """What somebody tries, and who then does what it would do sooner or later anyway."""

    kind: AuthorityKind
    step: Step
    host: bool
    told: frozenset[int]
    renewing: frozenset[int]
    time: timedelta

    def happen(self, world: RotatingWorld) -> None:
        if self.step is activate:  # which says that people were told, and they do as they are
            for person in (each for each in world.clients if not each.instance):
                person.servers = tuple(world.public[SERVER].ids)
        with suppress(CommandError):
            self.step(world.rotation(self.kind))
        if self.host:
            world.host_refreshes(world.hosts["i-0000000a"])
        for number in self.told:
            world.client_takes_trust(world.clients[number])
        for number in self.renewing:
            world.client_renews(world.clients[number])
        world.time += self.time


TURNS = st.builds(
    Turn,
    kind=st.sampled_from(list(AuthorityKind)),
    step=st.sampled_from([rotate, rotate, activate, activate, retire, retire, abandon]),
    host=st.booleans(),
    told=st.frozensets(st.sampled_from([0, 1])),
    renewing=st.frozensets(st.sampled_from([0, 1, 2])),
    time=st.sampled_from([timedelta(), MINUTE, 5 * MINUTE, 5 * MINUTE, 91 * DAY]),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(TURNS, min_size=20, max_size=40))
def test_without_force_nobody_is_ever_locked_out(turns: list[Turn]) -> None:
    """Whatever operators try in whatever order, and however long hosts and clients take."""
    world = RotatingWorld()
    for turn in turns:
        turn.happen(world)
        assert world.misunderstandings == []
