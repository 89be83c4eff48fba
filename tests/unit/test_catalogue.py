"""Looking certificates up: an owner's own, and, for admins, everybody's."""

from __future__ import annotations

import pytest

from chalicelib.domain.model import Caller, IssueRequest, Selection, Status
from chalicelib.errors import NotFound
from tests.unit.authorities import DAY, NOW
from tests.unit.stand_ins import World

ANN = Caller("arn:aws:iam::123456789012:user/ann", "ann")
BOB = Caller("arn:aws:iam::123456789012:user/bob", "bob")
ANY = Selection()


def test_an_owner_finds_his_own_and_nobody_elses(world: World) -> None:
    record = world.issuing.issue(IssueRequest(), ANN).record
    assert world.catalogue.look_up(record.serial, ANN) == record
    for serial, caller in ((record.serial, BOB), ("0" * 40, ANN)):
        with pytest.raises(NotFound) as caught:
            world.catalogue.look_up(serial, caller)
        assert caught.value.code == "certificate_not_found"
        assert str(caught.value) == "you have no certificate with this serial"


def test_an_admin_finds_whose_it_may_be_and_no_more(world: World) -> None:
    record = world.issuing.issue(IssueRequest(), ANN).record
    assert world.catalogue.look_up_any(record.serial) == record
    with pytest.raises(NotFound):
        world.catalogue.look_up_any("0" * 40)


def test_a_page_holds_the_owners_alone_newest_first(world: World) -> None:
    mine = [world.issuing.issue(IssueRequest(), ANN).record for _ in range(3)]
    world.issuing.issue(IssueRequest(), BOB)
    page = world.catalogue.own(ANN, ANY, 2, None)
    assert page.records == (mine[2], mine[1])
    assert world.catalogue.own(ANN, ANY, 2, page.cursor).records == (mine[0],)
    assert world.catalogue.own(ANN, Selection(status=Status.EXPIRED), 2, None).records == ()


def test_who_selects_another_owner_still_gets_his_own(world: World) -> None:
    world.issuing.issue(IssueRequest(), ANN)
    assert world.catalogue.own(BOB, Selection(owner=ANN.arn), 2, None).records == ()


def test_an_admin_sees_everybodys_or_one_owners(world: World) -> None:
    of_ann = world.issuing.issue(IssueRequest(days=10), ANN).record
    of_bob = world.issuing.issue(IssueRequest(days=90), BOB).record
    everyones = world.catalogue.everyones
    assert everyones(ANY, 9, None).records == (of_bob, of_ann)
    assert everyones(Selection(owner=BOB.arn), 9, None).records == (of_bob,)
    soon = Selection(expires_before=NOW + 11 * DAY)
    assert everyones(soon, 9, None).records == (of_ann,)
