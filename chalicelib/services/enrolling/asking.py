"""Ask for an advance of an instance that something happened to, and of no other."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.enrolment.model import Ask, Enrolment, Why
from chalicelib.domain.model import InstanceState
from chalicelib.errors import Conflict, NotFound
from chalicelib.services.enrolling.needs import Enrolments, Instances, Queue

_ALIVE = frozenset({InstanceState.PENDING, InstanceState.RUNNING})


@dataclass(frozen=True, slots=True)
class Asking:
    """An account may have many instances and commands that are none of our business."""

    enrolments: Enrolments
    instances: Instances
    queue: Queue

    def instance_changed(self, instance_id: str) -> None:
        """It started, or it ends. For one without the tag that is one call and the end of it."""
        instance = self.instances.glance(instance_id)
        concerns_us = instance is not None and instance.access is not None
        if instance is None or instance.ended:
            concerns_us = concerns_us or self.enrolments.get(instance_id) is not None
        if concerns_us:
            self.queue.ask([Ask(instance_id, Why.EVENT)])

    def tag_changed(self, instance_id: str) -> None:
        """The tag that says its access was put, changed or taken away."""
        self.queue.ask([Ask(instance_id, Why.EVENT)])

    def command_ended(self, instance_id: str) -> None:
        """Some command on it ended. Whether it was ours, and which, the record alone knows."""
        known = self.enrolments.get(instance_id)
        if known is not None and known.at_work:
            self.queue.ask([Ask(instance_id, Why.EVENT)])

    def enrol(self, instance_id: str) -> Enrolment | None:
        """Have it enrolled afresh; answers what is recorded of it now.

        Raises NotFound, Conflict (it does not run, or carries no tag), DependencyFailed.
        """
        instance = self.instances.glance(instance_id)
        if instance is None:
            raise NotFound("instance_not_found", "EC2 knows no such instance here")
        if instance.state not in _ALIVE:
            raise Conflict("instance_not_enrollable", f"the instance is {instance.state}")
        if instance.access is None:
            raise Conflict(
                "instance_not_enrollable",
                "the instance carries no tag that says its access: registry-trust, or as the stack "
                "names it, with the value pull or push",
            )
        known = self.enrolments.get(instance_id)
        self.queue.ask([Ask(instance_id, Why.ADMIN)])
        return known
