"""Who may do what, read from the policies as IAM would read them.

The emulator enforces them too; here is what it is too lenient about, and what no request shows.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path
from unittest.mock import ANY

import pytest
import yaml

from chalicelib.domain.events import SOURCE, DetailType
from chalicelib.domain.model import Access
from chalicelib.domain.trust import TRUST_KEYS

CHALICE = Path(__file__).parents[2] / ".chalice"

Loader = type("Loader", (yaml.SafeLoader,), {})
Loader.add_multi_constructor("!", lambda loader, suffix, node: _plain(loader, node))


def _plain(loader, node):
    """An intrinsic function as the text or list it is applied to."""
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    return loader.construct_sequence(node)


def stack():
    return yaml.load((CHALICE / "stack.yaml").read_text(), Loader)  # noqa: S506  # a SafeLoader


def statements_of(name):
    return stack()["Resources"][name]["Properties"]["PolicyDocument"]["Statement"]


def invocable(name):
    """The METHOD/path patterns that a policy lets its holder invoke."""
    return [
        resource.split("/v1/")[1]
        for statement in statements_of(name)
        if statement["Action"] == "execute-api:Invoke"
        for resource in (
            statement["Resource"]
            if isinstance(statement["Resource"], list)
            else [statement["Resource"]]
        )
    ]


def may(name, request):
    """As IAM matches: a wildcard matches slashes too."""
    return any(fnmatchcase(request, pattern) for pattern in invocable(name))


DEVELOPERS = [
    "POST/certs",
    "GET/certs",
    "GET/certs/0a",
    "GET/certs/0a/bundle",
    "POST/certs/0a/renew",
    "DELETE/certs/0a",
    "POST/certs/diagnose",
    "GET/trust",
    "GET/openapi.json",
]
ADMINS = [
    "POST/admin/certs",
    "GET/admin/certs",
    "GET/admin/certs/0a",
    "DELETE/admin/certs/0a",
    "POST/admin/certs/diagnose",
    "GET/admin/instances",
    "POST/admin/instances/i-0a/enrol",
    "GET/admin/health",
]


@pytest.mark.parametrize("request_", DEVELOPERS)
def test_developers_and_admins_reach_what_is_for_developers(request_):
    assert may("DeveloperPolicy", request_)
    assert may("AdminPolicy", request_)


@pytest.mark.parametrize("request_", ADMINS)
def test_only_admins_reach_what_is_for_admins(request_):
    assert may("AdminPolicy", request_)
    for other in ("DeveloperPolicy", "RegistryHostPolicy", "DockerInstancePolicy"):
        assert not may(other, request_)


def test_only_the_registry_host_reaches_its_certificate():
    assert may("RegistryHostPolicy", "POST/registry/cert")
    for other in ("DeveloperPolicy", "AdminPolicy", "DockerInstancePolicy"):
        assert not may(other, "POST/registry/cert")


def test_no_method_is_a_wildcard():
    """`*/certs` would match GET/admin/certs."""
    names = ("DeveloperPolicy", "AdminPolicy", "RegistryHostPolicy", "DockerInstancePolicy")
    for name in names:
        for pattern in invocable(name):
            assert re.match(r"(GET|POST|DELETE)/", pattern)


def function_statements(name):
    return json.loads((CHALICE / name).read_text())["Statement"]


API = "policy-api.json"
ADVANCE = "policy-advance-instance.json"
RECONCILE = "policy-reconcile-instances.json"
ON_INSTANCE = "policy-on-instance-state.json"
ON_COMMAND = "policy-on-command-state.json"
FUNCTIONS = sorted(path.name for path in CHALICE.glob("policy-*.json"))


def texts(value):
    return json.dumps(value)


def actions(statement):
    action = statement["Action"]
    return [action] if isinstance(action, str) else action


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_may_write_a_parameter_nor_use_a_wildcard_action(name):
    for statement in function_statements(name):
        for action in actions(statement):
            assert "*" not in action
            assert action not in ("ssm:PutParameter", "ssm:DeleteParameter")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_star_resource_is_one_that_aws_has_no_arn_for(name):
    for statement in function_statements(name):
        if statement["Resource"] == "*":
            assert set(actions(statement)) <= {
                "ec2:DescribeInstances",
                "ssm:DescribeInstanceInformation",
                "ssm:GetCommandInvocation",
            }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_ca_key_is_decrypted_only_as_its_own_parameter(name):
    """kms:Decrypt on the stack's key alone would open every parameter and object under it."""
    for statement in function_statements(name):
        if "kms:Decrypt" in actions(statement):
            condition = texts(statement["Condition"])
            assert "kms:ViaService" in condition
            assert "PARAMETER_ARN" in condition or "aws:s3:arn" in condition


@pytest.mark.parametrize("name", FUNCTIONS)
def test_only_what_signs_reads_keys(name):
    policy = texts(function_statements(name))
    assert ("server-ca-key" in policy) == (name == API)
    assert ("client-ca-key" in policy) == (name in (API, "policy-refresh-crl.json", ADVANCE))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_state_table_is_shared_by_leading_keys(name):
    for statement in function_statements(name):
        if "StateTable" in texts(statement["Resource"]):
            assert "dynamodb:LeadingKeys" in texts(statement["Condition"])


def test_an_instance_reads_the_trust_and_nothing_else_in_the_buckets():
    for statement in statements_of("DockerInstancePolicy"):
        if any(action.startswith("s3:") for action in actions(statement)):
            assert statement["Action"] == "s3:GetObject"
            assert statement["Resource"] == "${ConfigBucket.Arn}/trust/*"


@pytest.mark.parametrize("name", ["DockerInstancePolicy", "RegistryHostPolicy"])
def test_a_machine_reads_no_parameter_of_ours(name):
    """AmazonSSMManagedInstanceCore, which both have, allows ssm:GetParameter on everything."""
    (denied,) = (s for s in statements_of(name) if s["Effect"] == "Deny")
    reads = ("GetParameter", "GetParameterHistory", "GetParameters", "GetParametersByPath")
    assert denied["Action"] == [f"ssm:{read}" for read in reads]
    assert denied["Resource"].endswith(":ssm:*:${AWS::AccountId}:parameter/registry-trust/*")
    assert "Condition" not in denied


@pytest.mark.parametrize("name", [API, "policy-refresh-crl.json", ADVANCE])
def test_who_publishes_the_trust_writes_its_objects_alone(name):
    """trust/ is to hold scripts too, which machines run as root."""
    writes = [
        arn["Fn::Sub"].removeprefix("${ConfigBucket.Arn}/")
        for statement in function_statements(name)
        if "s3:PutObject" in actions(statement) and "/trust/" in texts(statement)
        for arn in statement["Resource"]
    ]
    assert writes == list(TRUST_KEYS)


ANNOUNCE = "policy-announce-certificates.json"


def test_who_announces_puts_our_events_on_the_default_bus_and_no_other():
    """Both keys have many values in a request for many events, and ForAllValues holds for none."""
    (put,) = (s for s in function_statements(ANNOUNCE) if "events:PutEvents" in actions(s))
    assert put["Resource"]["Fn::Sub"].endswith(":event-bus/default")
    assert put["Condition"] == {
        "ForAllValues:StringEquals": {
            "events:source": SOURCE,
            "events:detail-type": list(DetailType),
        },
        "Null": {"events:source": "false", "events:detail-type": "false"},
    }


def test_who_announces_reads_the_stream_and_neither_table_nor_key_nor_bucket():
    read = [action for s in function_statements(ANNOUNCE) for action in actions(s)]
    assert sorted(read) == [
        "dynamodb:DescribeStream",
        "dynamodb:GetRecords",
        "dynamodb:GetShardIterator",
        "dynamodb:ListStreams",
        "events:PutEvents",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "sqs:SendMessage",
    ]
    # A table that was restored has another stream, and the role is not made anew for it.
    stream = {"Fn::Sub": "${CertificatesTable.Arn}/stream/*"}
    for statement in function_statements(ANNOUNCE):
        assert ("dynamodb:" in texts(statement)) == (statement["Resource"] == stream)


def test_buckets_are_used_only_while_they_are_this_accounts():
    """Anybody may take the name of one that was deleted: keys would go there, and CAs come back."""
    of_machines = [*statements_of("RegistryHostPolicy"), *statements_of("DockerInstancePolicy")]
    of_functions = [each for name in FUNCTIONS for each in function_statements(name)]
    found = [s for s in (*of_machines, *of_functions) if "s3:" in texts(actions(s))]
    assert len(found) >= 10
    for statement in found:
        equal = statement["Condition"]["StringEquals"]
        assert texts(equal["aws:ResourceAccount"]).find("AWS::AccountId") >= 0, statement["Sid"]


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != ANNOUNCE])
def test_nobody_else_puts_events(name):
    assert "events:" not in texts(function_statements(name))


def allowed(name, resource):
    """The actions that the function may take on what the statement's Resource names."""
    return sorted(
        action
        for statement in function_statements(name)
        if resource in texts(statement["Resource"])
        for action in actions(statement)
    )


def services_of(name):
    """Of which services the function may do anything at all."""
    return {action.split(":")[0] for s in function_statements(name) for action in actions(s)}


def test_who_hears_of_instances_and_commands_looks_and_asks_and_nothing_else():
    for name, services in (
        (ON_INSTANCE, {"ec2", "dynamodb", "sqs", "logs"}),
        (ON_COMMAND, {"dynamodb", "sqs", "logs"}),
    ):
        assert services_of(name) == services
        assert allowed(name, "InstancesTable") == ["dynamodb:GetItem"]
        assert allowed(name, "EnrolmentQueue") == ["sqs:SendMessage"]


def test_the_clock_reads_what_is_due_and_never_the_whole_table():
    assert services_of(RECONCILE) == {"dynamodb", "ec2", "s3", "kms", "sqs", "logs"}
    assert allowed(RECONCILE, "InstancesTable.Arn}/index/by_due") == ["dynamodb:Query"]
    assert allowed(RECONCILE, "InstancesTable.Arn}/index/by_trust") == ["dynamodb:Query"]
    table = '{"Fn::GetAtt": ["InstancesTable", "Arn"]}'
    assert allowed(RECONCILE, table) == ["dynamodb:BatchGetItem", "dynamodb:UpdateItem"]
    assert allowed(RECONCILE, "/trust/") == ["s3:GetObject"]
    assert allowed(RECONCILE, "EnrolmentQueue") == ["sqs:SendMessage"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_may_scan_a_table_or_delete_what_is_known_of_an_instance(name):
    every = {action for s in function_statements(name) for action in actions(s)}
    assert "dynamodb:Scan" not in every
    assert "dynamodb:DeleteItem" not in allowed(name, "InstancesTable")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_only_who_advances_instances_writes_of_them_takes_asks_and_sends_commands(name):
    every = {action for s in function_statements(name) for action in actions(s)}
    one = name == ADVANCE
    assert ("ssm:SendCommand" in every) == one
    assert ("ssm:GetCommandInvocation" in every) == one
    assert ("sqs:ReceiveMessage" in every) == one
    assert ("dynamodb:PutItem" in allowed(name, "InstancesTable")) == one


def test_commands_are_shell_scripts_on_instances_of_this_account_that_carry_the_tag():
    """IAM asks for both: the document and every instance (AWS "Actions, resources, and condition
    keys for AWS Systems Manager")."""
    document, instances = (
        s for s in function_statements(ADVANCE) if "ssm:SendCommand" in actions(s)
    )
    assert document["Resource"]["Fn::Sub"].endswith(":${AWS::Region}::document/AWS-RunShellScript")
    where = ":ec2:${AWS::Region}:${AWS::AccountId}:instance/*"
    assert instances["Resource"]["Fn::Sub"].endswith(where)
    name, usual, other = instances["Condition"]["Fn::If"]
    tag = stack()["Parameters"]["InstanceTag"]["Default"]
    assert stack()["Conditions"][name] == ["InstanceTag", tag]
    assert usual == {"StringEquals": {f"ssm:resourceTag/{tag}": list(Access)}}
    assert other == {"Ref": "AWS::NoValue"}


def test_who_advances_instances_may_do_what_that_takes_and_nothing_else():
    table, state = '["InstancesTable", "Arn"]', '["StateTable", "Arn"]'
    assert allowed(ADVANCE, table) == ["dynamodb:GetItem", "dynamodb:PutItem"]
    assert "InstancesTable.Arn}/index" not in texts(function_statements(ADVANCE))
    assert allowed(ADVANCE, '["CertificatesTable", "Arn"]') == [
        f"dynamodb:{action}Item" for action in ("Get", "Put", "Update")
    ]
    assert allowed(ADVANCE, state) == [
        f"dynamodb:{action}"
        for action in ("BatchWriteItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem")
    ]
    assert allowed(ADVANCE, "EnrolmentQueue") == [
        f"sqs:{action}"
        for action in ("DeleteMessage", "GetQueueAttributes", "ReceiveMessage", "SendMessage")
    ]
    assert allowed(ADVANCE, ":parameter/") == ["ssm:GetParameter", "ssm:GetParameters"]
    assert services_of(ADVANCE) == {
        *("dynamodb", "ec2", "iam", "kms", "logs", "s3", "sqs", "ssm"),
    }


def test_the_api_shows_enrolments_asks_for_them_and_changes_none():
    assert allowed(API, '["InstancesTable", "Arn"]') == ["dynamodb:GetItem"]
    assert allowed(API, "InstancesTable.Arn}/index/by_state") == ["dynamodb:Query"]
    assert texts(function_statements(API)).count("InstancesTable") == 2
    assert allowed(API, "EnrolmentQueue") == ["sqs:SendMessage"]


def test_who_advances_instances_reads_no_bundle():
    """Of one with a private key of ours, which an instance may have asked for, it is rid."""
    assert allowed(ADVANCE, "/certs/") == ["s3:DeleteObject"]
    assert allowed(ADVANCE, "CertificatesTable.Arn}/index") == ["dynamodb:Query"]
    assert "by_month" not in texts(function_statements(ADVANCE))


def test_an_instance_may_ask_for_certificates_and_the_trust_and_for_nothing_else():
    assert invocable("DockerInstancePolicy") == ["POST/certs", "GET/trust"]
    granted = [s for s in statements_of("DockerInstancePolicy") if s["Effect"] == "Allow"]
    every = sorted(action for statement in granted for action in actions(statement))
    assert every == ["execute-api:Invoke", "kms:Decrypt", "s3:GetObject"]
    for statement in granted:
        if statement["Action"] == "kms:Decrypt":
            assert "kms:ViaService" in texts(statement["Condition"])
            assert "kms:EncryptionContext:aws:s3:arn" in texts(statement["Condition"])


def test_the_registry_host_may_do_what_that_takes_and_nothing_else():
    granted = [s for s in statements_of("RegistryHostPolicy") if s["Effect"] == "Allow"]
    images = ["AbortMultipartUpload", "DeleteObject", "GetObject", "ListMultipartUploadParts"]
    finds = ["GetBucketLocation", "ListBucket", "ListBucketMultipartUploads"]

    assert [(actions(s), s["Resource"]) for s in granted] == [
        ([f"s3:{find}" for find in finds], "RegistryBucket.Arn"),
        ([f"s3:{action}" for action in (*images, "PutObject")], "${RegistryBucket.Arn}/*"),
        (["s3:GetObject"], "${ConfigBucket.Arn}/trust/*"),
        (["kms:Decrypt"], "Key.Arn"),
        (["s3:PutObject"], "${ConfigBucket.Arn}/registry-hosts/*"),
        (["kms:GenerateDataKey"], "Key.Arn"),
        (["execute-api:Invoke"], ANY),
    ]
    for statement in granted:
        if statement["Resource"] == "Key.Arn":
            assert statement["Condition"] == {
                "StringEquals": {
                    "kms:ViaService": "s3.${AWS::Region}.amazonaws.com",
                    # With a bucket key the context is the bucket, not the object.
                    "kms:EncryptionContext:aws:s3:arn": "ConfigBucket.Arn",
                }
            }


def test_the_registrys_address_goes_to_registry_hosts_of_this_stack_alone():
    """Whose machine is given another address loses its own: so not to any instance."""
    policy = stack()["Resources"]["RegistryHostAddressPolicy"]
    assert policy["Condition"] == "RegistryHostInstance"
    assert policy["Properties"]["Roles"] == ["RegistryHostRole"]

    address, machines = statements_of("RegistryHostAddressPolicy")
    assert address["Action"] == machines["Action"] == "ec2:AssociateAddress"
    assert address["Resource"].endswith(":elastic-ip/${RegistryHostElasticIp.AllocationId}")
    where = "arn:${AWS::Partition}:ec2:${AWS::Region}:${AWS::AccountId}"
    assert machines["Resource"] == [f"{where}:instance/*", f"{where}:network-interface/*"]
    assert machines["Condition"] == {
        "StringEquals": {"aws:ResourceTag/registry-trust:registry-host": "AWS::StackName"}
    }


def test_a_host_overwrites_nothing_that_others_read_as_trust():
    """What it reports lies apart: from trust/ machines take what they run as root."""
    written = [
        s["Resource"] for s in statements_of("RegistryHostPolicy") if "s3:PutObject" in actions(s)
    ]
    assert not any("ConfigBucket.Arn}/trust" in resource for resource in written)


def test_reports_go_a_month_after_the_last_and_their_versions_after_a_day():
    rules = stack()["Resources"]["ConfigBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    (rule,) = (rule for rule in rules if rule.get("Prefix") == "registry-hosts/")

    assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", 30)
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}


@pytest.mark.parametrize(
    ("image", "fits"),
    [
        ("registry:3", True),
        ("0123.dkr.ecr.eu-west-1.amazonaws.com/Team/registry@sha256:0a", True),
        ("registry:3 --privileged", False),
        ("-v/:/host", False),
        ("registry:3\nid", False),
        ("", False),
    ],
)
def test_an_image_is_one_word_that_is_no_option(image, fits):
    pattern = stack()["Parameters"]["RegistryImage"]["AllowedPattern"]
    assert bool(re.fullmatch(pattern, image)) == fits
