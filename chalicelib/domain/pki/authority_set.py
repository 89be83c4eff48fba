"""Which authorities of one kind there are, and which of them signs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chalicelib.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class AuthoritySet:
    """One kind's authorities: *active* signs, all of them are trusted. id to certificate PEM.

    Oldest first: a rotation adds the new one at the end, then makes it active, then drops the old
    one. Raises Misconfigured when the active one is not among them.
    """

    active: str
    certificates: dict[str, str]

    def __post_init__(self) -> None:
        if self.active not in self.certificates:
            raise _malformed()

    @property
    def ids(self) -> Sequence[str]:
        """The active one, then the others: who reads the first knows which one signs."""
        return [self.active, *(id_ for id_ in self.certificates if id_ != self.active)]

    @property
    def former(self) -> Sequence[str]:
        """Those that signed before, and are trusted until nothing lives under them."""
        known = list(self.certificates)
        return known[: known.index(self.active)]

    @property
    def pending(self) -> Sequence[str]:
        """Those that are to sign once everybody trusts them."""
        known = list(self.certificates)
        return known[known.index(self.active) + 1 :]

    def with_trusted(self, authority_id: str, certificate_pem: str) -> AuthoritySet:
        """The same with one more, that does not sign yet."""
        certificates = {**self.certificates, authority_id: certificate_pem}
        return replace(self, certificates=certificates)

    def activated(self, authority_id: str) -> AuthoritySet:
        """The same with this one signing. Raises Misconfigured when it is not among them."""
        return replace(self, active=authority_id)

    def without(self, authority_id: str) -> AuthoritySet:
        """The same with this one not trusted any more. Raises Misconfigured for the active one."""
        kept = {id_: pem for id_, pem in self.certificates.items() if id_ != authority_id}
        return replace(self, certificates=kept)

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
            raise _malformed() from error


def _malformed() -> Misconfigured:
    return Misconfigured("unusable_authority", "a CA's parameter is malformed")
