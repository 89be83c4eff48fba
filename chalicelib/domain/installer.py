"""The installer: a shell script that puts a bundle where this machine's container engines look."""

from __future__ import annotations

from ipaddress import ip_address

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.templates import HOST, PORT, checked, fill, read
from chalicelib.errors import Misconfigured


def installer(bundle: Bundle) -> str:
    """POSIX sh for the machine it is run on; safe to run twice. Holds the key if we made it.

    Raises Misconfigured for a value that could mean anything but itself in the script.
    """
    registry = checked("registry", bundle.registry, rf"{HOST}(:{PORT})?")
    key = bundle.private_key
    values = {
        "REGISTRY": registry,
        "REGISTRY_ADDRESS": _hosts_address(registry, bundle.registry_address),
        "HOLDS_KEY": "no" if key is None else "yes",
        "CA_BUNDLE": _pem_lines("ca_bundle", bundle.ca_bundle, "CERTIFICATE"),
        "CERTIFICATE": _pem_lines("certificate", bundle.certificate, "CERTIFICATE"),
        "PRIVATE_KEY": "" if key is None else _pem_lines("private_key", key, "PRIVATE KEY"),
    }
    return fill(read("install.sh"), values)


def _hosts_address(registry: str, address: str) -> str:
    """*address*, unless there is no name to give it to: the registry goes by its own."""
    if not address or _is_address(registry.partition(":")[0]):
        return ""
    # ip_address() lets anything follow the % of a zone.
    checked("registry_address", address, r"[0-9A-Fa-f:.]+")
    if not _is_address(address):
        raise Misconfigured("unsafe_value", "not an IP address", field="registry_address")
    return address


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _pem_lines(name: str, pem: str, label: str) -> str:
    """PEM blocks of one *label* and nothing beside them, without the last line break.

    No line of them can end one of the script's here-documents, nor hold one of its places.
    """
    block = rf"-----BEGIN {label}-----\n([A-Za-z0-9+/=]{{1,76}}\n)+-----END {label}-----\n"
    return checked(name, pem, rf"({block})+").removesuffix("\n")
