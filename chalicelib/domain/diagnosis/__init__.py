"""Would the registry admit this certificate, and if not why.

Judged as the nginx of a registry host judges that goes by the trust as published. What we have on
record comes on top: it explains, but nginx does not know it.
"""

from chalicelib.domain.diagnosis.judging import judge
from chalicelib.domain.diagnosis.model import (
    CertificateFacts,
    CrlFacts,
    Diagnosis,
    Evidence,
    Finding,
    FindingCode,
    RevocationFacts,
)
from chalicelib.domain.diagnosis.rules import Rules

__all__ = [
    "CertificateFacts",
    "CrlFacts",
    "Diagnosis",
    "Evidence",
    "Finding",
    "FindingCode",
    "RevocationFacts",
    "Rules",
    "judge",
]
