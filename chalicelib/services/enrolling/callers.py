"""Instances that ask for certificates by themselves."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from chalicelib.domain.enrolment.model import Ask, Why
from chalicelib.domain.identity import is_instance_id
from chalicelib.domain.model import CertificateRecord, InstanceFacts
from chalicelib.errors import DependencyFailed, Forbidden
from chalicelib.services.enrolling.holdings import readable_record, taken_back_by_hand
from chalicelib.services.enrolling.needs import Enrolments, Instances, Queue, Records

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InstanceCallers:
    """They are looked after as those that are given theirs, whoever of the two comes first."""

    enrolments: Enrolments
    instances: Instances
    records: Records
    queue: Queue

    def facts(self, instance_id: str) -> InstanceFacts | None:
        """What EC2 says of one that asks; None when there is no such instance.

        Raises Forbidden for one whose certificate was taken back by hand, DependencyFailed.
        """
        known = self.enrolments.get(instance_id)
        record = readable_record(self.records, None if known is None else known.serial)
        if taken_back_by_hand(record):
            raise Forbidden(
                "instance_barred",
                "the certificate of this instance was taken back; an admin can have it enrolled "
                "afresh: POST /admin/instances/ID/enrol",
            )
        return self.instances.facts(instance_id)

    def was_issued(self, instance_id: str) -> None:
        """Have it looked at what it holds now; should that fail, the schedule does in the end."""
        self._look_at(instance_id)

    def was_revoked(self, record: CertificateRecord) -> None:
        """As was_issued(), if it is an instance's."""
        if is_instance_id(record.name) and record.owner.endswith(f"/{record.name}"):
            self._look_at(record.name)

    def _look_at(self, instance_id: str) -> None:
        try:
            self.queue.ask([Ask(instance_id, Why.CERTIFICATES)])
        except DependencyFailed as error:
            log.warning("nobody looks at %s: %s", instance_id, error)
