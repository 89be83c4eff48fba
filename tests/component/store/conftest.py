"""The tables as the stack makes them, on the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chalicelib.adapters.store import (
    CertificateListing,
    CertificateStore,
    EnrolmentStore,
    RevocationStore,
    Tables,
)
from localcloud.aws import ROOT
from localcloud.aws import Caller as AwsCaller
from tests.component.emulated_aws import EmulatedAws, emulated_aws
from tests.component.store.records import new_number

STACK = Path(__file__).resolve().parents[3] / ".chalice" / "stack.yaml"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        make_tables(running.client("dynamodb"))
        running.client("s3").create_bucket(Bucket="config")
        yield running


def make_tables(dynamodb: Any) -> None:
    """As the stack makes them; but for what the emulator would drop anyway."""

    class Template(yaml.SafeLoader):
        """Reads CloudFormation's tags as nothing."""

    Template.add_multi_constructor("!", lambda *_: None)
    resources = yaml.load(STACK.read_text(), Template)["Resources"]  # noqa: S506  # a SafeLoader
    for name in ("certificates", "state", "instances"):
        wanted = ("KeySchema", "AttributeDefinitions", "GlobalSecondaryIndexes", "BillingMode")
        properties = resources[f"{name.capitalize()}Table"]["Properties"]
        given = {key: properties[key] for key in wanted if key in properties}
        dynamodb.create_table(TableName=name, **given)


@pytest.fixture(autouse=True)
def _environment(aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AwsCaller(aws.endpoint, ROOT).environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def tables() -> Tables:
    return Tables("certificates", "state", "instances")


@pytest.fixture
def store(tables: Tables) -> CertificateStore:
    return CertificateStore(tables)


@pytest.fixture
def revocations(tables: Tables) -> RevocationStore:
    return RevocationStore(tables)


@pytest.fixture
def listing(tables: Tables) -> CertificateListing:
    return CertificateListing(tables)


@pytest.fixture
def enrolments(tables: Tables) -> EnrolmentStore:
    return EnrolmentStore(tables)


@pytest.fixture
def owner() -> str:
    """Somebody new."""
    return f"arn:aws:iam::123456789012:user/owner-{new_number()}"
