"""Whether each part of a stack is there and as it should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import boto3
from botocore.exceptions import ClientError
from cryptography import x509

from chalicelib.adapters.bucket import ConfigBucket
from chalicelib.domain.model import CertificateRecord
from chalicelib.domain.pki import crl
from chalicelib.domain.pki.authorities import AuthorityKind, authority_id
from chalicelib.domain.trust import TRUST_KEYS, PublishedTrust
from chalicelib.errors import AppError
from operations import backup, recovered_state
from operations.backup import There
from operations.cloud import CommandError, error_code
from operations.recovered_buckets import Bucket
from operations.recovered_tables import Table
from operations.state_rows import losses

_RESTORE = "scripts/ca restore --stage STAGE --from FILE --passphrase-file F"
_RECOVER = "scripts/recover {} --stage STAGE"


@dataclass(frozen=True, slots=True)
class Finding:
    """command: what mends it; empty when it is sound, or nothing does. STAGE stands for it."""

    part: str
    sound: bool
    said: str
    command: str = ""


def look(
    aws: boto3.Session,
    outputs: Mapping[str, str],
    tables: Mapping[str, Table],
    buckets: Mapping[str, Bucket],
) -> Iterator[Finding]:
    """Each part, in the order in which it is to be mended."""
    yield _key(aws, outputs)
    for name, table in tables.items():
        yield from _table(name, table)
    for name, bucket in buckets.items():
        yield _bucket(name, bucket)
    for kind in AuthorityKind:
        yield from _authorities(backup.look(aws, outputs, kind))
    yield _webhook(aws, outputs)
    published = _read_published(aws, outputs)
    yield _trust(published)
    if all(table.description() is not None for table in tables.values()):
        yield from _revocations(aws, outputs, published)


def _key(aws: boto3.Session, outputs: Mapping[str, str]) -> Finding:
    kms, arn = aws.client("kms"), outputs["KeyArn"]
    try:
        found = kms.describe_key(KeyId=arn)["KeyMetadata"]
    except ClientError as error:
        if error_code(error) != "NotFoundException":
            raise
        return Finding("KMS key", False, "it is gone for good: docs/recovery.md, KMS key")
    state = found["KeyState"]
    if state == "PendingDeletion":
        mend = f"aws kms cancel-key-deletion --key-id {arn} && aws kms enable-key --key-id {arn}"
        return Finding("KMS key", False, "it is to be deleted: nothing can be read", mend)
    if state != "Enabled":
        return Finding("KMS key", False, f"it is {state}", f"aws kms enable-key --key-id {arn}")
    return Finding("KMS key", True, "enabled")


def _table(name: str, table: Table) -> Iterator[Finding]:
    part, mend = f"table {name}", _RECOVER.format(f"table {name}")
    found = table.description()
    if found is None:
        newest = next(iter(table.backups()), None)
        backup_of = newest and f"its newest backup is of {newest['BackupCreationDateTime']:%F %T}"
        yield Finding(part, False, f"deleted; {backup_of or 'there is no backup (--empty)'}", mend)
        return
    lacking = table.lacking(found)
    if found["TableStatus"] != "ACTIVE":
        yield Finding(part, False, f"it is {found['TableStatus']}")
    elif lacking:
        yield Finding(part, False, f"there, without {', '.join(lacking)}", mend)
    else:
        yield Finding(part, True, f"there, about {found.get('ItemCount', 0)} items")


def _bucket(name: str, bucket: Bucket) -> Finding:
    part, mend = f"{name} bucket", _RECOVER.format(f"bucket {name}")
    try:
        if not bucket.there():
            return Finding(part, False, "deleted", mend)
    except CommandError as error:
        return Finding(part, False, str(error))
    lacking = bucket.lacking()
    if lacking:
        return Finding(part, False, f"there, without the stack's {', '.join(lacking)}", mend)
    return Finding(part, True, "there, with its settings")


def _authorities(there: There) -> Iterator[Finding]:
    part = f"{there.kind} CA"
    if there.known is None:
        how = "damaged" if there.damaged else "missing"
        yield Finding(part, False, f"its parameter is {how}", "scripts/ca restore --stage STAGE")
        return
    for id_, pem in there.known.certificates.items():
        signs = "signs" if id_ == there.known.active else "trusted"
        if backup.key_of(there, id_, pem) is not None:
            yield Finding(part, True, f"{id_} {signs}, with its key")
        elif backup.needs_key(there.kind, there.known, id_):
            yield Finding(part, False, f"{id_} {signs}, its key cannot be read", _RESTORE)
        else:
            yield Finding(part, True, f"{id_} {signs}, without a key, which it does not need")


def _webhook(aws: boto3.Session, outputs: Mapping[str, str]) -> Finding:
    """A stack may do without."""
    name = f"{outputs['ParameterPrefix']}slack-webhook"
    answer = aws.client("ssm").get_parameters(Names=[name])
    mend = "scripts/deploy --stage STAGE --slack-webhook-file FILE"
    if answer["Parameters"]:
        return Finding("Slack webhook", True, "there")
    return Finding("Slack webhook", True, "there is none; if there was one:", mend)


def _read_published(aws: boto3.Session, outputs: Mapping[str, str]) -> PublishedTrust | None:
    try:
        return ConfigBucket(aws.client("s3"), outputs["ConfigBucket"]).published()
    except AppError:
        return None


def _trust(published: PublishedTrust | None) -> Finding:
    part, mend = "published trust", "scripts/ca publish --stage STAGE"
    if published is None:
        return Finding(part, False, "it cannot be read", mend)
    missing = [key for key in TRUST_KEYS if key not in published.versions]
    if missing or published.trust is None:
        return Finding(part, False, f"missing or damaged: {', '.join(missing) or 'trust'}", mend)
    if not published.whole:
        return Finding(part, False, "its parts are not of one publication", mend)
    lists = crl.readable_lists(published.trust.crl)
    for ca in x509.load_pem_x509_certificates(published.trust.client_ca.encode()):
        if not any(each.signed_by(ca) and each.current(_now()) for each in lists):
            return Finding(part, False, f"client CA {authority_id(ca)} has no list in force", mend)
    until = min(each.next_update for each in lists)
    return Finding(part, True, f"CRL number {published.number}, in force until {until:%F %T}Z")


def _revocations(
    aws: boto3.Session, outputs: Mapping[str, str], published: PublishedTrust | None
) -> Iterator[Finding]:
    part, mend = "revocations", _RECOVER.format("revocations")
    gathered = recovered_state.gather(aws, outputs)
    records = gathered.evidence.records
    found = losses(gathered.evidence, _now())
    if found.any:
        parts = (
            found.entries,
            found.marks,
            found.keys,
            found.retired,
            found.standing,
            found.stale,
        )
        names = ("entries", "marks", "keys", "refused keys", "places", "freed places")
        lost = [f"{len(each)} {name}" for each, name in zip(parts, names, strict=True) if each]
        yield Finding(part, False, f"lost: {', '.join(lost) or 'the CRL number'}", mend)
    if gathered.unreadable:
        some = ", ".join(gathered.unreadable[:5])
        yield Finding("records", False, f"{len(gathered.unreadable)} are damaged: {some}")
    unlisted = _unlisted(published, records)
    if unlisted:
        said = f"{len(unlisted)} are not on the published list: {', '.join(unlisted[:5])}"
        yield Finding(part, False, said, "scripts/ca publish --stage STAGE")
    if not found.any and not unlisted:
        revoked = sum(record.revoked_at is not None for record in records.values())
        yield Finding(part, True, f"{len(records)} certificates, {revoked} of them revoked")


def _unlisted(
    published: PublishedTrust | None, records: Mapping[str, CertificateRecord]
) -> list[str]:
    """Serials that are revoked, have not ended, and stand on no published list of their CA."""
    if published is None or published.trust is None:
        return []
    cas = x509.load_pem_x509_certificates(published.trust.client_ca.encode())
    trusted = {authority_id(ca) for ca in cas}
    lists = crl.readable_lists(published.trust.crl)
    shown = {one.serial for each in lists for one in each.others_than(frozenset())}
    return [
        serial
        for serial, record in records.items()
        if record.revoked_at is not None
        and record.access is not None
        and record.issuer_id in trusted
        and record.validity.not_after >= _now()
        and int(serial, 16) not in shown
    ]


def _now() -> datetime:
    return datetime.now(UTC)
