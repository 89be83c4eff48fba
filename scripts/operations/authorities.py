"""Make the CAs of a deployed stack, with the operator's own credentials, and read them back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography import x509

from chalicelib.adapters.parameters import authority_set_name, key_name
from chalicelib.domain.model import KeyType, Validity
from chalicelib.domain.pki import keys, leaves
from chalicelib.domain.pki.authorities import (
    Authority,
    AuthorityKind,
    make_client_authority,
    make_server_authority,
)
from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.domain.policy import BACKDATE
from operations import published
from operations.cloud import CommandError, error_code

# RSA of 2048 bits ends its recommended life within that of a CA (NIST SP 800-57 part 1, table 4).
KEY_TYPES = [t.value for t in KeyType if t is not KeyType.RSA_2048]

LIFETIME = timedelta(days=3650)

# The function may take two minutes; asked again meanwhile, it would publish twice.
_PUBLISHING = Config(read_timeout=150, retries={"total_max_attempts": 1})

# What a schedule sends (EventBridge "Scheduled Event"); chalice reads these members.
_AS_SCHEDULED = {
    "version": "0",
    "id": "scripts-ca",
    "detail-type": "Scheduled Event",
    "source": "registry-trust.operator",
    "account": "",
    "time": "",
    "region": "",
    "resources": [],
    "detail": {},
}


def read(aws: boto3.Session, outputs: dict[str, str]) -> dict[AuthorityKind, AuthoritySet]:
    """The CAs that have been made; their certificates, not their keys."""
    names = {authority_set_name(outputs["ParameterPrefix"], kind): kind for kind in AuthorityKind}
    answer = aws.client("ssm").get_parameters(Names=list(names))
    return {names[p["Name"]]: AuthoritySet.from_json(p["Value"]) for p in answer["Parameters"]}


def make_missing(aws: boto3.Session, outputs: dict[str, str], key_type: str) -> list[AuthorityKind]:
    """Make those of the two CAs that are not there yet; returns which.

    Never overwrites: a CA that is there, or comes to be there meanwhile, stays as it is.
    Raises CommandError, also for one that was there before: everybody trusts that one, and another
    in its place would lock them all out.
    """
    there = read(aws, outputs)
    missing = [kind for kind in AuthorityKind if kind not in there]
    for kind in missing:
        if published.was_there(aws, outputs, kind):
            stage = outputs["ParameterPrefix"].strip("/").rpartition("/")[2]
            raise CommandError(
                f"the {kind} CA was there, and its parameter is lost; another in its place would "
                f"lock everybody out. Put it back: scripts/ca restore --stage {stage}"
            )
    for kind in missing:
        made = make(kind, key_type, outputs["RegistryHost"])
        _store(aws, outputs, kind, made)
    return missing


def publish(aws: boto3.Session, outputs: dict[str, str]) -> None:
    """Have the stack's own function publish the trust now. Raises CommandError."""
    answer = aws.client("lambda", config=_PUBLISHING).invoke(
        FunctionName=outputs["RefreshCrlFunction"], Payload=json.dumps(_AS_SCHEDULED).encode()
    )
    if "FunctionError" in answer:
        said = json.loads(answer["Payload"].read() or b"{}")
        raise CommandError(
            f"publishing the trust failed: {said.get('errorMessage', 'no reason given')}; "
            f"the log group is {outputs['FunctionLogs']}; then run scripts/ca publish"
        )


def make(kind: AuthorityKind, key_type: str, host: str) -> Authority:
    """A new one. key_type: one of KEY_TYPES. host: the registry's, without port."""
    key = keys.make_key(KeyType(key_type))
    serial = leaves.new_serial()
    validity = Validity.starting(datetime.now(UTC), LIFETIME, BACKDATE)
    if kind is AuthorityKind.CLIENT:
        return make_client_authority(key, serial, validity)
    return make_server_authority(key, serial, validity, host)


def _store(
    aws: boto3.Session, outputs: dict[str, str], kind: AuthorityKind, authority: Authority
) -> None:
    """The key first: once the set names an authority, its key is there."""
    ssm, prefix = aws.client("ssm"), outputs["ParameterPrefix"]
    certificate = leaves.certificate_pem(authority.certificate)
    known = AuthoritySet(authority.id, {authority.id: certificate})
    try:
        ssm.put_parameter(
            Name=key_name(prefix, kind, authority.id),
            Value=keys.private_key_pem(authority.key).decode(),
            Type="SecureString",
            KeyId=outputs["KeyArn"],
            Tier="Intelligent-Tiering",
            Overwrite=False,
        )
        ssm.put_parameter(
            Name=authority_set_name(prefix, kind),
            Value=known.to_json(),
            Type="String",
            Tier="Intelligent-Tiering",
            Overwrite=False,
        )
    except ClientError as error:
        if error_code(error) == "ParameterAlreadyExists":
            raise CommandError(f"a {kind} CA was made meanwhile; it stays") from error
        raise


def describe(known: AuthoritySet, now: datetime) -> list[str]:
    """One line for each authority of a set."""
    lines = []
    for id_, pem in known.certificates.items():
        certificate = x509.load_pem_x509_certificate(pem.encode())
        end = certificate.not_valid_after_utc
        role = _role(known, id_)
        days = (end - now).days
        lines.append(f"{id_}  {role:<8} until {end:%Y-%m-%d} ({days} days)")
    return lines


def _role(known: AuthoritySet, id_: str) -> str:
    if id_ == known.active:
        return "signs"
    return "trusted, signs next" if id_ in known.pending else "trusted, signed before"
