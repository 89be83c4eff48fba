"""EC2 instances that enrol themselves: the rules, each on real machines, events and commands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from localcloud.processes import until
from tests.e2e.client import Person
from tests.e2e.instances import Fleet

TAG = "registry-trust"
PUSH = ("POST", "/v2/demo/pushed/blobs/uploads/")


@pytest.fixture(scope="module")
def fleet(cloud: Any) -> Fleet:
    return Fleet(cloud)


@pytest.fixture
def launch(fleet: Fleet) -> Iterator[Callable[..., str]]:
    """Launches one instance, and terminates it when the test is over."""
    launched: list[str] = []

    def one(access: str = "pull", *, boot: bool = False) -> str:
        launched.extend(fleet.launch(access, boot=boot))
        return launched[-1]

    yield one
    for each in launched:
        fleet.ec2("terminate", each)


def tag(fleet: Fleet, instance_id: str, value: str) -> None:
    fleet.cloud.client("ec2").create_tags(
        Resources=[instance_id], Tags=[{"Key": TAG, "Value": value}]
    )


def untag(fleet: Fleet, instance_id: str) -> None:
    fleet.cloud.client("ec2").delete_tags(Resources=[instance_id], Tags=[{"Key": TAG}])


def restart(fleet: Fleet, instance_id: str) -> None:
    fleet.ec2("stop", instance_id)
    time.sleep(1.1)  # launch times are told to the second
    fleet.ec2("start", instance_id)


def launched_at(fleet: Fleet, instance_id: str) -> datetime:
    found = fleet.cloud.client("ec2").describe_instances(InstanceIds=[instance_id])
    return found["Reservations"][0]["Instances"][0]["LaunchTime"]


def enrolled_again(fleet: Fleet, instance_id: str) -> dict[str, Any]:
    """What is known of it once it is enrolled as it was last started."""
    since = launched_at(fleet, instance_id)

    def seen(known: dict[str, Any]) -> bool:
        told = known["launched_at"]
        return known["state"] == "enrolled" and told and datetime.fromisoformat(told) >= since

    return fleet.wait(instance_id, seen)


def revoked(fleet: Fleet, serial: str) -> bool:
    return fleet.certificate(serial)["status"] == "revoked"


def public_key(fleet: Fleet, instance_id: str) -> str:
    key = f"/etc/registry-trust/$REGISTRY/{instance_id}.key"
    return fleet.run(instance_id, f"openssl pkey -in {key} -pubout").stdout


def test_an_instance_with_the_tag_enrols_and_pulls_but_may_not_push(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    instance_id = launch("pull")
    known = fleet.enrolled(instance_id)

    assert (known["access"], known["path"]) == ("pull", "agent")
    certificate = fleet.certificate(known["serial"])
    assert certificate["name"] == instance_id
    assert certificate["owner"].endswith(f"/{instance_id}")
    assert certificate["status"] == "active"
    assert fleet.asks(instance_id) == "200"
    assert fleet.asks(instance_id, *PUSH) == "403"


def test_the_key_was_made_there_is_roots_alone_and_went_nowhere(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    instance_id = launch()
    known = fleet.enrolled(instance_id)
    key = f"/etc/registry-trust/$REGISTRY/{instance_id}.key"

    assert fleet.run(
        instance_id, f"stat -c '%a %U' {key}; stat -c %a /etc/registry-trust/$REGISTRY"
    ).stdout == ("600 root\n700\n")
    assert (
        public_key(fleet, instance_id)
        == fleet.run(
            instance_id,
            'openssl x509 -in "/etc/docker/certs.d/$REGISTRY/client.cert" -noout -pubkey',
        ).stdout
    )
    secret = fleet.run(instance_id, f"sed -n 2p {key}").stdout.strip()
    assert len(secret) == 64
    ssm = fleet.cloud.client("ssm")
    sent = ssm.list_commands(InstanceId=instance_id)["Commands"]
    wrote = [
        ssm.get_command_invocation(CommandId=each["CommandId"], InstanceId=instance_id)
        for each in sent
    ]
    assert len(sent) >= 2
    records = json.dumps([sent, wrote, known, fleet.certificate(known["serial"])], default=str)
    tables = [
        fleet.cloud.outputs()[t] for t in ("CertificatesTable", "InstancesTable", "StateTable")
    ]
    dynamodb = fleet.cloud.client("dynamodb")
    kept = [page for t in tables for page in dynamodb.get_paginator("scan").paginate(TableName=t)]
    assert secret not in records + json.dumps(kept, default=str)


def test_an_instance_without_the_tag_costs_one_look_and_leaves_no_record(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    def looks() -> int:
        described = fleet.calls().get("ec2:DescribeInstances", {})
        return sum(n for role, n in described.items() if "OnInstanceState" in role)

    before, earlier = looks(), -1
    while before != earlier:  # what ended before is still told of, and counted a moment later
        time.sleep(5)
        before, earlier = looks(), before
    instance_id = launch("")

    assert until(lambda: looks() == before + 1, 30)
    time.sleep(5)
    assert looks() == before + 1
    assert fleet.enrolment(instance_id) == {}
    assert fleet.run(instance_id, "test -e /etc/registry-trust").returncode == 1


def test_a_tag_put_on_a_running_instance_enrols_it(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    instance_id = launch("")
    tag(fleet, instance_id, "pull")

    assert fleet.enrolled(instance_id)["access"] == "pull"


def test_access_follows_the_tag_and_the_old_certificate_is_revoked(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    instance_id = launch("pull")
    before = fleet.enrolled(instance_id)
    assert fleet.asks(instance_id, *PUSH) == "403"

    tag(fleet, instance_id, "push")
    after = fleet.wait(
        instance_id, lambda e: e["state"] == "enrolled" and e["serial"] != before["serial"]
    )

    assert after["access"] == "push"
    assert fleet.asks(instance_id, *PUSH) == "202"
    assert until(lambda: revoked(fleet, before["serial"]), 20)
    assert not revoked(fleet, after["serial"])


@pytest.mark.parametrize("end", ["none", "all"], ids=["taken off", "neither pull nor push"])
def test_without_its_tag_an_instance_is_out(
    fleet: Fleet, launch: Callable[..., str], end: str
) -> None:
    instance_id = launch("pull")
    serial = fleet.enrolled(instance_id)["serial"]

    untag(fleet, instance_id) if end == "none" else tag(fleet, instance_id, end)

    known = fleet.wait(instance_id, lambda e: e["state"] == "gone")
    assert known["code"] == "untagged"
    assert until(lambda: revoked(fleet, serial), 20)
    assert until(lambda: fleet.asks(instance_id) == "403", 20)


def test_a_stopped_and_started_instance_keeps_its_certificate(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    instance_id = launch()
    before = fleet.enrolled(instance_id)

    restart(fleet, instance_id)

    after = enrolled_again(fleet, instance_id)
    assert after["serial"] == before["serial"]
    assert fleet.asks(instance_id) == "200"


def test_a_lost_certificate_is_installed_again_at_the_next_start(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    instance_id = launch()
    before = fleet.enrolled(instance_id)
    fleet.run(instance_id, "rm -r /etc/docker /etc/containers/certs.d")
    assert fleet.asks(instance_id) != "200"

    restart(fleet, instance_id)

    assert enrolled_again(fleet, instance_id)["serial"] == before["serial"]
    assert fleet.asks(instance_id) == "200"


def test_a_rebuilt_disk_gets_a_new_key_and_the_old_certificate_is_revoked(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    instance_id = launch()
    before = fleet.enrolled(instance_id)
    old_key = public_key(fleet, instance_id)
    fleet.ec2("stop", instance_id)
    fleet.sandbox(instance_id).format()
    time.sleep(1.1)
    fleet.ec2("start", instance_id)

    after = enrolled_again(fleet, instance_id)

    assert after["serial"] != before["serial"]
    assert public_key(fleet, instance_id) not in ("", old_key)
    assert fleet.asks(instance_id) == "200"
    assert until(lambda: revoked(fleet, before["serial"]), 20)


def test_a_terminated_instance_is_gone_with_its_certificate(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    instance_id = launch()
    serial = fleet.enrolled(instance_id)["serial"]

    fleet.ec2("terminate", instance_id)

    known = fleet.wait(instance_id, lambda e: e["state"] == "gone", 30)
    assert known["code"] == "terminated"
    certificate = fleet.certificate(serial)
    assert (certificate["status"], certificate["revoked_by"], certificate["revocation_reason"]) == (
        "revoked",
        "registry-trust",
        "cessationOfOperation",
    )


def test_an_admin_can_have_an_instance_enrolled_afresh(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    """Its key was stolen, say: the certificate is revoked, and it gets none by itself."""
    instance_id, admin = launch(), fleet.cloud.person("ADMIN")
    before = fleet.enrolled(instance_id)
    old_key = public_key(fleet, instance_id)
    assert admin.ask("DELETE", f"/admin/certs/{before['serial']}").status in (200, 202)

    assert admin.ask("POST", f"/admin/instances/{instance_id}/enrol").status == 202

    after = fleet.wait(
        instance_id, lambda e: e["state"] == "enrolled" and e["serial"] != before["serial"]
    )
    assert public_key(fleet, instance_id) not in ("", old_key)
    assert not revoked(fleet, after["serial"])
    assert fleet.asks(instance_id) == "200"


def test_only_what_carries_the_tag_can_be_enrolled_and_only_by_an_admin(
    fleet: Fleet, launch: Callable[..., str], dev: Person
) -> None:
    untagged, admin = launch(""), fleet.cloud.person("ADMIN")
    path = f"/admin/instances/{untagged}/enrol"

    assert admin.ask("POST", path).code == "instance_not_enrollable"
    nobody = admin.ask("POST", "/admin/instances/i-0123456789abcdef0/enrol")
    assert (nobody.status, nobody.code) == (404, "instance_not_found")
    assert dev.ask("POST", path).status == 403
    assert dev.ask("GET", "/admin/instances").status == 403


def test_an_instance_without_an_agent_enrols_by_its_user_data(
    fleet: Fleet, launch: Callable[..., str]
) -> None:
    """All but its renewal, for which a machine needs systemd or cron, and a sandbox has neither."""
    instance_id = launch("pull", boot=True)
    log = fleet.layout.log(instance_id)

    assert until(lambda: log.exists() and "user data ended" in log.read_text(), 60)
    assert f"{fleet.cloud.variables['REGISTRY']} admits it" in log.read_text(), log.read_text()
    assert "neither systemd nor cron" in log.read_text()
    assert fleet.asks(instance_id) == "200"
    assert fleet.asks(instance_id, *PUSH) == "403"
    known = fleet.wait(instance_id, lambda e: e["serial"] and e["state"] == "enrolled", 150)
    assert known["path"] == "boot"
    serial = known["serial"]
    fleet.ec2("terminate", instance_id)
    assert until(lambda: revoked(fleet, serial), 30)


@pytest.fixture
def inside(fleet: Fleet, launch: Callable[..., str]) -> tuple[str, dict[str, str]]:
    """An enrolled instance, and what its metadata service gives programs on it to sign with."""
    instance_id = launch()
    fleet.enrolled(instance_id)
    script = """
      m=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest
      t=$(curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$m/api/token")
      c=$m/meta-data/iam/security-credentials
      role=$(curl -sS -H "X-aws-ec2-metadata-token: $t" "$c/")
      curl -sS -H "X-aws-ec2-metadata-token: $t" "$c/$role"
    """
    return instance_id, json.loads(fleet.run(instance_id, script).stdout)


def test_an_instances_role_reads_the_trust_and_nothing_else(
    fleet: Fleet, inside: tuple[str, dict[str, str]], dev: Person
) -> None:
    _, given = inside
    session = boto3.Session(
        given["AccessKeyId"], given["SecretAccessKey"], given["Token"], region_name="us-east-1"
    )
    variables = fleet.cloud.variables
    endpoint, bucket = variables["AWS_ENDPOINT_URL"], variables["CONFIG_BUCKET"]
    s3 = session.client("s3", endpoint_url=endpoint)
    serial = dev.post("/certs", {}).json["serial"]

    assert s3.get_object(Bucket=bucket, Key="trust/ca.crt")["Body"].read()
    outputs = fleet.cloud.outputs()
    for refused in (
        lambda: s3.get_object(Bucket=bucket, Key=f"certs/{serial}/bundle.tar.gz"),
        lambda: s3.put_object(Bucket=bucket, Key="trust/ca.crt", Body=b"x"),
        lambda: s3.list_objects_v2(Bucket=outputs["RegistryBucket"]),
        lambda: session.client("ssm", endpoint_url=endpoint).get_parameters_by_path(
            Path=outputs["ParameterPrefix"], Recursive=True
        ),
        lambda: session.client("dynamodb", endpoint_url=endpoint).scan(
            TableName=outputs["InstancesTable"]
        ),
        lambda: session.client("sqs", endpoint_url=endpoint).send_message(
            QueueUrl=outputs["EnrolmentQueueUrl"], MessageBody="{}"
        ),
    ):
        with pytest.raises(ClientError, match=r"AccessDenied|403"):
            refused()


def test_an_instance_cannot_reach_anothers_certificate(
    fleet: Fleet, inside: tuple[str, dict[str, str]], dev: Person
) -> None:
    _, given = inside
    instance = Person(
        fleet.cloud.variables["API_URL"],
        given["AccessKeyId"],
        given["SecretAccessKey"],
        "instance",
        given["Token"],
    )
    serial = dev.post("/certs", {}).json["serial"]

    assert instance.ask("GET", "/trust").status == 200
    for method, path in (
        ("GET", f"/certs/{serial}"),
        ("GET", f"/certs/{serial}/bundle"),
        ("DELETE", f"/certs/{serial}"),
        ("GET", f"/admin/certs/{serial}"),
        ("POST", f"/admin/instances/{inside[0]}/enrol"),
    ):
        assert instance.ask(method, path).status in (403, 404), (method, path)
    # What it asks for is what its tag says, whatever it asks for.
    asked = instance.post("/certs", {"access": "push"})
    assert asked.status == 403 or asked.json["access"] == "pull"
