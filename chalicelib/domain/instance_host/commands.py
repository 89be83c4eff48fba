"""The text of the two commands. Run Command's history keeps it readable: no secret is in it."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.identity import is_instance_id
from chalicelib.domain.installer import installer
from chalicelib.domain.pki.leaves import public_key_in
from chalicelib.domain.templates import HOST, PORT, checked, fill, read
from chalicelib.errors import Misconfigured

_NONCE = r"[0-9a-f]{32}"
_END_OF_INSTALLER = "END-OF-INSTALLER"


def prepare_command(instance_id: str, nonce: str, registry: str, *, new_key: bool) -> str:
    """POSIX sh that makes a P-256 key on the instance if there is none, and prints a CSR for it.

    nonce: 32 hex digits, to appear in the CSR; see csr_in. registry: HOST or HOST:PORT, whose key
    it is: an instance has one for each. new_key: replace the key that is there.
    Raises Misconfigured for an id, a nonce or a registry of another form.
    """
    values = {
        "REGISTRY": checked("registry", registry, rf"{HOST}(:{PORT})?"),
        "INSTANCE": _checked_id(instance_id),
        "NONCE": checked("nonce", nonce, _NONCE),
        "NEW_KEY": "yes" if new_key else "no",
        "COMMON_FUNCTIONS": shared("common.sh"),
        "KEY_FUNCTIONS": shared("key.sh"),
    }
    return fill(read("instance/prepare.sh"), values)


def install_command(bundle: Bundle, instance_id: str) -> str:
    """POSIX sh that installs *bundle* for the key on the instance, tries it, and reports.

    Raises Misconfigured for a bundle that holds a key, and for values as installer() does.
    """
    if bundle.private_key is not None:
        raise Misconfigured("unsafe_value", "a command may hold no private key", field="bundle")
    text = installer(bundle).removesuffix("\n")
    if _END_OF_INSTALLER in text.splitlines():
        raise Misconfigured("unsafe_value", "the installer ends its own here-document")
    values = {
        "REGISTRY": checked("registry", bundle.registry, rf"{HOST}(:{PORT})?"),
        "INSTANCE": _checked_id(instance_id),
        "PUBLIC_KEY": _public_key_in(bundle.certificate),
        "INSTALLER": text,
        "END_OF_INSTALLER": _END_OF_INSTALLER,
        "COMMON_FUNCTIONS": shared("common.sh"),
        "TRY_FUNCTIONS": shared("try.sh"),
    }
    return fill(read("instance/install.sh"), values)


def _checked_id(instance_id: str) -> str:
    if not is_instance_id(instance_id):
        raise Misconfigured("unsafe_value", "not the id of an instance", field="instance_id")
    return instance_id


def _public_key_in(certificate: str) -> str:
    """As `openssl pkey -pubout` writes it, without the last line break."""
    pem = public_key_in(certificate).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode().removesuffix("\n")


def shared(name: str) -> str:
    """Functions that several scripts have, without the last line break."""
    return read(f"instance/{name}").removesuffix("\n")
