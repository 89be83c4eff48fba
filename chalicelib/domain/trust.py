"""The trust: the public part of it all, which clients and the registry host work with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from chalicelib.errors import Misconfigured

# In the order of writing. The lists come first: they alone differ each time, so of those that
# publish at once all but one are stopped there, before they have written anything. The document
# comes last: who reads it finds the files it speaks of already there.
TRUST_DOCUMENT = "trust/trust.json"
TRUST_LISTS = "trust/client-ca.crl"
TRUST_KEYS = (TRUST_LISTS, "trust/ca.crt", "trust/client-ca.crt", TRUST_DOCUMENT)


@dataclass(frozen=True, slots=True)
class Trust:
    """registry: host or host:port. registry_address: for hosts whose DNS lacks it, else "".

    ca_bundle: server CAs; client_ca: client CAs; crl: one list per client CA. All PEM.
    crl_number: the greatest in *crl*.
    """

    registry: str
    registry_address: str
    ca_bundle: str
    client_ca: str
    crl: str
    crl_number: int

    @property
    def version(self) -> str:
        """Changes when what a client must install changes; a new CRL alone does not, nor does
        another of the same CAs that signs now, which comes first."""
        authorities = (_in_any_order(pem) for pem in (self.ca_bundle, self.client_ca))
        parts = (self.registry, self.registry_address, *authorities)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, str | int]:
        """As GET /trust answers it."""
        return {**asdict(self), "version": self.version}

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Trust:
        """From what to_json() gave. Raises Misconfigured when parts are missing."""
        try:
            return cls(
                **{name: str(document[name]) for name in _TEXTS},
                crl_number=int(str(document["crl_number"])),
            )
        except (KeyError, ValueError) as error:
            raise Misconfigured("no_trust", "the published trust is incomplete") from error

    def objects(self) -> dict[str, bytes]:
        """What the config bucket holds of it: object key to content, in the order of TRUST_KEYS."""
        document = json.dumps(self.to_json(), indent=1)
        texts = (self.crl, self.ca_bundle, self.client_ca, document)
        return {key: text.encode() for key, text in zip(TRUST_KEYS, texts, strict=True)}


def _in_any_order(pem: str) -> str:
    """The same for the same certificates; *pem* itself where there is one."""
    return "".join(sorted(re.findall(rf".*?(?:{_END_OF_CERTIFICATE}\n|\Z)", pem, re.DOTALL)))


@dataclass(frozen=True, slots=True)
class PublishedTrust:
    """The trust as it stands in the bucket; None where there is none, or none that can be read.

    versions: object key to entity tag, for each of the objects that are there.
    number: the greatest CRL number of any of them; 0 without.
    whole: all objects are of one publication, so nobody was interrupted or overtaken while
    writing them.
    crl: every published list that can be found; those of *trust*, and where that may not be all
    of them those that lie by themselves, too.
    """

    trust: Trust | None
    versions: Mapping[str, str]
    number: int
    whole: bool
    crl: str = ""


_END_OF_CERTIFICATE = "-----END CERTIFICATE-----"
_TEXTS = ("registry", "registry_address", "ca_bundle", "client_ca", "crl")


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """Where the registry is: *host* without, *name* with the port unless that is 443."""

    host: str
    port: int

    @property
    def name(self) -> str:
        """As it stands in image names and in the names of certificate directories."""
        return self.host if self.port == 443 else f"{self.host}:{self.port}"
