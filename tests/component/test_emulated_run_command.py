"""Run Command on the emulated AWS, with our hooks: it runs in machines, to the rules of SSM."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from localcloud import images
from localcloud.aws import ROOT, SETTINGS, Caller
from localcloud.hooks.run_command import AT_ONCE
from localcloud.layout import read_json
from localcloud.processes import until
from tests.component.emulated_aws import EmulatedAws, emulated_aws
from tests.component.queues import listen

ACCOUNT = "000000000000"
ENDED = {"Success", "Failed", "TimedOut"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        faults(running, agent_seconds=0.3)
        yield running


@pytest.fixture
def dice(aws: EmulatedAws) -> Iterator[Callable[..., None]]:
    """Loads the dice for one test."""
    yield lambda **loaded: faults(aws, **{"agent_seconds": 0.3, **loaded})
    faults(aws, agent_seconds=0.3)


def faults(aws: EmulatedAws, **loaded: float) -> None:
    aws.layout.faults.write_text(json.dumps(loaded))


def launch(aws: EmulatedAws, image: str = images.WITH_AGENT, **more: Any) -> str:
    launched = aws.client("ec2").run_instances(ImageId=image, MinCount=1, MaxCount=1, **more)
    return str(launched["Instances"][0]["InstanceId"])


def online(aws: EmulatedAws, instance_id: str) -> bool:
    asked = [{"Key": "InstanceIds", "Values": [instance_id]}]
    known = aws.client("ssm").describe_instance_information(Filters=asked)
    return [each["PingStatus"] for each in known["InstanceInformationList"]] == ["Online"]


@pytest.fixture
def instance(aws: EmulatedAws) -> Iterator[str]:
    """One whose agent answers."""
    instance_id = launch(aws)
    assert until(lambda: online(aws, instance_id), 10)
    yield instance_id
    aws.client("ec2").terminate_instances(InstanceIds=[instance_id])


def send(aws: EmulatedAws, instance_id: str, script: str, seconds: int = 60, **more: Any) -> str:
    # boto3 would refuse what AWS does too: less than 30 seconds for the delivery.
    unchecked = SETTINGS.merge(Config(parameter_validation=False))
    session = Caller(aws.endpoint, ROOT).session
    sent = session.client("ssm", endpoint_url=aws.endpoint, config=unchecked).send_command(
        InstanceIds=[instance_id],
        DocumentName="AWS-RunShellScript",
        Parameters={"commands": [script], "executionTimeout": [str(seconds)]},
        **more,
    )
    return str(sent["Command"]["CommandId"])


def status(aws: EmulatedAws, command_id: str, instance_id: str) -> str:
    asked = {"CommandId": command_id, "InstanceId": instance_id}
    return str(aws.client("ssm").get_command_invocation(**asked)["Status"])


def outcome(aws: EmulatedAws, command_id: str, instance_id: str) -> dict[str, Any]:
    """How it ended, once it has."""
    ssm, seen = aws.client("ssm"), {}

    def ended() -> bool:
        seen.update(ssm.get_command_invocation(CommandId=command_id, InstanceId=instance_id))
        return seen["Status"] in ENDED

    assert until(ended, 40), seen
    return seen


def run(aws: EmulatedAws, instance_id: str, script: str, **more: Any) -> dict[str, Any]:
    return outcome(aws, send(aws, instance_id, script, **more), instance_id)


def test_a_command_runs_as_root_in_the_machine_of_its_instance(
    aws: EmulatedAws, instance: str
) -> None:
    done = run(aws, instance, "id -u; hostname; echo oops >&2; umask; exit 3")

    assert done["StandardOutputContent"] == f"0\n{instance}\n0022\n"
    agents = "failed to run commands: exit status 3"
    assert done["StandardErrorContent"] == f"oops\n{agents}"
    assert (done["Status"], done["StatusDetails"], done["ResponseCode"]) == ("Failed", "Failed", 3)
    assert run(aws, instance, "true")["Status"] == "Success"


def test_what_a_command_leaves_is_there_for_the_next_one_and_after_a_stop(
    aws: EmulatedAws, instance: str
) -> None:
    run(aws, instance, "echo kept > /etc/kept; echo gone > /run/gone")
    ec2 = aws.client("ec2")
    ec2.stop_instances(InstanceIds=[instance])
    ec2.start_instances(InstanceIds=[instance])
    assert until(lambda: online(aws, instance), 10)

    assert run(aws, instance, "cat /etc/kept; ls /run")["StandardOutputContent"] == "kept\n"


def test_output_is_cut_where_ssm_cuts_it(aws: EmulatedAws, instance: str) -> None:
    done = run(aws, instance, "yes | head -c 100000; yes | head -c 100000 >&2")

    assert len(done["StandardOutputContent"]) == 24000
    assert len(done["StandardErrorContent"]) == 8000


def test_a_command_that_takes_too_long_is_ended_and_timed_out(
    aws: EmulatedAws, instance: str
) -> None:
    done = run(aws, instance, "echo begun; sleep 30; echo ended", seconds=1)

    assert (done["Status"], done["StatusDetails"]) == ("TimedOut", "Execution Timed Out")
    assert done["StandardOutputContent"] == "begun\n"


def test_a_command_that_no_agent_takes_in_time_is_timed_out_and_never_runs(
    aws: EmulatedAws, instance: str, dice: Callable[..., None]
) -> None:
    """The agent goes while the command is on its way to it: behind others, here."""
    ec2 = aws.client("ec2")
    before = [send(aws, instance, "sleep 60") for _ in range(AT_ONCE)]
    assert until(lambda: all(status(aws, each, instance) == "InProgress" for each in before), 10)
    waiting = send(aws, instance, "echo ran", TimeoutSeconds=2)
    dice(agent_seconds=60)
    ec2.stop_instances(InstanceIds=[instance])
    ec2.start_instances(InstanceIds=[instance])

    assert outcome(aws, before[0], instance)["Status"] == "Failed"
    done = outcome(aws, waiting, instance)
    assert (done["Status"], done["StatusDetails"]) == ("TimedOut", "Delivery Timed Out")
    assert (done["StandardOutputContent"], done["ResponseCode"]) == ("", -1)


def test_the_end_of_an_invocation_and_of_its_command_are_told_in_aws_form(
    aws: EmulatedAws, instance: str
) -> None:
    ear = listen(aws, "commands", {"source": ["aws.ssm"]})

    command_id = send(aws, instance, "true")
    started, ended, whole = ear.hear(lambda e: len(e) == 3)

    assert started["detail-type"] == "EC2 Command Invocation Status-change Notification"
    assert started["detail"]["status"] == "InProgress"
    assert ended["resources"] == [f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/{instance}"]
    requested = ended["detail"].pop("requested-date-time")
    assert len(requested) == len("2026-01-01T00:00:00Z")
    assert ended["detail"] == {
        "command-id": command_id,
        "document-name": "AWS-RunShellScript",
        "instance-id": instance,
        "status": "Success",
    }
    assert whole["detail-type"] == "EC2 Command Status-change Notification"
    assert (whole["detail"]["command-id"], whole["detail"]["status"]) == (command_id, "Success")


def test_a_command_that_timed_out_is_told_so(aws: EmulatedAws, instance: str) -> None:
    kind = "EC2 Command Invocation Status-change Notification"
    pattern = {"source": ["aws.ssm"], "detail-type": [kind], "detail": {"status": ["TimedOut"]}}
    ear = listen(aws, "late", pattern)

    command_id = send(aws, instance, "sleep 30", seconds=1)

    (event,) = ear.hear(lambda e: len(e) == 1)
    assert event["detail"]["command-id"] == command_id


def test_before_its_agent_answers_an_instance_takes_no_command(
    aws: EmulatedAws, dice: Callable[..., None]
) -> None:
    dice(agent_seconds=1.5)
    instance_id = launch(aws)

    with pytest.raises(ClientError, match="InvalidInstanceId"):
        send(aws, instance_id, "true")
    assert not online(aws, instance_id)
    assert until(lambda: online(aws, instance_id), 10)
    assert run(aws, instance_id, "true")["Status"] == "Success"


@pytest.mark.parametrize("image", [images.WITHOUT_AGENT, images.BARE])
def test_an_instance_without_an_agent_never_takes_one(aws: EmulatedAws, image: str) -> None:
    without, with_one = launch(aws, image), launch(aws)
    assert until(lambda: online(aws, with_one), 10)

    assert not online(aws, without)
    with pytest.raises(ClientError, match="InvalidInstanceId"):
        send(aws, without, "true")


def test_a_stopped_or_terminated_instance_takes_no_command(aws: EmulatedAws, instance: str) -> None:
    for act in ("stop_instances", "terminate_instances"):
        getattr(aws.client("ec2"), act)(InstanceIds=[instance])
        assert not online(aws, instance)
        with pytest.raises(ClientError, match="InvalidInstanceId"):
            send(aws, instance, "true")


def test_termination_takes_the_disk_away(aws: EmulatedAws, instance: str) -> None:
    assert (aws.layout.instances / instance / "disk" / "etc").is_dir()

    aws.client("ec2").terminate_instances(InstanceIds=[instance])

    assert until(lambda: not (aws.layout.instances / instance).exists(), 5)


def test_user_data_runs_once_as_root_and_can_be_read_afterwards(aws: EmulatedAws) -> None:
    script = "#!/bin/sh\nid -u\nhostname\necho x >> /etc/ran\n"
    instance_id = launch(aws, images.WITHOUT_AGENT, UserData=script)
    log = aws.layout.log(instance_id)

    assert until(lambda: log.exists() and "user data ended with 0" in log.read_text(), 10)
    assert f"0\n{instance_id}\n" in log.read_text()
    ec2 = aws.client("ec2")
    ec2.stop_instances(InstanceIds=[instance_id])
    ec2.start_instances(InstanceIds=[instance_id])
    ran = aws.layout.instances / instance_id / "disk" / "etc" / "ran"
    assert not until(lambda: ran.read_text() != "x\n", 1)


def test_calls_are_throttled_as_often_as_the_dice_say(
    aws: EmulatedAws, instance: str, dice: Callable[..., None]
) -> None:
    dice(fail_ssm=1)
    for call in (
        lambda: send(aws, instance, "true"),
        lambda: online(aws, instance),
        lambda: outcome(aws, "c" * 36, instance),
    ):
        with pytest.raises(ClientError, match="ThrottlingException"):
            call()
    dice(fail_ssm=0)
    assert run(aws, instance, "true")["Status"] == "Success"


def test_events_are_dropped_and_doubled_as_often_as_the_dice_say(
    aws: EmulatedAws, instance: str, dice: Callable[..., None]
) -> None:
    ear = listen(aws, "dice", {"source": ["aws.ssm"]})

    dice(drop_events=1)
    run(aws, instance, "true")
    assert ear.rest() == []
    dice(double_events=1)
    run(aws, instance, "true")
    told = [(e["detail-type"], e["detail"]["status"]) for e in ear.hear(lambda e: len(e) == 6)]
    assert len(set(told)) == 3
    assert ear.rest() == []


def test_calls_are_counted_by_action_and_caller(aws: EmulatedAws) -> None:
    def counted() -> int:
        return int(read_json(aws.layout.api_calls).get("ec2:DescribeTags", {}).get("root", 0))

    before = counted()
    for _ in range(3):
        aws.client("ec2").describe_tags()

    assert until(lambda: counted() == before + 3, 5), read_json(aws.layout.api_calls)
