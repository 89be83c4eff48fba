"""The adapters, and the clients that they share."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from chalicelib.adapters.bucket import ConfigBucket
from chalicelib.adapters.event_bus import EventBus
from chalicelib.adapters.instances import Instances
from chalicelib.adapters.parameters import ParameterAuthorities
from chalicelib.adapters.queue import EnrolmentQueue
from chalicelib.adapters.run_command import RunCommand
from chalicelib.adapters.store import (
    CertificateListing,
    CertificateStore,
    EnrolmentStore,
    RevocationStore,
    Tables,
)
from chalicelib.config import Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

# Short enough that three tries end within what API Gateway waits for an answer, 29 seconds.
_CLIENT = Config(
    connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 3, "mode": "standard"}
)


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Adapters:
    """Each made when first asked for and kept, and so is each client."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = boto3.Session()

    @cached_property
    def authorities(self) -> ParameterAuthorities:
        """The CAs."""
        return ParameterAuthorities(self._ssm, self._settings.parameter_prefix, now)

    @cached_property
    def _tables(self) -> Tables:
        settings = self._settings
        return Tables(settings.certificates_table, settings.state_table, settings.instances_table)

    @cached_property
    def records(self) -> CertificateStore:
        """Certificates as they are recorded."""
        return CertificateStore(self._tables)

    @cached_property
    def enrolments(self) -> EnrolmentStore:
        """Instances as they are recorded."""
        return EnrolmentStore(self._tables)

    @cached_property
    def queue(self) -> EnrolmentQueue:
        """Where advances are asked for."""
        url = self._settings.enrolment_queue_url
        return EnrolmentQueue(lambda: self._sqs, url)

    @cached_property
    def listing(self) -> CertificateListing:
        """Certificates in order."""
        return CertificateListing(self._tables)

    @cached_property
    def commands(self) -> RunCommand:
        """Commands on instances."""
        return RunCommand(lambda: self._ssm)

    @cached_property
    def bus(self) -> EventBus:
        """The account's event bus."""
        return EventBus(self._session.client("events", config=_CLIENT))

    @cached_property
    def revocations(self) -> RevocationStore:
        """What is revoked."""
        return RevocationStore(self._tables)

    @cached_property
    def bucket(self) -> ConfigBucket:
        """Bundles and the published trust."""
        # KMS-encrypted objects can be fetched by presigned URL with signature version 4 only. The
        # addressing style keeps boto3 from presigning for the global endpoint, which redirects to
        # the region, where the signature does not fit any more.
        virtual = Config(signature_version="s3v4", s3={"addressing_style": "virtual"})
        config = _CLIENT.merge(virtual)
        return ConfigBucket(self._session.client("s3", config=config), self._settings.config_bucket)

    @cached_property
    def instances(self) -> Instances:
        """What EC2 says."""
        tag = self._settings.instance_tag
        return Instances(lambda: self._ec2, lambda: self._iam, tag, now)

    @cached_property
    def _ssm(self) -> SSMClient:
        return self._session.client("ssm", config=_CLIENT)

    @cached_property
    def _sqs(self) -> SQSClient:
        return self._session.client("sqs", config=_CLIENT)

    @cached_property
    def _ec2(self) -> EC2Client:
        return self._session.client("ec2", config=_CLIENT)

    @cached_property
    def _iam(self) -> IAMClient:
        return self._session.client("iam", config=_CLIENT)
