"""Reading certificates that others show: what is refused and by which code, and what is read."""

from __future__ import annotations

import base64
import functools
import subprocess
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalicelib.domain.model import Access, Grant, KeyType, Validity
from chalicelib.domain.pki.certificates import (
    MAXIMUM_CERTIFICATE_BYTES,
    access_in,
    certificate_of_pem,
    is_signed_by,
    owner_in,
    unfit_for_clients,
)
from chalicelib.domain.pki.keys import make_key, private_key_pem
from chalicelib.domain.pki.leaves import certificate_pem, sign_client_leaf, sign_server_leaf
from chalicelib.errors import InvalidRequest
from tests.unit.authorities import DAY, HOST, NOW, client_ca, rsa_client_ca, server_ca
from tests.unit.signing_requests import csr, ec_key

ARN = "arn:aws:iam::123456789012:user/a b%/ann+=,.@_-"
MONTH = Validity.starting(NOW, 30 * DAY, timedelta(minutes=5))


@functools.cache
def leaf(name: str = "ann", access: Access = Access.PULL, number: int = 1) -> x509.Certificate:
    grant = Grant(name, ARN, access, 30 * DAY)
    return sign_client_leaf(client_ca(number), grant, ec_key().public_key(), 7, MONTH)


BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
GOOD = certificate_pem(leaf()).encode()
CHAIN = certificate_pem(client_ca(1).certificate).encode()
OTHER = certificate_pem(leaf(number=2)).encode()
DER = leaf().public_bytes(Encoding.DER)
KEY = private_key_pem(ec_key())


def pem_of(der: bytes) -> bytes:
    return BEGIN + b"\n" + base64.encodebytes(der) + END + b"\n"


def refusal(pem: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        certificate_of_pem(pem)
    assert caught.value.field == "certificate"
    return caught.value.code


ACCEPTED = {
    "as made": GOOD,
    "CRLF line breaks": GOOD.replace(b"\n", b"\r\n"),
    "white space around": b"\r\n \t\n" + GOOD + b"\r\n \t\n",
    "no line break at the end": GOOD.rstrip(),
    "text around, as openssl writes it": b"Certificate:\n    Data:\n" + GOOD + b"subject=x\n",
    "its chain behind it": GOOD + CHAIN,
    "its chain and the root again": GOOD + CHAIN + CHAIN,
    "all base64 in one line": BEGIN + b"\n" + base64.b64encode(DER) + b"\n" + END,
}


@pytest.mark.parametrize("pem", ACCEPTED.values(), ids=ACCEPTED)
def test_pem_is_read_in_every_usual_dress(pem: bytes) -> None:
    assert certificate_of_pem(pem) == leaf()


# What each differs in from GOOD is its name; GOOD passes above.
REFUSED = {
    "empty": (b"", "certificate_not_pem"),
    "DER instead of PEM": (DER, "certificate_not_pem"),
    "line breaks dropped, as curl -d does": (GOOD.replace(b"\n", b""), "certificate_not_pem"),
    "END line cut off": (GOOD.replace(END, b""), "certificate_not_pem"),
    "BEGIN line cut off": (GOOD.replace(BEGIN, b""), "certificate_not_pem"),
    "another label": (GOOD.replace(b"CERTIFICATE", b"X509 CRL"), "certificate_not_pem"),
    "openssl's trusted form": (
        GOOD.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        "certificate_not_pem",
    ),
    "a CSR": (csr(ec_key()), "certificate_not_pem"),
    "a CSR behind it": (GOOD + csr(ec_key()), "certificate_not_pem"),
    "a cut-off certificate behind it": (GOOD + GOOD[:80], "certificate_not_pem"),
    "a character outside base64": (GOOD.replace(b"\nM", b"\n*"), "certificate_not_pem"),
    "twice": (GOOD + GOOD, "certificate_multiple"),
    "another leaf behind it": (GOOD + OTHER, "certificate_multiple"),
    "its chain before it": (CHAIN + GOOD, "certificate_multiple"),
    "another leaf behind its chain": (GOOD + CHAIN + OTHER, "certificate_multiple"),
    "a byte after the DER, inside the block": (pem_of(DER + b"\x00"), "certificate_malformed"),
    "a byte of DER missing": (pem_of(DER[:-1]), "certificate_malformed"),
    "base64 cut short": (BEGIN + b"\nMIIBA\n" + END, "certificate_malformed"),
    "an empty sequence": (pem_of(b"\x30\x00"), "certificate_malformed"),
    "a broken chain behind it": (GOOD + pem_of(DER[:-1]), "certificate_malformed"),
    "a private key before it": (KEY + GOOD + CHAIN, "private_key_sent"),
    "a private key behind it": (GOOD + KEY, "private_key_sent"),
    "a private key alone": (KEY, "private_key_sent"),
    "a private key without its line breaks": (KEY.replace(b"\n", b""), "private_key_sent"),
    "a private key with its BEGIN line cut off": (
        GOOD + KEY.partition(b"\n")[2],
        "private_key_sent",
    ),
    "a private key, encoded for a form": (KEY.replace(b" ", b"%20"), "private_key_sent"),
    "a private key in more than there is room for": (
        GOOD + KEY + b" " * MAXIMUM_CERTIFICATE_BYTES,
        "private_key_sent",
    ),
}


@pytest.mark.parametrize(("pem", "code"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_one_certificate_is_refused_by_a_code_that_says_which(
    pem: bytes, code: str
) -> None:
    assert refusal(pem) == code


@pytest.mark.parametrize("label", [b"EC", b"RSA", b"ENCRYPTED", b"OPENSSH", b"ANY"])
def test_a_private_key_is_known_by_any_label(label: bytes) -> None:
    assert refusal(GOOD + KEY.replace(b"PRIVATE", label + b" PRIVATE")) == "private_key_sent"


def test_who_sent_a_private_key_is_told_that_it_is_exposed_and_not_shown_it() -> None:
    with pytest.raises(InvalidRequest) as caught:
        certificate_of_pem(KEY + GOOD)
    said = str(caught.value)
    assert "revoke" in said
    assert "new key" in said
    assert not any(line in said for line in KEY.decode().splitlines())


def test_size_is_limited_at_16_kib_and_not_below() -> None:
    room = MAXIMUM_CERTIFICATE_BYTES - len(GOOD)
    assert certificate_of_pem(GOOD + room * b"\n") == leaf()
    assert refusal(GOOD + (room + 1) * b"\n") == "certificate_too_large"


def read_all(pem: bytes) -> None:
    """Read what there is to read; fails with anything but our own errors."""
    try:
        certificate = certificate_of_pem(pem)
    except InvalidRequest:
        return
    access_in(certificate)
    owner_in(certificate)
    unfit_for_clients(certificate)
    for ca in (client_ca(1), rsa_client_ca(), server_ca()):
        is_signed_by(certificate, ca.certificate)


@settings(deadline=None)
@given(st.binary())
@example(pem_of(b""))
def test_any_bytes_are_refused_by_errors_of_ours(content: bytes) -> None:
    read_all(content)
    read_all(pem_of(content))
    read_all(GOOD + content)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_a_certificate_with_altered_bytes_is_read_or_refused_by_errors_of_ours(
    changes: list[tuple[int, int]],
) -> None:
    der = bytearray(DER)
    for at, byte in changes:
        der[at] = byte
    read_all(pem_of(bytes(der)))


# --- what stands in it ----------------------------------------------------------------------------


def test_the_owner_is_read_back_whatever_his_path_holds() -> None:
    assert owner_in(leaf()) == ARN


def test_a_certificate_without_an_owner_has_none() -> None:
    assert owner_in(client_ca(1).certificate) is None
    assert owner_in(registrys()) is None


@functools.cache
def registrys() -> x509.Certificate:
    return sign_server_leaf(server_ca(), HOST, ec_key().public_key(), 8, MONTH)


@pytest.mark.parametrize("access", Access)
def test_the_access_is_read_back(access: Access) -> None:
    assert access_in(leaf(access=access)) is access


def test_a_certificate_that_is_no_clients_has_no_access() -> None:
    assert access_in(registrys()) is None
    assert access_in(client_ca(1).certificate) is None


def test_a_clients_certificate_is_fit_for_clients_and_the_registrys_is_not() -> None:
    assert unfit_for_clients(leaf()) is None
    assert "clientAuth" in (unfit_for_clients(registrys()) or "")


@pytest.mark.parametrize("number", [1, 2])
def test_a_certificate_is_signed_by_its_ca_alone(number: int) -> None:
    certificate = leaf(number=number)
    cas = [client_ca(1), client_ca(2), rsa_client_ca(), server_ca()]
    assert [ca for ca in cas if is_signed_by(certificate, ca.certificate)] == [client_ca(number)]


def test_an_rsa_ca_signs_too() -> None:
    grant = Grant("ann", ARN, Access.PULL, 30 * DAY)
    key = make_key(KeyType.EC_P256).public_key()
    certificate = sign_client_leaf(rsa_client_ca(), grant, key, 7, MONTH)
    assert is_signed_by(certificate, rsa_client_ca().certificate)
    assert not is_signed_by(certificate, client_ca(1).certificate)


def test_what_openssl_writes_by_itself_is_read() -> None:
    command = ["openssl", "x509", "-text"]
    text = subprocess.run(command, input=GOOD, capture_output=True, check=True).stdout
    assert b"Public Key" in text
    assert certificate_of_pem(text) == leaf()
