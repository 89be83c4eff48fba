"""The CAs, from SSM parameters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from cryptography import x509

from chalicelib.domain.pki.authorities import Authority, AuthorityKind, load_authority
from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.errors import DependencyFailed, Misconfigured

if TYPE_CHECKING:
    from mypy_boto3_ssm import SSMClient

log = logging.getLogger(__name__)

# A change of the CAs is known to every process this much later: scripts/ca waits for it.
AUTHORITIES_KEPT = timedelta(minutes=1)


def authority_set_name(prefix: str, kind: AuthorityKind) -> str:
    """The String parameter that holds an AuthoritySet."""
    return f"{prefix}{kind}-ca"


def key_name(prefix: str, kind: AuthorityKind, authority_id: str) -> str:
    """The SecureString parameter that holds one authority's key, PKCS#8 PEM."""
    return f"{prefix}{kind}-ca-key/{authority_id}"


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read of both kinds, and until when it is taken for true."""

    sets: Mapping[AuthorityKind, AuthoritySet]
    certificates: Mapping[AuthorityKind, Sequence[x509.Certificate]]
    until: datetime


class ParameterAuthorities:
    """Read from SSM when first asked for, and again once what was read is AUTHORITIES_KEPT old.

    prefix: of the parameters' names, with its final slash. A key is fetched only when something
    is to be signed with it, and once. Who publishes rereads: docs/decisions/0004.
    """

    def __init__(self, ssm: SSMClient, prefix: str, now: Callable[[], datetime]) -> None:
        self._ssm = ssm
        self._prefix = prefix
        self._now = now
        self._known: _Known | None = None
        self._signers: dict[tuple[AuthorityKind, str], Authority] = {}

    def reread(self) -> None:
        """Read which CAs there are. Keys stay. Raises DependencyFailed, Misconfigured; then what
        was known before is known on."""
        self._known = self._read()

    def client(self) -> Authority:
        """The one that signs client certificates."""
        return self._active(AuthorityKind.CLIENT)

    def server(self) -> Authority:
        """The one that signs the registry's certificate."""
        return self._active(AuthorityKind.SERVER)

    def client_signers(self) -> Sequence[Authority]:
        """Every client CA the registry admits clients of: each signs its own CRL."""
        known = self._current().sets[AuthorityKind.CLIENT]
        return [self._signer(AuthorityKind.CLIENT, id_, known) for id_ in known.ids]

    def client_certificates(self) -> Sequence[x509.Certificate]:
        """Those the registry admits clients of; the one that signs first."""
        return self._current().certificates[AuthorityKind.CLIENT]

    def server_certificates(self) -> Sequence[x509.Certificate]:
        """Those clients trust the registry by; the one that signs first."""
        return self._current().certificates[AuthorityKind.SERVER]

    def _current(self) -> _Known:
        """While SSM does not answer, what was known goes on to be."""
        if self._known is not None and self._now() < self._known.until:
            return self._known
        try:
            self._known = self._read()
        except DependencyFailed:
            if self._known is None:
                raise
            log.warning("the CAs could not be read again; going on with those known")
            self._known = replace(self._known, until=self._now() + AUTHORITIES_KEPT)
        return self._known

    def _read(self) -> _Known:
        """Both kinds, in one call."""
        names = {authority_set_name(self._prefix, kind): kind for kind in AuthorityKind}
        try:
            answer = self._ssm.get_parameters(Names=list(names))
        except (ClientError, BotoCoreError) as error:
            raise DependencyFailed("authority_unreadable", "the CAs could not be read") from error
        if len(answer["Parameters"]) < len(names):
            raise _not_made()
        sets = {
            names[parameter["Name"]]: AuthoritySet.from_json(parameter["Value"])
            for parameter in answer["Parameters"]
        }
        certificates = {kind: _certificates(known) for kind, known in sets.items()}
        return _Known(sets, certificates, self._now() + AUTHORITIES_KEPT)

    def _active(self, kind: AuthorityKind) -> Authority:
        known = self._current().sets[kind]
        return self._signer(kind, known.active, known)

    def _signer(self, kind: AuthorityKind, id_: str, known: AuthoritySet) -> Authority:
        if (kind, id_) not in self._signers:
            made = load_authority(known.certificates[id_], self._key(kind, id_))
            self._signers[kind, id_] = made
        return self._signers[kind, id_]

    def _key(self, kind: AuthorityKind, id_: str) -> str:
        name = key_name(self._prefix, kind, id_)
        try:
            answer = self._ssm.get_parameter(Name=name, WithDecryption=True)
        except self._ssm.exceptions.ParameterNotFound as error:
            raise _not_made() from error
        except (ClientError, BotoCoreError) as error:
            raise DependencyFailed("authority_unreadable", "the CAs could not be read") from error
        return answer["Parameter"]["Value"]


def _certificates(known: AuthoritySet) -> Sequence[x509.Certificate]:
    pems = (known.certificates[id_] for id_ in known.ids)
    try:
        return tuple(x509.load_pem_x509_certificate(pem.encode()) for pem in pems)
    except ValueError as error:
        raise Misconfigured("unusable_authority", "a CA's certificate cannot be read") from error


def _not_made() -> Misconfigured:
    return Misconfigured("no_authority", "there is no CA yet; the operator runs scripts/ca init")
