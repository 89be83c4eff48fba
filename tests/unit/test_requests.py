"""Reading CSRs: what is refused and by which code, each beside a twin that passes."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AttributeOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalicelib.domain.pki.requests import MAXIMUM_CSR_BYTES, public_key_of_csr
from chalicelib.errors import InvalidRequest
from tests.unit.signing_requests import (
    BEGIN,
    END,
    csr,
    der_of,
    ec_key,
    one_prime_more_csr,
    oversized_rsa_csr,
    pem_of,
    plain_rsa_csr,
    rsa_csr_with_exponent,
    rsa_key,
    small_factor_csr,
)

GOOD = csr(ec_key())
DER = der_of(GOOD)
KEY = ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def refusal(pem: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        public_key_of_csr(pem)
    assert caught.value.field == "csr"
    return caught.value.code


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_the_key_of_a_good_ec_csr_is_read(curve: type[ec.EllipticCurve]) -> None:
    assert public_key_of_csr(csr(ec_key(curve))) == ec_key(curve).public_key()


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_the_key_of_a_good_rsa_csr_is_read(bits: int) -> None:
    assert public_key_of_csr(csr(rsa_key(bits))) == rsa_key(bits).public_key()


def test_what_openssl_makes_by_itself_is_read(tmp_path: Path) -> None:
    command = "openssl req -new -newkey rsa:2048 -nodes -subj /CN=dev -keyout"
    made = subprocess.run(
        [*shlex.split(command), tmp_path / "key"], capture_output=True, check=True
    )
    key = public_key_of_csr(made.stdout)
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048


ACCEPTED = {
    "as made": GOOD,
    "CRLF line breaks": GOOD.replace(b"\n", b"\r\n"),
    "the older label": GOOD.replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST"),
    "white space before": b"\r\n \t\n" + GOOD,
    "white space after": GOOD + b"\r\n \t\n",
    "no line break at the end": GOOD.rstrip(),
    "all base64 in one line": BEGIN + b"\n" + b"".join(GOOD.split(b"\n")[1:-2]) + b"\n" + END,
}


@pytest.mark.parametrize("pem", ACCEPTED.values(), ids=ACCEPTED)
def test_pem_is_read_in_every_usual_dress(pem: bytes) -> None:
    assert public_key_of_csr(pem) == ec_key().public_key()


# What each differs in from GOOD is its name; GOOD passes above.
REFUSED = {
    "empty": (b"", "csr_not_pem"),
    "DER instead of PEM": (DER, "csr_not_pem"),
    "line breaks dropped, as curl -d does": (GOOD.replace(b"\n", b""), "csr_not_pem"),
    "END line cut off": (GOOD.replace(END, b""), "csr_not_pem"),
    "BEGIN line cut off": (GOOD.replace(BEGIN, b""), "csr_not_pem"),
    "text before": (b"Certificate Request:\n" + GOOD, "csr_not_pem"),
    "labels that differ": (
        GOOD.replace(BEGIN, BEGIN.replace(b"BEGIN", b"BEGIN NEW")),
        "csr_not_pem",
    ),
    "a certificate's label": (GOOD.replace(b"CERTIFICATE REQUEST", b"CERTIFICATE"), "csr_not_pem"),
    "a key's label": (GOOD.replace(b"CERTIFICATE REQUEST", b"PRIVATE KEY"), "private_key_sent"),
    "a private key before it": (KEY + GOOD, "private_key_sent"),
    "a private key behind it": (GOOD + KEY, "private_key_sent"),
    "a private key alone": (KEY, "private_key_sent"),
    "an encrypted private key": (KEY.replace(b"PRIVATE", b"ENCRYPTED PRIVATE"), "private_key_sent"),
    "a public key before it": (KEY.replace(b"PRIVATE", b"PUBLIC") + GOOD, "csr_not_pem"),
    "a private key without its line breaks": (KEY.replace(b"\n", b""), "private_key_sent"),
    "a private key, encoded for a form": (KEY.replace(b" ", b"%20"), "private_key_sent"),
    "a private key in more than there is room for": (
        GOOD + KEY + b" " * MAXIMUM_CSR_BYTES,
        "private_key_sent",
    ),
    "an old encapsulated header": (GOOD.replace(BEGIN, BEGIN + b"\nComment: x"), "csr_not_pem"),
    "a character outside base64": (GOOD.replace(b"\nM", b"\n*"), "csr_not_pem"),
    "twice": (GOOD + GOOD, "csr_multiple"),
    "twice, under both labels": (
        GOOD + GOOD.replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST"),
        "csr_multiple",
    ),
    "text after": (GOOD + b"x", "csr_trailing_data"),
    "a zero byte after": (GOOD + b"\x00", "csr_trailing_data"),
    "a certificate after": (
        GOOD + b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        "csr_trailing_data",
    ),
    "a byte after the DER, inside the block": (pem_of(DER + b"\x00"), "csr_trailing_data"),
    "another CSR after the DER, inside": (pem_of(DER + DER), "csr_trailing_data"),
    "a byte of DER missing": (pem_of(DER[:-1]), "csr_malformed"),
    "base64 cut short": (BEGIN + b"\nMIIBA\n" + END, "csr_malformed"),
    "padding after the padding": (BEGIN + b"\nMAA=\n====\n" + END, "csr_malformed"),
    "base64 after the padding": (BEGIN + b"\nMAA=\nMAA=\n" + END, "csr_malformed"),
    "a byte after a short sequence": (pem_of(b"\x30\x00\x00"), "csr_trailing_data"),
    "a byte after the longest short one": (pem_of(b"\x30\x7f" + bytes(128)), "csr_trailing_data"),
    "the longest short one itself": (pem_of(b"\x30\x7f" + bytes(127)), "csr_malformed"),
    "an empty sequence": (pem_of(b"\x30\x00"), "csr_malformed"),
    "no sequence at all": (pem_of(b"\x04\x02ab"), "csr_malformed"),
    "one byte": (pem_of(b"\x30"), "csr_malformed"),
    "a version there is not": (
        pem_of(DER.replace(b"\x02\x01\x00", b"\x02\x01\x01", 1)),
        "csr_malformed",
    ),
    "a length of indefinite form": (pem_of(b"\x30\x80" + DER[2:]), "csr_malformed"),
    "a length longer than needed": (pem_of(b"\x30\x83\x00" + DER[2:]), "csr_malformed"),
}


@pytest.mark.parametrize(("pem", "code"), REFUSED.values(), ids=REFUSED)
def test_bad_framing_is_refused_by_a_code_that_says_which(pem: bytes, code: str) -> None:
    assert refusal(pem) == code


def test_who_sends_a_private_key_is_told_to_make_a_new_one_and_nothing_of_it_is_repeated() -> None:
    with pytest.raises(InvalidRequest, match="make a new key") as caught:
        public_key_of_csr(GOOD + KEY)
    assert not [line for line in KEY.decode().splitlines() if line in str(caught.value)]


def test_the_refusal_of_lost_line_breaks_names_the_option_of_curl_that_keeps_them() -> None:
    with pytest.raises(InvalidRequest, match="--data-binary"):
        public_key_of_csr(GOOD.replace(b"\n", b""))


def test_a_csr_of_16_kib_is_read_and_one_byte_more_is_not() -> None:
    limit = 16 * 1024
    assert limit == MAXIMUM_CSR_BYTES
    assert public_key_of_csr(GOOD.ljust(limit, b"\n")) == ec_key().public_key()
    assert refusal(GOOD.ljust(limit + 1, b"\n")) == "csr_too_large"


def test_a_signature_by_another_key_is_refused() -> None:
    """Proof of possession: whoever copies a public key cannot have it certified."""
    stolen, own = der_of(csr(rsa_key(2048))), der_of(csr(rsa_key(2048, 3)))
    forged = stolen[:-256] + own[-256:]
    assert refusal(pem_of(forged)) == "csr_bad_signature"
    assert public_key_of_csr(pem_of(stolen)) == rsa_key(2048).public_key()


@pytest.mark.parametrize("key", [ec_key(), ec_key(ec.SECP521R1)], ids=["p-256", "p-521"])
def test_a_csr_changed_after_it_was_signed_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    made = der_of(csr(key, "mallory"))
    assert refusal(pem_of(made.replace(b"mallory", b"malloru"))) == "csr_bad_signature"
    assert public_key_of_csr(pem_of(made)) == key.public_key()


def test_a_signature_algorithm_that_is_broken_or_unknown_is_refused() -> None:
    sha256_with_rsa, md5_with_rsa = "06092a864886f70d01010b", "06092a864886f70d010104"
    made = der_of(csr(rsa_key(2048)))
    for identifier in (md5_with_rsa, "06092a864886f70d010163"):
        other = made.replace(bytes.fromhex(sha256_with_rsa), bytes.fromhex(identifier))
        assert refusal(pem_of(other)) == "csr_bad_signature"


def test_an_ordinary_rsa_key_passes_in_the_encoding_that_the_odd_ones_have() -> None:
    for bits in (2048, 4096):
        assert public_key_of_csr(plain_rsa_csr(rsa_key(bits))) == rsa_key(bits).public_key()


WEAK = {
    "1024 bits": (lambda: csr(rsa_key(1024)), "rsa_key_size", "1024"),
    "2047 bits": (lambda: csr(rsa_key(2047)), "rsa_key_size", "2047"),
    "4097 bits": (lambda: one_prime_more_csr(rsa_key(4096), 2), "rsa_key_size", "4097"),
    "8192 bits": (lambda: oversized_rsa_csr(rsa_key(4096)), "rsa_key_size", "819[12]"),
    "exponent 3": (lambda: csr(rsa_key(2048, 3)), "rsa_exponent", "65537"),
    "exponent 65539": (
        lambda: rsa_csr_with_exponent(rsa_key(2048), 65539),
        "rsa_exponent",
        "65537",
    ),
    "factor 3": (lambda: small_factor_csr(rsa_key(4096), 3), "rsa_modulus", "small factor"),
    "factor 751": (lambda: small_factor_csr(rsa_key(4096), 751), "rsa_modulus", "small factor"),
}


@pytest.mark.parametrize(("make", "code", "said"), WEAK.values(), ids=WEAK)
def test_a_weak_rsa_key_is_refused_and_the_reason_said(
    make: Callable[[], bytes], code: str, said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        public_key_of_csr(make())
    assert (caught.value.code, caught.value.field) == (code, "csr")


def test_a_factor_beyond_the_small_ones_is_not_looked_for() -> None:
    """The twin of the two above: 757 is the prime after 751."""
    key = public_key_of_csr(small_factor_csr(rsa_key(4096), 757))
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.public_numbers().n % 757 == 0


UNSUPPORTED = {
    "P-192": lambda: csr(ec_key(ec.SECP192R1)),
    "P-224": lambda: csr(ec_key(ec.SECP224R1)),
    "secp256k1": lambda: csr(ec_key(ec.SECP256K1)),
    "brainpool": lambda: csr(ec_key(ec.BrainpoolP256R1)),
    "Ed25519": lambda: csr(ed25519.Ed25519PrivateKey.generate()),
    "DSA": lambda: csr(dsa.generate_private_key(1024)),  # noqa: S505  # small, so made quickly
    "a point off its curve": lambda: pem_of(_with_point(b"\x00" * 64)),
    "an unknown key algorithm": lambda: pem_of(
        DER.replace(bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0263"))
    ),
    "exponent 2": lambda: pem_of(_with_exponent(b"\x02")),
}


def _with_point(point: bytes) -> bytes:
    numbers = ec_key().public_key().public_numbers()
    return DER.replace(numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"), point)


def _with_exponent(exponent: bytes) -> bytes:
    made = der_of(csr(rsa_key(2048)))
    return made.replace(b"\x02\x03\x01\x00\x01", b"\x02\x03\x00\x00" + exponent)


@pytest.mark.parametrize("make", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_a_key_of_another_kind_is_refused(make: Callable[[], bytes]) -> None:
    assert refusal(make()) == "unsupported_key"


def test_nothing_but_the_key_is_taken_from_a_csr() -> None:
    """It may ask for what it likes, a CA's rights and our own host name included."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    greedy = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*")]), critical=False)
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret")
        .sign(ec_key(), hashes.SHA384())
    )
    assert public_key_of_csr(greedy.public_bytes(Encoding.PEM)) == ec_key().public_key()


def outcome(pem: bytes) -> object:
    """The key, or a well-formed refusal; whatever else it raises fails the test."""
    try:
        return public_key_of_csr(pem)
    except InvalidRequest as error:
        return (error.code, error.field)


@given(st.binary(max_size=300))
@example(BEGIN + b"\n=\n" + END)
@settings(max_examples=60, deadline=None)
def test_random_bytes_are_refused_and_never_crash(noise: bytes) -> None:
    for pem in (noise, BEGIN + b"\n" + noise + b"\n" + END, pem_of(noise)):
        assert refusal(pem).startswith("csr_")


@given(
    key=st.sampled_from([ec_key(), ec_key(ec.SECP521R1)]),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=4),
    keep=st.integers(1, 4000),
)
@settings(max_examples=150, deadline=None)
def test_a_mutated_csr_is_refused_or_holds_the_same_key(
    key: ec.EllipticCurvePrivateKey, edits: list[tuple[int, int]], keep: int
) -> None:
    changed = bytearray(der_of(csr(key)))
    for place, value in edits:
        changed[place % len(changed)] = value
    for der in (bytes(changed), bytes(changed[:keep])):
        result = outcome(pem_of(der))
        assert isinstance(result, tuple) or result == key.public_key()


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=3))
@settings(max_examples=100, deadline=None)
def test_mutated_pem_is_refused_or_holds_the_same_key(place: int, put: bytes) -> None:
    result = outcome(GOOD[:place] + put + GOOD[place + 1 :])
    assert isinstance(result, tuple) or result == ec_key().public_key()
