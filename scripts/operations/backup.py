"""scripts/ca export and restore: the CAs in a file, and what is missing of them put back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from chalicelib.adapters.parameters import authority_set_name, key_name
from chalicelib.domain.pki.authorities import (
    AuthorityKind,
    authority_id,
    load_authority,
    parse_address,
)
from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.domain.pki.keys import PrivateKey, private_key_pem
from chalicelib.errors import Misconfigured
from operations import authorities, backup_file, cloud, published
from operations.backup_file import KeptAuthority, Origin
from operations.cloud import CommandError, error_code
from operations.stack import of_stage

_USES = {
    AuthorityKind.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
    AuthorityKind.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
}

# What SSM says of a SecureString whose KMS key is disabled, waits for its deletion or has gone; of
# one that has gone KMS says that it, or the permission, is missing. Writing a CA's key anew where
# it only may not be read does no harm: its name is its fingerprint, so it is the same key.
_UNREADABLE = (
    "AccessDeniedException",
    "DisabledException",
    "InvalidKeyId",
    "KMSInvalidStateException",
    "NotFoundException",
)


def declare(commands: Any) -> None:
    """Add export and restore to the subparsers of scripts/ca."""
    said = "write both CAs with their keys, encrypted, into a new file"
    command = commands.add_parser("export", help=said, description=said)
    command.add_argument("--stage", required=True, help="which deployment, e.g. prod")
    command.add_argument("--to", required=True, type=Path, metavar="FILE", help="must not exist")
    command.add_argument("--passphrase-file", required=True, type=Path, metavar="F")
    said = "put back what is missing of the CAs' parameters; what is there stays"
    command = commands.add_parser("restore", help=said, description=said)
    command.add_argument("--stage", required=True, help="which deployment, e.g. prod")
    command.add_argument("--from", dest="source", type=Path, metavar="FILE", help="of export")
    command.add_argument("--passphrase-file", type=Path, metavar="F", help="goes with --from")
    command.add_argument(
        "--trust-the-file",
        action="store_true",
        help="take the file's word for which CAs there were, when no published trust is left",
    )


def export(given: argparse.Namespace) -> None:
    """Raises CommandError, and then there is no file."""
    passphrase = backup_file.read_passphrase(given.passphrase_file)
    aws = cloud.session()
    outputs = of_stage(aws, given.stage).outputs()
    kept: list[KeptAuthority] = []
    for kind in AuthorityKind:
        there = look(aws, outputs, kind)
        if there.known is None:
            raise CommandError(f"there is no {kind} CA to export: scripts/ca init, or restore")
        kept += _kept(there, there.known)
    account = aws.client("sts").get_caller_identity()["Account"]
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    origin = Origin(given.stage, outputs["RegistryHost"], account, str(aws.region_name), now)
    text = backup_file.render(origin, kept, given.passphrase_file)
    _try(text, passphrase, kept)
    backup_file.write_new(given.to, text)
    for one in kept:
        without = "" if one.key else ", without its key"
        print(f"{one.kind:<7} {one.id}  {'signs' if one.signs else 'trusted'}{without}")
    print(f"written to {given.to}; keep it and its passphrase apart, and off this account")


def _try(text: str, passphrase: str, kept: Sequence[KeptAuthority]) -> None:
    """What cannot be read back is told today, not on the day it is needed."""
    read = {one.id: one.key for one in backup_file.read(text, passphrase)}
    for one in kept:
        found = read.get(one.id)
        if one.key and (found is None or found.public_key() != one.key.public_key()):
            raise CommandError(f"the backup would not hold the key of {one.kind} CA {one.id}")


def restore(given: argparse.Namespace) -> None:
    """Raises CommandError; what was put back until then stays, and the next run does the rest."""
    aws = cloud.session()
    outputs = of_stage(aws, given.stage).outputs()
    backup = _read_backup(given)
    found = [look(aws, outputs, kind) for kind in AuthorityKind]
    plans = [
        plan(each, [one for one in backup if one.kind is each.kind], given.trust_the_file)
        for each in found
    ]
    for each in plans:
        each.check(outputs["RegistryHost"], datetime.now(UTC))
    # Nothing is written before both kinds were found to be whole afterwards.
    for each in plans:
        _put(aws, outputs, each)
    if not any(each.changes for each in plans):
        print("nothing is missing")
    authorities.publish(aws, outputs)
    print("published the trust")


COMMANDS = {"export": export, "restore": restore}


@dataclass(frozen=True, slots=True)
class There:
    """What is there of one kind. known: None when the parameter is missing, or damaged.

    published: PEM of each, the one that signs first; empty when nothing was ever published, that is
    lost too, or it is not needed. keys: id to PEM, of each parameter that can be read; unreadable:
    of the others.
    """

    kind: AuthorityKind
    known: AuthoritySet | None
    damaged: bool
    published: Sequence[str]
    keys: Mapping[str, str]
    unreadable: frozenset[str]


def look(aws: boto3.Session, outputs: Mapping[str, str], kind: AuthorityKind) -> There:
    """What is there of this kind of CA."""
    ssm, prefix = aws.client("ssm"), outputs["ParameterPrefix"]
    known, damaged = _known(ssm, authority_set_name(prefix, kind))
    shown = () if known else published.certificates(aws.client("s3"), outputs, kind)
    keys, unreadable = _keys(ssm, prefix, kind)
    return There(kind, known, damaged, shown, keys, unreadable)


def _known(ssm: Any, name: str) -> tuple[AuthoritySet | None, bool]:
    try:
        value = ssm.get_parameter(Name=name)["Parameter"]["Value"]
        return AuthoritySet.from_json(value), False
    except ssm.exceptions.ParameterNotFound:
        return None, False
    except Misconfigured:
        return None, True


def _keys(ssm: Any, prefix: str, kind: AuthorityKind) -> tuple[dict[str, str], frozenset[str]]:
    path = key_name(prefix, kind, "").rstrip("/")
    pages = ssm.get_paginator("get_parameters_by_path").paginate(Path=path)
    names = [parameter["Name"] for page in pages for parameter in page["Parameters"]]
    keys, unreadable = dict[str, str](), set[str]()
    for name in names:
        id_ = name.rpartition("/")[2]
        try:
            answer = ssm.get_parameter(Name=name, WithDecryption=True)
            keys[id_] = answer["Parameter"]["Value"]
        except ClientError as error:
            if error_code(error) not in _UNREADABLE:
                raise
            unreadable.add(id_)
    return keys, frozenset(unreadable)


def _kept(there: There, known: AuthoritySet) -> list[KeptAuthority]:
    """All of a set for a backup. Raises CommandError when a key that is needed is not there."""
    kept = []
    for id_, pem in known.certificates.items():
        key = key_of(there, id_, pem)
        if key is None and needs_key(there.kind, known, id_):
            raise CommandError(
                f"the key of {there.kind} CA {id_} is not there, or not readable: "
                "scripts/recover check says what is wrong"
            )
        kept.append(KeptAuthority(there.kind, id_ == known.active, pem, key))
    return kept


def needs_key(kind: AuthorityKind, known: AuthoritySet, id_: str) -> bool:
    """A client CA signs its list for as long as it is trusted; an old server CA signs nothing."""
    return kind is AuthorityKind.CLIENT or id_ == known.active or id_ in known.pending


def key_of(there: There, id_: str, certificate_pem: str) -> PrivateKey | None:
    """The key of its parameter, if that is the certificate's."""
    if id_ not in there.keys:
        return None
    try:
        return load_authority(certificate_pem, there.keys[id_]).key
    except Misconfigured:
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to put back of one kind. known: the set as it is to be afterwards.

    put_set: it is not there, or damaged (then replace_set). keys: those to put back, replacing
    what is there under those ids in *replaced*.
    """

    kind: AuthorityKind
    known: AuthoritySet
    put_set: bool
    replace_set: bool
    keys: Mapping[str, PrivateKey] = field(repr=False)
    replaced: frozenset[str]

    @property
    def changes(self) -> bool:
        """Whether anything is to be put back."""
        return self.put_set or bool(self.keys)

    def check(self, host: str, now: datetime) -> None:
        """Raises CommandError unless each CA is one of this kind, for this registry."""
        for id_, pem in self.known.certificates.items():
            _check(self.kind, id_, x509.load_pem_x509_certificate(pem.encode()), host)
        active = x509.load_pem_x509_certificate(self.known.certificates[self.known.active].encode())
        if now > active.not_valid_after_utc:
            raise CommandError(f"the {self.kind} CA {self.known.active} has expired: rotate it")


def plan(there: There, backup: Sequence[KeptAuthority], trust_the_file: bool) -> Plan:
    """What is to be put back. Raises CommandError when it cannot be whole afterwards.

    The published trust says which CAs there are, and the first of them signs. A backup gives keys
    alone: an older one lacks what a rotation brought, and has what was retired or distrusted since,
    which must not be trusted again.
    """
    known = there.known or _lost_set(there, backup, trust_the_file)
    kept = {one.id: one for one in backup}
    keys, replaced = dict[str, PrivateKey](), set[str]()
    for id_, pem in known.certificates.items():
        if key_of(there, id_, pem) is not None:
            continue
        if id_ in there.keys and _is_key(there.keys[id_]):
            raise CommandError(
                f"the parameter of {there.kind} CA {id_} holds another key: find out why, delete "
                "it, and run this again"
            )
        one = kept.get(id_)
        if one is not None and one.key is not None:
            keys[id_] = one.key
            replaced |= {id_} & (there.unreadable | there.keys.keys())
        elif needs_key(there.kind, known, id_):
            raise CommandError(_no_key(there.kind, known, id_, bool(backup)))
    put_set = there.known is None
    return Plan(there.kind, known, put_set, there.damaged, keys, frozenset(replaced))


def _lost_set(there: There, backup: Sequence[KeptAuthority], trust_the_file: bool) -> AuthoritySet:
    if there.published:
        pems = list(there.published)
    elif not backup:
        raise CommandError(
            f"the {there.kind} CA's parameter is lost, and so is the published trust: a backup is "
            "needed (--from). Without one: scripts/ca init, and everybody enrols again"
        )
    elif not trust_the_file:
        raise CommandError(
            "no published trust is left to say which CAs there were. If none was rotated, retired "
            "or distrusted since the backup was made, add --trust-the-file"
        )
    else:
        pems = [one.certificate_pem for one in sorted(backup, key=lambda one: not one.signs)]
    parsed = [x509.load_pem_x509_certificate(pem.encode()) for pem in pems]
    active = authority_id(parsed[0])
    # A set is in the order of age, which says what is yet to sign and what did before.
    oldest_first = sorted(
        zip(parsed, pems, strict=True), key=lambda one: one[0].not_valid_before_utc
    )
    return AuthoritySet(active, {authority_id(one): pem for one, pem in oldest_first})


def _is_key(text: str) -> bool:
    return "PRIVATE KEY-----" in text


def _no_key(kind: AuthorityKind, known: AuthoritySet, id_: str, looked: bool) -> str:
    where = "nor in the backup" if looked else "and there is no backup to look in (--from)"
    if id_ in known.pending:
        way = f"scripts/ca retire {kind} --abandon takes this CA back, which has signed nothing yet"
    elif id_ in known.former:
        way = f"scripts/ca retire {kind} --force drops this CA; only its holders have to ask again"
    elif kind is AuthorityKind.CLIENT:
        way = "scripts/ca distrust client makes another, and every client enrols again"
    else:
        way = "scripts/ca rotate server makes another, and nobody is locked out"
    return f"the key of {kind} CA {id_} is not there, {where}; if it is lost, {way}"


def _check(kind: AuthorityKind, id_: str, ca: x509.Certificate, host: str) -> None:
    """Raises CommandError unless it is a CA that we would have made."""
    try:
        ca.verify_directly_issued_by(ca)
        uses = list(ca.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        is_ca = ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, InvalidSignature, TypeError, ValueError) as error:
        raise CommandError(f"{id_} is not a {kind} CA of ours") from error
    if authority_id(ca) != id_ or uses != [_USES[kind]] or not is_ca:
        raise CommandError(f"{id_} is not a {kind} CA of ours")
    if kind is AuthorityKind.SERVER and not _permits(ca, host):
        raise CommandError(f"server CA {id_} is for another registry than {host}")


def _permits(ca: x509.Certificate, host: str) -> bool:
    try:
        found = ca.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return False
    permitted, address = found.permitted_subtrees or [], parse_address(host)
    if address is None:
        names = [name.value for name in permitted if isinstance(name, x509.DNSName)]
        return any(host == name or host.endswith(f".{name}") for name in names)
    values = [name.value for name in permitted if isinstance(name, x509.IPAddress)]
    networks = [value for value in values if isinstance(value, (IPv4Network, IPv6Network))]
    return any(address in network for network in networks)


def _put(aws: boto3.Session, outputs: Mapping[str, str], each: Plan) -> None:
    """The keys first: once the set names an authority, its key is there."""
    ssm, prefix = aws.client("ssm"), outputs["ParameterPrefix"]
    try:
        for id_, key in each.keys.items():
            ssm.put_parameter(
                Name=key_name(prefix, each.kind, id_),
                Value=private_key_pem(key).decode(),
                Type="SecureString",
                KeyId=outputs["KeyArn"],
                Tier="Intelligent-Tiering",
                Overwrite=id_ in each.replaced,
            )
            print(f"{each.kind:<7} {id_}  key put back")
        if each.put_set:
            ssm.put_parameter(
                Name=authority_set_name(prefix, each.kind),
                Value=each.known.to_json(),
                Type="String",
                Tier="Intelligent-Tiering",
                Overwrite=each.replace_set,
            )
            for id_ in each.known.certificates:
                signs = "signs" if id_ == each.known.active else "trusted"
                print(f"{each.kind:<7} {id_}  put back, {signs}")
    except ClientError as error:
        if error_code(error) == "ParameterAlreadyExists":
            raise CommandError(
                f"a {each.kind} CA was put back meanwhile; look, run again"
            ) from error
        raise


def _read_backup(given: argparse.Namespace) -> list[KeptAuthority]:
    if given.source is None:
        return []
    if given.passphrase_file is None:
        raise CommandError("--from needs --passphrase-file")
    passphrase = backup_file.read_passphrase(given.passphrase_file)
    try:
        text = given.source.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {given.source}") from error
    return backup_file.read(text, passphrase)
