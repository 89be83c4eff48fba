"""The CAs and the moment that the unit tests work with."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

from chalicelib.domain.model import KeyType, Validity
from chalicelib.domain.pki.authorities import (
    Authority,
    make_client_authority,
    make_server_authority,
)
from chalicelib.domain.pki.keys import make_key
from tests.unit.signing_requests import rsa_key

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
HOST = "registry.example.com"
TEN_YEARS = Validity.starting(NOW, 3650 * DAY, DAY)


@functools.cache
def client_ca(number: int = 1, validity: Validity = TEN_YEARS) -> Authority:
    """Another one for each number."""
    return make_client_authority(make_key(KeyType.EC_P256), number, validity)


@functools.cache
def server_ca(host: str = HOST, validity: Validity = TEN_YEARS) -> Authority:
    return make_server_authority(make_key(KeyType.EC_P256), 1, validity, host)


@functools.cache
def rsa_client_ca() -> Authority:
    return make_client_authority(rsa_key(3072), 1, TEN_YEARS)
