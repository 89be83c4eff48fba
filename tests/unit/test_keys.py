"""Keys: made as asked, named by their hash, written as every tool reads them."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from chalicelib.domain.model import KeyType
from chalicelib.domain.pki.keys import (
    accept_public_key,
    key_id,
    make_key,
    private_key_pem,
    public_key_der,
    signing_hash,
)
from tests.unit.signing_requests import ec_key, rsa_key

EC = {KeyType.EC_P256: ec.SECP256R1, KeyType.EC_P384: ec.SECP384R1}
RSA = {KeyType.RSA_2048: 2048, KeyType.RSA_3072: 3072, KeyType.RSA_4096: 4096}


@pytest.mark.parametrize("key_type", KeyType)
def test_every_key_type_is_made_and_would_be_accepted_from_a_csr(key_type: KeyType) -> None:
    key = make_key(key_type)
    if isinstance(key, rsa.RSAPrivateKey):
        assert key.key_size == RSA[key_type]
        assert key.public_key().public_numbers().e == 65537
    else:
        assert isinstance(key.curve, EC[key_type])
    assert accept_public_key(key.public_key) == key.public_key()


def test_no_key_is_made_twice() -> None:
    assert key_id(make_key(KeyType.EC_P256).public_key()) != key_id(
        make_key(KeyType.EC_P256).public_key()
    )


@pytest.mark.parametrize("key", [ec_key(), rsa_key(2048)], ids=["ec", "rsa"])
def test_a_private_key_is_written_as_unencrypted_pkcs8(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    pem = private_key_pem(key)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert pem.endswith(b"-----END PRIVATE KEY-----\n")
    read = load_pem_private_key(pem, password=None)
    assert isinstance(read, type(key))
    assert read.public_key() == key.public_key()


def test_a_key_is_named_by_the_hash_of_its_public_part() -> None:
    key = ec_key().public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public_key_der(key) == spki
    assert key_id(key) == hashlib.sha256(spki).hexdigest()
    assert key_id(key) != key_id(ec_key(ec.SECP384R1).public_key())


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec_key(), hashes.SHA256),
        (ec_key(ec.SECP384R1), hashes.SHA384),
        (ec_key(ec.SECP521R1), hashes.SHA384),
        (rsa_key(2048), hashes.SHA256),
        (rsa_key(4096), hashes.SHA256),
    ],
    ids=["p-256", "p-384", "p-521", "rsa-2048", "rsa-4096"],
)
def test_the_hash_is_as_strong_as_the_key(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, algorithm: type[hashes.HashAlgorithm]
) -> None:
    assert isinstance(signing_hash(key), algorithm)
