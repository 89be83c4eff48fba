"""Bring a deleted table back under its own name, with all that the stack's template gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError

from operations.cloud import CommandError, error_code
from operations.recovered_state import scan
from operations.table_states import described, stays, until_deadline, wait, wait_for_the_end

# What CreateTable takes of what CloudFormation's table has, by the same names.
_MADE_WITH = ("KeySchema", "AttributeDefinitions", "GlobalSecondaryIndexes", "BillingMode")

# What is asked of a function's mapping to a stream, by the same names as it is told.
_MAPPED_WITH = (
    "BatchSize",
    "MaximumBatchingWindowInSeconds",
    "BisectBatchOnFunctionError",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "ParallelizationFactor",
    "DestinationConfig",
    "FunctionResponseTypes",
    "FilterCriteria",
)

_ENCRYPTED = ("ENABLED", "ENABLING", "UPDATING")

# What a restored table lacks, as it is told.
_BACKUPS, _EXPIRY, _STREAM = "continuous backups", "time to live", "its stream"
_ENCRYPTION, _PROTECTION = "encryption", "protection against deletion"


class Table:
    """One of the stack's tables, be it there or not. properties: as in the template.

    say: tell how it goes on.
    """

    def __init__(
        self,
        aws: boto3.Session,
        name: str,
        properties: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._dynamodb: Any = aws.client("dynamodb")
        self._functions: Any = aws.client("lambda")
        self._name = name
        self._properties = properties
        self._say = say

    def description(self) -> dict[str, Any] | None:
        """What DynamoDB says of it; None when there is no such table."""
        return described(self._dynamodb, self._name)

    def there(self) -> bool:
        """Whether it is, and stays: one that is being deleted is as good as gone."""
        return stays(self.description())

    def backups(self) -> list[dict[str, Any]]:
        """Its backups, newest first; that of its deletion too, if it was kept continuously."""
        found, start = list[dict[str, Any]](), dict[str, str]()
        while True:
            page = self._dynamodb.list_backups(BackupType="ALL", **start)
            found += [each for each in page["BackupSummaries"] if each["TableName"] == self._name]
            last = page.get("LastEvaluatedBackupArn")
            if last is None:
                break
            start = {"ExclusiveStartBackupArn": last}
        usable = [each for each in found if each["BackupStatus"] == "AVAILABLE"]
        return sorted(usable, key=lambda each: each["BackupCreationDateTime"], reverse=True)

    def restore(self, backup_arn: str | None) -> datetime:
        """From this backup, or from the newest; of when it is. It must not be there.

        A deletion that is under way is waited for. Raises CommandError when there is none.
        """
        wait_for_the_end(self._dynamodb, self._name)
        found = self.backups()
        if backup_arn is not None:
            found = [each for each in found if each["BackupArn"] == backup_arn]
        if not found:
            which = "that one is not among its backups" if backup_arn else "there is no backup"
            raise CommandError(
                f"{self._name} cannot be restored: {which} (aws dynamodb list-backups; "
                "that of its deletion may take some minutes to be there). --empty makes it anew; "
                "docs/recovery.md says what that loses"
            )
        chosen = found[0]
        self._say(
            f"restoring {self._name} from {chosen['BackupName']}; this takes minutes to hours"
        )
        self._dynamodb.restore_table_from_backup(
            TargetTableName=self._name, BackupArn=chosen["BackupArn"]
        )
        self.wait()
        made_at: datetime = chosen["BackupCreationDateTime"]
        return made_at

    def make_empty(self) -> None:
        """As the stack made it at first. It must not be there; a deletion is waited for."""
        wait_for_the_end(self._dynamodb, self._name)
        given = {key: self._properties[key] for key in _MADE_WITH if key in self._properties}
        self._dynamodb.create_table(TableName=self._name, **given)
        self.wait()

    def merge(self, at: datetime) -> int:
        """How many items that were there *at* that time, and are not now, were put back.

        What is there now stays as it is. Broken off, it goes on with the table that it restored
        beside. Raises CommandError, for a time that is not kept too.
        """
        at = at.replace(microsecond=0)  # as its name has it
        temporary = beside(self._name, at)
        self._restore_beside(temporary, at)
        wait(self._dynamodb, temporary)
        put = sum(self._put_missing(item) for item in scan(self._dynamodb, temporary))
        self._dynamodb.delete_table(TableName=temporary)
        return put

    def _restore_beside(self, temporary: str, at: datetime) -> None:
        wait_for_the_end(self._dynamodb, temporary)
        errors = self._dynamodb.exceptions
        try:
            self._dynamodb.restore_table_to_point_in_time(
                SourceTableName=self._name, TargetTableName=temporary, RestoreDateTime=at
            )
            self._say(f"restoring {temporary}; this takes minutes to hours")
        except errors.TableAlreadyExistsException:
            self._say(f"going on with {temporary}, which is there already")
        except errors.InvalidRestoreTimeException as error:
            raise CommandError(f"{at:%Y-%m-%dT%H:%M:%SZ} is not kept: {self._kept()}") from error
        except errors.PointInTimeRecoveryUnavailableException as error:
            raise CommandError(
                f"{self._name} keeps no continuous backups, so nothing of then is left there"
            ) from error

    def _kept(self) -> str:
        answer = self._dynamodb.describe_continuous_backups(TableName=self._name)
        window = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        ends = [
            f"{window[end]:%Y-%m-%dT%H:%M:%S%z}" if end in window else "unknown"
            for end in ("EarliestRestorableDateTime", "LatestRestorableDateTime")
        ]
        return (
            f"what is, goes from {ends[0]} (at most 35 days ago, and not before the table was made "
            f"or restored) to {ends[1]} (about 5 minutes ago: for a later time, wait)"
        )

    def _put_missing(self, item: Mapping[str, Any]) -> bool:
        condition = f"attribute_not_exists({self._properties['KeySchema'][0]['AttributeName']})"
        try:
            self._dynamodb.put_item(TableName=self._name, Item=item, ConditionExpression=condition)
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def wait(self) -> None:
        """Until it can be used. Raises CommandError after some hours."""
        wait(self._dynamodb, self._name)

    def put_settings_right(self) -> None:
        """What a restored table lacks (DynamoDB API Reference, RestoreTableFromBackup): its
        continuous backups, time to live, stream, encryption and protection against deletion."""
        lacking = self.lacking(self.description() or {})
        if _BACKUPS in lacking:
            self._keep_backups()
        if _EXPIRY in lacking:
            self._dynamodb.update_time_to_live(
                TableName=self._name,
                TimeToLiveSpecification=self._properties["TimeToLiveSpecification"],
            )
        stream = {"StreamEnabled": True, **self._properties.get("StreamSpecification", {})}
        settings: dict[str, dict[str, Any]] = {
            _STREAM: {"StreamSpecification": stream},
            _ENCRYPTION: {"SSESpecification": {"Enabled": True}},
            _PROTECTION: {"DeletionProtectionEnabled": True},
        }
        for each in lacking:  # DynamoDB changes one thing at a time
            if each in settings:
                self._dynamodb.update_table(TableName=self._name, **settings[each])
                self.wait()

    def lacking(self, there: Mapping[str, Any]) -> list[str]:
        """Which settings of the template it does not have, in words; mappings of its stream too.

        there: as description() gave it.
        """
        wanted, found = self._properties, list[str]()
        if "PointInTimeRecoverySpecification" in wanted and not self._is_backed_up():
            found.append(_BACKUPS)
        if "TimeToLiveSpecification" in wanted and not self._expires():
            found.append(_EXPIRY)
        has_stream = there.get("StreamSpecification", {}).get("StreamEnabled")
        if "StreamSpecification" in wanted and not has_stream:
            found.append(_STREAM)
        elif "StreamSpecification" in wanted and not self._is_followed(there["LatestStreamArn"]):
            found.append("a function that follows its stream")
        encrypted = there.get("SSEDescription", {}).get("Status") in _ENCRYPTED
        if wanted.get("SSESpecification", {}).get("SSEEnabled") and not encrypted:
            found.append(_ENCRYPTION)
        if wanted.get("DeletionProtectionEnabled") and not there.get("DeletionProtectionEnabled"):
            found.append(_PROTECTION)
        return found

    def _is_backed_up(self) -> bool:
        answer = self._dynamodb.describe_continuous_backups(TableName=self._name)
        found = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        return bool(found.get("PointInTimeRecoveryStatus") == "ENABLED")

    def _expires(self) -> bool:
        answer = self._dynamodb.describe_time_to_live(TableName=self._name)
        status = answer["TimeToLiveDescription"].get("TimeToLiveStatus")
        return status in ("ENABLED", "ENABLING")

    def _is_followed(self, stream: str) -> bool:
        return any(each["EventSourceArn"] == stream for each in self.mappings())

    def _keep_backups(self) -> None:
        wanted = self._properties["PointInTimeRecoverySpecification"]
        for again in until_deadline():
            try:
                self._dynamodb.update_continuous_backups(
                    TableName=self._name, PointInTimeRecoverySpecification=wanted
                )
            except ClientError as error:  # a table that was just made is being prepared for it
                if error_code(error) != "ContinuousBackupsUnavailableException" or not again:
                    raise
            else:
                return

    def mappings(self) -> list[dict[str, Any]]:
        """Which functions follow its stream, this one or that of a former table of its name."""
        prefix = f":table/{self._name}/stream/"
        pages = self._functions.get_paginator("list_event_source_mappings").paginate()
        every = [each for page in pages for each in page["EventSourceMappings"]]
        return [each for each in every if prefix in each.get("EventSourceArn", "")]

    def move_mappings(self) -> int:
        """Have those that follow the former table's stream follow this one's; how many.

        A mapping's stream cannot be changed, so it is made anew.
        """
        stream = (self.description() or {}).get("LatestStreamArn")
        if not stream:
            return 0
        there = self.mappings()
        former = [each for each in there if each["EventSourceArn"] != stream]
        now = {each["FunctionArn"] for each in there if each["EventSourceArn"] == stream}
        for each in former:
            if each["FunctionArn"] not in now:
                settings = {key: each[key] for key in _MAPPED_WITH if each.get(key) is not None}
                self._functions.create_event_source_mapping(
                    EventSourceArn=stream,
                    FunctionName=each["FunctionArn"],
                    StartingPosition="TRIM_HORIZON",
                    Enabled=True,
                    **settings,
                )
            self._functions.delete_event_source_mapping(UUID=each["UUID"])
        return len(former)


def beside(name: str, at: datetime) -> str:
    """What the table of that time is called while it stands beside *name*.

    The same at each run, so that one that was broken off is found again; of no more characters
    than DynamoDB takes ("Naming rules": 255).
    """
    suffix = f"-recovery-{at:%Y%m%dT%H%M%SZ}"
    return name[-(255 - len(suffix)) :] + suffix
