"""The parameters that hold the CAs: change them so that no other operator's change is lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
from botocore.exceptions import ClientError

from chalicelib.adapters.parameters import authority_set_name, key_name
from chalicelib.domain.pki import keys
from chalicelib.domain.pki.authorities import Authority, AuthorityKind
from chalicelib.domain.pki.authority_set import AuthoritySet
from operations.cloud import CommandError, error_code


@dataclass(frozen=True, slots=True)
class StoredSet:
    """One kind's CAs, as SSM has them. version: SSM's, one more with each write."""

    known: AuthoritySet
    version: int
    changed_at: datetime


class CaParameters:
    """Those of one stack and kind."""

    def __init__(self, aws: boto3.Session, outputs: dict[str, str], kind: AuthorityKind) -> None:
        self._ssm: Any = aws.client("ssm")
        self._prefix = outputs["ParameterPrefix"]
        self._key_arn = outputs["KeyArn"]
        self._kind = kind
        self._name = authority_set_name(self._prefix, kind)

    def read(self) -> StoredSet:
        """Raises CommandError when there is none."""
        try:
            found = self._ssm.get_parameter(Name=self._name)["Parameter"]
        except ClientError as error:
            if error_code(error) == "ParameterNotFound":
                raise CommandError(f"there is no {self._kind} CA: run scripts/ca init") from error
            raise
        known = AuthoritySet.from_json(found["Value"])
        return StoredSet(known, found["Version"], found["LastModifiedDate"])

    def replace(self, stored: StoredSet, by: AuthoritySet) -> None:
        """Write *by* in place of *stored*, which was read last.

        SSM writes over whatever was written meanwhile, but says which version it made of it: when
        one in between is another's, that is put back, unless it was written over since. One in
        between may be ours, too: a request whose answer is lost is sent again. Raises CommandError.
        """
        made = self._put(by)
        between = [self._at(version) for version in range(stored.version + 1, made)]
        others = [known for known in between if known != by]
        if not others:
            return
        if self.read().version == made:
            self._put(others[-1])
        raise CommandError(
            f"another operator changed the {self._kind} CAs at this very moment; that stands, and "
            "nothing of this command does: look with scripts/ca show, then decide"
        )

    def expect(self, known: AuthoritySet) -> None:
        """Raises CommandError when the CAs are others by now: somebody else is at work on them."""
        if self.read().known != known:
            raise CommandError(
                f"another operator changed the {self._kind} CAs meanwhile: look with "
                "scripts/ca show, then decide"
            )

    def add_key(self, authority: Authority) -> None:
        """Keep its key, if it is not kept already."""
        try:
            self._ssm.put_parameter(
                Name=self.key_parameter(authority.id),
                Value=keys.private_key_pem(authority.key).decode(),
                Type="SecureString",
                KeyId=self._key_arn,
                Tier="Intelligent-Tiering",
                Overwrite=False,
            )
        except ClientError as error:
            if error_code(error) != "ParameterAlreadyExists":
                raise

    def delete_key(self, authority_id: str) -> None:
        """Have its key gone, whether it was there or not."""
        try:
            self._ssm.delete_parameter(Name=self.key_parameter(authority_id))
        except ClientError as error:
            if error_code(error) != "ParameterNotFound":
                raise

    def key_parameter(self, authority_id: str) -> str:
        """The name of the parameter that holds its key."""
        return key_name(self._prefix, self._kind, authority_id)

    def has_key(self, authority_id: str) -> bool:
        """Whether its key is there."""
        try:
            self._ssm.get_parameter(Name=self.key_parameter(authority_id))  # encrypted, as it is
        except ClientError as error:
            if error_code(error) == "ParameterNotFound":
                return False
            raise
        return True

    def left_keys(self, known: AuthoritySet, before: datetime | None = None) -> Sequence[str]:
        """Ids of CAs that are not trusted any more, or never were, whose key is still there.

        before: only of keys that were written by then.
        """
        path = self.key_parameter("")
        pages = self._ssm.get_paginator("describe_parameters").paginate(
            ParameterFilters=[{"Key": "Name", "Option": "BeginsWith", "Values": [path]}]
        )
        names = [
            each["Name"]
            for page in pages
            for each in page["Parameters"]
            if before is None or each["LastModifiedDate"] < before
        ]
        ids = [name.removeprefix(path) for name in names if name.startswith(path)]
        return sorted(set(ids) - known.certificates.keys())

    def _at(self, version: int) -> AuthoritySet:
        """What was written as that version; who reads at once may not find it yet."""
        for pause in (0.2, 0.5, 1.0, 2.0, None):
            try:
                found = self._ssm.get_parameter(Name=f"{self._name}:{version}")["Parameter"]
                return AuthoritySet.from_json(found["Value"])
            except ClientError as error:
                if error_code(error) != "ParameterVersionNotFound" or pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _put(self, known: AuthoritySet) -> int:
        answer = self._ssm.put_parameter(
            Name=self._name,
            Value=known.to_json(),
            Type="String",
            Tier="Intelligent-Tiering",
            Overwrite=True,
        )
        return int(answer["Version"])
