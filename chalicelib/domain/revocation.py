"""What a revocation takes with it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from chalicelib.domain.model import CertificateRecord, RevocationReason, Status


def falls_with(
    record: CertificateRecord,
    siblings: Iterable[CertificateRecord],
    line: Iterable[CertificateRecord],
    reason: RevocationReason,
) -> list[CertificateRecord]:
    """What must be revoked with *record*: each once, standing or not.

    siblings: the other certificates of its key. line: those that it renews and that renew it,
    where an admin takes it back; where its owner does, none.

    Who lost a key lost every certificate of it; so older ones go, which whoever has the key may
    still have. A newer one stays: who renews and then revokes what was renewed is tidying up. A key
    said to be compromised takes all of its certificates with it. An admin who takes a certificate
    back means what it stands for, under whatever key that lives on. Being superseded says nothing
    about either.
    """
    if reason is RevocationReason.SUPERSEDED:
        return []
    compromised = reason is RevocationReason.KEY_COMPROMISE
    of_key = [each for each in siblings if compromised or each.issued_at <= record.issued_at]
    return list({each.serial: each for each in (*of_key, *line)}.values())


def retires_key(
    reason: RevocationReason,
    siblings: Iterable[CertificateRecord],
    falling: Iterable[CertificateRecord],
    now: datetime,
) -> bool:
    """Whether the key itself is refused from now on: when no certificate of it stands any more."""
    if reason is RevocationReason.SUPERSEDED:
        return False
    fallen = {record.serial for record in falling}
    return not any(
        sibling.status(now) is Status.ACTIVE and sibling.serial not in fallen
        for sibling in siblings
    )
