"""A machine for the registry in the stack: made, used, taken away, made again by scripts/deploy."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from localcloud import images
from localcloud.processes import until
from tests.e2e.conftest import Cloud
from tests.e2e.instances import Fleet

STAGE = "machine"
NAME = f"registry-trust-{STAGE}"
SCRIPT = "trust/registry-host.sh"
WITH_MACHINE = {"RegistryHostInstance": "true", "RegistryAddress": "", "RegistryHostZone": ""}

# As much of the AWS CLI as a machine's user data needs: `aws s3 cp S3-URI DIRECTORY/` and
# `aws ec2 associate-address OPTIONS`. What is refused is noted.
AWS_CLI = r"""#!/bin/sh
set -eu
imds=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest
token=$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$imds/api/token")
tell() {
  curl -fsS -H "X-aws-ec2-metadata-token: $token" "$imds/meta-data/iam/security-credentials/$1"
}
shown=$(tell "$(tell '')")
field() { printf '%s' "$shown" | tr ',{}' '\n' | sed -n "s/^ *\"$1\" *: *\"\(.*\)\".*/\1/p"; }
ask() {
  service=$1
  shift
  curl -fsS --aws-sigv4 "aws:amz:$AWS_DEFAULT_REGION:$service" \
    --user "$(field AccessKeyId):$(field SecretAccessKey)" \
    -H "x-amz-security-token: $(field Token)" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$@" ||
    { echo "$service" >>/root/refused; exit 1; }
}
case "$1 $2" in
  's3 cp') ask s3 -o "$5${4##*/}" "@ENDPOINT@/${4#s3://}" ;;
  'ec2 associate-address')
    [ "$3 $4 $6" = '--allow-reassociation --allocation-id --instance-id' ]
    what="Action=AssociateAddress&Version=2016-11-15&AllocationId=$5&InstanceId=$7"
    ask ec2 -d "$what" @ENDPOINT@/ ;;
esac
"""


@dataclass(frozen=True)
class Deployed:
    """The stage, and what EC2 and its neighbours have of it."""

    cloud: Cloud

    def deploy(self, *arguments: str) -> str:
        """scripts/deploy; what it printed."""
        done = self.cloud.run("scripts/deploy", "--stage", STAGE, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def outputs(self) -> dict[str, str]:
        return self.cloud.outputs(STAGE)

    @property
    def parameters(self) -> dict[str, str]:
        """Those that these tests change."""
        all_of_them = self.cloud.stack(STAGE)["Parameters"]
        found = {each["ParameterKey"]: each["ParameterValue"] for each in all_of_them}
        return {name: found[name] for name in WITH_MACHINE}

    @property
    def role_policies(self) -> list[str]:
        role = self.outputs["RegistryHostRoleName"]
        return sorted(self.cloud.client("iam").list_role_policies(RoleName=role)["PolicyNames"])

    @property
    def trust(self) -> dict[str, Any]:
        """As it is published."""
        where = {"Bucket": self.outputs["ConfigBucket"], "Key": "trust/trust.json"}
        document: dict[str, Any] = json.loads(
            self.cloud.client("s3").get_object(**where)["Body"].read()
        )
        return document

    def addresses(self) -> list[dict[str, Any]]:
        return [
            each
            for each in self.cloud.client("ec2").describe_addresses()["Addresses"]
            if {"Key": "Name", "Value": f"{NAME}-registry"} in each["Tags"]
        ]

    def launch_templates(self) -> list[dict[str, Any]]:
        """What the newest version of each says."""
        ec2 = self.cloud.client("ec2")
        found = ec2.describe_launch_templates()["LaunchTemplates"]
        return [
            ec2.describe_launch_template_versions(LaunchTemplateId=each["LaunchTemplateId"])[
                "LaunchTemplateVersions"
            ][-1]["LaunchTemplateData"]
            for each in found
            if each["LaunchTemplateName"].startswith(NAME)
        ]

    def groups(self) -> list[dict[str, Any]]:
        pages = self.cloud.client("autoscaling").describe_auto_scaling_groups()
        return [
            each
            for each in pages["AutoScalingGroups"]
            if each["AutoScalingGroupName"].startswith(NAME)
        ]

    def security_groups(self) -> list[dict[str, Any]]:
        found = self.cloud.client("ec2").describe_security_groups()["SecurityGroups"]
        return [each for each in found if each["GroupName"].startswith(NAME)]

    def has_none(self) -> bool:
        """Of all that is made for the machine there is nothing."""
        made = (self.addresses, self.launch_templates, self.groups, self.security_groups)
        return not any(each() for each in made)


@pytest.fixture(scope="module")
def stage(cloud: Cloud) -> Iterator[Deployed]:
    """Deployed without the machine."""
    deployed = Deployed(cloud)
    deployed.deploy("--registry-host", "r.example:5000")
    yield deployed
    cloud.remove(STAGE)
    assert deployed.has_none()


@pytest.fixture
def with_machine(stage: Deployed) -> Deployed:
    """With it, as by default."""
    if stage.parameters != WITH_MACHINE:
        told_nothing = [f"--param={name}=" for name, value in WITH_MACHINE.items() if not value]
        stage.deploy("--with-registry-host", *told_nothing)
    return stage


def test_it_is_made_by_one_word_and_what_is_next_is_told(stage: Deployed) -> None:
    assert stage.has_none()
    said = stage.deploy("--with-registry-host")

    outputs, (address,) = stage.outputs, stage.addresses()
    assert outputs["RegistryHostAddress"] == address["PublicIp"]
    assert f"Make a DNS record: r.example A {address['PublicIp']}" in said
    assert f"scripts/registry-host check --stage {STAGE}" in said
    # No name leads there yet, so clients are told.
    assert stage.trust["registry_address"] == address["PublicIp"]

    (group,) = stage.groups()
    assert group["AutoScalingGroupName"] == outputs["RegistryHostGroup"]
    assert (group["MinSize"], group["MaxSize"]) == (1, 1)
    # Of the default VPC's three zones the third is without t3.
    assert len(group["VPCZoneIdentifier"].split(",")) == 2
    (security,) = stage.security_groups()
    (rule,) = security["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"]) == (5000, 5000)
    assert rule["IpRanges"][0]["CidrIp"] == "0.0.0.0/0"

    (template,) = stage.launch_templates()
    assert template["ImageId"].startswith("resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023")
    assert template["MetadataOptions"]["HttpTokens"] == "required"
    assert template["NetworkInterfaces"][0]["Groups"] == [security["GroupId"]]
    boots_with = base64.b64decode(template["UserData"]).decode()
    assert f"s3://{outputs['ConfigBucket']}/{SCRIPT}'" in boots_with
    assert f"--allocation-id '{address['AllocationId']}'" in boots_with
    s3 = stage.cloud.client("s3")
    assert s3.head_object(Bucket=outputs["ConfigBucket"], Key=SCRIPT)["ContentLength"] > 0


def test_it_stays_and_goes_and_comes_again(with_machine: Deployed) -> None:
    address = with_machine.outputs["RegistryHostAddress"]
    assert with_machine.role_policies == ["registry-host", "registry-host-address"]
    with_machine.deploy("--param", "MaximumDays=30")
    assert with_machine.outputs["RegistryHostAddress"] == address

    said = with_machine.deploy("--param", "RegistryHostInstance=false")
    assert with_machine.has_none()
    assert with_machine.role_policies == ["registry-host"]
    assert "RegistryHostAddress" not in with_machine.outputs
    assert with_machine.trust["registry_address"] == ""
    assert "--with-registry-host" in said

    with_machine.deploy("--with-registry-host")
    assert with_machine.role_policies == ["registry-host", "registry-host-address"]
    assert with_machine.trust["registry_address"] == with_machine.addresses()[0]["PublicIp"]


def test_who_gives_an_address_for_clients_has_them_told_that_one(with_machine: Deployed) -> None:
    with_machine.deploy("--param", "RegistryAddress=10.9.8.7")
    assert with_machine.trust["registry_address"] == "10.9.8.7"


def test_a_hosted_zone_gets_the_record_and_clients_need_no_address(with_machine: Deployed) -> None:
    route53 = with_machine.cloud.client("route53")
    made = route53.create_hosted_zone(Name="example", CallerReference="of the tests")
    zone = made["HostedZone"]["Id"].rpartition("/")[2]

    def records() -> list[tuple[str, list[str]]]:
        found = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
        return [
            (each["Name"], [value["Value"] for value in each["ResourceRecords"]])
            for each in found
            if each["Type"] == "A"
        ]

    said = with_machine.deploy("--param", f"RegistryHostZone={zone}")
    address = with_machine.outputs["RegistryHostAddress"]
    assert records() == [("r.example.", [address])]
    assert f"is r.example, {address}: Route 53 has the record" in said
    assert with_machine.trust["registry_address"] == ""

    with_machine.deploy("--param", "RegistryHostZone=")
    assert records() == []
    route53.delete_hosted_zone(Id=zone)


@dataclass(frozen=True)
class Booting:
    """Machines that boot with what the stack's would, in sandboxes."""

    stage: Deployed

    def launch(self, tags: list[dict[str, Any]]) -> str:
        (template,) = self.stage.launch_templates()
        endpoint = self.stage.cloud.variables["AWS_ENDPOINT_URL"]
        cli = AWS_CLI.replace("@ENDPOINT@", endpoint)
        user_data = base64.b64decode(template["UserData"]).decode()
        boot = f"cat >/usr/local/bin/aws <<'END'\n{cli}END\nchmod 755 /usr/local/bin/aws\n"
        launched = self.stage.cloud.client("ec2").run_instances(
            ImageId=images.WITHOUT_AGENT,
            MinCount=1,
            MaxCount=1,
            IamInstanceProfile=template["IamInstanceProfile"],
            TagSpecifications=tags,
            UserData=f"#!/bin/sh\n{boot}{user_data}",
        )
        return str(launched["Instances"][0]["InstanceId"])

    def as_the_stack_does(self) -> str:
        (template,) = self.stage.launch_templates()
        return self.launch(
            [each for each in template["TagSpecifications"] if each["ResourceType"] == "instance"]
        )

    def has(self, instance_id: str, file: str) -> bool:
        disk = Fleet(self.stage.cloud).sandbox(instance_id).disk
        return (disk / "root" / file).exists()

    def goes_on_when_restarted(self, instance_id: str) -> bool:
        """Whether the next boot, of which user data hears nothing, goes on where this one is."""
        disk = Fleet(self.stage.cloud).sandbox(instance_id).disk
        script = disk / "var/lib/cloud/scripts/per-boot/registry-host"
        return script.exists() and "associate-address" in script.read_text()

    def at_the_address(self) -> str | None:
        (address,) = self.stage.addresses()
        return address.get("InstanceId")

    def set_up_by(self, script: str) -> None:
        self.stage.cloud.client("s3").put_object(
            Bucket=self.stage.outputs["ConfigBucket"], Key=SCRIPT, Body=script.encode()
        )


def test_a_machine_takes_the_address_once_it_serves_and_the_next_one_takes_it_over(
    with_machine: Deployed,
) -> None:
    booting = Booting(with_machine)
    booting.set_up_by("touch /root/tried; exit 1\n")
    first = booting.as_the_stack_does()
    assert until(lambda: booting.has(first, "tried"), 30)
    assert booting.at_the_address() is None
    assert booting.goes_on_when_restarted(first)

    booting.set_up_by("touch /root/serves\n")
    assert until(lambda: booting.at_the_address() == first, 60)
    assert booting.has(first, "serves")
    assert until(lambda: not booting.goes_on_when_restarted(first), 10)
    next_one = booting.as_the_stack_does()
    assert until(lambda: booting.at_the_address() == next_one, 60)
    assert not booting.has(first, "refused")

    stranger = booting.launch([])
    assert until(lambda: booting.has(stranger, "refused"), 30)
    assert booting.at_the_address() == next_one
    with_machine.cloud.client("ec2").terminate_instances(InstanceIds=[first, next_one, stranger])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--registry-host", "10.1.2.3", "--with-registry-host"), "an address of its own"),
        (
            ("--with-registry-host", "--param", "RegistryHostInstance=false"),
            "RegistryHostInstance=false: not both",
        ),
        (
            ("--with-registry-host", "--param", "RegistryHostSubnets=subnet-0a0a0a0a"),
            "InvalidSubnetID.NotFound",
        ),
        (("--with-registry-host", "--param", "RegistryHostInstanceType=t9.tiny"), "no t9.tiny"),
        (("--with-registry-host", "--param", "RegistryHostZone=ZNONE"), "NoSuchHostedZone"),
    ],
)
def test_what_would_be_no_registry_is_said_before_anything_changes(
    cloud: Cloud, arguments: tuple[str, ...], said: str
) -> None:
    host = () if "--registry-host" in arguments else ("--registry-host", "r.example")
    done = cloud.run("scripts/deploy", "--stage", "nowhere", *host, *arguments)

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "handing the template" not in done.stderr
