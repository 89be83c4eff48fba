"""scripts/deploy and scripts/ca, as an operator runs them, through CloudFormation."""

from __future__ import annotations

import json
import re

import pytest

from operations.cloud import CommandError
from operations.packaging import ArtifactBucket
from operations.stack import Stack
from tests.e2e.client import Person


@pytest.fixture(scope="module")
def stage(cloud):
    """A second stage beside the one the other tests use."""
    done = cloud.run("scripts/deploy", "--stage", "other", "--registry-host", "r.example:5000")
    assert done.returncode == 0, done.stderr
    yield "other"
    cloud.remove("other")


def parameters(cloud, stage):
    return {p["ParameterKey"]: p["ParameterValue"] for p in cloud.stack(stage)["Parameters"]}


def test_a_second_run_changes_nothing_and_leaves_the_cas(cloud, stage):
    before = cloud.run("scripts/ca", "show", "--stage", stage).stdout
    again = cloud.run("scripts/deploy", "--stage", stage, "--registry-host", "r.example:5000")

    assert again.returncode == 0, again.stderr
    assert "the stack is unchanged" in again.stderr
    assert "the CAs are there already" in again.stderr
    assert cloud.run("scripts/ca", "show", "--stage", stage).stdout == before


def test_what_instances_boot_with_is_published_once_and_shown(cloud, stage):
    s3 = cloud.operator.client("s3", endpoint_url=cloud.variables["AWS_ENDPOINT_URL"])
    outputs = cloud.outputs(stage)
    where = {"Bucket": outputs["ConfigBucket"], "Key": "trust/user-data.sh"}
    published = s3.get_object(**where)
    text = published["Body"].read().decode()
    assert published["ContentType"] == "text/x-shellscript"
    assert "registry='r.example:5000'" in text
    assert re.search(r"^api_url='http://\w+\.execute-api\.localhost:\d+/v1'$", text, re.MULTILINE)

    again = cloud.run("scripts/deploy", "--stage", stage)

    assert again.returncode == 0, again.stderr
    assert s3.get_object(**where)["LastModified"] == published["LastModified"]
    assert f"s3://{outputs['ConfigBucket']}/trust/user-data.sh as its user data" in again.stdout
    assert outputs["DockerInstanceProfileName"] in again.stdout


def test_a_parameter_is_changed_and_then_kept(cloud, stage):
    changed = cloud.run("scripts/deploy", "--stage", stage, "--param", "MaximumDays=30")
    assert changed.returncode == 0, changed.stderr
    assert "the stack is updated" in changed.stderr

    cloud.run("scripts/deploy", "--stage", stage, "--param", "DefaultDays=10")
    kept = parameters(cloud, stage)
    assert (kept["MaximumDays"], kept["DefaultDays"], kept["RegistryPort"]) == ("30", "10", "5000")


BROKEN = {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": 99999999}}


@pytest.fixture
def operators_session(cloud, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.variables["AWS_ENDPOINT_URL"])
    return cloud.operator


def test_a_failed_update_names_the_resource_and_leaves_the_stack_serving(
    cloud, stage, operators_session
):
    name = f"registry-trust-{stage}"
    before = cloud.outputs(stage)
    deployed = operators_session.client("cloudformation").get_template(StackName=name)
    body = deployed["TemplateBody"]
    template = json.loads(body) if isinstance(body, str) else dict(body)
    template["Resources"]["Broken"] = BROKEN

    argument = ArtifactBucket(operators_session).template_argument(template)

    with pytest.raises(CommandError, match=r"Broken \(AWS::SQS::Queue\): .*VisibilityTimeout"):
        Stack(operators_session, name).deploy(argument, {})
    assert cloud.outputs(stage) == before
    url = before["ApiUrl"].replace("https://", "").split(".")[0]
    port = cloud.variables["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]
    keys = (cloud.variables["AWS_ACCESS_KEY_ID"], cloud.variables["AWS_SECRET_ACCESS_KEY"])
    operator = Person(f"http://{url}.execute-api.localhost:{port}/v1", *keys)
    assert operator.ask("GET", "/trust").status == 200
    again = cloud.run("scripts/deploy", "--stage", stage)
    assert again.returncode == 0, again.stderr


def test_a_failed_first_deployment_does_not_block_the_next(operators_session):
    stack = Stack(operators_session, "registry-trust-broken")
    good = {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": 30}}
    with pytest.raises(CommandError, match="Broken"):
        stack.deploy({"TemplateBody": json.dumps({"Resources": {"Broken": BROKEN}})}, {})

    outcome = stack.deploy({"TemplateBody": json.dumps({"Resources": {"Broken": good}})}, {})
    assert outcome == "created"


def test_the_webhook_is_kept_encrypted_and_shown_nowhere(cloud, stage, tmp_path):
    file = tmp_path / "webhook"
    file.write_text("https://hooks.example/services/canary-secret\n")
    done = cloud.run("scripts/deploy", "--stage", stage, "--slack-webhook-file", str(file))

    assert done.returncode == 0, done.stderr
    assert "canary-secret" not in done.stdout + done.stderr
    name = f"/registry-trust/{stage}/slack-webhook"
    kept = cloud.client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]
    assert (kept["Type"], kept["Value"]) == (
        "SecureString",
        "https://hooks.example/services/canary-secret",
    )


def test_ca_init_refuses_to_overwrite(cloud, stage):
    before = cloud.run("scripts/ca", "show", "--stage", stage).stdout
    refused = cloud.run("scripts/ca", "init", "--stage", stage)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert "there already" in refused.stderr
    assert cloud.run("scripts/ca", "show", "--stage", stage).stdout == before


def test_ca_keys_are_secure_strings_under_the_stacks_key(cloud, stage):
    described = cloud.client("ssm").describe_parameters(
        ParameterFilters=[
            {"Key": "Name", "Option": "BeginsWith", "Values": [f"/registry-trust/{stage}/"]}
        ]
    )["Parameters"]
    keys = [p for p in described if "-ca-key/" in p["Name"]]
    assert len(keys) == 2
    assert {(p["Type"], p["KeyId"]) for p in keys} == {
        ("SecureString", cloud.outputs(stage)["KeyArn"])
    }


def test_a_ca_whose_parameter_is_lost_is_not_replaced_by_another(cloud, stage):
    """Everybody trusts the one that was there; neither command may lock them out."""
    ssm, name = cloud.client("ssm"), f"/registry-trust/{stage}/client-ca"
    before = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    ssm.delete_parameter(Name=name)

    for command in (("scripts/ca", "init"), ("scripts/deploy",)):
        refused = cloud.run(*command, "--stage", stage)
        assert refused.returncode == 1, refused.stdout
        assert f"scripts/ca restore --stage {stage}" in refused.stderr

    restored = cloud.run("scripts/ca", "restore", "--stage", stage)
    assert restored.returncode == 0, restored.stderr
    assert json.loads(ssm.get_parameter(Name=name)["Parameter"]["Value"]) == json.loads(before)


@pytest.mark.parametrize("key_type", ["ec-p384", "rsa-4096"])
def test_other_kinds_of_ca_keys_issue_too(cloud, key_type):
    stage = f"with-{key_type}"
    command = ("scripts/deploy", "--stage", stage, "--registry-host", "10.1.2.3")
    done = cloud.run(*command, "--key-type", key_type)
    assert done.returncode == 0, done.stderr

    trust = cloud.client("s3").get_object(
        Bucket=cloud.outputs(stage)["ConfigBucket"], Key="trust/trust.json"
    )
    document = json.loads(trust["Body"].read())
    cloud.remove(stage)
    assert (document["registry"], document["crl_number"]) == ("10.1.2.3", 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("scripts/deploy",),
        ("scripts/deploy", "--stage", "Bad_Stage"),
        ("scripts/deploy", "--stage", "x", "--param", "nonsense"),
        ("scripts/deploy", "--stage", "x", "--slack-webhook-file", "/nonexistent"),
        ("scripts/ca",),
        ("scripts/ca", "init"),
        ("scripts/ca", "init", "--stage", "x", "--key-type", "dsa"),
    ],
)
def test_a_wrong_call_is_told_with_code_2(cloud, arguments):
    done = cloud.run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("scripts/deploy", "--stage", "fresh"), "--registry-host"),
        (("scripts/deploy", "--stage", "fresh", "--registry-host", "a/b"), "host name"),
        (("scripts/deploy", "--stage", "fresh", "--registry-host", "[2001:db8::7]:443"), "IPv4"),
        (
            ("scripts/deploy", "--stage", "local", "--param", "MaximunDays=3"),
            "no such parameter: MaximunDays",
        ),
        (("scripts/ca", "show", "--stage", "fresh"), "not deployed"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(cloud, arguments, said):
    done = cloud.run(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
