"""Certificate signing requests: reading what a stranger sends (PKCS #10, RFC 2986)."""

from __future__ import annotations

import base64
import binascii
import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from chalicelib.domain.pki.keys import LeafPublicKey, accept_public_key
from chalicelib.domain.pki.pem import holds_private_key
from chalicelib.errors import InvalidRequest

MAXIMUM_CSR_BYTES = 16 * 1024

_BEGIN = re.compile(rb"-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----")
_ONE_CSR = re.compile(
    rb"\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----\r?\n"
    rb"(?P<base64>[A-Za-z0-9+/=\r\n]+?)"
    rb"\r?\n-----END (?(1)NEW )CERTIFICATE REQUEST-----(?P<rest>.*)",
    re.DOTALL,
)


def public_key_of_csr(pem: bytes) -> LeafPublicKey:
    """The public key that the sender of this CSR has proven to hold.

    pem: exactly one PEM block (RFC 7468 section 7), at most 16 KiB, white space around it allowed.
    Everything else in the request (subject, extensions) is ignored on purpose.
    Raises InvalidRequest with the code private_key_sent (whatever else there is), csr_too_large,
    csr_not_pem, csr_multiple, csr_trailing_data, csr_malformed, csr_bad_signature, or one of
    accept_public_key's.
    """
    if holds_private_key(pem):
        raise InvalidRequest(
            "private_key_sent",
            "there is a private key in what you sent, and it went over the network: make a new "
            "key, and send its CSR alone",
            field="csr",
        )
    csr = _load(_der_of(pem))
    key = accept_public_key(csr.public_key)
    try:
        proven = csr.is_signature_valid
    except (UnsupportedAlgorithm, ValueError) as error:
        raise _bad_signature() from error
    if not proven:
        raise _bad_signature()
    return key


def _bad_signature() -> InvalidRequest:
    return InvalidRequest(
        "csr_bad_signature",
        "the CSR is not signed by the key it holds; make it again with openssl req -new",
        field="csr",
    )


def _der_of(pem: bytes) -> bytes:
    if len(pem) > MAXIMUM_CSR_BYTES:
        raise InvalidRequest("csr_too_large", "a CSR may have 16 KiB at most", field="csr")
    if len(_BEGIN.findall(pem)) > 1:
        raise InvalidRequest("csr_multiple", "send one CSR at a time", field="csr")
    match = _ONE_CSR.fullmatch(pem)
    if match is None:
        raise InvalidRequest(
            "csr_not_pem",
            "send one CSR in PEM, from its BEGIN line to its END line; "
            "with curl use --data-binary, since -d drops the line breaks",
            field="csr",
        )
    if match["rest"].strip():
        raise _trailing()
    try:
        return base64.b64decode(b"".join(match["base64"].split()), validate=True)
    except binascii.Error as error:
        raise _malformed() from error


def _load(der: bytes) -> x509.CertificateSigningRequest:
    if _length_of(der) < len(der):
        raise _trailing()
    try:
        return x509.load_der_x509_csr(der)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise _malformed() from error


def _length_of(der: bytes) -> int:
    """How long the outermost DER value says it is (X.690 section 8.1.3).

    What is no DER sequence at all, or leaves its length open, which only BER may, is left to the
    parser: its whole length is given.
    """
    if len(der) < 2 or der[0] != 0x30 or der[1] == 0x80:
        return len(der)
    if der[1] < 0x80:
        return 2 + der[1]
    octets = der[1] & 0x7F
    return 2 + octets + int.from_bytes(der[2 : 2 + octets], "big")


def _malformed() -> InvalidRequest:
    return InvalidRequest(
        "csr_malformed", "the PEM block does not hold a readable CSR (PKCS #10)", field="csr"
    )


def _trailing() -> InvalidRequest:
    return InvalidRequest(
        "csr_trailing_data", "there is something after the end of the CSR; remove it", field="csr"
    )
