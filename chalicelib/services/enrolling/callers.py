"""Instances that ask for certificates by themselves."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from chalicelib.domain.enrolment.model import Ask, Why
from chalicelib.domain.model import InstanceFacts
from chalicelib.errors import DependencyFailed, Forbidden
from chalicelib.services.enrolling.holdings import readable_record
from chalicelib.services.enrolling.needs import Enrolments, Instances, Queue, Records
from chalicelib.services.enrolling.plane import PLANE

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
        if record is not None and record.revoked_at is not None and record.revoked_by != PLANE:
            raise Forbidden(
                "instance_barred",
                "the certificate of this instance was taken back; an admin can have it enrolled "
                "afresh: POST /admin/instances/ID/enrol",
            )
        return self.instances.facts(instance_id)

    def was_issued(self, instance_id: str) -> None:
        """Have it looked at what it holds now; should that fail, the schedule does in the end."""
        try:
            self.queue.ask([Ask(instance_id, Why.ISSUED)])
        except DependencyFailed as error:
            log.warning("nobody looks at %s: %s", instance_id, error)
