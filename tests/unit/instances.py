"""EC2 instances as EC2 tells of them, for tests to vary with dataclasses.replace."""

from __future__ import annotations

from chalicelib.domain.model import Access, Caller, InstanceFacts, InstanceState
from tests.unit.authorities import NOW

ACCOUNT = "123456789012"


def facts_of(
    instance_id: str = "i-0123456789abcdef0",
    *,
    role: str | None = "docker-instance",
    access: Access | None = Access.PULL,
    state: InstanceState = InstanceState.RUNNING,
) -> InstanceFacts:
    """A running one that carries the tag, unless told otherwise."""
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{instance_id}" if role else None
    return InstanceFacts(instance_id, state, role, access, arn, NOW)


def caller_of(facts: InstanceFacts) -> Caller:
    """The instance itself, signing its own requests."""
    assert facts.session_arn is not None
    return Caller(facts.session_arn, facts.instance_id, facts.role, facts.instance_id)
