"""The CAs, from SSM parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from cryptography import x509

from chalicelib.domain.pki.authorities import Authority, AuthorityKind, load_authority
from chalicelib.errors import DependencyFailed, Misconfigured

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient


@dataclass(frozen=True, slots=True)
class AuthoritySet:
    """One kind's authorities: *active* signs, all of them are trusted. id to certificate PEM."""

    active: str
    certificates: dict[str, str]

    def to_json(self) -> str:
        """As the parameter holds it."""
        trusted = [{"id": id_, "certificate": pem} for id_, pem in self.certificates.items()]
        return json.dumps({"active": self.active, "authorities": trusted})

    @classmethod
    def from_json(cls, text: str) -> AuthoritySet:
        """From the parameter's value. Raises Misconfigured."""
        try:
            document = json.loads(text)
            trusted = {entry["id"]: entry["certificate"] for entry in document["authorities"]}
            return cls(document["active"], trusted)
        except (ValueError, KeyError, TypeError) as error:
            raise Misconfigured("unusable_authority", "a CA's parameter is malformed") from error


def authority_set_name(prefix: str, kind: AuthorityKind) -> str:
    """The String parameter that holds an AuthoritySet."""
    return f"{prefix}{kind}-ca"


def key_name(prefix: str, kind: AuthorityKind, authority_id: str) -> str:
    """The SecureString parameter that holds one authority's key, PKCS#8 PEM."""
    return f"{prefix}{kind}-ca-key/{authority_id}"


class ParameterAuthorities:
    """Read from SSM when first asked for, and kept for the life of the process.

    prefix: of the parameters' names, with its final slash. A key is fetched only when something
    is to be signed with it. Who publishes rereads, who only issues does not: docs/decisions/0004.
    """

    def __init__(self, ssm: SSMClient, prefix: str) -> None:
        self._ssm = ssm
        self._prefix = prefix
        self._signers: dict[str, Authority] = {}

    def reread(self) -> None:
        """Forget which CAs there are, so that they are read when next asked for. Keys stay."""
        for kept in ("_sets", "_certificates"):
            self.__dict__.pop(kept, None)

    def client(self) -> Authority:
        """The one that signs client certificates."""
        return self._active(AuthorityKind.CLIENT)

    def server(self) -> Authority:
        """The one that signs the registry's certificate."""
        return self._active(AuthorityKind.SERVER)

    def client_signers(self) -> Sequence[Authority]:
        """Every client CA the registry admits clients of: each signs its own CRL."""
        known = self._sets[AuthorityKind.CLIENT]
        return [self._signer(AuthorityKind.CLIENT, id_) for id_ in known.certificates]

    def client_certificates(self) -> Sequence[x509.Certificate]:
        """Those the registry admits clients of."""
        return self._certificates[AuthorityKind.CLIENT]

    def server_certificates(self) -> Sequence[x509.Certificate]:
        """Those clients trust the registry by."""
        return self._certificates[AuthorityKind.SERVER]

    @cached_property
    def _sets(self) -> dict[AuthorityKind, AuthoritySet]:
        """Both, in one call."""
        names = {authority_set_name(self._prefix, kind): kind for kind in AuthorityKind}
        try:
            answer = self._ssm.get_parameters(Names=list(names))
        except (ClientError, BotoCoreError) as error:
            raise DependencyFailed("authority_unreadable", "the CAs could not be read") from error
        if len(answer["Parameters"]) < len(names):
            raise _not_made()
        return {
            names[parameter["Name"]]: AuthoritySet.from_json(parameter["Value"])
            for parameter in answer["Parameters"]
        }

    @cached_property
    def _certificates(self) -> dict[AuthorityKind, tuple[x509.Certificate, ...]]:
        return {
            kind: tuple(
                x509.load_pem_x509_certificate(pem.encode()) for pem in known.certificates.values()
            )
            for kind, known in self._sets.items()
        }

    def _active(self, kind: AuthorityKind) -> Authority:
        return self._signer(kind, self._sets[kind].active)

    def _signer(self, kind: AuthorityKind, id_: str) -> Authority:
        if id_ not in self._signers:
            self._signers[id_] = load_authority(
                self._sets[kind].certificates[id_], self._key(kind, id_)
            )
        return self._signers[id_]

    def _key(self, kind: AuthorityKind, id_: str) -> str:
        name = key_name(self._prefix, kind, id_)
        try:
            answer = self._ssm.get_parameter(Name=name, WithDecryption=True)
        except self._ssm.exceptions.ParameterNotFound as error:
            raise _not_made() from error
        except (ClientError, BotoCoreError) as error:
            raise DependencyFailed("authority_unreadable", "the CAs could not be read") from error
        return answer["Parameter"]["Value"]


def _not_made() -> Misconfigured:
    return Misconfigured("no_authority", "there is no CA yet; the operator runs scripts/ca init")
