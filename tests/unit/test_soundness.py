"""What scripts/recover check says, also where it may not look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from operations import recovery, soundness
from operations.cloud import CommandError
from operations.soundness import Finding

OUTPUTS = {
    "KeyArn": "arn:aws:kms:eu-west-1:1:key/k",
    "ParameterPrefix": "/registry-trust/prod/",
    "ConfigBucket": "config",
    "StateTable": "state",
    "CertificatesTable": "certificates",
}


def denied(operation: str, code: str = "AccessDeniedException") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


class Session:
    """That of an operator who may do nothing at all."""

    def client(self, service: str) -> Any:
        made = boto3.client(
            service,
            region_name="eu-west-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",  # noqa: S106 - of nobody
        )
        made.meta.events.register("before-call", self._refuse)
        return made

    def _refuse(self, model: Any, **given: Any) -> None:
        raise denied(model.name)


class Table:
    """One that is there, with all its settings, or of which not all may be asked."""

    def __init__(self, status: str = "ACTIVE", refusal: ClientError | None = None) -> None:
        self._status, self._refusal = status, refusal

    def there(self) -> bool:
        return self._status != "DELETING"

    def description(self) -> dict[str, Any]:
        return {"TableStatus": self._status}

    def lacking(self, found: dict[str, Any]) -> list[str]:
        assert self._status == "ACTIVE"  # DynamoDB tells no more of one that is being deleted
        if self._refusal:
            raise self._refusal
        return []


class Bucket:
    def there(self) -> bool:
        return True

    def lacking(self) -> list[str]:
        raise denied("GetBucketPolicy", "AccessDenied")


def looked(tables: dict[str, Any]) -> dict[str, Finding]:
    buckets: Any = {"config": Bucket()}
    session: Any = Session()
    return {each.part: each for each in soundness.look(session, OUTPUTS, tables, buckets)}


def test_what_may_not_be_looked_at_is_told_with_the_others() -> None:
    throttled = denied("DescribeTimeToLive", "ThrottlingException")
    found = looked({"state": Table(refusal=throttled), "instances": Table()})

    sound = {part for part, each in found.items() if each.sound}
    assert sound == {"table instances"}
    assert "DescribeKey answered AccessDeniedException" in found["KMS key"].said
    assert "DescribeTimeToLive answered ThrottlingException" in found["table state"].said
    assert "GetObject answered AccessDenied" in found["published trust"].said
    assert "GetBucketPolicy answered AccessDenied" in found["config bucket"].said
    for part in ("client CA", "server CA", "Slack webhook", "published trust", "revocations"):
        assert not found[part].sound, part


def test_a_table_that_is_being_deleted_is_told_with_what_brings_it_back() -> None:
    found = looked({"state": Table("DELETING"), "instances": Table("UPDATING")})
    assert "DELETING" in found["table state"].said
    assert "table state" in found["table state"].command
    assert found["table instances"].command == ""
    assert "revocations" not in found


def test_findings_are_printed_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    def findings() -> Iterator[Finding]:
        yield Finding("KMS key", False, "it is Disabled", "mend --stage STAGE")
        assert "BAD  KMS key: it is Disabled\n     mend --stage prod" in capsys.readouterr().out
        yield Finding("table state", True, "there")

    with pytest.raises(CommandError, match=r"^not sound: KMS key$"):
        recovery.tell(findings(), "prod")
    assert "ok   table state: there" in capsys.readouterr().out


def test_when_all_is_sound_nothing_is_raised() -> None:
    recovery.tell([Finding("KMS key", True, "enabled")], "prod")
