"""What a live table lacks is copied from one that was restored beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from operations import table_states
from operations.cloud import CommandError
from operations.recovered_tables import Table, beside
from tests.component.emulated_aws import EmulatedAws, emulated_aws

NAME, AT = "certificates", datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
BESIDE = "certificates-recovery-20260304T050607Z"
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
        if target in self._dynamodb.list_tables()["TableNames"]:
            raise refusal(self, "TableAlreadyExistsException")
        self._dynamodb.restore_table_from_backup(TargetTableName=target, BackupArn=self._then)


def refusal(dynamodb: Any, name: str) -> Exception:
    """What boto3 raises when DynamoDB answers that."""
    error = {"Error": {"Code": name, "Message": "no"}}
    return getattr(dynamodb.exceptions, name)(error, "RestoreTableToPointInTime")  # type: ignore[no-any-return]


class NotKept:
    """DynamoDB that keeps some time and not the one asked for; the emulator restores to any."""

    EARLIEST = datetime(2026, 11, 1, 2, 3, 4, tzinfo=UTC)

    def __init__(self, dynamodb: Any) -> None:
        self._dynamodb = dynamodb

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dynamodb, name)

    def restore_table_to_point_in_time(self, **given: Any) -> None:
        raise refusal(self, "InvalidRestoreTimeException")

    def describe_continuous_backups(self, **given: Any) -> Any:
        latest = self.EARLIEST + timedelta(days=7)
        kept = {"EarliestRestorableDateTime": self.EARLIEST, "LatestRestorableDateTime": latest}
        return {"ContinuousBackupsDescription": {"PointInTimeRecoveryDescription": kept}}


class Deleting:
    """DynamoDB where a table's deletion takes some looks, and until then its name is taken.

    With the emulator it is gone at once.
    """

    def __init__(self, dynamodb: Any, name: str, looks: int) -> None:
        self._dynamodb, self._deleted, self._looks = dynamodb, name, looks

    def __getattr__(self, name: str) -> Any:
        assert name != "create_table" or self._looks <= 0
        return getattr(self._dynamodb, name)

    def describe_table(self, TableName: str) -> Any:  # noqa: N803 - DynamoDB's word
        self._looks -= TableName == self._deleted
        if TableName == self._deleted and self._looks >= 0:
            return {"Table": {"TableName": TableName, "TableStatus": "DELETING"}}
        return self._dynamodb.describe_table(TableName=TableName)


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

    assert live.merge(AT) == 1

    found = {i["serial"]["S"]: i["said"]["S"] for i in dynamodb.scan(TableName=NAME)["Items"]}
    assert found == {"a": "then", "b": "now", "c": "now"}
    assert dynamodb.list_tables()["TableNames"] == [NAME]


def test_one_that_was_broken_off_goes_on_with_its_table(
    aws: EmulatedAws, capsys: pytest.CaptureFixture[str]
) -> None:
    dynamodb, live = aws.client("dynamodb"), table(aws)
    live.make_empty()
    dynamodb.put_item(TableName=NAME, Item=item("a", "then"))
    live._dynamodb = PastRestored(dynamodb)
    live._dynamodb.restore_table_to_point_in_time(TargetTableName=BESIDE)
    dynamodb.delete_item(TableName=NAME, Key={"serial": {"S": "a"}})

    assert live.merge(AT) == 1
    assert f"going on with {BESIDE}" in capsys.readouterr().out
    assert dynamodb.list_tables()["TableNames"] == [NAME]


def test_another_time_has_another_table_within_what_dynamodb_takes() -> None:
    assert beside(NAME, AT) == BESIDE
    assert beside(NAME, AT + timedelta(seconds=1)) != BESIDE
    assert re.fullmatch(r"[A-Za-z0-9_.-]{255}", beside("x" * 255, AT))
    assert beside("a" + "x" * 254, AT).endswith(BESIDE.removeprefix(NAME))


def test_a_time_that_is_not_kept_is_told_with_what_is(aws: EmulatedAws) -> None:
    live = table(aws)
    live.make_empty()
    live._dynamodb = NotKept(live._dynamodb)
    with pytest.raises(CommandError, match=r"2026-03-04T05:06:07Z is not kept") as caught:
        live.merge(AT)
    for each in ("2026-11-01T02:03:04", "2026-11-08T02:03:04", "35 days", "5 minutes"):
        assert each in str(caught.value)


def test_without_continuous_backups_there_is_no_time_to_go_back_to(aws: EmulatedAws) -> None:
    live = table(aws)
    live.make_empty()
    with pytest.raises(CommandError, match="continuous backups"):
        raising(live, "PointInTimeRecoveryUnavailableException").merge(AT)


def raising(live: Any, name: str) -> Any:
    """The emulator restores a table that keeps no continuous backups too."""

    def restore(**given: Any) -> None:
        raise refusal(live._dynamodb, name)

    live._dynamodb.restore_table_to_point_in_time = restore
    return live


def test_one_that_is_being_deleted_is_gone_and_made_again_after_that(
    aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_states, "_POLL_SECONDS", 0.01)
    live = table(aws)
    live._dynamodb = Deleting(aws.client("dynamodb"), NAME, looks=4)
    assert not live.there()
    live.make_empty()
    assert live.there()


class UnseenAtFirst:
    """DynamoDB that does not show a table at the first looks, as it may; the emulator does."""

    def __init__(self, dynamodb: Any, looks: int) -> None:
        self._dynamodb, self._looks = dynamodb, looks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dynamodb, name)

    def describe_table(self, **given: Any) -> Any:
        self._looks -= 1
        if self._looks >= 0:
            raise refusal(self, "ResourceNotFoundException")
        return self._dynamodb.describe_table(**given)


def test_one_that_was_just_made_is_waited_for_though_it_is_not_seen_yet(
    aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_states, "_POLL_SECONDS", 0.01)
    live = table(aws)
    live._dynamodb = UnseenAtFirst(aws.client("dynamodb"), looks=3)
    live.make_empty()
    assert live.there()


def test_one_that_goes_while_it_is_waited_for_is_told(
    aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_states, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(table_states, "_UNSEEN_SECONDS", 0.05)
    live = table(aws)
    with pytest.raises(CommandError, match="deleted meanwhile"):
        live.wait()
    live._dynamodb = Deleting(aws.client("dynamodb"), NAME, looks=9)
    with pytest.raises(CommandError, match="deleted meanwhile"):
        live.wait()


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
