"""Whether enrolled instances go along: by what is recorded of them."""

from __future__ import annotations

from collections.abc import Sequence

from chalicelib.domain.enrolment.changes import REVOKED_BY_HAND
from chalicelib.domain.enrolment.model import Enrolment, EnrolmentPath, EnrolmentState
from chalicelib.domain.pki.authorities import AuthorityKind
from chalicelib.domain.rotation.model import Facts, Obstacle, lines

_BREAKS = {
    AuthorityKind.CLIENT: "nothing for these: only the registry goes by the client CA",
    AuthorityKind.SERVER: "these do not trust the registry once it has a certificate of the new "
    "CA, until they are given that CA, too",
}

# Before anything was sent to it that could bring the CAs of another day.
_HAS_NOTHING = frozenset(
    {EnrolmentState.LAUNCHED, EnrolmentState.WAITING_FOR_AGENT, EnrolmentState.PREPARING}
)


def instances_without(kind: AuthorityKind, facts: Facts) -> Obstacle | None:
    """Running ones that work with another trust than the published one."""
    late = late_instances(facts)
    if not late:
        return None
    what = f"{len(late)} enrolled instances do not have the published trust yet"
    return Obstacle(what, lines({each.instance_id: each.state for each in late}), _BREAKS[kind])


def late_instances(facts: Facts) -> Sequence[Enrolment]:
    """These, as they are recorded."""
    return [each for each in facts.enrolments if _is_late(each, facts)]


def _is_late(known: Enrolment, facts: Facts) -> bool:
    """While a command is under way, its record says what it is being given, not what it has."""
    if known.path is EnrolmentPath.BOOT or known.instance_id not in facts.running:
        return False
    other = known.trust_version != facts.trust_version
    if known.state is EnrolmentState.ENROLLED:
        return other
    if known.state in (EnrolmentState.FAILED, EnrolmentState.GONE):
        return False
    return known.enrolled_at is not None or (other and known.state not in _HAS_NOTHING)


def failed_instances(facts: Facts) -> Obstacle | None:
    """Those that worked once, and may work on with what they were given then."""
    found = {
        each.instance_id: f"{each.code}: {each.reason[:100]}"
        for each in facts.enrolments
        if each.state is EnrolmentState.FAILED
        and each.enrolled_at is not None
        and each.code != REVOKED_BY_HAND
        and each.instance_id in facts.running
    }
    if not found:
        return None
    what = f"{len(found)} instances worked once, and could not be given the published trust"
    return Obstacle(what, lines(found), _BREAKS[AuthorityKind.SERVER], passes=False)
