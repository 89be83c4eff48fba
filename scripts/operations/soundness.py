"""Whether each part of a stack is there and as it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

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
    """Each part, in the order in which it is to be mended.

    A part that could not be looked at is a finding too, and the others are looked at all the same.
    """
    yield from _tried("KMS key", lambda: _key(aws, outputs))
    for name, table in tables.items():
        yield from _tried(f"table {name}", partial(_table, name, table))
    for name, bucket in buckets.items():
        yield from _tried(f"{name} bucket", partial(_bucket, name, bucket))
    for kind in AuthorityKind:
        yield from _tried(f"{kind} CA", partial(_authorities, aws, outputs, kind))
    yield from _tried("Slack webhook", lambda: _webhook(aws, outputs))
    yield from _tried("published trust", lambda: _trust(aws, outputs))
    yield from _tried("revocations", lambda: _revocations(aws, outputs, tables))


def _tried(part: str, look_at: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What comes of a look; when it failed, that it did."""
    try:
        yield from look_at()
    except (ClientError, AppError, CommandError) as error:
        yield Finding(part, False, f"not known, as it could not be looked at: {_why(error)}")


def _why(error: BaseException) -> str:
    """AWS's word for it, where that is what it comes from."""
    of = error if isinstance(error, ClientError) else error.__cause__
    if isinstance(of, ClientError):
        return f"{of.operation_name} answered {error_code(of)}"
    return str(error)


def _key(aws: boto3.Session, outputs: Mapping[str, str]) -> Iterator[Finding]:
    kms, arn = aws.client("kms"), outputs["KeyArn"]
    try:
        found = kms.describe_key(KeyId=arn)["KeyMetadata"]
    except ClientError as error:
        if error_code(error) != "NotFoundException":
            raise
        yield Finding("KMS key", False, "it is gone for good: docs/recovery.md, KMS key")
        return
    state = found["KeyState"]
    if state == "PendingDeletion":
        mend = f"aws kms cancel-key-deletion --key-id {arn} && aws kms enable-key --key-id {arn}"
        yield Finding("KMS key", False, "it is to be deleted: nothing can be read", mend)
    elif state != "Enabled":
        yield Finding("KMS key", False, f"it is {state}", f"aws kms enable-key --key-id {arn}")
    else:
        yield Finding("KMS key", True, "enabled")


def _table(name: str, table: Table) -> Iterator[Finding]:
    part, mend = f"table {name}", _RECOVER.format(f"table {name}")
    found = table.description()
    if found is None:
        newest = next(iter(table.backups()), None)
        backup_of = newest and f"its newest backup is of {newest['BackupCreationDateTime']:%F %T}"
        yield Finding(part, False, f"deleted; {backup_of or 'there is no backup (--empty)'}", mend)
        return
    if found["TableStatus"] != "ACTIVE":
        mends = mend if found["TableStatus"] == "DELETING" else ""
        yield Finding(part, False, f"it is {found['TableStatus']}", mends)
    elif lacking := table.lacking(found):
        yield Finding(part, False, f"there, without {', '.join(lacking)}", mend)
    else:
        yield Finding(part, True, f"there, about {found.get('ItemCount', 0)} items")


def _bucket(name: str, bucket: Bucket) -> Iterator[Finding]:
    part, mend = f"{name} bucket", _RECOVER.format(f"bucket {name}")
    try:
        if not bucket.there():
            yield Finding(part, False, "deleted", mend)
            return
    except CommandError as error:
        yield Finding(part, False, str(error))
        return
    if lacking := bucket.lacking():
        yield Finding(part, False, f"there, without the stack's {', '.join(lacking)}", mend)
    else:
        yield Finding(part, True, "there, with its settings")


def _authorities(
    aws: boto3.Session, outputs: Mapping[str, str], kind: AuthorityKind
) -> Iterator[Finding]:
    there, part = backup.look(aws, outputs, kind), f"{kind} CA"
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


def _webhook(aws: boto3.Session, outputs: Mapping[str, str]) -> Iterator[Finding]:
    """A stack may do without."""
    name = f"{outputs['ParameterPrefix']}slack-webhook"
    answer = aws.client("ssm").get_parameters(Names=[name])
    mend = "scripts/deploy --stage STAGE --slack-webhook-file FILE"
    if answer["Parameters"]:
        yield Finding("Slack webhook", True, "there")
    else:
        yield Finding("Slack webhook", True, "there is none; if there was one:", mend)


def _read_published(aws: boto3.Session, outputs: Mapping[str, str]) -> PublishedTrust:
    return ConfigBucket(aws.client("s3"), outputs["ConfigBucket"]).published()


def _trust(aws: boto3.Session, outputs: Mapping[str, str]) -> Iterator[Finding]:
    try:
        yield _judged(_read_published(aws, outputs))
    except AppError as error:
        mend = "scripts/ca publish --stage STAGE"
        yield Finding("published trust", False, f"it cannot be read: {_why(error)}", mend)


def _judged(published: PublishedTrust) -> Finding:
    part, mend = "published trust", "scripts/ca publish --stage STAGE"
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
    aws: boto3.Session, outputs: Mapping[str, str], tables: Mapping[str, Table]
) -> Iterator[Finding]:
    """Nothing while a table is missing, which is told of the table."""
    if not all(table.there() for table in tables.values()):
        return
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
    try:
        unlisted = _unlisted(_read_published(aws, outputs), records)
    except AppError:
        unlisted = []  # the look at the published trust has told it
    if unlisted:
        said = f"{len(unlisted)} are not on the published list: {', '.join(unlisted[:5])}"
        yield Finding(part, False, said, "scripts/ca publish --stage STAGE")
    if not found.any and not unlisted:
        revoked = sum(record.revoked_at is not None for record in records.values())
        yield Finding(part, True, f"{len(records)} certificates, {revoked} of them revoked")


def _unlisted(published: PublishedTrust, records: Mapping[str, CertificateRecord]) -> list[str]:
    """Serials that are revoked, have not ended, and stand on no published list of their CA."""
    if published.trust is None:
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
