"""What our hooks add to the emulated AWS, seen through its own API."""

from __future__ import annotations

import io
import json
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from botocore.exceptions import ClientError

from localcloud.aws import Key
from localcloud.hooks import rebinding
from localcloud.processes import until
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


def resources() -> dict[str, Any]:
    """One of each type whose properties the emulator drops, with those that it drops."""
    table = {
        "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
        "TimeToLiveSpecification": {"AttributeName": "expires", "Enabled": True},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        "SSESpecification": {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": "k1"},
    }
    bucket = {
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
            ]
        },
        "LifecycleConfiguration": {
            "Rules": [
                {
                    "Id": "keys-go",
                    "Status": "Enabled",
                    "Prefix": "certs/",
                    "TagFilters": [{"Key": "holds", "Value": "key"}],
                    "ExpirationInDays": 1,
                    "NoncurrentVersionExpiration": {"NoncurrentDays": 2},
                }
            ]
        },
    }
    function = {
        "Code": {"ZipFile": "def handler(event, context): pass"},
        "Handler": "index.handler",
        "Runtime": "python3.11",
        "Role": f"arn:aws:iam::{ACCOUNT}:role/none",
        "DeadLetterConfig": {"TargetArn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:dead"},
        "ReservedConcurrentExecutions": 3,
    }
    api = {
        "Body": {
            "swagger": "2.0",
            "info": {"title": "t", "version": "1"},
            "paths": {},
            "x-amazon-apigateway-binary-media-types": ["application/gzip"],
        }
    }
    return {
        "Api": {"Type": "AWS::ApiGateway::RestApi", "Properties": api},
        "Table": {"Type": "AWS::DynamoDB::Table", "Properties": table},
        "Bucket": {"Type": "AWS::S3::Bucket", "Properties": bucket},
        "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
    }


@pytest.fixture(scope="module")
def stack(aws: EmulatedAws) -> dict[str, str]:
    """Those resources deployed: their physical ids by logical id."""
    formation = aws.client("cloudformation")
    formation.create_stack(StackName="s", TemplateBody=json.dumps({"Resources": resources()}))
    formation.get_waiter("stack_create_complete").wait(
        StackName="s", WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    found = formation.describe_stack_resources(StackName="s")["StackResources"]
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in found}


def test_a_deployed_table_has_expiry_recovery_and_encryption(
    aws: EmulatedAws, stack: dict[str, str]
) -> None:
    tables, name = aws.client("dynamodb"), stack["Table"]

    ttl = tables.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "expires")
    backups = tables.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    recovery = backups["PointInTimeRecoveryDescription"]
    assert recovery["PointInTimeRecoveryStatus"] == "ENABLED"
    encryption = tables.describe_table(TableName=name)["Table"]["SSEDescription"]
    assert (encryption["Status"], encryption["KMSMasterKeyArn"]) == ("ENABLED", "k1")


def test_a_deployed_bucket_has_encryption_and_lifecycle(
    aws: EmulatedAws, stack: dict[str, str]
) -> None:
    buckets, name = aws.client("s3"), stack["Bucket"]

    encryption = buckets.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]
    by_default = encryption["Rules"][0]["ApplyServerSideEncryptionByDefault"]
    assert by_default["SSEAlgorithm"] == "aws:kms"
    (rule,) = buckets.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert rule["Expiration"] == {"Days": 1}
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 2}
    both = rule["Filter"]["And"]
    assert (both["Prefix"], both["Tags"]) == ("certs/", [{"Key": "holds", "Value": "key"}])


def test_a_deployed_function_has_its_dead_letters_and_its_limit(
    aws: EmulatedAws, stack: dict[str, str]
) -> None:
    functions, name = aws.client("lambda"), stack["Function"]

    config = functions.get_function_configuration(FunctionName=name)
    assert config["DeadLetterConfig"]["TargetArn"].endswith(":dead")
    limit = functions.get_function_concurrency(FunctionName=name)
    assert limit["ReservedConcurrentExecutions"] == 3


def test_a_deployed_api_knows_which_of_its_answers_are_binary(
    aws: EmulatedAws, stack: dict[str, str]
) -> None:
    api = aws.client("apigateway").get_rest_api(restApiId=stack["Api"])

    assert api["binaryMediaTypes"] == ["application/gzip"]


def instance(aws: EmulatedAws, **more: Any) -> tuple[str, str]:
    """A launched instance: its id, and where its metadata service is."""
    launched = aws.client("ec2").run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, **more)
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


def test_an_instance_without_a_profile_has_no_credentials(aws: EmulatedAws) -> None:
    instance_id, endpoint = instance(aws)
    token = told(endpoint, "/latest/api/token", method="PUT")

    assert told(endpoint, "/latest/meta-data/instance-id", token) == instance_id
    with pytest.raises(HTTPError, match="404"):
        told(endpoint, "/latest/meta-data/iam/security-credentials/", token)


def zipped(code: str) -> bytes:
    """A deployment package with this one module, index."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("index.py", code)
    return package.getvalue()


def test_an_event_that_a_function_fails_on_comes_again(
    aws: EmulatedAws, profile: str, tmp_path: Path
) -> None:
    attempts = tmp_path / "attempts"
    code = f"def handler(event, context):\n open({str(attempts)!r}, 'a').write('x')\n raise OSError"
    function = aws.client("lambda").create_function(
        FunctionName="fails",
        Runtime="python3.11",
        Role=f"arn:aws:iam::{ACCOUNT}:role/worker",
        Handler="index.handler",
        Code={"ZipFile": zipped(code)},
    )
    events = aws.client("events")
    events.put_rule(Name="r", EventPattern='{"source": ["test"]}')
    events.put_targets(Rule="r", Targets=[{"Id": "f", "Arn": function["FunctionArn"]}])

    events.put_events(Entries=[{"Source": "test", "DetailType": "t", "Detail": "{}"}])

    assert until(lambda: attempts.exists() and len(attempts.read_text()) >= 2, 15)


def test_a_hook_for_something_that_moved_refuses_to_start() -> None:
    evaluator = rebinding.module("core.iam_evaluator")

    with pytest.raises(rebinding.Missing, match="iam_evaluator has no gone"):
        rebinding.rebind(evaluator, "gone", lambda inner: inner)
