"""What stands in the way of each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509

from chalicelib.domain.enrolment.model import EnrolmentPath, EnrolmentState
from chalicelib.domain.pki.authorities import AuthorityKind
from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.domain.policy import BACKDATE
from chalicelib.domain.rotation.certificates import (
    SETTLING,
    certificates_under,
    instances_not_under,
    not_asked_since,
    people_not_under,
    people_of_before,
)
from chalicelib.domain.rotation.hosts import hosts_not_under, hosts_without, lacking_hosts
from chalicelib.domain.rotation.instances import (
    failed_instances,
    instances_without,
    late_instances,
)
from chalicelib.domain.rotation.model import Facts, Obstacle


def made_at(certificate_pem: str) -> datetime:
    """When a CA was made."""
    return x509.load_pem_x509_certificate(certificate_pem.encode()).not_valid_before_utc + BACKDATE


def against_rotating(known: AuthoritySet) -> str:
    """Why there can be no further CA yet; empty when there can."""
    if known.pending:
        return f"CA {known.pending[0]} is trusted already and waits to be activated"
    if known.former:
        return f"CA {known.former[0]} signed before and is not retired yet"
    return ""


def against_activating(
    kind: AuthorityKind, new: str, made: datetime, facts: Facts, *, people_told: bool
) -> Sequence[Obstacle]:
    """What stands in the way of having *new*, which was made then, sign.

    people_told: they were told to install today's ca.crt; instances are not people.
    """
    found = [hosts_without(kind, new, facts), instances_without(kind, facts)]
    if kind is AuthorityKind.SERVER:
        found += [_too_early(made, facts), failed_instances(facts), not_asked_since(made, facts)]
        found += [] if people_told else [people_of_before(made, facts)]
    return _present(found)


def against_retiring(
    kind: AuthorityKind, old: str, active: str, facts: Facts, settled_at: datetime
) -> Sequence[Obstacle]:
    """What stands in the way of trusting *old* no more.

    settled_at: when every process knows that it does not sign any more.
    """
    wait, found = settled_at - facts.now, list[Obstacle | None]()
    if wait > timedelta():
        what = f"certificates may be signed with it even now: wait {_seconds(wait)} s"
        found.append(Obstacle(what, (), "what was signed with it just now counts for nothing"))
    if kind is AuthorityKind.SERVER:
        found.append(hosts_not_under(active, facts))
    else:
        found.append(certificates_under(old, facts))
    return _present(found)


def after_distrusting(
    kind: AuthorityKind, active: str, made: datetime, facts: Facts
) -> Sequence[Obstacle]:
    """Who cannot use the registry yet, now that *active*, which was made then, is the only one."""
    if kind is AuthorityKind.CLIENT:
        return _present(
            [
                hosts_without(kind, active, facts),
                instances_not_under(active, facts),
                instances_without(kind, facts),  # who is issued one has not installed it yet
                people_not_under(active, facts),
            ]
        )
    return _present(
        [
            hosts_not_under(active, facts),
            instances_without(kind, facts),
            failed_instances(facts),
            not_asked_since(made, facts),
            people_of_before(made, facts),
        ]
    )


def lives_under(kind: AuthorityKind, authority_id: str, facts: Facts) -> bool:
    """Whether a certificate of this CA, trusted or not, may still be in use."""
    if kind is AuthorityKind.CLIENT:
        return certificates_under(authority_id, facts) is not None
    certificates = [host.report.certificate if host.report else None for host in facts.hosts]
    return any(each is None or each.issuer == authority_id for each in certificates)


def progress(kind: AuthorityKind, new: str, facts: Facts) -> str:
    """How far a new CA has come, in one line."""
    hosts, lacking = len(facts.hosts), len(lacking_hosts(kind, new, facts))
    given = [each for each in facts.enrolments if each.path is EnrolmentPath.AGENT]
    enrolled = [each for each in given if each.state is EnrolmentState.ENROLLED]
    late = {each.instance_id for each in late_instances(facts)}
    covered = sum(each.instance_id not in late for each in enrolled)
    said = [
        f"registry hosts {hosts - lacking} of {hosts}",
        f"enrolled instances {covered} of {len(enrolled)}",
    ]
    by_itself = [each for each in facts.enrolments if each.path is EnrolmentPath.BOOT]
    if by_itself:
        said.append(f"instances that ask by themselves {len(by_itself)}")
    states = [each.state for each in facts.enrolments]
    rest = [state for state in EnrolmentState if state is not EnrolmentState.ENROLLED]
    return "; ".join(said + [f"{state} {states.count(state)}" for state in rest if state in states])


def _too_early(made: datetime, facts: Facts) -> Obstacle | None:
    wait = made + SETTLING - facts.now
    if wait <= timedelta():
        return None
    what = f"what is handed out now may come without the new CA: wait {_seconds(wait)} s"
    return Obstacle(what, (), "who was given a certificate just now may not have the new CA")


def _seconds(wait: timedelta) -> int:
    return int(wait.total_seconds()) + 1


def _present(found: Iterable[Obstacle | None]) -> Sequence[Obstacle]:
    return [each for each in found if each is not None]
