"""The template as CloudFormation gets it, after SAM's transformation: what no emulator refuses."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import boto3
import pytest
import yaml
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from chalicelib.adapters.store.enrolment_items import EnrolmentItem
from chalicelib.adapters.store.items import CertificateItem

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def resources() -> Any:
    environment = {**os.environ, "AWS_DEFAULT_REGION": "us-east-1", "PYTHONPATH": "scripts:."}
    command = [sys.executable, "-m", "operations.packaging", "check"]
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, timeout=300)
    template = yaml.safe_load((CHECKOUT / "build" / "check" / "sam.yaml").read_text())
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = "s3://bucket/key"
    parameters = {name: str(p.get("Default", "x")) for name, p in template["Parameters"].items()}
    session = boto3.Session(region_name="us-east-1")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")  # SAM asks a session of its own
    transformed = Translator({}, Parser(), None, session).translate(template, parameters)
    return transformed["Resources"]


def of_type(resources: Any, type_: str) -> list[dict[str, Any]]:
    return [resource for resource in resources.values() if resource["Type"] == type_]


def test_there_is_one_stage_and_it_is_logged_and_throttled(resources):
    """SAM adds a stage named Stage unless told otherwise, by the way of the deployment."""
    (stage,) = of_type(resources, "AWS::ApiGateway::Stage")
    (deployment,) = of_type(resources, "AWS::ApiGateway::Deployment")

    assert "StageName" not in deployment["Properties"]
    assert stage["Properties"]["StageName"] == "v1"
    assert "AccessLogSetting" in stage["Properties"]
    (settings,) = stage["Properties"]["MethodSettings"]
    assert (settings["ResourcePath"], settings["HttpMethod"]) == ("/*", "*")


def test_the_stage_waits_for_the_account_to_have_its_log_role(resources):
    (stage,) = of_type(resources, "AWS::ApiGateway::Stage")
    assert {"Ref": "ApiGatewayAccount"} in stage["Properties"]["Variables"]["AccessLogRole"][
        "Fn::If"
    ]


def test_what_a_broken_off_creation_made_for_money_goes_with_it(resources):
    """The tables stay: deletion protection would make the rollback fail; empty they are free."""
    for name in ("Key", "ConfigBucket", "RegistryBucket"):
        assert resources[name]["DeletionPolicy"] == "RetainExceptOnCreate"
        assert resources[name]["UpdateReplacePolicy"] == "Retain"
    for table in of_type(resources, "AWS::DynamoDB::Table"):
        assert table["Properties"]["DeletionProtectionEnabled"] is True
        assert table["DeletionPolicy"] == "Retain"


def test_the_functions_log_what_they_did(resources):
    """As text, Lambda leaves Python's root logger at WARNING."""
    for function in of_type(resources, "AWS::Lambda::Function"):
        logging = function["Properties"]["LoggingConfig"]
        assert (logging["LogFormat"], logging["ApplicationLogLevel"]) == ("JSON", "INFO")


def test_the_stream_of_certificates_is_announced_and_gives_up_before_it_is_forgotten(resources):
    """AWS "Change data capture for DynamoDB Streams": records are kept for 24 hours."""
    said = event_source_of(resources, "AnnounceCertificates")

    table = resources["CertificatesTable"]["Properties"]
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_AND_OLD_IMAGES"}
    assert said["EventSourceArn"] == {"Fn::GetAtt": ["CertificatesTable", "StreamArn"]}
    assert said["StartingPosition"] == "TRIM_HORIZON"
    assert said["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert said["BisectBatchOnFunctionError"] is True
    assert 0 < said["MaximumRecordAgeInSeconds"] <= 12 * 3600
    assert "MaximumRetryAttempts" not in said
    queue = said["DestinationConfig"]["OnFailure"]["Destination"]["Fn::GetAtt"][0]
    assert resources[queue]["Type"] == "AWS::SQS::Queue"


def event_source_of(resources: Any, function: str) -> dict[str, Any]:
    """The properties of the one mapping that feeds the function."""
    mappings = of_type(resources, "AWS::Lambda::EventSourceMapping")
    (said,) = (
        m["Properties"] for m in mappings if m["Properties"]["FunctionName"] == ref(function)
    )
    return dict(said)


def ref(name: str) -> dict[str, str]:
    return {"Ref": name}


def test_asks_come_ten_at_a_time_and_those_that_fail_come_again_alone(resources):
    said = event_source_of(resources, "AdvanceInstance")

    assert said["EventSourceArn"] == {"Fn::Sub": "${EnrolmentQueue.Arn}"}
    assert said["BatchSize"] == 10
    assert said["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert said["ScalingConfig"] == {"MaximumConcurrency": 5}


def test_no_ask_comes_again_while_it_is_worked_on_and_none_is_lost(resources):
    """Lambda Developer Guide, "Using Lambda with Amazon SQS": six times the function's time, and at
    least five receives, for a function that is throttled receives without working."""
    queue = resources["EnrolmentQueue"]["Properties"]
    dead = resources["EnrolmentDeadLetters"]["Properties"]

    assert resources["AdvanceInstance"]["Properties"]["Timeout"] == 60
    # Each look asks for the next: Lambda would take that for a loop after sixteen of them.
    assert resources["AdvanceInstance"]["Properties"]["RecursiveLoop"] == "Allow"
    assert queue["VisibilityTimeout"] == 6 * 60
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["EnrolmentDeadLetters", "Arn"]},
        "maxReceiveCount": 5,
    }
    assert dead["MessageRetentionPeriod"] > queue["MessageRetentionPeriod"]
    assert queue["SqsManagedSseEnabled"] is dead["SqsManagedSseEnabled"] is True


def test_asks_that_were_given_up_raise_an_alarm(resources):
    alarm = resources["EnrolmentDeadLettersAlarm"]["Properties"]

    (dimension,) = alarm["Dimensions"]
    assert dimension["Value"] == {"Fn::GetAtt": ["EnrolmentDeadLetters", "QueueName"]}
    assert alarm["MetricName"] == "ApproximateNumberOfMessagesVisible"
    assert (alarm["Statistic"], alarm["Threshold"]) == ("Maximum", 1)


def rules_of(resources: Any, function: str) -> list[dict[str, Any]]:
    """The properties of the rules that call the function."""
    target = {"Fn::GetAtt": [function, "Arn"]}
    return [
        rule["Properties"]
        for rule in of_type(resources, "AWS::Events::Rule")
        if [each["Arn"] for each in rule["Properties"]["Targets"]] == [target]
    ]


def test_instances_are_heard_of_when_they_run_or_end_or_their_tag_changes(resources):
    patterns = {
        rule["EventPattern"]["source"][0]: rule["EventPattern"]
        for rule in rules_of(resources, "OnInstanceState")
    }

    assert patterns.keys() == {"aws.ec2", "aws.tag"}
    assert patterns["aws.ec2"]["detail"] == {"state": ["running", "shutting-down", "terminated"]}
    assert patterns["aws.tag"]["detail-type"] == ["Tag Change on Resource"]
    detail = patterns["aws.tag"]["detail"]
    assert (detail["service"], detail["resource-type"]) == (["ec2"], ["instance"])
    # The fixture says of each parameter what it is by default.
    assert detail["changed-tag-keys"] in ([ref("InstanceTag")], ["registry-trust"])


def test_commands_are_heard_of_when_they_end(resources):
    (rule,) = rules_of(resources, "OnCommandState")

    assert rule["EventPattern"]["source"] == ["aws.ssm"]
    assert rule["EventPattern"]["detail"] == {
        "status": ["Success", "Failed", "TimedOut", "Cancelled"],
        "document-name": ["AWS-RunShellScript"],
    }


def test_the_clock_looks_after_instances_every_minute(resources):
    (rule,) = rules_of(resources, "ReconcileInstances")

    assert rule["ScheduleExpression"] == "rate(1 minute)"
    assert resources["ReconcileInstances"]["Properties"]["Timeout"] == 60


def test_what_is_known_of_instances_is_kept_as_the_certificates_are(resources):
    table = resources["InstancesTable"]["Properties"]

    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


def test_the_store_and_the_table_agree_on_indexes(resources):
    """What pynamodb says of them is never compared by DynamoDB."""
    for model, name in ((CertificateItem, "CertificatesTable"), (EnrolmentItem, "InstancesTable")):
        table = resources[name]["Properties"]
        made = {
            index["IndexName"]: keys_of(index["KeySchema"])
            for index in table["GlobalSecondaryIndexes"]
        }
        said = {
            index.Meta.index_name: keys_of(index._get_schema()["key_schema"])
            for index in model._indexes.values()
        }
        assert said == made


def keys_of(schema: list[dict[str, str]]) -> dict[str, str]:
    return {key["AttributeName"]: key["KeyType"] for key in schema}


OF_THE_MACHINE = {
    *("RegistryHostAddressPolicy", "RegistryHostElasticIp", "RegistryHostGroup"),
    *("RegistryHostLaunchTemplate", "RegistryHostRecord", "RegistryHostSecurityGroup"),
}


def test_a_machine_for_the_registry_is_there_on_request_only(resources):
    conditions = {name: resource.get("Condition") for name, resource in resources.items()}

    assert {name for name, on in conditions.items() if "RegistryHost" in str(on)} == OF_THE_MACHINE
    assert conditions["RegistryHostRecord"] == "RegistryHostRecord"  # given a zone as well


def test_nothing_else_of_the_stack_needs_that_machine(resources):
    """The functions tell its address, on condition."""
    told = {"Fn::If": ["TellRegistryHostAddress", ref("RegistryHostElasticIp"), ANY]}
    for name in resources.keys() - OF_THE_MACHINE:
        rest = copy.deepcopy(resources[name])
        if rest["Type"] == "AWS::Lambda::Function":
            assert rest["Properties"]["Environment"]["Variables"].pop("REGISTRY_ADDRESS") == told
        assert not named_in(rest, resources) & OF_THE_MACHINE


def launched(resources: Any) -> dict[str, Any]:
    """What the launch template says."""
    return dict(resources["RegistryHostLaunchTemplate"]["Properties"]["LaunchTemplateData"])


def test_the_machine_keeps_its_credentials_from_containers_and_its_disk_encrypted(resources):
    said = launched(resources)

    assert said["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
    }
    (disk,) = said["BlockDeviceMappings"]
    assert (disk["Ebs"]["VolumeType"], disk["Ebs"]["Encrypted"]) == ("gp3", True)
    assert "KeyName" not in said


def test_only_the_registrys_port_is_open(resources):
    group = resources["RegistryHostSecurityGroup"]["Properties"]

    (rule,) = group["SecurityGroupIngress"]
    assert rule["IpProtocol"] == "tcp"
    assert rule["FromPort"] == rule["ToPort"] == ref("RegistryPort")
    (interface,) = launched(resources)["NetworkInterfaces"]
    assert interface["Groups"] == [ref("RegistryHostSecurityGroup")]


def test_ec2_takes_the_descriptions_of_the_rules(resources):
    """AWS::EC2::SecurityGroup Ingress: which characters a description may have."""
    group = resources["RegistryHostSecurityGroup"]["Properties"]
    rules = group["SecurityGroupIngress"] + group["SecurityGroupEgress"]
    said = [rule["Description"] for rule in rules]

    for each in (*said, group["GroupDescription"]["Fn::Sub"].replace("${Stage}", "s")):
        assert re.fullmatch(r"[A-Za-z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{0,255}", each), each


def test_there_is_always_one_machine_and_no_deployment_replaces_it(resources):
    group = resources["RegistryHostGroup"]

    said = group["Properties"]
    assert (said["MinSize"], said["MaxSize"], said["HealthCheckType"]) == ("1", "1", "EC2")
    assert "UpdatePolicy" not in group
    # Made after what the machine may do, and so gone, machine and all, before that goes.
    assert group["DependsOn"] == ["RegistryHostPolicy", "RegistryHostAddressPolicy"]


def test_the_machine_and_its_interface_have_the_tag_that_lets_them_have_the_address(resources):
    """And not the one that makes an instance enrol."""
    statement = resources["RegistryHostAddressPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    ((key, value),) = statement[1]["Condition"]["StringEquals"].items()
    tags = {
        each["ResourceType"]: {tag["Key"]: tag["Value"] for tag in each["Tags"]}
        for each in launched(resources)["TagSpecifications"]
    }

    assert tags.keys() == {"instance", "network-interface", "volume"}
    for each in tags.values():
        assert each[key.removeprefix("aws:ResourceTag/")] == value == ref("AWS::StackName")
        assert "registry-trust" not in each


def test_what_the_machine_boots_with_is_shell_that_all_shells_take(resources, tmp_path):
    text = launched(resources)["UserData"]["Fn::Base64"]["Fn::Sub"]
    script = tmp_path / "user-data"
    script.write_text(re.sub(r"\$\{[A-Za-z:.]+\}", "x", text))

    assert len(text) < 4096  # EC2 takes 16 KB
    assert text.startswith("#!/bin/sh\n")
    for command in (["shellcheck"], ["dash", "-n"], ["bash", "--posix", "-n"]):
        done = subprocess.run([*command, script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_no_resource_waits_for_itself(resources):
    needs = {name: named_in(resource, resources) for name, resource in resources.items()}
    while needs:
        ready = {name for name, others in needs.items() if not others & needs.keys()}
        assert ready, f"these wait for each other: {sorted(needs)}"
        needs = {name: others for name, others in needs.items() if name not in ready}


def named_in(part: Any, resources: Any) -> set[str]:
    """The resources that *part* refers to, by Ref, GetAtt or Sub."""
    if isinstance(part, list):
        return set().union(*(named_in(each, resources) for each in part))
    if not isinstance(part, dict):
        return set()
    found = named_in(list(part.values()), resources)
    if "Ref" in part:
        found |= {part["Ref"]} & resources.keys()
    if "Fn::GetAtt" in part:
        found |= {part["Fn::GetAtt"][0]} & resources.keys()
    if "Fn::Sub" in part:
        text = json.dumps(part["Fn::Sub"])
        found |= {name for name in resources if f"${{{name}}}" in text or f"${{{name}." in text}
    return found
