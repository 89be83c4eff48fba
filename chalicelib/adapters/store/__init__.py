"""The tables of certificates."""

from chalicelib.adapters.store.certificates import CertificateStore

__all__ = ["CertificateStore"]
