"""The trust document: complete, stable, and changed when clients must act."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import pytest

from chalicelib.domain.pki.leaves import certificate_pem
from chalicelib.domain.trust import RegistryAddress, Trust
from chalicelib.errors import Misconfigured
from tests.unit.authorities import client_ca

TRUST = Trust(
    registry="registry.example.com:8443",
    registry_address="192.0.2.7",
    ca_bundle="server CAs\n",
    client_ca="client CAs\n",
    crl="lists\n",
    crl_number=41,
)


def test_the_document_says_all_that_a_client_needs() -> None:
    assert TRUST.to_json() == {
        "registry": "registry.example.com:8443",
        "registry_address": "192.0.2.7",
        "ca_bundle": "server CAs\n",
        "client_ca": "client CAs\n",
        "crl": "lists\n",
        "crl_number": 41,
        "version": TRUST.version,
    }


@pytest.mark.parametrize("part", ["registry", "registry_address", "ca_bundle", "client_ca"])
def test_the_version_changes_with_what_a_client_installs(part: str) -> None:
    assert replace(TRUST, **{part: "other"}).version != TRUST.version


def test_the_version_is_16_hex_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", TRUST.version)


def test_the_version_does_not_change_with_every_new_revocation_list() -> None:
    assert replace(TRUST, crl="new\n", crl_number=42).version == TRUST.version


def test_the_version_does_not_change_with_which_ca_comes_first() -> None:
    """The first is the one that signs now; what a client trusts is the same."""
    one, other = (certificate_pem(client_ca(number).certificate) for number in (1, 2))
    trust = replace(TRUST, ca_bundle=one + other, client_ca=one + other)
    assert replace(trust, ca_bundle=other + one, client_ca=other + one).version == trust.version
    assert replace(trust, ca_bundle=one).version != trust.version


def test_the_version_of_one_ca_is_what_installed_hosts_know_it_by() -> None:
    """A hash over the parts as they are: releases before this one had it so."""
    parts = [TRUST.registry, TRUST.registry_address, TRUST.ca_bundle, TRUST.client_ca]
    expected = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    assert TRUST.version == expected


def test_the_version_tells_parts_apart_wherever_one_ends() -> None:
    moved = replace(TRUST, ca_bundle="server CAs\nclient", client_ca=" CAs\n")
    assert moved.version != TRUST.version


def test_a_document_is_read_back_as_it_was() -> None:
    assert Trust.from_json(json.loads(json.dumps(TRUST.to_json()))) == TRUST


@pytest.mark.parametrize("part", [name for name in TRUST.to_json() if name != "version"])
def test_a_document_without_one_of_its_parts_is_refused(part: str) -> None:
    document = TRUST.to_json()
    del document[part]
    with pytest.raises(Misconfigured) as caught:
        Trust.from_json(document)
    assert caught.value.code == "no_trust"


def test_a_document_whose_number_is_none_is_refused() -> None:
    with pytest.raises(Misconfigured):
        Trust.from_json({**TRUST.to_json(), "crl_number": "x"})


def test_the_bucket_gets_each_part_and_the_document_last() -> None:
    objects = TRUST.objects()
    assert list(objects) == [
        "trust/client-ca.crl",
        "trust/ca.crt",
        "trust/client-ca.crt",
        "trust/trust.json",
    ]
    assert objects["trust/ca.crt"] == b"server CAs\n"
    assert objects["trust/client-ca.crt"] == b"client CAs\n"
    assert objects["trust/client-ca.crl"] == b"lists\n"
    assert json.loads(objects["trust/trust.json"]) == TRUST.to_json()


@pytest.mark.parametrize(("port", "name"), [(443, "r.example"), (8443, "r.example:8443")])
def test_a_registry_is_named_as_docker_names_it(port: int, name: str) -> None:
    assert RegistryAddress("r.example", port).name == name
