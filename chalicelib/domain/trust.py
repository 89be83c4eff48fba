"""The trust: the public part of it all, which clients and the registry host work with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from chalicelib.errors import Misconfigured


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
        """Changes when what a client must install changes; a new CRL alone does not."""
        parts = (self.registry, self.registry_address, self.ca_bundle, self.client_ca)
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
        """What the config bucket holds of it: object key to content.

        trust.json comes last: who reads it finds the files it speaks of already there.
        """
        return {
            "trust/ca.crt": self.ca_bundle.encode(),
            "trust/client-ca.crt": self.client_ca.encode(),
            "trust/client-ca.crl": self.crl.encode(),
            "trust/trust.json": json.dumps(self.to_json(), indent=1).encode(),
        }


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
