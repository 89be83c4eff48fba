"""CSRs of every kind, good and bad, each really signed by the key it holds unless it says not."""

from __future__ import annotations

import base64
import functools
import hashlib
import math

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import NameOID

Signer = (
    ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey
)
BEGIN = b"-----BEGIN CERTIFICATE REQUEST-----"
END = b"-----END CERTIFICATE REQUEST-----"


@functools.cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve())


@functools.cache
def rsa_key(bits: int, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """Made once in a process: they are slow to make."""
    return rsa.generate_private_key(exponent, bits)


def csr(key: Signer, common_name: str = "whatever the caller likes") -> bytes:
    """A CSR in PEM, by `cryptography`."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm)
    return made.public_bytes(serialization.Encoding.PEM)


def der_of(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.strip().splitlines()[1:-1]))


def pem_of(der: bytes, *, line_break: bytes = b"\n") -> bytes:
    text = base64.b64encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return line_break.join([BEGIN, *lines, END, b""])


def _rsa_csr(modulus: int, exponent: int, phi: int) -> bytes:
    """A CSR for an RSA key of any shape, which no library would make; in PEM.

    phi: Euler's function of the modulus, so that the signature is a true one.
    """
    info = _sequence(_integer(0), _sequence(), _rsa_public_key(modulus, exponent), b"\xa0\x00")
    signature = _pkcs1_signature(info, modulus, pow(exponent, -1, phi))
    algorithm = _sequence(bytes.fromhex("06092a864886f70d01010b"), b"\x05\x00")
    return pem_of(
        _sequence(info, algorithm, b"\x03" + _length(len(signature) + 1) + b"\x00" + signature)
    )


def plain_rsa_csr(key: rsa.RSAPrivateKey) -> bytes:
    """Of an ordinary key: the twin of the odd ones."""
    return rsa_csr_with_exponent(key, 65537)


def rsa_csr_with_exponent(key: rsa.RSAPrivateKey, exponent: int) -> bytes:
    """Of a key with the same modulus and this exponent."""
    p, q = _primes(key)
    return _rsa_csr(p * q, exponent, (p - 1) * (q - 1))


def oversized_rsa_csr(key: rsa.RSAPrivateKey) -> bytes:
    """Of a key with twice the bits: its modulus is the square of this one's."""
    p, q = _primes(key)
    return _rsa_csr((p * q) ** 2, 65537, p * q * (p - 1) * (q - 1))


def one_prime_more_csr(key: rsa.RSAPrivateKey, prime: int) -> bytes:
    """Of a key whose modulus is this one's times *prime*."""
    p, q = _primes(key)
    return _rsa_csr(p * q * prime, 65537, (p - 1) * (q - 1) * (prime - 1))


def small_factor_csr(key: rsa.RSAPrivateKey, factor: int) -> bytes:
    """Of a key whose modulus is *factor*, a prime, times one large prime of *key*."""
    p = next(p for p in _primes(key) if math.gcd(65537, (p - 1) * (factor - 1)) == 1)
    return _rsa_csr(factor * p, 65537, (factor - 1) * (p - 1))


def _primes(key: rsa.RSAPrivateKey) -> tuple[int, int]:
    numbers = key.private_numbers()
    return numbers.p, numbers.q


def _pkcs1_signature(message: bytes, modulus: int, private_exponent: int) -> bytes:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2)."""
    size = (modulus.bit_length() + 7) // 8
    digest = bytes.fromhex("3031300d060960864801650304020105000420")
    digest += hashlib.sha256(message).digest()
    padded = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
    return pow(int.from_bytes(padded, "big"), private_exponent, modulus).to_bytes(size, "big")


def _rsa_public_key(modulus: int, exponent: int) -> bytes:
    key = _sequence(_integer(modulus), _integer(exponent))
    algorithm = _sequence(bytes.fromhex("06092a864886f70d010101"), b"\x05\x00")
    return _sequence(algorithm, b"\x03" + _length(len(key) + 1) + b"\x00" + key)


def _sequence(*parts: bytes) -> bytes:
    content = b"".join(parts)
    return b"\x30" + _length(len(content)) + content


def _integer(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return b"\x02" + _length(len(content)) + content


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets
