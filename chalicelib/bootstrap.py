"""The composition root: the one place that reads the environment and puts the parts together."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from chalicelib.adapters.bucket import ConfigBucket
from chalicelib.adapters.instances import Instances
from chalicelib.adapters.parameters import ParameterAuthorities
from chalicelib.adapters.store import CertificateStore
from chalicelib.config import Settings
from chalicelib.domain import policy
from chalicelib.domain.pki.keys import make_key
from chalicelib.domain.pki.leaves import new_serial
from chalicelib.domain.trust import RegistryAddress
from chalicelib.services.issuing import Issuing
from chalicelib.services.serving import Serving
from chalicelib.services.trust import TrustKeeper

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_iam import IAMClient

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
        """Issue certificates and look them up."""
        return Issuing(
            authorities=self._authorities,
            records=self._store,
            bundles=self._bucket,
            instance_facts=self._instances.facts,
            limits=self._limits,
            registry=self._registry.name,
            registry_address=self._settings.registry_address,
            now=_now,
            new_serial=new_serial,
            make_key=make_key,
            chance=random.SystemRandom(),
        )

    @cached_property
    def serving(self) -> Serving:
        """Issue the registry's own certificate."""
        return Serving(
            authorities=self._authorities,
            records=self._store,
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
            revocations=self._store,
            publication=self._bucket,
            registry=self._registry.name,
            registry_address=self._settings.registry_address,
            now=_now,
        )

    @property
    def _registry(self) -> RegistryAddress:
        return RegistryAddress(self._settings.registry_host, self._settings.registry_port)

    @property
    def _limits(self) -> policy.Limits:
        return policy.Limits(
            default_days=self._settings.default_days,
            maximum_days=self._settings.maximum_days,
            certificates_per_owner=self._settings.certificates_per_owner,
            push_principals=self._settings.push_principals,
        )

    @cached_property
    def _authorities(self) -> ParameterAuthorities:
        ssm = self._session.client("ssm", config=_CLIENT)
        return ParameterAuthorities(ssm, self._settings.parameter_prefix)

    @cached_property
    def _store(self) -> CertificateStore:
        return CertificateStore(self._settings.certificates_table, self._settings.state_table)

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
        return Instances(lambda: self._ec2, lambda: self._iam, self._settings.instance_tag)

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
