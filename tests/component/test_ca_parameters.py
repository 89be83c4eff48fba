"""The CAs' parameters, on the emulated SSM."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import boto3
import pytest

from chalicelib.domain.pki.authorities import AuthorityKind
from chalicelib.domain.pki.authority_set import AuthoritySet
from operations.ca_parameters import CaParameters
from operations.cloud import CommandError
from tests.component.emulated_aws import EmulatedAws, emulated_aws
from tests.unit.authorities import client_ca

NAME = "/registry-trust/t/client-ca"
FIRST = AuthoritySet("a" * 16, {"a" * 16: "PEM"})


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    with emulated_aws(tmp_path_factory.mktemp("aws")) as running:
        yield running


@pytest.fixture
def ssm(aws: EmulatedAws) -> Any:
    client = aws.client("ssm")
    known = client.describe_parameters()["Parameters"]
    for each in known:
        client.delete_parameter(Name=each["Name"])
    client.put_parameter(Name=NAME, Value=FIRST.to_json(), Type="String")
    return client


@pytest.fixture
def parameters(aws: EmulatedAws, ssm: Any) -> CaParameters:
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    outputs = {"ParameterPrefix": "/registry-trust/t/", "KeyArn": key}

    class Session:
        def client(self, service: str) -> Any:
            return aws.client(service)

    session: boto3.Session = Session()  # type: ignore[assignment]
    return CaParameters(session, outputs, AuthorityKind.CLIENT)


def test_what_was_read_is_replaced(parameters: CaParameters) -> None:
    stored = parameters.read()
    assert stored.known == FIRST
    parameters.replace(stored, FIRST.with_trusted("b" * 16, "PEM"))
    after = parameters.read()
    assert after.known == FIRST.with_trusted("b" * 16, "PEM")
    assert (after.version, after.changed_at >= stored.changed_at) == (stored.version + 1, True)


def test_what_another_wrote_meanwhile_is_put_back_and_told(
    parameters: CaParameters, ssm: Any
) -> None:
    stored = parameters.read()
    theirs = FIRST.with_trusted("c" * 16, "PEM")
    ssm.put_parameter(Name=NAME, Value=theirs.to_json(), Type="String", Overwrite=True)
    with pytest.raises(CommandError, match="another operator"):
        parameters.replace(stored, FIRST.with_trusted("b" * 16, "PEM"))
    assert parameters.read().known == theirs


class SentTwice:
    """SSM, to which each write gets twice: the answer to the first was lost on its way.

    A fault that the emulator does not have. meanwhile: what others write before the second.
    """

    def __init__(self, ssm: Any, meanwhile: AuthoritySet | None = None) -> None:
        self._ssm, self._meanwhile = ssm, meanwhile

    def put_parameter(self, **asked: Any) -> Any:
        self._ssm.put_parameter(**asked)
        if self._meanwhile is not None:
            value, self._meanwhile = self._meanwhile.to_json(), None
            self._ssm.put_parameter(**{**asked, "Value": value})
        return self._ssm.put_parameter(**asked)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ssm, name)


def test_a_write_that_was_sent_twice_is_no_other_operators(
    parameters: CaParameters, ssm: Any
) -> None:
    parameters._ssm = SentTwice(ssm)
    by = FIRST.with_trusted("b" * 16, "PEM")
    parameters.replace(parameters.read(), by)
    assert parameters.read().known == by


def test_another_operators_between_the_two_is_still_put_back(
    parameters: CaParameters, ssm: Any
) -> None:
    theirs = FIRST.with_trusted("c" * 16, "PEM")
    parameters._ssm = SentTwice(ssm, theirs)
    with pytest.raises(CommandError, match="another operator"):
        parameters.replace(parameters.read(), FIRST.with_trusted("b" * 16, "PEM"))
    assert parameters.read().known == theirs


def test_others_than_expected_are_told(parameters: CaParameters) -> None:
    parameters.expect(FIRST)
    with pytest.raises(CommandError, match="another operator"):
        parameters.expect(FIRST.with_trusted("b" * 16, "PEM"))


def test_without_a_ca_it_says_what_to_do(parameters: CaParameters, ssm: Any) -> None:
    ssm.delete_parameter(Name=NAME)
    with pytest.raises(CommandError, match="scripts/ca init"):
        parameters.read()


def test_keys_are_encrypted_found_when_nobody_names_them_and_deleted(
    parameters: CaParameters, ssm: Any
) -> None:
    made = client_ca()
    assert parameters.left_keys(FIRST) == []
    assert not parameters.has_key(made.id)
    parameters.add_key(made)
    parameters.add_key(made)
    name = parameters.key_parameter(made.id)
    (kept,) = [p for p in ssm.describe_parameters()["Parameters"] if p["Name"] == name]
    assert kept["Type"] == "SecureString"
    assert parameters.left_keys(FIRST) == [made.id]
    assert parameters.left_keys(FIRST.with_trusted(made.id, "PEM")) == []
    written = kept["LastModifiedDate"]
    assert parameters.left_keys(FIRST, before=written) == []
    assert parameters.left_keys(FIRST, before=written + timedelta(seconds=1)) == [made.id]
    assert parameters.has_key(made.id)
    parameters.delete_key(made.id)
    parameters.delete_key(made.id)
    assert parameters.left_keys(FIRST) == []
    assert not parameters.has_key(made.id)
