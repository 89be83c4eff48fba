"""Whether those who hold certificates go along: each was handed out with the CAs of its day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from chalicelib.domain.enrolment.changes import ENROLMENT_LABEL
from chalicelib.domain.enrolment.model import EnrolmentPath, EnrolmentState
from chalicelib.domain.identity import is_instance_id
from chalicelib.domain.model import CertificateRecord
from chalicelib.domain.rotation.model import Facts, Obstacle, lines, shortened

# What is handed out until then may come with the CAs of before: functions keep those for a minute,
# and clocks differ.
SETTLING = timedelta(minutes=2)

_UNTIL_THEY_ASK = "these do not trust the registry until they ask, within two hours"


def asked_by_itself(record: CertificateRecord) -> bool:
    """Whether an instance asked for it, for itself."""
    return is_instances(record) and record.label != ENROLMENT_LABEL


def is_instances(record: CertificateRecord) -> bool:
    """Whether it is an instance's own, and not what an admin had issued to it for a service."""
    own = is_instance_id(record.name) and record.owner.endswith(f"/{record.name}")
    return own and record.issued_by is None


def not_asked_since(made: datetime, facts: Facts) -> Obstacle | None:
    """Running instances that ask by themselves, and last did before the CA made then was there."""
    given = {
        each.instance_id
        for each in facts.enrolments
        if each.path is EnrolmentPath.AGENT and each.state is EnrolmentState.ENROLLED
    }
    late = {
        instance_id: f"it asked last at {at:%Y-%m-%d %H:%M} UTC"
        for instance_id, at in _last_asked(facts).items()
        if at < made + SETTLING and instance_id in facts.running - given
    }
    if not late:
        return None
    what = f"{len(late)} instances that ask by themselves have not asked since; they look each hour"
    return Obstacle(what, lines(late), _UNTIL_THEY_ASK)


def _last_asked(facts: Facts) -> Mapping[str, datetime]:
    newest: dict[str, datetime] = {}
    for each in filter(asked_by_itself, facts.certificates):
        newest[each.name] = max(each.issued_at, newest.get(each.name, each.issued_at))
    return newest


def people_of_before(made: datetime, facts: Facts) -> Obstacle | None:
    """Who renewed since was handed the CAs of that day, and so the one made then."""
    old = [
        each
        for each in facts.certificates
        if not is_instances(each)
        and each.superseded_by is None
        and each.issued_at < made + SETTLING
    ]
    if not old:
        return None
    return Obstacle(
        f"{len(old)} certificates of people and services came with a ca.crt that lacks the new CA: "
        "have their owners install today's (ca_bundle of GET /trust)",
        by_owner(old),
        "who has not installed it does not trust the registry any more",
        passes=False,
    )


def certificates_under(old: str, facts: Facts) -> Obstacle | None:
    """What the registry would not admit any more without this client CA."""
    found = [each for each in facts.certificates if each.issuer_id == old]
    if not found:
        return None
    end = max(each.validity.not_after for each in found)
    return Obstacle(
        f"{len(found)} valid certificates are of CA {old}, the last until {end:%Y-%m-%d %H:%M} UTC",
        by_owner(found),
        "the registry refuses these; instances get others within minutes (those that ask by "
        "themselves within two hours), people and services have to ask for theirs",
        passes=False,
    )


def instances_not_under(active: str, facts: Facts) -> Obstacle | None:
    """Running instances that have no certificate of the client CA that signs now."""
    own = [each for each in facts.certificates if is_instances(each)]
    good = {each.name for each in own if each.issuer_id == active}
    late = {each.name for each in own} & facts.running - good
    if not late:
        return None
    what = f"{len(late)} instances have no certificate of CA {active} yet"
    return Obstacle(what, shortened(sorted(late)), _UNTIL_THEY_ASK)


def people_not_under(active: str, facts: Facts) -> Obstacle | None:
    """People and services who have to ask for a certificate of the client CA that signs now."""
    found = [
        each
        for each in facts.certificates
        if not is_instances(each) and each.issuer_id != active and each.superseded_by is None
    ]
    if not found:
        return None
    what = f"{len(found)} certificates of people and services are refused: have them ask for others"
    return Obstacle(what, by_owner(found), "", passes=False)


def by_owner(certificates: Iterable[CertificateRecord]) -> Sequence[str]:
    """A line for each owner, those with the most first."""
    ends: dict[str, list[datetime]] = {}
    for each in certificates:
        ends.setdefault(each.owner, []).append(each.validity.not_after)
    most_first = sorted(ends, key=lambda owner: (-len(ends[owner]), owner))
    return shortened(
        [
            f"{o}: {len(ends[o])}, the last until {max(ends[o]):%Y-%m-%d %H:%M} UTC"
            for o in most_first
        ]
    )
