"""The composition root: the one place that reads the environment and puts the parts together."""

from __future__ import annotations

import os
import random
import secrets
import time
from datetime import UTC, datetime
from functools import cache, cached_property
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
from chalicelib.adapters.store.images import record_in
from chalicelib.config import Settings
from chalicelib.domain import policy
from chalicelib.domain.pki.keys import make_key
from chalicelib.domain.pki.leaves import new_serial
from chalicelib.domain.trust import RegistryAddress
from chalicelib.services.announcing import Announcing
from chalicelib.services.catalogue import Catalogue
from chalicelib.services.diagnosing import Diagnosing
from chalicelib.services.enrolling import (
    Asking,
    Commanding,
    CurrentTrust,
    Enrolling,
    Holdings,
    Reconciling,
)
from chalicelib.services.fleet import Fleet
from chalicelib.services.issuing import Delivering, InstanceIssuing, Issuing, Recording
from chalicelib.services.revoking import Revoking
from chalicelib.services.serving import Serving
from chalicelib.services.trust import TrustKeeper

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient

# Short enough that three tries end within what API Gateway waits for an answer, 29 seconds.
_CLIENT = Config(
    connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 3, "mode": "standard"}
)


class Services:
    """The use cases, each made when first asked for and kept, and so are the clients they share."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = boto3.Session()

    @cached_property
    def issuing(self) -> Issuing:
        """Issue and renew certificates, and hand them out."""
        return Issuing(
            authorities=self._authorities,
            records=self._records,
            recording=self._recording,
            delivering=self._delivering,
            instance_facts=self._instances.facts,
            publish_revoked=lambda records: self.trust.show_revoked(records),
            limits=self._limits,
            now=_now,
            make_key=make_key,
        )

    @cached_property
    def catalogue(self) -> Catalogue:
        """Look certificates up and list them."""
        return Catalogue(records=self._records, listing=CertificateListing(self._tables), now=_now)

    @cached_property
    def revoking(self) -> Revoking:
        """Take certificates back."""
        return Revoking(
            records=self._records,
            revocations=self._revocations,
            withdraw=self._delivering.withdraw,
            publish_revoked=lambda records: self.trust.show_revoked(records),
            now=_now,
        )

    @cached_property
    def diagnosing(self) -> Diagnosing:
        """Say whether the registry would admit a certificate, and why not."""
        return Diagnosing(records=self._records, publication=self._bucket, now=_now)

    @cached_property
    def serving(self) -> Serving:
        """Issue the registry's own certificate."""
        return Serving(
            authorities=self._authorities,
            records=self._records,
            host=self._settings.registry_host,
            role=self._settings.registry_host_role,
            now=_now,
            new_serial=new_serial,
        )

    @cached_property
    def trust(self) -> TrustKeeper:
        """Read and publish the trust."""
        return TrustKeeper(
            authorities=self._authorities,
            revocations=self._revocations,
            publication=self._bucket,
            registry=self._registry.name,
            registry_address=self._settings.registry_address,
            now=_now,
            pause=time.sleep,
        )

    @cached_property
    def announcing(self) -> Announcing:
        """Tell the rest of the account what became of certificates."""
        bus = EventBus(self._session.client("events", config=_CLIENT))
        return Announcing(stage=self._settings.stage, read=record_in, bus=bus)

    @cached_property
    def asking(self) -> Asking:
        """Ask for advances of instances that something happened to."""
        return Asking(self._enrolments, self._instances, self._queue)

    @cached_property
    def enrolling(self) -> Enrolling:
        """Advance instances on their way to a certificate that works."""
        return Enrolling(
            enrolments=self._enrolments,
            instances=self._instances,
            queue=self._queue,
            commanding=self._commanding,
            own=self._holdings,
            revoke=self.revoking.take_back,
            now=_now,
            chance=random.SystemRandom().random,
        )

    @cached_property
    def reconciling(self) -> Reconciling:
        """Ask for advances that are due, and for those that no event asked for."""
        return Reconciling(
            enrolments=self._enrolments,
            instances=self._instances,
            queue=self._queue,
            trust_version=self._bucket.trust_version,
            most=self._settings.instances_per_minute,
            now=_now,
        )

    @cached_property
    def fleet(self) -> Fleet:
        """Look enrolments up and list them."""
        return Fleet(self._enrolments)

    @cached_property
    def _commanding(self) -> Commanding:
        issuer = InstanceIssuing(
            self._authorities, self._records, self._recording, self._limits, _now
        )
        return Commanding(
            enrolments=self._enrolments,
            commands=RunCommand(lambda: self._ssm),
            records=self._records,
            issuer=issuer,
            own=self._holdings,
            trust=CurrentTrust(self._bucket.read_trust, _now),
            new_nonce=lambda: secrets.token_hex(16),
        )

    @cached_property
    def _holdings(self) -> Holdings:
        return Holdings(self._records, CertificateListing(self._tables), _now)

    @cached_property
    def _recording(self) -> Recording:
        return Recording(
            self._authorities, self._records, self._limits, new_serial, random.SystemRandom()
        )

    @cached_property
    def _delivering(self) -> Delivering:
        return Delivering(
            authorities=self._authorities,
            bundles=self._bucket,
            registry=self._registry.name,
            registry_address=self._settings.registry_address,
        )

    @property
    def _registry(self) -> RegistryAddress:
        return RegistryAddress(self._settings.registry_host, self._settings.registry_port)

    @property
    def _limits(self) -> policy.Limits:
        return policy.Limits(
            default_days=self._settings.default_days,
            maximum_days=self._settings.maximum_days,
            admin_maximum_days=self._settings.admin_maximum_days,
            certificates_per_owner=self._settings.certificates_per_owner,
            push_principals=self._settings.push_principals,
        )

    @cached_property
    def _authorities(self) -> ParameterAuthorities:
        return ParameterAuthorities(self._ssm, self._settings.parameter_prefix)

    @cached_property
    def _tables(self) -> Tables:
        settings = self._settings
        return Tables(settings.certificates_table, settings.state_table, settings.instances_table)

    @cached_property
    def _records(self) -> CertificateStore:
        return CertificateStore(self._tables)

    @cached_property
    def _enrolments(self) -> EnrolmentStore:
        return EnrolmentStore(self._tables)

    @cached_property
    def _queue(self) -> EnrolmentQueue:
        url = self._settings.enrolment_queue_url
        return EnrolmentQueue(lambda: self._sqs, url)

    @cached_property
    def _revocations(self) -> RevocationStore:
        return RevocationStore(self._tables)

    @cached_property
    def _bucket(self) -> ConfigBucket:
        # KMS-encrypted objects can be fetched by presigned URL with signature version 4 only. The
        # addressing style keeps boto3 from presigning for the global endpoint, which redirects to
        # the region, where the signature does not fit any more.
        virtual = Config(signature_version="s3v4", s3={"addressing_style": "virtual"})
        config = _CLIENT.merge(virtual)
        return ConfigBucket(self._session.client("s3", config=config), self._settings.config_bucket)

    @cached_property
    def _instances(self) -> Instances:
        tag = self._settings.instance_tag
        return Instances(lambda: self._ec2, lambda: self._iam, tag, _now)

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


@cache
def services() -> Services:
    """Those of this process, from its environment. Raises Misconfigured."""
    return Services(Settings.from_variables(os.environ))


def _now() -> datetime:
    return datetime.now(UTC)
