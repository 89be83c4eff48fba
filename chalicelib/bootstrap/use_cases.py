"""The use cases, put together."""

from __future__ import annotations

import random
import secrets
import time
from functools import cached_property

from chalicelib.adapters.store.images import record_in
from chalicelib.bootstrap.adapters import Adapters, now
from chalicelib.config import Settings
from chalicelib.domain import policy
from chalicelib.domain.model import RevocationReason
from chalicelib.domain.pki.authorities import ids_in
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
    InstanceCallers,
    Reconciling,
)
from chalicelib.services.enrolling.plane import PLANE
from chalicelib.services.fleet import Fleet
from chalicelib.services.issuing import Delivering, InstanceIssuing, Issuing, Recording, Room
from chalicelib.services.revoking import Revoking
from chalicelib.services.serving import Serving
from chalicelib.services.trust import TrustKeeper


class Services:
    """The use cases, each made when first asked for and kept, on the same adapters."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._adapters = Adapters(settings)

    @cached_property
    def issuing(self) -> Issuing:
        """Issue and renew certificates, and hand them out."""
        return Issuing(
            authorities=self._adapters.authorities,
            records=self._adapters.records,
            recording=self._recording,
            delivering=self._delivering,
            instances=self._instance_callers,
            publish_revoked=lambda records: self.trust.show_revoked(records),
            limits=self._limits,
            now=now,
            make_key=make_key,
        )

    @cached_property
    def catalogue(self) -> Catalogue:
        """Look certificates up and list them."""
        return Catalogue(records=self._adapters.records, listing=self._adapters.listing, now=now)

    @cached_property
    def revoking(self) -> Revoking:
        """Take certificates back."""
        return Revoking(
            records=self._adapters.records,
            revocations=self._adapters.revocations,
            withdraw=self._delivering.withdraw,
            publish_revoked=lambda records: self.trust.show_revoked(records),
            told=self._instance_callers.was_revoked,
            now=now,
        )

    @cached_property
    def diagnosing(self) -> Diagnosing:
        """Say whether the registry would admit a certificate, and why not."""
        return Diagnosing(
            records=self._adapters.records, publication=self._adapters.bucket, now=now
        )

    @cached_property
    def serving(self) -> Serving:
        """Issue the registry's own certificate."""
        return Serving(
            authorities=self._adapters.authorities,
            records=self._adapters.records,
            host=self._settings.registry_host,
            role=self._settings.registry_host_role,
            now=now,
            new_serial=new_serial,
        )

    @cached_property
    def trust(self) -> TrustKeeper:
        """Read and publish the trust."""
        return TrustKeeper(
            authorities=self._adapters.authorities,
            revocations=self._adapters.revocations,
            publication=self._adapters.bucket,
            registry=self._registry.name,
            registry_address=self._settings.registry_address,
            now=now,
            pause=time.sleep,
        )

    @cached_property
    def announcing(self) -> Announcing:
        """Tell the rest of the account what became of certificates."""
        stage = self._settings.stage
        return Announcing(stage=stage, read=record_in, bus=self._adapters.bus)

    @cached_property
    def asking(self) -> Asking:
        """Ask for advances of instances that something happened to."""
        return Asking(self._adapters.enrolments, self._adapters.instances, self._adapters.queue)

    @cached_property
    def enrolling(self) -> Enrolling:
        """Advance instances on their way to a certificate that works."""
        return Enrolling(
            enrolments=self._adapters.enrolments,
            instances=self._adapters.instances,
            queue=self._adapters.queue,
            commanding=self._commanding,
            holdings=self._holdings,
            revoke=self.revoking.take_back,
            now=now,
            chance=random.SystemRandom().random,
        )

    @cached_property
    def reconciling(self) -> Reconciling:
        """Ask for advances that are due, and for those that no event asked for."""
        return Reconciling(
            enrolments=self._adapters.enrolments,
            instances=self._adapters.instances,
            queue=self._adapters.queue,
            trust_version=self._adapters.bucket.trust_version,
            most=self._settings.instances_per_minute,
            now=now,
        )

    @cached_property
    def fleet(self) -> Fleet:
        """Look enrolments up and list them."""
        return Fleet(self._adapters.enrolments)

    @cached_property
    def _commanding(self) -> Commanding:
        trust = CurrentTrust(self._adapters.bucket.read_trust, now)
        issuer = InstanceIssuing(
            authorities=self._adapters.authorities,
            records=self._adapters.records,
            recording=self._recording,
            limits=self._limits,
            admitting=lambda: ids_in(trust().client_ca),
            now=now,
        )
        return Commanding(
            enrolments=self._adapters.enrolments,
            commands=self._adapters.commands,
            records=self._adapters.records,
            issuer=issuer,
            holdings=self._holdings,
            trust=trust,
            new_nonce=lambda: secrets.token_hex(16),
        )

    @cached_property
    def _instance_callers(self) -> InstanceCallers:
        adapters = self._adapters
        return InstanceCallers(
            adapters.enrolments, adapters.instances, adapters.records, adapters.queue
        )

    @cached_property
    def _holdings(self) -> Holdings:
        return Holdings(self._adapters.records, self._adapters.listing, now)

    @cached_property
    def _recording(self) -> Recording:
        return Recording(
            self._adapters.authorities,
            self._adapters.records,
            self._limits,
            new_serial,
            random.SystemRandom(),
            self._room.make,
        )

    @cached_property
    def _room(self) -> Room:
        return Room(
            authorities=self._adapters.authorities,
            listing=self._adapters.listing,
            take_back=lambda records: self.revoking.take_back(
                records, RevocationReason.SUPERSEDED, PLANE
            ),
            now=now,
        )

    @cached_property
    def _delivering(self) -> Delivering:
        return Delivering(
            authorities=self._adapters.authorities,
            bundles=self._adapters.bucket,
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
