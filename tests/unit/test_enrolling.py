"""Instances enrol themselves, whatever is lost, doubled, late or broken off on the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.enrolment.model import (
    Ask,
    CommandOutcome,
    CommandStatus,
    Enrolment,
    EnrolmentPath,
    EnrolmentState,
    Why,
)
from chalicelib.domain.model import (
    Access,
    CertificatePage,
    CertificateRecord,
    InstanceFacts,
    InstanceState,
    IssueRequest,
    NamedRequest,
    RevocationReason,
)
from chalicelib.errors import (
    AppError,
    Conflict,
    DependencyFailed,
    Forbidden,
    InvalidRequest,
    Misconfigured,
    NotFound,
)
from tests.unit.enrolling_world import Faults, Plane, look
from tests.unit.instances import caller_of
from tests.unit.refusals import refused
from tests.unit.signing_requests import csr, rsa_key
from tests.unit.stand_ins import Crash

HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)


def enrolled(access: Access = Access.PULL, **options: float) -> tuple[Plane, str]:
    plane = Plane()
    id_ = plane.launch(access=access, **options)
    plane.run(5 * MINUTE)
    assert plane.state(id_) is EnrolmentState.ENROLLED
    return plane, id_


def only(plane: Plane, id_: str) -> str:
    """The serial of its one active certificate, which is recorded and on the instance."""
    (record,) = plane.active(id_)
    assert record.serial == plane.enrolments.kept[id_].serial == plane.hosts[id_].certificate
    return record.serial


class TestEnrolment:
    def test_a_launched_instance_gets_what_its_tag_says_and_nobody_does_anything(self) -> None:
        plane, id_ = enrolled(Access.PUSH)
        (record,) = plane.active(id_)
        assert record.serial == only(plane, id_)
        assert record.access is Access.PUSH
        assert record.owner == plane.ec2[id_].session_arn
        assert not record.made_key
        assert plane.enrolments.kept[id_].path is EnrolmentPath.AGENT

    def test_it_takes_as_long_as_the_agent_and_two_commands(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=20)
        plane.run(70 * timedelta(seconds=1))
        assert plane.state(id_) is EnrolmentState.ENROLLED

    def test_an_untagged_instance_costs_one_call(self) -> None:
        plane = Plane()
        id_ = plane.launch(access=None)
        plane.run(30 * timedelta(seconds=1))
        assert plane.calls == {"DescribeInstances": 1}
        assert plane.state(id_) is None

    def test_one_without_an_agent_has_failed_after_a_quarter_of_an_hour_and_is_tried_again(
        self,
    ) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None)
        plane.run(14 * MINUTE)
        assert plane.state(id_) is EnrolmentState.WAITING_FOR_AGENT
        plane.run(4 * MINUTE)
        known = plane.enrolments.kept[id_]
        assert (known.state, known.code) == (EnrolmentState.FAILED, "no_agent")
        plane.hosts[id_].online_at = plane.world.time
        plane.run(25 * MINUTE)
        assert plane.state(id_) is EnrolmentState.ENROLLED
        assert plane.enrolments.kept[id_].reason == ""

    def test_failed_attempts_come_more_and_more_seldom(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None)
        plane.every = 10 * MINUTE
        plane.run(3 * DAY)
        known = plane.enrolments.kept[id_]
        assert 5 <= known.failures <= 10

    def test_an_instance_without_a_role_is_told_what_it_lacks(self) -> None:
        plane = Plane()
        id_ = plane.launch()
        plane.ec2[id_] = replace(plane.ec2[id_], role=None, session_arn=None)
        plane.run(20 * MINUTE)
        known = plane.enrolments.kept[id_]
        assert (known.state, known.code) == (EnrolmentState.FAILED, "no_instance_profile")
        assert not plane.active(id_)

    def test_only_the_command_that_was_recorded_is_read(self) -> None:
        """Whatever another command on the instance printed, and whoever sent that."""
        plane = Plane()
        id_ = plane.launch(agent=0)
        plane.run(8 * timedelta(seconds=1))
        known = plane.enrolments.kept[id_]
        assert known.command is not None
        plane.enrolling.advance_all([("m", Ask(id_, Why.EVENT))])
        read = plane.results[known.command.command_id or ""]
        assert len(plane.results) == plane.hosts[id_].commands.__len__()
        assert read

    def test_a_command_that_never_ends_is_given_up_and_sent_anew(self) -> None:
        plane = Plane()
        id_ = plane.launch()
        read = plane.outcome
        plane.outcome = lambda c, i: CommandOutcome(CommandStatus.RUNNING)  # type: ignore[method-assign]
        plane.run(4 * MINUTE)
        assert len(plane.hosts[id_].commands) == 1
        plane.run(3 * MINUTE)
        assert len(plane.hosts[id_].commands) == 2
        plane.outcome = read  # type: ignore[method-assign]
        plane.run(3 * MINUTE)
        assert plane.state(id_) is EnrolmentState.ENROLLED

    def test_who_comes_while_a_command_is_being_sent_sends_none(self) -> None:
        plane = Plane()
        id_ = plane.launch()
        send = plane.send

        def send_while_others_look(instance_id: str, script: str, comment: str) -> str:
            plane.enrolling.advance_all([("m", Ask(instance_id, Why.EVENT))])
            return send(instance_id, script, comment)

        plane.send = send_while_others_look  # type: ignore[method-assign]
        plane.run(3 * MINUTE)
        assert plane.state(id_) is EnrolmentState.ENROLLED
        assert len(plane.hosts[id_].commands) == 2

    def test_of_two_that_look_at_once_one_sends(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=0)
        plane.faults.double = 1.0
        plane.run(5 * timedelta(seconds=1))
        known = plane.enrolments.kept.get(id_)
        sight = plane.ec2[id_]
        for _ in range(2):
            plane.enrolling._advance(Ask(id_, Why.EVENT), known, sight)
        assert len(plane.hosts[id_].commands) == 1


class TestHostileInstances:
    @pytest.mark.parametrize(
        "out", ["", "x" * 24_001, "-----BEGIN CERTIFICATE REQUEST-----", "\x1b[2J"]
    )
    def test_what_is_no_csr_certifies_nothing(self, out: str) -> None:
        plane = Plane()
        id_ = plane.launch()
        plane.hosts[id_].outcomes = [CommandOutcome(CommandStatus.SUCCEEDED, out)] * 100
        plane.run(25 * MINUTE)
        assert plane.state(id_) is EnrolmentState.FAILED
        assert not plane.world.records.by_serial

    def test_another_instances_csr_replayed_certifies_nothing(self) -> None:
        plane, first = enrolled()
        shown = [outcome for _, outcome in plane.results.values() if "REQUEST" in outcome.out]
        thief = plane.launch(number=7)
        plane.hosts[thief].outcomes = shown * 100
        plane.run(25 * MINUTE)
        assert plane.enrolments.kept[thief].code == "csr_not_for_this"
        assert not plane.active(thief)
        assert only(plane, first)

    def test_another_instances_key_is_refused_and_a_new_one_is_made(self) -> None:
        """As in a machine image that was taken of an enrolled instance."""
        plane, first = enrolled()
        clone = plane.launch(number=7)
        plane.hosts[clone].key = plane.hosts[first].key
        plane.run(5 * MINUTE)
        assert plane.state(clone) is EnrolmentState.ENROLLED
        assert plane.hosts[clone].key is not plane.hosts[first].key
        assert only(plane, clone) != only(plane, first)

    def test_one_that_always_denies_its_key_gets_no_more_certificates_than_its_quota(self) -> None:
        plane = Plane()
        id_ = plane.launch()
        denial = CommandOutcome(CommandStatus.FAILED, "registry-trust: needs_key no")
        plane._run = lambda host, i, script: (  # type: ignore[method-assign]
            plane._do(host, i, script) if "serialNumber" in script else denial
        )
        plane.run(DAY)
        assert plane.state(id_) is not EnrolmentState.ENROLLED
        assert len(plane.active(id_)) <= 20

    def test_what_it_printed_is_told_to_admins_without_what_terminals_obey(self) -> None:
        plane = Plane()
        id_ = plane.launch()
        said = "registry-trust: unreachable \x1b[31mno route\x07 to host"
        plane._run = lambda host, i, script: (  # type: ignore[method-assign]
            plane._do(host, i, script)
            if "serialNumber" in script
            else CommandOutcome(CommandStatus.FAILED, said)
        )
        plane.run(20 * MINUTE)
        known = plane.enrolments.kept[id_]
        assert (known.state, known.code) == (EnrolmentState.FAILED, "unreachable")
        assert known.reason == "[31mno route to host"


class TestRules:
    @pytest.mark.parametrize(
        ("before", "after"), [(Access.PULL, Access.PUSH), (Access.PUSH, Access.PULL)]
    )
    def test_access_follows_the_tag_and_the_old_certificate_is_revoked(
        self, before: Access, after: Access
    ) -> None:
        plane, id_ = enrolled(before)
        old = only(plane, id_)
        plane.tag(id_, after)
        plane.run(2 * MINUTE)
        assert only(plane, id_) != old
        assert plane.active(id_)[0].access is after
        assert plane.world.records.by_serial[old].revocation_reason is RevocationReason.SUPERSEDED

    def test_a_lesser_tag_counts_within_minutes_though_nothing_can_be_installed(self) -> None:
        plane, id_ = enrolled(Access.PUSH)
        plane.hosts[id_].online_at = None
        plane.tag(id_, Access.PULL)
        plane.run(20 * MINUTE)
        assert not plane.active(id_)
        assert plane.enrolments.kept[id_].code == "no_agent"
        plane.hosts[id_].online_at = plane.world.time
        plane.run(30 * MINUTE)
        assert only(plane, id_)
        assert plane.active(id_)[0].access is Access.PULL

    def test_a_tag_taken_away_takes_the_certificate(self) -> None:
        plane, id_ = enrolled()
        serial = only(plane, id_)
        plane.tag(id_, None)
        plane.run(MINUTE)
        assert plane.state(id_) is EnrolmentState.GONE
        revoked = plane.world.records.by_serial[serial]
        assert revoked.revocation_reason is RevocationReason.PRIVILEGE_WITHDRAWN
        plane.tag(id_, Access.PULL)
        plane.run(5 * MINUTE)
        assert only(plane, id_) != serial

    def test_a_lost_change_of_an_old_ones_tag_is_found_within_the_hour(self) -> None:
        plane, id_ = enrolled()
        plane.run(3 * HOUR)
        plane.ec2[id_] = replace(plane.ec2[id_], access=Access.PUSH)
        plane.run(HOUR + 5 * MINUTE)
        assert plane.active(id_)[0].access is Access.PUSH

    @pytest.mark.parametrize("taken_off", [True, False])
    def test_a_lost_removal_of_the_tag_is_found_within_the_hour(self, taken_off: bool) -> None:
        """Be it taken off, or given a value that says nothing."""
        plane, id_ = enrolled()
        plane.run(3 * HOUR)
        plane.ec2[id_] = replace(plane.ec2[id_], access=None)
        if taken_off:
            plane.untagged.add(id_)
        plane.run(HOUR + 5 * MINUTE)
        assert not plane.active(id_)

    def test_stopped_ones_do_not_keep_a_new_trust_from_others(self) -> None:
        plane = Plane(most=2)
        ids = [plane.launch(number) for number in range(4)]
        plane.run(20 * MINUTE)
        for id_ in ids[:3]:
            plane.stop(id_)
        plane.trust_now = replace(plane.trust_now, registry_address="192.0.2.99")
        plane.run(10 * MINUTE)
        assert plane.enrolments.kept[ids[3]].trust_version == plane.trust_now.version
        plane.start(ids[0])
        plane.run(5 * MINUTE)
        assert plane.enrolments.kept[ids[0]].trust_version == plane.trust_now.version

    def test_when_ec2_does_not_answer_what_is_due_is_asked_for_all_the_same(self) -> None:
        plane, id_ = enrolled()
        silent = DependencyFailed("ec2_unreadable", "EC2 did not answer")
        plane.tagged = raises(silent)  # type: ignore[method-assign]
        asked: list[Ask] = []
        plane.ask = asked.extend  # type: ignore[method-assign]
        plane.world.time += 2 * DAY
        with pytest.raises(DependencyFailed):
            plane.reconciling.reconcile(everything=False)
        assert [ask.instance_id for ask in asked] == [id_]

    def test_one_that_ended_with_a_tag_that_says_nothing_is_nobodys_business(self) -> None:
        plane = Plane()
        id_ = plane.launch(access=None)
        plane.run(MINUTE)
        plane.terminate(id_)
        plane.run(MINUTE)
        plane.calls.clear()
        plane.run(30 * MINUTE)
        assert plane.calls == {}

    def test_stopped_and_started_it_keeps_its_certificate(self) -> None:
        plane, id_ = enrolled()
        serial = only(plane, id_)
        plane.stop(id_)
        plane.every = 10 * MINUTE
        plane.run(2 * DAY)
        assert plane.active(id_)
        plane.start(id_)
        plane.run(5 * MINUTE)
        assert only(plane, id_) == serial
        assert plane.state(id_) is EnrolmentState.ENROLLED

    def test_a_rebuilt_disk_is_noticed_when_it_starts_and_gets_a_new_certificate(self) -> None:
        plane, id_ = enrolled()
        serial = only(plane, id_)
        plane.stop(id_)
        plane.hosts[id_].rebuild()
        plane.start(id_)
        plane.run(5 * MINUTE)
        assert only(plane, id_) != serial

    def test_a_disk_rebuilt_while_it_ran_is_noticed_within_a_day(self) -> None:
        plane, id_ = enrolled()
        plane.hosts[id_].rebuild()
        plane.run(DAY + HOUR)
        assert only(plane, id_)

    def test_terminated_its_certificates_are_revoked_at_once(self) -> None:
        plane, id_ = enrolled()
        serial = only(plane, id_)
        plane.terminate(id_)
        plane.run(5 * timedelta(seconds=1))
        assert not plane.active(id_)
        assert plane.state(id_) is EnrolmentState.GONE
        record = plane.world.records.by_serial[serial]
        assert record.revocation_reason is RevocationReason.CESSATION_OF_OPERATION
        assert plane.world.trust.current().crl_number > 1

    def test_a_certificate_that_no_list_shows_yet_is_revoked_all_the_same(self) -> None:
        """An index is up to a second behind its table."""
        plane, id_ = enrolled()
        nothing = CertificatePage((), None)
        plane.world.records.page = lambda *given: nothing  # type: ignore[method-assign]
        plane.terminate(id_)
        plane.run(5 * timedelta(seconds=1))
        assert not plane.active(id_)

    def test_terminated_unheard_its_certificates_are_revoked_within_minutes(self) -> None:
        plane, id_ = enrolled()
        plane.faults.drop = 1.0
        plane.terminate(id_)
        plane.run(2 * MINUTE)
        assert not plane.active(id_)

    def test_what_ec2_has_forgotten_is_gone_but_only_if_it_says_so(self) -> None:
        plane, id_ = enrolled()
        facts = plane.ec2.pop(id_)
        plane.facts_of_all = lambda ids: {}  # type: ignore[method-assign]
        plane.facts = lambda id_: facts  # type: ignore[method-assign]
        plane.enrolling.advance_all([("m", Ask(id_, Why.EVENT))])
        assert plane.active(id_), "an empty answer is no word of its end"
        plane.facts = lambda id_: None  # type: ignore[method-assign]
        plane.enrolling.advance_all([("m", Ask(id_, Why.EVENT))])
        assert not plane.active(id_)

    def test_what_was_issued_while_it_ended_is_revoked_later_on(self) -> None:
        plane, id_ = enrolled()
        plane.terminate(id_)
        plane.run(MINUTE)
        over = plane.ec2[id_]
        plane.ec2[id_] = replace(over, state=InstanceState.RUNNING)  # as EC2 said a moment before
        plane.faults.lose_asks = True
        plane.ask_by_itself(id_)
        plane.ec2[id_], plane.faults.lose_asks = over, False
        assert plane.active(id_)
        plane.run(20 * MINUTE)
        assert not plane.active(id_)
        plane.run(7 * HOUR)
        assert plane.enrolments.kept[id_].look_at is None

    def test_a_revocation_by_an_admin_is_not_undone_until_an_admin_says_so(self) -> None:
        plane, id_ = enrolled()
        admin = caller_of(plane.ec2[id_])
        reason = RevocationReason.KEY_COMPROMISE
        plane.world.revoking.revoke_any(only(plane, id_), reason, admin)
        plane.every = 10 * MINUTE
        plane.run(2 * DAY)
        known = plane.enrolments.kept[id_]
        assert (known.state, known.code) == (EnrolmentState.FAILED, "certificate_revoked")
        assert not plane.active(id_)
        sent = len(plane.hosts[id_].commands)
        plane.stop(id_)
        plane.start(id_)
        plane.every = HOUR
        plane.run(30 * DAY)
        assert plane.enrolments.kept[id_].code == "certificate_revoked"
        assert len(plane.hosts[id_].commands) == sent
        plane.asking.enrol(id_)
        plane.run(5 * MINUTE)
        assert only(plane, id_)

    def test_who_is_enrolled_afresh_has_a_new_key_whatever_became_of_the_old(self) -> None:
        plane, id_ = enrolled()
        admin, key = caller_of(plane.ec2[id_]), plane.hosts[id_].key
        plane.world.revoking.revoke_any(only(plane, id_), RevocationReason.KEY_COMPROMISE, admin)
        plane.hosts[id_].online_at = plane.world.time + MINUTE
        plane.asking.enrol(id_)
        plane.run(5 * MINUTE)
        assert only(plane, id_)
        assert plane.hosts[id_].key is not key

    def test_another_role_means_another_owner_and_the_old_ones_certificate_goes(self) -> None:
        plane, id_ = enrolled()
        old = only(plane, id_)
        arn = "arn:aws:sts::123456789012:assumed-role/other/" + id_
        plane.ec2[id_] = replace(plane.ec2[id_], role="other", session_arn=arn)
        plane.run(DAY + HOUR)
        assert only(plane, id_) != old
        assert plane.active(id_)[0].owner == arn


class TestAskingByItself:
    """What an instance asks for with its role's credentials follows its tag and its end, too."""

    def test_it_is_looked_at_at_once_and_the_schedule_is_not_needed(self) -> None:
        plane = Plane(every=DAY)
        id_ = plane.launch(agent=None)
        plane.run(12 * timedelta(seconds=1))
        plane.ask_by_itself(id_)
        plane.run(timedelta(seconds=1))
        assert plane.state(id_) is EnrolmentState.ENROLLED

    @pytest.mark.parametrize("recorded", [True, False])
    def test_a_tag_that_was_there_for_a_moment_leaves_nothing(self, recorded: bool) -> None:
        """With every event of the tag lost, and whether or not it was ever recorded."""
        plane = Plane()
        id_ = plane.launch(access=Access.PUSH if recorded else None)
        plane.run(3 * MINUTE)
        if recorded:
            plane.tag(id_, None)
            plane.run(MINUTE)
        plane.faults.drop = 1.0
        plane.tag(id_, Access.PUSH)
        record = plane.ask_by_itself(id_)
        plane.tag(id_, None)
        plane.run(MINUTE)
        assert plane.world.records.by_serial[record.serial].revoked_at

    def test_with_a_role_it_had_for_a_moment_too(self) -> None:
        plane, id_ = enrolled()
        plane.give_role(id_, "other")
        record = plane.ask_by_itself(id_)
        plane.run(timedelta(seconds=1))
        plane.give_role(id_, "docker-instance")
        plane.terminate(id_)
        plane.run(MINUTE)
        assert plane.world.records.by_serial[record.serial].revoked_at
        assert not plane.active(id_)

    def test_it_may_not_ask_for_longer_than_it_would_be_given(self) -> None:
        plane, id_ = enrolled()
        request, caller = IssueRequest(days=91), caller_of(plane.ec2[id_])
        ask = lambda: plane.world.issuing.issue(request, caller)  # noqa: E731
        assert refused(InvalidRequest, ask) == "days_out_of_range"

    def test_whose_certificate_an_admin_revoked_is_refused_another_until_it_is_enrolled_afresh(
        self,
    ) -> None:
        plane, id_ = enrolled()
        serial, admin = only(plane, id_), caller_of(plane.ec2[id_])
        other = plane.ask_by_itself(id_)
        plane.world.revoking.revoke_any(serial, RevocationReason.KEY_COMPROMISE, admin)
        assert refused(Forbidden, lambda: plane.ask_by_itself(id_)) == "instance_barred"
        plane.run(DAY + HOUR)
        assert plane.world.records.by_serial[other.serial].revoked_at, "nor does it keep another"
        assert refused(Forbidden, lambda: plane.ask_by_itself(id_)) == "instance_barred"
        plane.asking.enrol(id_)
        plane.run(5 * MINUTE)
        assert only(plane, id_)
        assert plane.ask_by_itself(id_)

    def test_without_an_agent_too(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None)
        plane.run(12 * timedelta(seconds=1))
        serial = plane.ask_by_itself(id_).serial
        plane.run(MINUTE)
        admin = caller_of(plane.ec2[id_])
        plane.world.revoking.revoke_any(serial, RevocationReason.KEY_COMPROMISE, admin)
        plane.run(timedelta(seconds=1))
        known = plane.enrolments.kept[id_]
        assert (known.state, known.code) == (EnrolmentState.FAILED, "certificate_revoked")
        plane.asking.enrol(id_)
        plane.run(MINUTE)
        assert plane.ask_by_itself(id_)
        plane.run(MINUTE)
        assert plane.state(id_) is EnrolmentState.ENROLLED

    def test_a_full_quota_is_in_nobodys_way(self) -> None:
        plane, id_ = enrolled()
        for _ in range(19):
            plane.ask_by_itself(id_)
        plane.tag(id_, Access.PUSH)
        plane.run(5 * MINUTE)
        assert only(plane, id_)
        assert plane.active(id_)[0].access is Access.PUSH


class TestOthersCertificates:
    def test_what_is_not_the_instances_own_is_left_alone_until_it_is_gone(self) -> None:
        """The server certificate of a registry host that pulls, and what an admin had issued."""
        plane, id_ = enrolled()
        caller = caller_of(plane.ec2[id_])
        named = NamedRequest("service", caller.arn, IssueRequest())
        service = plane.world.issuing.issue_named(named, caller).record.serial
        serving = replace(plane.world.serving, role="docker-instance")
        server = serving.issue(csr(rsa_key(2048)), caller).record.serial
        plane.asking.enrol(id_)
        plane.run(5 * MINUTE)
        known = plane.world.records.by_serial
        assert known[service].revoked_at is known[server].revoked_at is None
        plane.terminate(id_)
        plane.run(MINUTE)
        assert known[service].revoked_at
        assert known[server].revoked_at is None

    def test_one_that_cannot_be_revoked_keeps_no_other(self) -> None:
        plane, id_ = enrolled()
        bad = plane.ask_by_itself(id_).serial

        def before_revoke(record: CertificateRecord) -> None:
            if record.serial == bad:
                raise DependencyFailed("table_unwritable", "no")

        plane.world.records.before_revoke = before_revoke
        published = len(plane.world.bundles.published)
        plane.terminate(id_)
        plane.run(MINUTE)
        assert [record.serial for record in plane.active(id_)] == [bad]
        assert len(plane.world.bundles.published) > published

    def test_a_damaged_record_does_not_keep_it_from_another(self) -> None:
        plane, id_ = enrolled()
        plane.world.records.damaged.add(only(plane, id_))
        plane.every = 10 * MINUTE
        plane.run(2 * DAY)
        assert plane.state(id_) is EnrolmentState.ENROLLED
        assert plane.enrolments.kept[id_].serial not in plane.world.records.damaged


class TestStopped:
    def test_a_lesser_tag_counts_while_it_is_stopped(self) -> None:
        plane, id_ = enrolled(Access.PUSH)
        plane.stop(id_)
        plane.tag(id_, Access.PULL)
        plane.run(MINUTE)
        assert not plane.active(id_)
        plane.start(id_)
        plane.run(5 * MINUTE)
        assert only(plane, id_)

    def test_stopped_in_the_middle_it_keeps_nothing_of_another_access(self) -> None:
        plane, id_ = enrolled(Access.PUSH)
        plane.tag(id_, Access.PULL)
        plane.run(timedelta(seconds=1))
        assert plane.state(id_) is EnrolmentState.INSTALLING
        plane.stop(id_)
        plane.run(10 * MINUTE)
        assert Access.PUSH not in {record.access for record in plane.active(id_)}

    def test_it_cannot_be_enrolled_afresh(self) -> None:
        plane, id_ = enrolled()
        plane.stop(id_)
        assert refused(Conflict, lambda: plane.asking.enrol(id_)) == "instance_not_enrollable"


class TestTime:
    def test_a_tag_that_changes_while_installing_counts_once_that_is_done(self) -> None:
        plane, id_ = enrolled(Access.PULL)
        plane.tag(id_, Access.PUSH)
        plane.run(timedelta(seconds=1))
        assert plane.state(id_) is EnrolmentState.INSTALLING
        plane.ec2[id_] = replace(plane.ec2[id_], access=Access.PULL)  # and nothing tells of it
        plane.run(3 * MINUTE)
        assert only(plane, id_)
        assert plane.active(id_)[0].access is Access.PULL

    def test_an_end_does_not_wait_for_a_trust_that_cannot_be_read(self) -> None:
        plane, id_ = enrolled()
        plane.trusting = raises(Misconfigured("no_trust", "broken"))
        plane.terminate(id_)
        plane.run(MINUTE)
        assert not plane.active(id_)

    def test_a_new_trust_for_many_does_not_hide_an_end_that_nobody_heard_of(self) -> None:
        plane = Plane(most=2)
        ids = [plane.launch(number) for number in range(12)]
        plane.run(30 * MINUTE)
        plane.trust_now = replace(plane.trust_now, registry_address="192.0.2.99")
        plane.faults.drop = 1.0
        plane.terminate(ids[0])
        plane.run(3 * MINUTE)
        assert not plane.active(ids[0])

    def test_a_restart_of_one_that_asks_by_itself_is_settled_with_one_look(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None)
        plane.run(12 * timedelta(seconds=1))
        plane.ask_by_itself(id_)
        plane.run(2 * HOUR)
        plane.stop(id_)
        plane.start(id_)
        plane.run(5 * MINUTE)
        plane.calls.clear()
        plane.run(50 * MINUTE)
        assert plane.calls.get("advance", 0) <= 1

    def test_another_name_of_the_tag_by_mistake_takes_nothing_back_at_once(self) -> None:
        plane = Plane()
        ids = [plane.launch(number) for number in range(12)]
        plane.run(10 * MINUTE)
        plane.untagged.update(ids)
        asked: list[Ask] = []
        plane.ask = asked.extend  # type: ignore[method-assign]
        plane.reconciling.reconcile(everything=True)
        assert not asked

    def test_in_the_last_third_of_its_life_it_is_renewed_and_the_old_one_revoked(self) -> None:
        plane, id_ = enrolled()
        old = only(plane, id_)
        plane.every = HOUR
        plane.run(59 * DAY)
        assert only(plane, id_) == old
        plane.every = 10 * MINUTE
        plane.run(3 * DAY)
        assert only(plane, id_) != old
        assert plane.active(id_)[0].renews == old

    def test_renewing_takes_one_command(self) -> None:
        plane, id_ = enrolled()
        before = len(plane.hosts[id_].prepared)
        plane.every = HOUR
        plane.run(62 * DAY)
        assert len(plane.hosts[id_].prepared) == before

    def test_a_new_trust_reaches_all_paced(self) -> None:
        plane = Plane(most=10)
        ids = [plane.launch(number) for number in range(40)]
        plane.run(10 * MINUTE)
        assert all(plane.state(id_) is EnrolmentState.ENROLLED for id_ in ids)
        plane.trust_now = replace(plane.trust_now, registry_address="192.0.2.99")
        version = plane.trust_now.version
        plane.run(2 * MINUTE)
        there = [id_ for id_ in ids if plane.enrolments.kept[id_].trust_version == version]
        assert 0 < len(there) <= 25
        plane.run(8 * MINUTE)
        assert all(plane.enrolments.kept[id_].trust_version == version for id_ in ids)

    def test_what_one_run_asks_for_is_spread_until_the_next(self) -> None:
        plane = Plane(most=60)
        ids = [plane.launch(number) for number in range(30)]
        plane.run(10 * MINUTE)
        plane.trust_now = replace(plane.trust_now, registry_address="192.0.2.99")
        asked: list[Ask] = []
        plane.ask = asked.extend  # type: ignore[method-assign]
        plane.reconciling.reconcile(everything=False)
        assert sorted(ask.instance_id for ask in asked) == sorted(ids)
        assert [ask.delay.total_seconds() for ask in asked] == list(range(30))

    def test_what_is_due_and_nothing_comes_of_is_asked_for_every_few_minutes(self) -> None:
        plane, id_ = enrolled()
        asked: list[Ask] = []
        plane.ask = asked.extend  # type: ignore[method-assign]
        plane.run(2 * DAY)
        asked.clear()
        plane.run(HOUR)
        assert 10 <= len(asked) <= 13
        assert {(ask.instance_id, ask.why) for ask in asked} == {(id_, Why.LOOK)}

    def test_a_quiet_day_of_an_instance_costs_few_calls(self) -> None:
        plane, id_ = enrolled()
        plane.run(DAY)
        plane.calls.clear()
        plane.run(DAY)
        assert plane.calls["SendCommand"] <= 2
        assert plane.calls["advance"] <= 8
        assert plane.state(id_) is EnrolmentState.ENROLLED

    def test_certificates_of_a_day_are_renewed_in_time(self) -> None:
        plane = Plane(every=5 * MINUTE)
        plane.world.limits = replace(plane.world.limits, default_days=1)
        id_ = plane.launch()
        plane.run(HOUR + 2 * MINUTE)  # not when the schedule is about to act
        for _ in range(4 * 24):
            assert only(plane, id_)
            plane.run(HOUR)

    def test_it_is_reminded_of_each_look_within_the_quarter_of_an_hour(self) -> None:
        """Not by the schedule, which comes once a minute, and half a minute after that."""
        plane = Plane(every=DAY)
        id_ = plane.launch()
        plane.run(6 * timedelta(seconds=1))
        plane.faults.drop = 1.0  # no command's end is heard of
        plane.run(3 * MINUTE)
        assert plane.state(id_) is EnrolmentState.ENROLLED

    def test_a_reminder_never_comes_before_its_time(self) -> None:
        plane = Plane(seed=3)
        plane.at = lambda delay, do: None  # type: ignore[method-assign]
        asked: list[Ask] = []
        plane.ask = asked.extend  # type: ignore[method-assign]
        id_ = plane.launch()
        plane.ec2[id_] = replace(plane.ec2[id_], state=InstanceState.RUNNING)
        plane.enrolling.advance_all([("m", Ask(id_, Why.EVENT))])
        look_at = plane.enrolments.kept[id_].look_at
        assert look_at is not None
        assert look_at <= plane.world.time + asked[0].delay
        assert asked[0].delay.microseconds == 0, "the queue counts whole seconds"


class TestOwnPath:
    def test_an_agent_that_stops_answering_is_no_instance_that_asked_by_itself(self) -> None:
        plane, id_ = enrolled()
        plane.hosts[id_].online_at = None
        plane.every = 10 * MINUTE
        plane.run(2 * DAY)
        known = plane.enrolments.kept[id_]
        assert (known.state, known.code) == (EnrolmentState.FAILED, "no_agent")
        assert plane.active(id_), "what it has goes on working"

    def test_one_without_an_agent_that_asked_by_itself_counts_as_enrolled(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None)
        plane.run(10 * timedelta(seconds=1))
        issued = plane.ask_by_itself(id_)
        plane.run(5 * MINUTE)
        known = plane.enrolments.kept[id_]
        assert (known.state, known.path) == (EnrolmentState.ENROLLED, EnrolmentPath.BOOT)
        assert known.serial == issued.serial
        plane.terminate(id_)
        plane.run(MINUTE)
        assert not plane.active(id_)

    def test_its_older_certificates_go_once_it_had_the_time_to_install_the_new_one(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None)
        plane.run(10 * timedelta(seconds=1))
        for _ in range(2):
            newest = plane.ask_by_itself(id_)
            plane.run(MINUTE)
        plane.run(30 * MINUTE)
        assert len(plane.active(id_)) == 2
        plane.run(DAY)
        assert [record.serial for record in plane.active(id_)] == [newest.serial]

    def test_more_access_waits_until_it_asks_and_takes_nothing_away(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None)
        plane.run(12 * timedelta(seconds=1))
        plane.ask_by_itself(id_)
        plane.run(MINUTE)
        plane.tag(id_, Access.PUSH)
        plane.run(3 * HOUR)
        assert plane.active(id_)
        assert plane.state(id_) is EnrolmentState.ENROLLED
        newest = plane.ask_by_itself(id_)
        plane.run(3 * HOUR)
        assert [each.serial for each in plane.active(id_)] == [newest.serial]
        assert newest.access is Access.PUSH

    def test_it_has_the_time_to_ask_again_before_it_has_failed(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None, access=Access.PUSH)
        plane.run(12 * timedelta(seconds=1))
        plane.ask_by_itself(id_)
        plane.run(MINUTE)
        plane.tag(id_, Access.PULL)
        plane.run(2 * HOUR)
        known = plane.enrolments.kept[id_]
        assert (known.state, known.code) == (EnrolmentState.WAITING_FOR_AGENT, "not_asked_yet")
        assert known.failures == 0
        plane.run(HOUR)
        assert plane.enrolments.kept[id_].failures == 1
        plane.ask_by_itself(id_)
        plane.run(MINUTE)
        assert plane.state(id_) is EnrolmentState.ENROLLED

    def test_access_that_its_tag_no_longer_gives_is_taken(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None, access=Access.PUSH)
        plane.run(10 * timedelta(seconds=1))
        plane.ask_by_itself(id_)
        plane.run(5 * MINUTE)
        plane.tag(id_, Access.PULL)
        plane.run(MINUTE)
        assert not plane.active(id_)

    def test_an_agent_that_comes_later_takes_over_with_the_same_key(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None)
        plane.run(10 * timedelta(seconds=1))
        plane.ask_by_itself(id_)
        plane.run(5 * MINUTE)
        plane.hosts[id_].online_at = plane.world.time
        plane.run(DAY + HOUR)
        assert plane.enrolments.kept[id_].path is EnrolmentPath.AGENT
        assert only(plane, id_)

    def test_one_that_ended_before_it_was_ever_looked_at_keeps_nothing(self) -> None:
        """Its first event was lost, it asked by itself, and EC2 forgets roles of what ended."""
        plane = Plane(faults=Faults(drop=1.0))
        id_ = plane.launch(agent=None)
        plane.run(10 * timedelta(seconds=1))
        plane.ask_by_itself(id_)
        plane.terminate(id_)
        plane.run(2 * MINUTE)
        assert not plane.active(id_)

    def test_whose_its_certificates_are_is_known_before_it_has_any(self) -> None:
        plane = Plane()
        id_ = plane.launch(agent=None)
        plane.run(20 * timedelta(seconds=1))
        plane.ask_by_itself(id_)
        plane.ec2[id_] = replace(plane.ec2[id_], role=None, session_arn=None)
        plane.terminate(id_)
        plane.run(10 * timedelta(seconds=1))
        assert not plane.active(id_)


class TestAsking:
    def test_an_admin_is_told_what_cannot_be_enrolled(self) -> None:
        plane, id_ = enrolled()
        enrol = plane.asking.enrol
        assert refused(NotFound, lambda: enrol("i-00000000")) == "instance_not_found"
        plane.ec2[id_] = replace(plane.ec2[id_], access=None)
        assert refused(Conflict, lambda: enrol(id_)) == "instance_not_enrollable"
        plane.ec2[id_] = replace(plane.ec2[id_], access=Access.PULL, state=InstanceState.TERMINATED)
        assert refused(Conflict, lambda: enrol(id_)) == "instance_not_enrollable"

    def test_a_command_on_an_enrolled_instance_concerns_nobody(self) -> None:
        plane, id_ = enrolled()
        before = plane.calls.get("ask", 0)
        plane.asking.command_ended(id_)
        plane.asking.command_ended("i-00000000")
        assert plane.calls.get("ask", 0) == before


class TestOneCertificate:
    def test_a_certificate_that_was_issued_and_not_recorded_is_the_one_that_is_given(self) -> None:
        plane = Plane()
        id_ = plane.launch()
        failures = [DependencyFailed("table_unwritable", "no")] * 2

        def before_put(enrolment: Enrolment) -> None:
            if enrolment.serial is not None and failures:
                raise failures.pop()

        plane.enrolments.before_put = before_put
        plane.run(20 * MINUTE)
        assert plane.state(id_) is EnrolmentState.ENROLLED
        assert not failures
        assert len(plane.world.records.by_serial) == 1

    def test_a_renewal_that_was_not_recorded_is_the_one_that_is_given(self) -> None:
        plane, id_ = enrolled()
        old = only(plane, id_)
        failures = [DependencyFailed("table_unwritable", "no")] * 2

        def before_put(enrolment: Enrolment) -> None:
            if enrolment.serial not in (None, old) and failures:
                raise failures.pop()

        plane.enrolments.before_put = before_put
        plane.every = 10 * MINUTE
        plane.run(64 * DAY)
        assert not failures
        assert only(plane, id_) != old
        assert len(plane.world.records.by_serial) == 2


class TestBatches:
    def test_one_that_fails_comes_again_and_the_others_do_not(self) -> None:
        plane = Plane()
        good, bad = plane.launch(1), plane.launch(2)
        plane.run(6 * timedelta(seconds=1))

        def before_put(enrolment: object) -> None:
            if getattr(enrolment, "instance_id", "") == bad:
                raise ValueError("a fault of ours")

        plane.enrolments.before_put = before_put
        asks = [("a", Ask(good, Why.EVENT)), ("b", Ask(bad, Why.EVENT)), ("c", Ask(bad, Why.LOOK))]
        assert plane.enrolling.advance_all(asks) == ["b", "c"]
        assert plane.enrolments.kept[good].version > 1

    def test_an_earlier_reminder_costs_no_call(self) -> None:
        plane, id_ = enrolled()
        plane.calls.clear()
        assert plane.enrolling.advance_all([("m", look(id_))]) == []
        assert plane.calls == {}

    def test_one_that_ec2_says_nothing_of_does_not_keep_it_silent_of_others(self) -> None:
        plane = Plane()
        good, bad = plane.launch(1), plane.launch(2)
        plane.run(6 * timedelta(seconds=1))
        silent = DependencyFailed("ec2_unreadable", "EC2 did not answer")
        plane.facts_of_all = raises(silent)  # type: ignore[method-assign]

        def facts(id_: str) -> InstanceFacts:
            if id_ == bad:
                raise silent
            return plane.ec2[id_]

        plane.facts = facts  # type: ignore[method-assign]
        asks = [(id_, Ask(id_, Why.EVENT)) for id_ in (good, bad)]
        assert plane.enrolling.advance_all(asks) == [bad]
        assert plane.state(good) is EnrolmentState.WAITING_FOR_AGENT

    def test_what_there_is_no_time_for_comes_again(self) -> None:
        plane = Plane()
        ids = [plane.launch(number) for number in range(3)]
        plane.run(6 * timedelta(seconds=1))

        def online(instance_ids: object) -> frozenset[str]:
            plane.world.time += 20 * timedelta(seconds=1)
            return frozenset()

        plane.online = online  # type: ignore[method-assign]
        asks = [(id_, Ask(id_, Why.EVENT)) for id_ in ids]
        assert plane.enrolling.advance_all(asks) == ids[2:]

    def test_ec2_is_asked_once_for_all_of_a_batch(self) -> None:
        plane = Plane()
        ids = [plane.launch(number) for number in range(10)]
        plane.run(5 * timedelta(seconds=1))
        plane.calls.clear()
        plane.enrolling.advance_all([(id_, Ask(id_, Why.EVENT)) for id_ in ids])
        assert plane.calls["DescribeInstances"] == 1


def raises(error: Exception) -> Callable[..., Any]:
    def call(*given: object, **options: object) -> Any:
        raise error

    return call


PROBABILITY = st.sampled_from([0.0, 0.1, 0.3])
ACTS = st.lists(
    st.sampled_from(["launch", "terminate", "stop", "tag", "rebuild", "role", "ask", "wait"]),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    faults=st.builds(
        Faults,
        drop=PROBABILITY,
        double=PROBABILITY,
        late=PROBABILITY,
        ssm=PROBABILITY,
        crash=st.sampled_from([0.0, 0.02, 0.1]),
    ),
    acts=ACTS,
)
def test_whatever_goes_wrong_each_that_runs_ends_with_one_certificate_and_each_that_ended_with_none(
    seed: int, faults: Faults, acts: list[str]
) -> None:
    plane = Plane(seed, faults)
    ids = [plane.launch(number) for number in range(3)]
    for act in ["wait", *acts]:
        do(plane, act, ids)
        plane.run(plane.chance.choice([2, 60, 1200]) * timedelta(seconds=1))
    plane.faults, plane.every = Faults(), 10 * MINUTE
    plane.run(3 * DAY)

    for id_ in ids:
        runs = plane.ec2[id_].state is InstanceState.RUNNING
        if runs and plane.ec2[id_].access is not None:
            assert plane.state(id_) is EnrolmentState.ENROLLED, plane.enrolments.kept.get(id_)
            assert only(plane, id_)
            assert plane.active(id_)[0].access is plane.ec2[id_].access
        else:
            assert not plane.active(id_)


def do(plane: Plane, act: str, ids: list[str]) -> None:
    id_ = plane.chance.choice(ids)
    state = plane.ec2[id_].state
    if act == "launch":
        ids.append(plane.launch(len(ids)))
    elif act == "rebuild":
        plane.hosts[id_].rebuild()
    elif act == "role":
        plane.give_role(id_, plane.chance.choice(["docker-instance", "other"]))
    elif act == "ask":
        with suppress(AppError, Crash):
            plane.ask_by_itself(id_)
    elif state is InstanceState.RUNNING and act == "stop":
        plane.stop(id_)
        plane.at(2 * MINUTE, lambda: restart(plane, id_))
    elif state is InstanceState.RUNNING and act == "terminate":
        plane.terminate(id_)
    elif state is InstanceState.RUNNING and act == "tag":
        plane.tag(id_, plane.chance.choice([Access.PULL, Access.PUSH, None]))


def restart(plane: Plane, id_: str) -> None:
    if plane.ec2[id_].state is InstanceState.STOPPED:
        plane.start(id_)
