"""What a stack deployed on the emulated AWS is and does, with our hooks."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcloud.hooks import rebinding
from localcloud.processes import until
from tests.component.emulated_aws import EmulatedAws, emulated_aws

ACCOUNT = "000000000000"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


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


def zipped(code: str) -> bytes:
    """A deployment package with this one module, index."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("index.py", code)
    return package.getvalue()


def test_an_event_that_a_function_fails_on_comes_again(aws: EmulatedAws, tmp_path: Path) -> None:
    aws.client("iam").create_role(RoleName="worker", AssumeRolePolicyDocument="{}")
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
