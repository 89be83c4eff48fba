"""Who may do what on the emulated AWS, with our hooks: policies, and instances' roles."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import pytest
from botocore.exceptions import ClientError

from localcloud import images
from localcloud.aws import Key
from tests.component.emulated_aws import EmulatedAws, emulated_aws

ACCOUNT = "000000000000"
PARAMETER = f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


def user(aws: EmulatedAws, name: str, *statements: dict[str, Any]) -> Key:
    """A user who may do what these statements allow."""
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return Key(made["AccessKeyId"], made["SecretAccessKey"])


def allow(action: str, resource: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def put_parameters(aws: EmulatedAws, *names: str) -> None:
    for name in names:
        aws.client("ssm").put_parameter(Name=name, Value="v", Type="String", Overwrite=True)


def test_a_policy_variable_stands_for_the_caller_and_for_nobody_else(aws: EmulatedAws) -> None:
    put_parameters(aws, "/of/ann", "/of/bob")
    key = user(aws, "ann", allow("ssm:GetParameter", PARAMETER + "/of/${aws:username}"))
    ssm = aws.client("ssm", key)

    assert ssm.get_parameter(Name="/of/ann")["Parameter"]["Value"] == "v"
    with pytest.raises(ClientError, match="AccessDenied"):
        ssm.get_parameter(Name="/of/bob")


def test_a_policy_variable_in_a_condition_stands_for_the_caller(aws: EmulatedAws) -> None:
    put_parameters(aws, "/c")
    holds, fails = (
        {"StringEquals": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:user/{name}"}}
        for name in ("${aws:username}", "not-${aws:username}")
    )
    let_in = user(aws, "cat", allow("ssm:GetParameter", "*", Condition=holds))
    kept_out = user(aws, "dan", allow("ssm:GetParameter", "*", Condition=fails))

    assert aws.client("ssm", let_in).get_parameter(Name="/c")
    with pytest.raises(ClientError, match="AccessDenied"):
        aws.client("ssm", kept_out).get_parameter(Name="/c")


def test_a_statement_whose_variable_has_no_value_allows_nothing(aws: EmulatedAws) -> None:
    put_parameters(aws, "/d/")
    key = user(aws, "eve", allow("ssm:GetParameter", PARAMETER + "/d/${aws:PrincipalTag/none}*"))

    with pytest.raises(ClientError, match="AccessDenied"):
        aws.client("ssm", key).get_parameter(Name="/d/x")


def test_every_parameter_of_a_list_must_be_allowed(aws: EmulatedAws) -> None:
    put_parameters(aws, "/e/one", "/e/two")
    key = user(aws, "fay", allow("ssm:GetParameters", PARAMETER + "/e/one"))
    ssm = aws.client("ssm", key)

    assert len(ssm.get_parameters(Names=["/e/one"])["Parameters"]) == 1
    with pytest.raises(ClientError, match="AccessDenied"):
        ssm.get_parameters(Names=["/e/one", "/e/two"])


def test_a_path_of_parameters_is_allowed_by_its_own_name(aws: EmulatedAws) -> None:
    put_parameters(aws, "/g/mine/a", "/g/theirs/a")
    key = user(aws, "gus", allow("ssm:GetParametersByPath", PARAMETER + "/g/mine"))
    ssm = aws.client("ssm", key)

    assert len(ssm.get_parameters_by_path(Path="/g/mine")["Parameters"]) == 1
    with pytest.raises(ClientError, match="AccessDenied"):
        ssm.get_parameters_by_path(Path="/g/theirs")


DOCUMENT = "arn:aws:ssm:us-east-1::document/AWS-RunShellScript"
INSTANCES = f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/"
TAGGED = {"StringLike": {"aws:ResourceTag/registry-trust": "*"}}


def sent(aws: EmulatedAws, key: Key, instance_id: str) -> str:
    """The code with which SendCommand is refused."""
    with pytest.raises(ClientError) as refused:
        aws.client("ssm", key).send_command(
            InstanceIds=[instance_id],
            DocumentName="AWS-RunShellScript",
            Parameters={"commands": ["true"]},
        )
    return str(refused.value.response["Error"]["Code"])


def test_a_command_needs_leave_for_its_document_and_for_its_instance(aws: EmulatedAws) -> None:
    """None of the instances has an agent: whoever is let through is told that."""
    (mine, _), (other, _) = instance(aws), instance(aws)
    document, machine = (allow("ssm:SendCommand", arn) for arn in (DOCUMENT, INSTANCES + mine))
    both = user(aws, "sends", document, machine)

    assert sent(aws, both, mine) == "InvalidInstanceId"
    assert sent(aws, both, other) == "AccessDeniedException"
    assert sent(aws, user(aws, "no-instance", document), mine) == "AccessDeniedException"
    assert sent(aws, user(aws, "no-document", machine), mine) == "AccessDeniedException"
    all_documents = allow("ssm:SendCommand", f"arn:aws:ssm:us-east-1:{ACCOUNT}:document/*")
    assert sent(aws, user(aws, "own", all_documents, machine), mine) == "AccessDeniedException"


def test_a_command_may_depend_on_the_tags_of_its_instance(aws: EmulatedAws) -> None:
    tags = [{"Key": "registry-trust", "Value": "pull"}]
    (tagged, _), (other, _) = (
        instance(aws, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}]),
        instance(aws),
    )
    machines = allow("ssm:SendCommand", INSTANCES + "*", Condition=TAGGED)
    key = user(aws, "by-tag", allow("ssm:SendCommand", DOCUMENT), machines)

    assert sent(aws, key, tagged) == "InvalidInstanceId"
    assert sent(aws, key, other) == "AccessDeniedException"


@pytest.mark.parametrize(
    ("action", "asked"),
    [
        ("DescribeInstanceInformation", {}),
        ("GetCommandInvocation", {"CommandId": "c" * 36, "InstanceId": "i-00000001"}),
    ],
)
def test_who_reads_about_commands_needs_leave_for_everything(
    aws: EmulatedAws, action: str, asked: dict[str, str]
) -> None:
    everything = user(aws, f"all-{action}", allow(f"ssm:{action}", "*"))
    one = user(aws, f"one-{action}", allow(f"ssm:{action}", INSTANCES + "i-00000001"))

    def code(key: Key) -> str:
        method = "".join(f"_{c.lower()}" if c.isupper() else c for c in action).strip("_")
        try:
            getattr(aws.client("ssm", key), method)(**asked)
        except ClientError as refused:
            return str(refused.response["Error"]["Code"])
        return ""

    assert code(everything) in {"", "InvocationDoesNotExist"}
    assert code(one) == "AccessDeniedException"


def instance(aws: EmulatedAws, **more: Any) -> tuple[str, str]:
    """A launched instance: its id, and where its metadata service is."""
    asked = {"ImageId": images.BARE, "MinCount": 1, "MaxCount": 1, **more}
    launched = aws.client("ec2").run_instances(**asked)
    instance_id = launched["Instances"][0]["InstanceId"]
    return instance_id, (aws.metadata / instance_id).read_text().strip()


def told(endpoint: str, path: str, token: str | None = None, method: str = "GET") -> str:
    """What a metadata service answers."""
    headers = {"X-aws-ec2-metadata-token": token} if token else {}
    if method == "PUT":
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    request = urllib.request.Request(endpoint + path, headers=headers, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        return str(answer.read().decode())


@pytest.fixture(scope="module")
def profile(aws: EmulatedAws) -> str:
    """An instance profile with the role `worker` in it."""
    iam = aws.client("iam")
    iam.create_role(RoleName="worker", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="workers")
    iam.add_role_to_instance_profile(InstanceProfileName="workers", RoleName="worker")
    return "workers"


def test_what_an_instance_signs_is_its_roles_session_named_as_the_instance(
    aws: EmulatedAws, profile: str
) -> None:
    instance_id, endpoint = instance(aws, IamInstanceProfile={"Name": profile})
    token = told(endpoint, "/latest/api/token", method="PUT")
    path = "/latest/meta-data/iam/security-credentials/"
    assert told(endpoint, path, token) == "worker"
    given = json.loads(told(endpoint, path + "worker", token))

    key = Key(given["AccessKeyId"], given["SecretAccessKey"])
    arn = aws.client("sts", key, given["Token"]).get_caller_identity()["Arn"]
    assert arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/worker/{instance_id}"
    # Without the session's token the same key is nobody's.
    with pytest.raises(ClientError):
        aws.client("sts", key).get_caller_identity()


def test_metadata_is_told_only_to_who_shows_this_instances_token(
    aws: EmulatedAws, profile: str
) -> None:
    (_, mine), (_, other) = (
        instance(aws, IamInstanceProfile={"Name": profile}),
        instance(aws, IamInstanceProfile={"Name": profile}),
    )
    token_of_other = told(other, "/latest/api/token", method="PUT")

    for token in (None, token_of_other):
        with pytest.raises(HTTPError, match="401"):
            told(mine, "/latest/meta-data/instance-id", token)


def test_metadata_lies_where_no_other_instance_finds_it(aws: EmulatedAws) -> None:
    """All are on loopback; what is not on a path of this instance's own is not there."""
    _, endpoint = instance(aws, ImageId=images.WITHOUT_AGENT)
    server = endpoint.rpartition("/")[0]

    assert told(endpoint, "/latest/api/token", method="PUT")
    for path in ("/latest/api/token", "/x/latest/api/token", "//latest/api/token"):
        with pytest.raises(HTTPError, match="400"):
            told(server, path, method="PUT")


def test_an_instance_without_a_profile_has_no_credentials(aws: EmulatedAws) -> None:
    instance_id, endpoint = instance(aws)
    token = told(endpoint, "/latest/api/token", method="PUT")

    assert told(endpoint, "/latest/meta-data/instance-id", token) == instance_id
    with pytest.raises(HTTPError, match="404"):
        told(endpoint, "/latest/meta-data/iam/security-credentials/", token)
