"""What is found of the CAs in parameters, on a real emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.adapters.parameters import authority_set_name
from chalicelib.domain.pki.authorities import AuthorityKind
from operations.backup import look
from tests.component.emulated_aws import EmulatedAws, emulated_aws
from tests.component.store.authorities import PREFIX, put_authorities

OUTPUTS = {"ParameterPrefix": PREFIX, "ConfigBucket": "config"}
CLIENT = AuthorityKind.CLIENT


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path) as running:
        put_authorities(running)
        yield running


class Refusing:
    """SSM, where a key cannot be decrypted."""

    def __init__(self, ssm: Any, code: str) -> None:
        self._ssm, self._code = ssm, code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ssm, name)

    def get_parameter(self, **given: Any) -> Any:
        if given.get("WithDecryption"):
            raise ClientError({"Error": {"Code": self._code}}, "GetParameter")
        return self._ssm.get_parameter(**given)


class Session:
    def __init__(self, aws: EmulatedAws, code: str) -> None:
        self._aws, self._code = aws, code

    def client(self, service: str) -> Any:
        client = self._aws.client(service)
        return Refusing(client, self._code) if service == "ssm" else client


def test_a_set_and_its_keys_are_found(aws: EmulatedAws) -> None:
    found = look(aws, OUTPUTS, CLIENT)  # type: ignore[arg-type]
    assert found.known is not None
    assert (list(found.keys), found.unreadable) == ([found.known.active], frozenset())
    assert "PRIVATE KEY" in found.keys[found.known.active]


@pytest.mark.parametrize("value", [None, "{", "{}"])
def test_a_set_that_is_missing_or_damaged_is_told_from_one_that_is_there(
    aws: EmulatedAws, value: str | None
) -> None:
    """Nor is there a bucket that could say what was published."""
    ssm, name = aws.client("ssm"), authority_set_name(PREFIX, CLIENT)
    if value is None:
        ssm.delete_parameter(Name=name)
    else:
        ssm.put_parameter(Name=name, Value=value, Overwrite=True)
    found = look(aws, OUTPUTS, CLIENT)  # type: ignore[arg-type]
    assert (found.known, found.damaged, list(found.published)) == (None, value is not None, [])
    assert len(found.keys) == 1


@pytest.mark.parametrize("code", ["InvalidKeyId", "AccessDeniedException"])
def test_a_key_that_cannot_be_decrypted_is_there_and_unreadable(
    aws: EmulatedAws, code: str
) -> None:
    found = look(Session(aws, code), OUTPUTS, CLIENT)  # type: ignore[arg-type]
    assert found.known is not None
    assert (found.keys, found.unreadable) == ({}, {found.known.active})


def test_any_other_trouble_is_let_out(aws: EmulatedAws) -> None:
    with pytest.raises(ClientError):
        look(Session(aws, "ThrottlingException"), OUTPUTS, CLIENT)  # type: ignore[arg-type]
