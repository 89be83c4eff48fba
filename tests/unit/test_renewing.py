"""Renewing: the same name, access and owner, one successor at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509

from chalicelib.domain.model import (
    Access,
    Caller,
    CertificateRecord,
    IssueRequest,
    KeyType,
    NamedRequest,
    RenewRequest,
    RevocationReason,
    Status,
)
from chalicelib.errors import (
    AppError,
    Conflict,
    Contended,
    Forbidden,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
)
from tests.unit.authorities import DAY, NOW, SECOND, client_ca
from tests.unit.instances import facts_of
from tests.unit.refusals import refused
from tests.unit.signing_requests import csr, ec_key, rsa_key
from tests.unit.stand_ins import World

ANN = Caller("arn:aws:iam::123456789012:user/ann", "ann")
BOB = Caller("arn:aws:iam::123456789012:user/bob", "bob")
ADMIN = Caller("arn:aws:iam::123456789012:user/root-of-it", "root-of-it")
CSR = csr(ec_key())
OTHER_CSR = csr(rsa_key(2048))
PLAIN = RenewRequest()
REPLACING = RenewRequest(revoke_old=True)
WHOLE = NOW.replace(microsecond=0)


def key_of(record: CertificateRecord) -> object:
    return x509.load_pem_x509_certificate(record.certificate_pem.encode()).public_key()


def stored(world: World, record: CertificateRecord) -> CertificateRecord:
    return world.records.by_serial[record.serial]


class TestTheSuccessor:
    def test_it_has_the_name_access_owner_and_label_of_its_predecessor(self, world: World) -> None:
        request = IssueRequest(csr_pem=CSR, access=Access.PULL, days=10, label="laptop")
        old = world.issuing.issue(request, ANN).record
        world.time = NOW + DAY
        new = world.issuing.renew(old.serial, PLAIN, ANN).record
        assert (new.name, new.access, new.owner, new.label) == (
            "ann",
            Access.PULL,
            ANN.arn,
            "laptop",
        )
        assert new.validity.not_after == (NOW + DAY + 90 * DAY).replace(microsecond=0)
        assert new.serial != old.serial

    def test_the_two_know_of_each_other_and_both_stay_active(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(csr_pem=CSR), ANN).record
        new = world.issuing.renew(old.serial, PLAIN, ANN).record
        assert (stored(world, old).superseded_by, new.renews) == (new.serial, old.serial)
        assert stored(world, old).status(NOW) is stored(world, new).status(NOW) is Status.ACTIVE
        assert stored(world, new) == new

    def test_a_key_of_ones_own_is_certified_again(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(csr_pem=CSR), ANN).record
        issued = world.issuing.renew(old.serial, PLAIN, ANN)
        assert key_of(issued.record) == key_of(old)
        assert issued.bundle.private_key is None

    @pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048])
    def test_in_place_of_a_key_we_made_comes_a_new_one_of_its_kind(
        self, world: World, key_type: KeyType
    ) -> None:
        old = world.issuing.issue(IssueRequest(key_type=key_type), ANN).record
        issued = world.issuing.renew(old.serial, PLAIN, ANN)
        assert issued.bundle.private_key is not None
        before, after = key_of(old), key_of(issued.record)
        assert before != after
        assert (type(before), before.key_size) == (type(after), after.key_size)  # type: ignore[attr-defined]

    def test_a_csr_brings_a_new_key(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(), ANN).record
        issued = world.issuing.renew(old.serial, RenewRequest(csr_pem=OTHER_CSR), ANN)
        assert key_of(issued.record) == rsa_key(2048).public_key()
        assert not issued.record.made_key

    def test_an_expired_one_is_renewed_too(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(csr_pem=CSR, days=1), ANN).record
        world.time = NOW + 2 * DAY
        assert world.issuing.renew(old.serial, REPLACING, ANN).record.renews == old.serial
        assert stored(world, old).revoked_at is not None
        assert world.bundles.published == []  # no list has to show what has ended

    def test_an_expired_ones_place_is_not_handed_over_as_it_may_be_anothers(
        self, world: World
    ) -> None:
        old = world.issuing.issue(IssueRequest(days=1), ANN).record
        world.time = NOW + 2 * DAY
        holder = world.issuing.issue(IssueRequest(), ANN).record
        world.records.taken[ANN.arn, old.slot or 0] = (holder.serial, holder.validity.not_after)
        new = world.issuing.renew(old.serial, REPLACING, ANN).record
        assert new.slot not in (None, old.slot)

    def test_it_takes_a_place_of_the_quota(self, world: World) -> None:
        old, *_ = [world.issuing.issue(IssueRequest(), ANN).record for _ in range(3)]
        ask = lambda: world.issuing.renew(old.serial, PLAIN, ANN)  # noqa: E731
        assert refused(QuotaExceeded, ask) == "quota_exceeded"
        assert stored(world, old).superseded_by is None


class TestReplacing:
    def test_the_predecessor_is_revoked_as_superseded_and_published(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(csr_pem=CSR), ANN).record
        issued = world.issuing.renew(old.serial, REPLACING, ANN)
        before = stored(world, old)
        assert (before.revocation_reason, before.revoked_by) == (
            RevocationReason.SUPERSEDED,
            ANN.arn,
        )
        assert not issued.crl_pending
        assert world.journal.done == ["record", "bundle", "record", "bundle", "publish"]
        assert len(world.records.rows[client_ca().id]) == 1

    def test_it_works_with_a_full_quota_since_the_place_is_handed_over(self, world: World) -> None:
        old, *_ = [world.issuing.issue(IssueRequest(), ANN).record for _ in range(3)]
        new = world.issuing.renew(old.serial, REPLACING, ANN).record
        assert new.slot == old.slot
        assert refused(QuotaExceeded, lambda: world.issuing.issue(IssueRequest(), ANN))

    def test_the_key_can_be_certified_once_more_after_that(self, world: World) -> None:
        first = world.issuing.issue(IssueRequest(csr_pem=CSR), ANN).record
        second = world.issuing.renew(first.serial, REPLACING, ANN).record
        assert world.issuing.renew(second.serial, REPLACING, ANN).record.key_id == first.key_id

    def test_a_stored_private_key_of_the_predecessor_goes(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(), ANN).record
        new = world.issuing.renew(old.serial, REPLACING, ANN).record
        assert set(world.bundles.stored) == {new.serial}

    def test_a_bucket_that_hangs_is_not_asked_twice(self, world: World) -> None:
        """Each time takes 17 seconds, and the caller waits for 29: the answer has the key."""
        old = world.issuing.issue(IssueRequest(), ANN).record
        world.bundles.fails = True
        world.bundles.before_publish = lambda _: pytest.fail("it was")
        issued = world.issuing.renew(old.serial, REPLACING, ANN)
        assert (issued.link, issued.crl_pending) == (None, True)
        assert issued.bundle.private_key is not None
        assert world.records.unpublished == [old.serial]

    def test_a_failed_publication_is_told_and_costs_nobody_the_certificate(
        self, world: World
    ) -> None:
        old = world.issuing.issue(IssueRequest(csr_pem=CSR), ANN).record
        world.bundles.publishing_fails = True
        issued = world.issuing.renew(old.serial, REPLACING, ANN)
        assert issued.crl_pending
        assert stored(world, issued.record) == issued.record
        assert world.records.unpublished == [old.serial]


class TestRefusals:
    def test_another_owners_does_not_exist(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(), ANN).record
        ask = lambda: world.issuing.renew(old.serial, PLAIN, BOB)  # noqa: E731
        assert refused(NotFound, ask) == "certificate_not_found"

    def test_what_is_revoked_is_not_renewed(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(), ANN).record
        world.revoking.revoke(old.serial, RevocationReason.UNSPECIFIED, ANN)
        ask = lambda: world.issuing.renew(old.serial, PLAIN, ANN)  # noqa: E731
        assert refused(Conflict, ask) == "certificate_revoked"

    def test_what_has_an_active_successor_is_not_renewed_again(self, world: World) -> None:
        """Else a job that renews the same serial each night fills the quota."""
        old = world.issuing.issue(IssueRequest(csr_pem=CSR), ANN).record
        new = world.issuing.renew(old.serial, PLAIN, ANN).record
        with pytest.raises(Conflict) as caught:
            world.issuing.renew(old.serial, PLAIN, ANN)
        assert caught.value.code == "already_renewed"
        assert new.serial in str(caught.value)

    @pytest.mark.parametrize("end", ["revoked", "expired"])
    def test_once_the_successor_is_no_more_it_is(self, world: World, end: str) -> None:
        old = world.issuing.issue(IssueRequest(days=100), ANN).record
        new = world.issuing.renew(old.serial, RenewRequest(days=1), ANN).record
        if end == "revoked":
            world.revoking.revoke(new.serial, RevocationReason.UNSPECIFIED, ANN)
        else:
            world.time = NOW + DAY + SECOND
        third = world.issuing.renew(old.serial, PLAIN, ANN).record
        assert stored(world, old).superseded_by == third.serial

    def test_of_two_at_once_one_wins_and_the_other_is_told(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(csr_pem=CSR), ANN).record

        def another(_: CertificateRecord) -> None:
            world.records.before_add = lambda _: None
            world.issuing.renew(old.serial, PLAIN, ANN)

        world.records.before_add = another
        ask = lambda: world.issuing.renew(old.serial, PLAIN, ANN)  # noqa: E731
        assert refused(Conflict, ask) == "already_renewed"
        assert len(world.records.by_serial) == 2

    def test_one_revoked_meanwhile_is_not_renewed(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(csr_pem=CSR), ANN).record

        def another(_: CertificateRecord) -> None:
            world.records.before_add = lambda _: None
            world.revoking.revoke(old.serial, RevocationReason.UNSPECIFIED, ANN)

        world.records.before_add = another
        ask = lambda: world.issuing.renew(old.serial, PLAIN, ANN)  # noqa: E731
        assert refused(AppError, ask) in ("certificate_revoked", "key_revoked")
        assert len(world.records.by_serial) == 1

    def test_push_access_that_the_owner_lost_is_not_renewed(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(), ANN).record
        world.limits = replace(world.limits, push_principals=("*/bob",))
        ask = lambda: world.issuing.renew(old.serial, PLAIN, ANN)  # noqa: E731
        assert refused(Forbidden, ask) == "push_not_allowed"

    def test_an_instances_access_is_what_its_tag_says_now(self, world: World) -> None:
        instance = Caller(
            "arn:aws:sts::123456789012:assumed-role/web/i-0123456789abcdef0",
            "i-0123456789abcdef0",
            "web",
            "i-0123456789abcdef0",
        )
        facts = facts_of(role="web", access=Access.PUSH)
        world.instances[facts.instance_id] = facts
        old = world.issuing.issue(IssueRequest(), instance).record
        world.instances[facts.instance_id] = replace(facts, access=Access.PULL)
        ask = lambda: world.issuing.renew(old.serial, PLAIN, instance)  # noqa: E731
        assert refused(Forbidden, ask) == "access_changed"

    def test_an_admins_grant_to_an_instance_does_not_outlast_its_tag(self, world: World) -> None:
        """A session named like an instance is believed only if EC2 runs that instance."""
        instance = Caller(
            "arn:aws:sts::123456789012:assumed-role/web/i-0123456789abcdef0",
            "i-0123456789abcdef0",
            "web",
            "i-0123456789abcdef0",
        )
        named = NamedRequest("ci", instance.arn, IssueRequest())
        old = world.issuing.issue_named(named, ADMIN).record
        ask = lambda: world.issuing.renew(old.serial, PLAIN, instance)  # noqa: E731
        assert refused(Forbidden, ask) == "not_that_instance"

    def test_too_many_days_are_refused_as_at_issue(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(), ANN).record
        ask = lambda: world.issuing.renew(old.serial, RenewRequest(days=366), ANN)  # noqa: E731
        assert refused(InvalidRequest, ask) == "days_out_of_range"

    def test_the_registrys_own_is_its_hosts_affair(self, world: World) -> None:
        host = Caller(
            "arn:aws:sts::123456789012:assumed-role/registry-host/i-1", "i-1", "registry-host"
        )
        record = world.serving.issue(CSR, host).record
        ask = lambda: world.issuing.renew(record.serial, PLAIN, host)  # noqa: E731
        assert refused(Conflict, ask) == "not_renewable"


class TestTheSameRequestAgain:
    ASKED = RenewRequest(idempotency_key="once", digest="r1")

    def test_gives_the_same_successor(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(), ANN).record
        first = world.issuing.renew(old.serial, self.ASKED, ANN)
        assert world.issuing.renew(old.serial, self.ASKED, ANN) == first

    def test_is_refused_once_that_is_revoked(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(), ANN).record
        new = world.issuing.renew(old.serial, self.ASKED, ANN).record
        world.revoking.revoke(new.serial, RevocationReason.UNSPECIFIED, ANN)
        ask = lambda: world.issuing.renew(old.serial, self.ASKED, ANN)  # noqa: E731
        assert refused(Conflict, ask) == "certificate_revoked"

    def test_is_another_with_another_body(self, world: World) -> None:
        old = world.issuing.issue(IssueRequest(), ANN).record
        world.issuing.renew(old.serial, self.ASKED, ANN)
        ask = lambda: world.issuing.renew(  # noqa: E731
            old.serial, replace(self.ASKED, digest="r2"), ANN
        )
        assert refused(Conflict, ask) == "idempotency_key_reused"

    @pytest.mark.parametrize("revoke_old", [False, True])
    def test_gives_it_also_when_its_twin_gets_there_first(
        self, world: World, revoke_old: bool
    ) -> None:
        asked = replace(self.ASKED, revoke_old=revoke_old)
        old = world.issuing.issue(IssueRequest(csr_pem=CSR), ANN).record
        twins: list[CertificateRecord] = []

        def twin(_: CertificateRecord) -> None:
            world.records.before_add = lambda _: None
            twins.append(world.issuing.renew(old.serial, asked, ANN).record)
            raise Contended("busy", "ask again")

        world.records.before_add = twin
        assert [world.issuing.renew(old.serial, asked, ANN).record] == twins

    def test_it_is_published_if_the_first_time_did_not_get_there(self, world: World) -> None:
        asked = replace(self.ASKED, revoke_old=True)
        old = world.issuing.issue(IssueRequest(), ANN).record
        world.bundles.publishing_fails = True
        assert world.issuing.renew(old.serial, asked, ANN).crl_pending
        assert world.issuing.renew(old.serial, asked, ANN).crl_pending
        world.bundles.publishing_fails = False
        again = world.issuing.renew(old.serial, asked, ANN)
        assert not again.crl_pending
        assert world.trust.show_revoked([stored(world, old)]) == world.trust.current().crl_number
        assert set(world.bundles.stored) == {again.record.serial}


class TestForAService:
    def test_an_admin_names_it_and_owns_it(self, world: World) -> None:
        named = NamedRequest("ci", None, IssueRequest(days=700))
        record = world.issuing.issue_named(named, ADMIN).record
        assert (record.name, record.owner, record.issued_by) == ("ci", ADMIN.arn, ADMIN.arn)

    def test_or_has_somebody_else_own_it(self, world: World) -> None:
        record = world.issuing.issue_named(
            NamedRequest("ci", ANN.arn, IssueRequest()), ADMIN
        ).record
        assert (record.owner, record.issued_by) == (ANN.arn, ADMIN.arn)
        assert world.issuing.bundle_again(record.serial, ANN).record == record

    def test_it_takes_no_place_of_anybodys_quota(self, world: World) -> None:
        for _ in range(5):
            world.issuing.issue_named(NamedRequest("ci", ANN.arn, IssueRequest()), ADMIN)
        assert world.records.slots(ANN.arn) == []

    def test_its_renewal_takes_one_unless_it_replaces(self, world: World) -> None:
        """Else an owner could go on for ever, each successor beside the one before."""
        first = world.issuing.issue_named(NamedRequest("ci", ANN.arn, IssueRequest()), ADMIN).record
        second = world.issuing.renew(first.serial, REPLACING, ANN).record
        assert (second.slot, second.issued_by) == (None, ADMIN.arn)
        third = world.issuing.renew(second.serial, PLAIN, ANN).record
        assert third.slot is not None

    def test_its_access_is_the_admins_word_at_renewal_too(self, world: World) -> None:
        world.limits = replace(world.limits, push_principals=("*/root-of-it",))
        named = NamedRequest("ci", ANN.arn, IssueRequest(access=Access.PUSH))
        old = world.issuing.issue_named(named, ADMIN).record
        assert world.issuing.renew(old.serial, PLAIN, ANN).record.access is Access.PUSH

    def test_the_owner_revokes_in_his_own_name(self, world: World) -> None:
        first = world.issuing.issue_named(NamedRequest("ci", ANN.arn, IssueRequest()), ADMIN).record
        world.issuing.renew(first.serial, REPLACING, ANN)
        assert stored(world, first).revoked_by == ANN.arn

    def test_its_renewal_is_for_no_longer_than_the_admin_gave(self, world: World) -> None:
        named = NamedRequest("ci", ANN.arn, IssueRequest(days=2))
        old = world.issuing.issue_named(named, ADMIN).record
        ask = lambda: world.issuing.renew(old.serial, RenewRequest(days=3), ANN)  # noqa: E731
        assert refused(InvalidRequest, ask) == "days_out_of_range"
        new = world.issuing.renew(old.serial, PLAIN, ANN).record
        assert new.validity.not_after - new.validity.not_before == (
            old.validity.not_after - old.validity.not_before
        )

    def test_once_it_has_ended_it_is_renewed_no_more(self, world: World) -> None:
        named = NamedRequest("ci", ANN.arn, IssueRequest(days=2))
        old = world.issuing.issue_named(named, ADMIN).record
        world.time = NOW + 2 * DAY + SECOND
        ask = lambda: world.issuing.renew(old.serial, PLAIN, ANN)  # noqa: E731
        assert refused(Conflict, ask) == "grant_ended"

    def test_an_admin_who_takes_it_back_takes_every_branch_of_it(self, world: World) -> None:
        """A has two successors, since the first was revoked when the second was made; the first
        one's own successor stands."""
        world.limits = replace(world.limits, certificates_per_owner=9)
        first = world.issuing.issue_named(NamedRequest("ci", ANN.arn, IssueRequest()), ADMIN).record
        second = world.issuing.renew(first.serial, PLAIN, ANN).record
        branch = world.issuing.renew(second.serial, PLAIN, ANN).record
        world.revoking.revoke(second.serial, RevocationReason.UNSPECIFIED, ANN)
        third = world.issuing.renew(first.serial, PLAIN, ANN).record
        for taken in (first, branch, third):
            done = world.revoking.revoke_any(taken.serial, RevocationReason.UNSPECIFIED, ADMIN)
            assert not done.crl_pending
        assert world.records.standing_in_line(first, world.time) == []
        for serial in (first.serial, branch.serial, third.serial):
            ask = lambda serial=serial: world.issuing.renew(serial, PLAIN, ANN)  # noqa: E731
            assert refused(Conflict, ask) == "certificate_revoked"

    @pytest.mark.parametrize("renewals", [1, 120])
    def test_however_often_it_was_renewed_taking_it_back_takes_the_newest(
        self, world: World, renewals: int
    ) -> None:
        first = world.issuing.issue_named(NamedRequest("ci", ANN.arn, IssueRequest()), ADMIN).record
        newest = first
        for _ in range(renewals):
            newest = world.issuing.renew(newest.serial, REPLACING, ANN).record
        done = world.revoking.revoke_any(first.serial, RevocationReason.UNSPECIFIED, ADMIN)
        assert done.also_revoked == (newest.serial,)

    def test_a_short_renewal_costs_nothing_of_what_the_admin_gave(self, world: World) -> None:
        named = NamedRequest("ci", ANN.arn, IssueRequest(days=300))
        first = world.issuing.issue_named(named, ADMIN).record
        short = world.issuing.renew(first.serial, RenewRequest(days=1, revoke_old=True), ANN).record
        again = world.issuing.renew(short.serial, RenewRequest(days=300), ANN).record
        assert again.validity.not_after == WHOLE + 300 * DAY

    def test_what_admins_may_give_by_now_binds_what_was_given_before(self, world: World) -> None:
        named = NamedRequest("ci", ANN.arn, IssueRequest(days=700))
        old = world.issuing.issue_named(named, ADMIN).record
        world.limits = replace(world.limits, admin_maximum_days=30)
        ask = lambda: world.issuing.renew(old.serial, RenewRequest(days=31), ANN)  # noqa: E731
        assert refused(InvalidRequest, ask) == "days_out_of_range"

    def test_once_its_owner_took_the_successor_back_it_is(self, world: World) -> None:
        """Whose key got lost on the way, say."""
        old = world.issuing.issue_named(NamedRequest("ci", ANN.arn, IssueRequest()), ADMIN).record
        new = world.issuing.renew(old.serial, PLAIN, ANN).record
        world.revoking.revoke(new.serial, RevocationReason.UNSPECIFIED, ANN)
        assert world.issuing.renew(old.serial, PLAIN, ANN).record.renews == old.serial

    def test_an_idempotency_key_is_the_admins(self, world: World) -> None:
        """Else another admin with the same key is handed this one's private key."""
        other = Caller("arn:aws:iam::123456789012:user/second", "second")
        request = IssueRequest(idempotency_key="once", digest="d1")
        named = NamedRequest("ci", ANN.arn, request)
        first = world.issuing.issue_named(named, ADMIN)
        assert world.issuing.issue_named(named, ADMIN) == first
        assert world.issuing.issue_named(named, other).record != first.record
        elsewhere = replace(named, owner=BOB.arn, request=replace(request, digest="d2"))
        ask = lambda: world.issuing.issue_named(elsewhere, ADMIN)  # noqa: E731
        assert refused(Conflict, ask) == "idempotency_key_reused"

    @pytest.mark.parametrize("name", ["", "a" * 65, "a b", "ann\n", "gr\u00fcn", "a/b"])
    def test_a_name_that_iam_would_not_allow_is_refused(self, world: World, name: str) -> None:
        ask = lambda: world.issuing.issue_named(  # noqa: E731
            NamedRequest(name, None, IssueRequest()), ADMIN
        )
        assert refused(InvalidRequest, ask) == "bad_name"

    @pytest.mark.parametrize("owner", ["", "ann", "arn:aws:iam::123456789012:root", "*"])
    def test_an_owner_that_nobody_can_be_is_refused(self, world: World, owner: str) -> None:
        ask = lambda: world.issuing.issue_named(  # noqa: E731
            NamedRequest("ci", owner, IssueRequest()), ADMIN
        )
        assert refused(InvalidRequest, ask) == "bad_owner"

    def test_admins_have_a_limit_of_their_own(self, world: World) -> None:
        ask = lambda: world.issuing.issue_named(  # noqa: E731
            NamedRequest("ci", None, IssueRequest(days=731)), ADMIN
        )
        assert refused(InvalidRequest, ask) == "days_out_of_range"
