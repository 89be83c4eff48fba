"""Certificates that others show: reading one in PEM, and what nginx reads in it.

nginx has OpenSSL judge certificates, so the rules are OpenSSL's, also where RFC 5280 would have
them otherwise.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from chalicelib.domain.model import Access
from chalicelib.domain.pki.authorities import ORGANIZATION
from chalicelib.domain.pki.pem import holds_private_key
from chalicelib.errors import InvalidRequest

MAXIMUM_CERTIFICATE_BYTES = 16 * 1024

_BEGIN = re.compile(rb"-----BEGIN ([^\r\n-]*)-----")
_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+?)\r?\n-----END CERTIFICATE-----"
)

# OpenSSL refuses a certificate in which an extension is critical that it does not go by.
_KNOWN_EXTENSIONS = (
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.CERTIFICATE_POLICIES,
    ExtensionOID.CRL_DISTRIBUTION_POINTS,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.NAME_CONSTRAINTS,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
)

# What OpenSSL asks at its security level 2, which Debian, Ubuntu and Amazon Linux have as default.
_LEAST_RSA_BITS, _LEAST_EC_BITS = 2048, 224

_E = TypeVar("_E", bound=x509.ExtensionType)


def certificate_of_pem(pem: bytes) -> x509.Certificate:
    """The certificate in *pem*, or the first when its chain follows, as in TLS.

    Text around the PEM blocks is passed over (RFC 7468 section 2). All that this module and
    `diagnosis` read of the certificate can be read.
    Raises InvalidRequest, code private_key_sent (whatever else there is), certificate_too_large,
    certificate_not_pem, certificate_multiple or certificate_malformed.
    """
    if holds_private_key(pem):
        raise _refused(
            "private_key_sent",
            "there is a private key in what you sent, and it went over the network: revoke its "
            "certificate, make a new key, and send the certificate alone",
        )
    if len(pem) > MAXIMUM_CERTIFICATE_BYTES:
        raise _refused("certificate_too_large", "a certificate may have 16 KiB at most")
    blocks = _CERTIFICATE.findall(pem)
    if not blocks or _BEGIN.findall(pem) != [b"CERTIFICATE"] * len(blocks):
        raise _refused(
            "certificate_not_pem",
            "send one certificate in PEM, from its BEGIN line to its END line, and nothing else "
            "in PEM; with curl use --data-binary, since -d drops the line breaks",
        )
    certificates = [_load(block) for block in blocks]
    if any(issuer.subject != leaf.issuer for leaf, issuer in pairwise(certificates)):
        raise _refused("certificate_multiple", "send one certificate, or one and its own chain")
    return certificates[0]


def _load(block: bytes) -> x509.Certificate:
    try:
        der = base64.b64decode(b"".join(block.split()), validate=True)
        certificate = x509.load_der_x509_certificate(der)
        _ = (certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string())
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        _ = (certificate.serial_number, certificate.extensions)
    except (
        binascii.Error,
        TypeError,
        ValueError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise _refused(
            "certificate_malformed", "the PEM block does not hold a certificate that can be read"
        ) from error
    return certificate


def _refused(code: str, detail: str) -> InvalidRequest:
    return InvalidRequest(code, detail, field="certificate")


def is_signed_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether *certificate* names *ca* as its issuer, and *ca*'s key did sign it.

    With SHA-1 or less it did not: `cryptography` refuses those, as OpenSSL's level 2 does.
    """
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, TypeError, ValueError, UnsupportedAlgorithm):
        return False
    return True


def owner_in(certificate: x509.Certificate) -> str | None:
    """The owner's ARN, from the URI in the subject alternative name."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names else []
    return unquote(uris[0]) if uris else None


def access_in(certificate: x509.Certificate) -> Access | None:
    """What nginx lets it do: its subject must be CN=something, OU=access, O=ours, in this order.

    As the maps in the registry's nginx.conf have it.
    """
    parts = [(part.oid, part.value) for part in certificate.subject]
    if len(certificate.subject.rdns) != 3 or len(parts) != 3:
        return None
    (first, name), (second, access), organization = parts
    ours = (NameOID.ORGANIZATION_NAME, ORGANIZATION)
    if (first, second, organization) != (
        NameOID.COMMON_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        ours,
    ):
        return None
    return Access(access) if name and access in set(Access) else None


def unfit_for_clients(certificate: x509.Certificate) -> str | None:
    """Why OpenSSL takes it for no client's certificate, whoever signed it; None: it does take it.

    As OpenSSL checks the purpose sslclient (check_purpose_ssl_client), critical extensions, and
    the strength of its key (check_auth_level). That it may be a CA's does not matter.
    """
    return next(_unfitnesses(certificate), None)


def _unfitnesses(certificate: x509.Certificate) -> Iterator[str]:
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    if extended and ExtendedKeyUsageOID.CLIENT_AUTH not in extended:
        yield "its extended key usage is not clientAuth"
    usage = _extension(certificate, x509.KeyUsage)
    if usage and not (usage.digital_signature or usage.key_agreement):
        yield "its key usage does not allow signatures"
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _KNOWN_EXTENSIONS:
            yield f"its extension {extension.oid.dotted_string} is critical, but unknown to nginx"
    if not _is_strong(certificate):
        yield "its key is too weak"


def _is_strong(certificate: x509.Certificate) -> bool:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _LEAST_RSA_BITS
    return not isinstance(key, ec.EllipticCurvePublicKey) or key.key_size >= _LEAST_EC_BITS


def _extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
