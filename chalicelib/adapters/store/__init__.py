"""The tables."""

from chalicelib.adapters.store.certificates import CertificateStore
from chalicelib.adapters.store.enrolments import EnrolmentStore
from chalicelib.adapters.store.listing import CertificateListing
from chalicelib.adapters.store.revocations import RevocationStore
from chalicelib.adapters.store.tables import Tables

__all__ = [
    "CertificateListing",
    "CertificateStore",
    "EnrolmentStore",
    "RevocationStore",
    "Tables",
]
