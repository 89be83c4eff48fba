"""Table streams and events on the emulated AWS, with our hooks."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.aws import Key
from localcloud.hooks.stream_failures import records_done
from localcloud.processes import until
from tests.component.emulated_aws import EmulatedAws, emulated_aws

CHALICE = Path(__file__).parents[2] / ".chalice"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


def allowed_to_announce() -> dict[str, Any]:
    """The one statement about events that the function's policy has, on the emulator's bus."""
    policy = json.loads((CHALICE / "policy-announce-certificates.json").read_text())
    (statement,) = (s for s in policy["Statement"] if s["Action"] == "events:PutEvents")
    return {**statement, "Resource": "arn:aws:events:us-east-1:000000000000:event-bus/default"}


@pytest.fixture(scope="module")
def announcer(aws: EmulatedAws) -> Any:
    """A client of the bus with what the function's policy allows it there."""
    iam = aws.client("iam")
    iam.create_user(UserName="announcer")
    document = {"Version": "2012-10-17", "Statement": [allowed_to_announce()]}
    iam.put_user_policy(UserName="announcer", PolicyName="p", PolicyDocument=json.dumps(document))
    made = iam.create_access_key(UserName="announcer")["AccessKey"]
    return aws.client("events", Key(made["AccessKeyId"], made["SecretAccessKey"]))


def event(**changes: str) -> dict[str, str]:
    ours = {"Source": "registry-trust", "DetailType": "CertificateIssued", "Detail": "{}"}
    return {**ours, **changes}


REVOKED = event(DetailType="CertificateRevoked")


@pytest.mark.parametrize("entries", [[event()], [REVOKED], [event(), REVOKED]])
def test_the_function_may_put_both_kinds_of_events(announcer: Any, entries: Any) -> None:
    assert announcer.put_events(Entries=entries)["FailedEntryCount"] == 0


@pytest.mark.parametrize(
    "entries",
    [
        [event(Source="somebody-else")],
        [event(DetailType="InstanceEnrolled")],
        [event(), event(Source="somebody-else")],
        [event(), event(DetailType="InstanceEnrolled")],
        [event(EventBusName="other")],
    ],
    ids=["source", "kind", "source in the second", "kind in the second", "bus"],
)
def test_the_function_may_put_no_other_event(announcer: Any, entries: Any) -> None:
    """Each differs in one thing from what it may put."""
    with pytest.raises(ClientError, match="AccessDenied"):
        announcer.put_events(Entries=entries)


# Notes what it gets; reports the record named `bad` twice, and whatever follows it.
FUNCTION = """
import json
def handler(event, context):
    got = [record["dynamodb"]["Keys"]["k"]["S"] for record in event["Records"]]
    with open({log!r}, "a+") as log:
        log.write(json.dumps(got) + chr(10))
        log.seek(0)
        tries = sum("bad" in line for line in log)
    failed = [r["dynamodb"]["SequenceNumber"] for r, k in zip(event["Records"], got) if k == "bad"]
    return {{"batchItemFailures": [{{"itemIdentifier": n}} for n in failed if tries <= 2]}}
"""


def zipped(code: str) -> bytes:
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("index.py", code)
    return package.getvalue()


def follow(aws: EmulatedAws, name: str, log: Path, *response_types: str) -> None:
    """A table whose stream a function follows that notes in *log* what it gets."""
    table = aws.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )["TableDescription"]
    aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    functions = aws.client("lambda")
    functions.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role=f"arn:aws:iam::000000000000:role/{name}",
        Handler="index.handler",
        Code={"ZipFile": zipped(FUNCTION.format(log=str(log)))},
    )
    put(aws, name, "a", "b", "bad", "c")  # before it is followed: they come in one batch
    functions.create_event_source_mapping(
        FunctionName=name,
        EventSourceArn=table["LatestStreamArn"],
        StartingPosition="TRIM_HORIZON",
        FunctionResponseTypes=list(response_types),
    )


def put(aws: EmulatedAws, table: str, *keys: str) -> None:
    for key in keys:
        aws.client("dynamodb").put_item(TableName=table, Item={"k": {"S": key}})


def batches(log: Path) -> list[list[str]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_a_stream_goes_on_from_the_record_that_was_reported(
    aws: EmulatedAws, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    follow(aws, "reports", log, "ReportBatchItemFailures")
    whole, rest = ["a", "b", "bad", "c"], ["bad", "c"]

    assert until(lambda: len(batches(log)) >= 3, 15)
    put(aws, "reports", "d")
    assert until(lambda: len(batches(log)) >= 4, 15)
    assert batches(log) == [whole, rest, rest, ["d"]]


def test_a_report_that_was_not_asked_for_changes_nothing(aws: EmulatedAws, tmp_path: Path) -> None:
    """The twin: as on AWS, the mapping must say that such reports count."""
    log = tmp_path / "log"
    follow(aws, "mute", log)

    assert until(lambda: len(batches(log)) >= 1, 15)
    put(aws, "mute", "d")
    assert until(lambda: len(batches(log)) >= 2, 15)
    assert batches(log) == [["a", "b", "bad", "c"], ["d"]]


def batch(*numbers: str) -> dict[str, Any]:
    records = [{"eventSource": "aws:dynamodb", "dynamodb": {"SequenceNumber": n}} for n in numbers]
    return {"Records": records}


@pytest.mark.parametrize(
    ("reported", "done"),
    [([], None), (["3"], 2), (["3", "2"], 1), (["9"], 0), ([""], 0), ([None], 0), (["3", "9"], 0)],
)
def test_a_report_is_read_as_aws_reads_it(reported: list[Any], done: int | None) -> None:
    answer = {"batchItemFailures": [{"itemIdentifier": each} for each in reported]}
    assert records_done(batch("1", "2", "3"), answer) == done


@pytest.mark.parametrize("answer", [None, "", {}, {"batchItemFailures": None}, {"other": 1}])
def test_an_answer_without_a_report_is_success(answer: Any) -> None:
    assert records_done(batch("1", "2"), answer) is None
