"""Keys: which we accept, how we make and name them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from chalicelib.domain.model import KeyType
from chalicelib.errors import InvalidRequest

LeafPublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_PUBLIC_EXPONENT = 65537
_RSA_BITS = (2048, 4096)

# A modulus with a small factor is a broken generator's; the same bound as letsencrypt/boulder's
# goodkey package uses. One gcd with the product of these primes finds any.
_SMALL_PRIMES_PRODUCT = math.prod(
    n for n in range(2, 752) if all(n % d for d in range(2, math.isqrt(n) + 1))
)

_MAKERS: dict[KeyType, Callable[[], PrivateKey]] = {
    KeyType.EC_P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    KeyType.EC_P384: lambda: ec.generate_private_key(ec.SECP384R1()),
    KeyType.RSA_2048: lambda: rsa.generate_private_key(_PUBLIC_EXPONENT, 2048),
    KeyType.RSA_3072: lambda: rsa.generate_private_key(_PUBLIC_EXPONENT, 3072),
    KeyType.RSA_4096: lambda: rsa.generate_private_key(_PUBLIC_EXPONENT, 4096),
}


def make_key(key_type: KeyType) -> PrivateKey:
    """A fresh private key from the operating system's random source."""
    return _MAKERS[key_type]()


def type_of(key: LeafPublicKey) -> KeyType:
    """The kind of key to make in place of this one, which we made."""
    size = f"{key.key_size}"
    kind = f"ec-p{size}" if isinstance(key, ec.EllipticCurvePublicKey) else f"rsa-{size}"
    return KeyType(kind)


def private_key_pem(key: PrivateKey) -> bytes:
    """PKCS#8 in PEM, unencrypted: what Docker, openssl and nginx read."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_key_der(key: LeafPublicKey) -> bytes:
    """The SubjectPublicKeyInfo in DER (RFC 5280 section 4.1.2.7)."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_id(key: LeafPublicKey) -> str:
    """SHA-256 over the SubjectPublicKeyInfo, 64 lower-case hex digits."""
    return hashlib.sha256(public_key_der(key)).hexdigest()


def signing_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """The hash that fits the key's strength (NIST SP 800-57 part 1, table 3)."""
    strong = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256
    return hashes.SHA384() if strong else hashes.SHA256()


def accept_public_key(read: Callable[[], PublicKeyTypes]) -> LeafPublicKey:
    """The key that *read* returns, if it is one we certify.

    RSA of 2048 to 4096 bits with exponent 65537, or EC on P-256, P-384 or P-521.
    Raises InvalidRequest, code rsa_key_size, rsa_exponent, rsa_modulus or unsupported_key.
    """
    try:
        key = read()
    except (UnsupportedAlgorithm, ValueError) as error:
        raise _unsupported() from error
    if isinstance(key, rsa.RSAPublicKey):
        _refuse_weak_rsa(key)
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise _unsupported()


def _unsupported() -> InvalidRequest:
    return InvalidRequest(
        "unsupported_key",
        "the key must be EC on P-256, P-384 or P-521, or RSA of 2048 to 4096 bits",
        field="csr",
    )


def _refuse_weak_rsa(key: rsa.RSAPublicKey) -> None:
    numbers = key.public_numbers()
    if not _RSA_BITS[0] <= key.key_size <= _RSA_BITS[1]:
        code = "rsa_key_size"
        problem = f"an RSA key must have 2048 to 4096 bits; this one has {key.key_size}"
    elif numbers.e != _PUBLIC_EXPONENT:
        code, problem = "rsa_exponent", "an RSA key must have the public exponent 65537"
    elif math.gcd(numbers.n, _SMALL_PRIMES_PRODUCT) != 1:
        code, problem = "rsa_modulus", "the RSA modulus has a small factor; make a new key"
    else:
        return
    raise InvalidRequest(code, problem, field="csr")
