"""What a live table lacks is copied from one that was restored beside it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from operations.cloud import CommandError
from operations.recovered_tables import Table
from tests.component.emulated_aws import EmulatedAws, emulated_aws

NAME, BESIDE = "certificates", "certificates-recovery"
PROPERTIES = {
    "KeySchema": [{"AttributeName": "serial", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "serial", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
    "StreamSpecification": {"StreamViewType": "NEW_AND_OLD_IMAGES"},
    "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
    "SSESpecification": {"SSEEnabled": True},
    "DeletionProtectionEnabled": True,
}


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path) as running:
        yield running


class PastRestored:
    """DynamoDB, with the past: the emulator knows none, so a backup stands for it."""

    def __init__(self, dynamodb: Any) -> None:
        self._dynamodb = dynamodb
        made = dynamodb.create_backup(TableName=NAME, BackupName="then")
        self._then = made["BackupDetails"]["BackupArn"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dynamodb, name)

    def restore_table_to_point_in_time(self, **given: Any) -> None:
        target = given["TargetTableName"]
        self._dynamodb.restore_table_from_backup(TargetTableName=target, BackupArn=self._then)


def item(serial: str, said: str) -> dict[str, Any]:
    return {"serial": {"S": serial}, "said": {"S": said}}


def table(aws: EmulatedAws) -> Any:
    return Table(aws, NAME, PROPERTIES, print)  # type: ignore[arg-type]


def test_items_that_are_missing_are_put_back_and_others_left(aws: EmulatedAws) -> None:
    dynamodb, live = aws.client("dynamodb"), table(aws)
    live.make_empty()
    for serial in ("a", "b"):
        dynamodb.put_item(TableName=NAME, Item=item(serial, "then"))
    live._dynamodb = PastRestored(dynamodb)
    dynamodb.delete_item(TableName=NAME, Key={"serial": {"S": "a"}})
    for serial in ("b", "c"):
        dynamodb.put_item(TableName=NAME, Item=item(serial, "now"))

    assert live.merge(datetime.now(UTC), BESIDE) == 1

    found = {i["serial"]["S"]: i["said"]["S"] for i in dynamodb.scan(TableName=NAME)["Items"]}
    assert found == {"a": "then", "b": "now", "c": "now"}
    assert dynamodb.list_tables()["TableNames"] == [NAME]


def test_one_made_anew_gets_all_settings_of_the_stack_once(aws: EmulatedAws) -> None:
    live = table(aws)
    live.make_empty()
    assert len(live.lacking(live.description())) == 4
    live.put_settings_right()
    assert live.lacking(live.description()) == ["a function that follows its stream"]
    live.put_settings_right()
    assert live.move_mappings() == 0


def test_without_a_backup_nothing_is_made(aws: EmulatedAws) -> None:
    with pytest.raises(CommandError, match="--empty"):
        table(aws).restore(None)
    assert table(aws).description() is None
