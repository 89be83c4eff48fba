"""What we make of EC2's answers, on a real emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.adapters.instances import Instances
from chalicelib.domain.model import Access, InstanceFacts, InstanceState
from chalicelib.errors import DependencyFailed
from tests.component.emulated_aws import EmulatedAws, emulated_aws

TAG = "registry-trust"
ACCOUNT = "000000000000"
NOWHERE = "i-00000000000000000"
HOUR = timedelta(hours=1)
TRUSTED_BY_EC2 = (
    '{"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, '
    '"Action": "sts:AssumeRole"}]}'
)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


class Counted:
    """A client that counts its calls, by the name of what is asked."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.calls: list[str] = []
        client.meta.events.register("before-call", self.note)

    def note(self, model: Any, **_: Any) -> None:
        self.calls.append(model.name)


@pytest.fixture
def ec2(aws: EmulatedAws) -> Counted:
    return Counted(aws.client("ec2"))


@pytest.fixture
def iam(aws: EmulatedAws) -> Counted:
    return Counted(aws.client("iam"))


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def instances(ec2: Counted, iam: Counted, clock: Clock) -> Instances:
    return Instances(lambda: ec2.client, lambda: iam.client, TAG, clock)


def launch(aws: EmulatedAws, count: int = 1, profile: str = "", **tags: str) -> Sequence[str]:
    more: dict[str, Any] = {"IamInstanceProfile": {"Name": profile}} if profile else {}
    if tags:
        named = [{"Key": key.replace("_", "-"), "Value": value} for key, value in tags.items()]
        more["TagSpecifications"] = [{"ResourceType": "instance", "Tags": named}]
    launched = aws.client("ec2").run_instances(
        ImageId="ami-1", MinCount=count, MaxCount=count, **more
    )
    return [each["InstanceId"] for each in launched["Instances"]]


def make_profile(aws: EmulatedAws, name: str, role: str | None) -> None:
    iam = aws.client("iam")
    iam.create_instance_profile(InstanceProfileName=name)
    if role is not None:
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=TRUSTED_BY_EC2)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=role)


def test_all_that_is_known_of_an_instance_is_told(aws: EmulatedAws, instances: Instances) -> None:
    make_profile(aws, "its-profile", "its-role")
    (id_,) = launch(aws, profile="its-profile", registry_trust="push")
    facts = instances.facts(id_)
    assert facts is not None
    assert facts == InstanceFacts(
        instance_id=id_,
        state=InstanceState.RUNNING,
        role="its-role",
        access=Access.PUSH,
        session_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/its-role/{id_}",
        launched_at=facts.launched_at,
    )
    assert abs(facts.launched_at - datetime.now(UTC)) < HOUR
    assert instances.facts_of_all([id_]) == {id_: facts}
    assert instances.glance(id_) == replace(facts, role=None, session_arn=None)


def test_an_instance_that_there_is_not_is_none(instances: Instances) -> None:
    assert instances.facts(NOWHERE) is None
    assert instances.glance(NOWHERE) is None
    assert instances.facts_of_all([NOWHERE]) == {}


@pytest.mark.parametrize("value", ["", "PULL", "pull ", "admin"])
def test_a_tag_that_is_no_access_gives_none(
    aws: EmulatedAws, instances: Instances, value: str
) -> None:
    (id_,) = launch(aws, registry_trust=value)
    facts = instances.glance(id_)
    assert facts is not None
    assert facts.access is None


def test_an_untagged_launch_costs_one_call(
    aws: EmulatedAws, instances: Instances, ec2: Counted, iam: Counted
) -> None:
    make_profile(aws, "untagged-profile", "untagged-role")
    (id_,) = launch(aws, profile="untagged-profile")
    facts = instances.glance(id_)
    assert facts is not None
    assert facts.access is None
    assert (ec2.calls, iam.calls) == (["DescribeInstances"], [])


def test_more_than_a_request_holds_are_asked_for_by_hundreds(
    aws: EmulatedAws, instances: Instances, ec2: Counted
) -> None:
    ids = launch(aws, 103)
    launch(aws)  # which nobody asks about
    facts = instances.facts_of_all([*ids, *ids[:5], NOWHERE])
    assert facts.keys() == set(ids)
    assert ec2.calls == ["DescribeInstances"] * 2


def test_none_are_asked_for_without_a_call(instances: Instances, ec2: Counted) -> None:
    assert instances.facts_of_all([]) == {}
    assert ec2.calls == []


def test_the_role_of_a_profile_is_asked_for_once_in_five_minutes(
    aws: EmulatedAws, instances: Instances, iam: Counted, clock: Clock
) -> None:
    make_profile(aws, "shared-profile", "shared-role")
    ids = launch(aws, 3, profile="shared-profile")
    for _ in range(2):
        assert {each.role for each in instances.facts_of_all(ids).values()} == {"shared-role"}
    assert iam.calls == ["GetInstanceProfile"]
    clock.time += timedelta(minutes=5)
    instances.facts_of_all(ids)
    assert len(iam.calls) == 2


def test_what_decides_on_a_request_is_never_an_old_role(
    aws: EmulatedAws, instances: Instances
) -> None:
    make_profile(aws, "changing-profile", "first-role")
    (id_,) = launch(aws, profile="changing-profile")
    instances.facts_of_all([id_])
    client = aws.client("iam")
    client.create_role(RoleName="second-role", AssumeRolePolicyDocument=TRUSTED_BY_EC2)
    client.remove_role_from_instance_profile(
        InstanceProfileName="changing-profile", RoleName="first-role"
    )
    client.add_role_to_instance_profile(
        InstanceProfileName="changing-profile", RoleName="second-role"
    )
    facts = instances.facts(id_)
    assert facts is not None
    assert facts.role == "second-role"


def test_a_profile_without_a_role_or_deleted_under_its_instance_gives_none(
    aws: EmulatedAws, instances: Instances
) -> None:
    make_profile(aws, "empty-profile", None)
    make_profile(aws, "deleted-profile", None)
    ids = [*launch(aws, profile="empty-profile"), *launch(aws, profile="deleted-profile")]
    aws.client("iam").delete_instance_profile(InstanceProfileName="deleted-profile")
    for facts in (*instances.facts_of_all(ids).values(), *map(instances.facts, ids)):
        assert facts is not None
        assert (facts.role, facts.session_arn) == (None, None)


class TestLaunched:
    def test_tagged_ones_that_run_or_begin_to_are_found(
        self, aws: EmulatedAws, instances: Instances, clock: Clock
    ) -> None:
        tagged = launch(aws, 4, registry_trust="pull")
        stopped, ended = tagged[2:]
        (untagged,) = launch(aws, other="pull")
        client = aws.client("ec2")
        client.stop_instances(InstanceIds=[stopped])
        client.terminate_instances(InstanceIds=[ended])
        clock.time = datetime.now(UTC)
        found = instances.launched_since(clock.time - HOUR)
        assert set(tagged) & found.keys() == set(tagged[:2])
        assert untagged not in found

    def test_those_from_before_are_not(
        self, aws: EmulatedAws, instances: Instances, clock: Clock
    ) -> None:
        (id_,) = launch(aws, registry_trust="pull")
        facts = instances.glance(id_)
        assert facts is not None
        clock.time = datetime.now(UTC)
        assert id_ in instances.launched_since(facts.launched_at)
        assert id_ not in instances.launched_since(facts.launched_at + timedelta(seconds=1))
        assert id_ in instances.tagged()

    @pytest.mark.parametrize("hours", [0, 1, 25, 195, 5000])
    def test_it_does_not_matter_how_far_back_it_goes(
        self, aws: EmulatedAws, instances: Instances, clock: Clock, hours: int
    ) -> None:
        (id_,) = launch(aws, registry_trust="pull")
        clock.time = datetime.now(UTC)
        assert id_ in instances.launched_since(clock.time - hours * HOUR - timedelta(minutes=5))


def test_all_that_carry_the_tag_are_found_whatever_it_says_and_whatever_they_do(
    aws: EmulatedAws, instances: Instances
) -> None:
    running, stopped, ended = launch(aws, 3, registry_trust="pull")
    (odd,) = launch(aws, registry_trust="whatever")
    (untagged,) = launch(aws)
    aws.client("ec2").stop_instances(InstanceIds=[stopped])
    aws.client("ec2").terminate_instances(InstanceIds=[ended])
    found = instances.tagged()
    assert {running, stopped, ended, odd} <= found.keys()
    assert found[odd].access is None
    assert untagged not in found


def test_tagged_ones_that_ended_are_found(aws: EmulatedAws, instances: Instances) -> None:
    kept, ended = launch(aws, 2, registry_trust="pull")
    (untagged,) = launch(aws)
    aws.client("ec2").terminate_instances(InstanceIds=[ended, untagged])
    found = instances.ended()
    assert ended in found
    assert not {kept, untagged} & set(found)


def test_all_pages_are_read(aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of five: what EC2 gives of itself is up to a thousand, or fewer as it likes."""
    client = aws.client("ec2")
    ids = launch(aws, 12, registry_trust="pull")
    client.terminate_instances(InstanceIds=ids)
    ask, pages = client.describe_instances, list[int]()

    def by_fives(**asked: Any) -> Any:
        answer = ask(**{**asked, "MaxResults": 5})
        pages.append(sum(len(group["Instances"]) for group in answer["Reservations"]))
        return answer

    monkeypatch.setattr(client, "describe_instances", by_fives)
    instances = Instances(lambda: client, lambda: client, TAG, Clock())
    assert set(ids) <= set(instances.ended())
    assert len(pages) >= 3
    assert max(pages) == 5


def test_it_is_right_whatever_the_server_filtered(
    aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EC2's emulators let all through what they do not know to filter by."""
    client = aws.client("ec2")
    ended, running = launch(aws, 2, registry_trust="pull")
    (untagged,) = launch(aws)
    client.terminate_instances(InstanceIds=[ended])
    ask = client.describe_instances
    monkeypatch.setattr(client, "describe_instances", lambda **asked: ask(**without_filters(asked)))
    clock = Clock()
    instances = Instances(lambda: client, lambda: client, TAG, clock)

    assert instances.facts_of_all([running]).keys() == {running}
    assert not {ended, untagged} & instances.launched_since(clock.time - HOUR).keys()
    assert running in instances.launched_since(clock.time - HOUR)
    assert not {running, untagged} & set(instances.ended())
    assert {running, ended} <= instances.tagged().keys()
    assert untagged not in instances.tagged()
    assert instances.launched_since(datetime.now(UTC) + HOUR) == {}


def without_filters(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name != "Filters"}


class Refusing:
    """A client that EC2 answers with an error whatever it is asked."""

    def __init__(self, code: str) -> None:
        self.code = code

    def describe_instances(self, **_: Any) -> Any:
        raise ClientError({"Error": {"Code": self.code}}, "DescribeInstances")


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "UnauthorizedOperation", "InternalError"])
def test_what_ec2_does_not_answer_is_a_dependency_that_failed(code: str) -> None:
    """The emulator never refuses so; the codes are those of the Amazon EC2 API Reference."""
    client: Any = Refusing(code)
    instances = Instances(lambda: client, lambda: client, TAG, Clock())
    asks: tuple[Callable[[], object], ...] = (
        lambda: instances.facts(NOWHERE),
        lambda: instances.glance(NOWHERE),
        lambda: instances.facts_of_all([NOWHERE]),
        lambda: instances.launched_since(datetime.now(UTC)),
        instances.ended,
        instances.tagged,
    )
    for ask in asks:
        with pytest.raises(DependencyFailed) as caught:
            ask()
        assert caught.value.code == "ec2_unreadable"
