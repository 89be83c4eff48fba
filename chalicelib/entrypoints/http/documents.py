"""What the API answers in JSON: the types that are encoded, and that describe the answers.

Their docstrings and descriptions are part of the API's description, and written for its readers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from chalicelib.domain.diagnosis import FindingCode
from chalicelib.domain.model import Access, RevocationReason, Status

Time = Annotated[
    datetime, Meta(tz=True, description="UTC, to the second.", examples=["2026-03-04T05:06:07Z"])
]
Serial = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{40}$",
        description="40 lower-case hex digits.",
        examples=["5f0c1b9d2a7e4c6380aa14d7e2b9c05f31d6a8e4"],
    ),
]
Fingerprint = Annotated[
    str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 over the certificate in DER.")
]
Arn = Annotated[str, Meta(pattern="^arn:", examples=["arn:aws:iam::123456789012:user/ann"])]
Pem = Annotated[str, Meta(pattern="^-----BEGIN ", description="PEM.")]
Registry = Annotated[
    str,
    Meta(
        description="Host, or host:port, as in image names.",
        examples=["registry.example.com:8443"],
    ),
]


class CertificateSummary(Struct):
    """A certificate as lists show it."""

    serial: Serial
    name: Annotated[str, Meta(description="Whom it names: the subject's CN.", examples=["ann"])]
    owner: Annotated[Arn, Meta(description="Who may see, renew and revoke it.")]
    access: Annotated[
        Access | None, Meta(description="null in the registry's own server certificate.")
    ]
    status: Status
    issued_at: Time
    not_before: Time
    not_after: Annotated[Time, Meta(description="The last second of its validity, UTC.")]
    fingerprint_sha256: Fingerprint
    issuer_id: Annotated[str, Meta(description="Which of the CAs signed it.")]
    label: Annotated[str, Meta(description="What was noted when it was issued; may be empty.")]
    issued_by: (
        Annotated[Arn, Meta(description="The admin who had it issued; absent: its owner asked.")]
        | UnsetType
    ) = UNSET
    renews: (
        Annotated[Serial, Meta(description="Its predecessor; absent: it has none.")] | UnsetType
    ) = UNSET
    superseded_by: (
        Annotated[Serial, Meta(description="Its successor; absent: it has none.")] | UnsetType
    ) = UNSET
    revoked_at: Annotated[Time, Meta(description="Absent: it is not revoked.")] | UnsetType = UNSET
    revocation_reason: RevocationReason | UnsetType = UNSET
    revoked_by: (
        Annotated[
            str,
            Meta(
                pattern="^(arn:|registry-trust$)",
                description="Who revoked it, an ARN; registry-trust: the service itself, for an "
                "EC2 instance that has another or has ended.",
            ),
        ]
        | UnsetType
    ) = UNSET


class Certificate(CertificateSummary, kw_only=True):
    """One certificate."""

    certificate: Annotated[Pem, Meta(description="The certificate in PEM.")]


class BundleLocation(Struct):
    """Where a bundle (as application/gzip holds it) can be fetched from."""

    uri: Annotated[str, Meta(description="For who may read the bucket.", examples=["s3://b/k"])]
    url: Annotated[str, Meta(description="For anybody who has it, without credentials.")]
    expires_at: Annotated[Time, Meta(description="When the url stops working, UTC.")]


class IssuedCertificate(Certificate, kw_only=True):
    """A certificate and all that a Docker host needs to use it."""

    chain: Annotated[
        str,
        Meta(description="The CA that signed it, in PEM; empty once that CA has been retired."),
    ]
    ca_bundle: Annotated[Pem, Meta(description="The CAs to verify the registry with.")]
    registry: Registry
    bundle: Annotated[
        BundleLocation | None,
        Meta(description="null: it could not be stored; this answer still holds everything."),
    ]
    private_key: (
        Annotated[Pem, Meta(description="PKCS #8, PEM. Absent when the key is the caller's own.")]
        | UnsetType
    ) = UNSET


class RenewedCertificate(IssuedCertificate, kw_only=True):
    """A certificate's successor, and all that a Docker host needs to use it."""

    crl_pending: Annotated[
        bool,
        Meta(
            description="With revoke_old: the predecessor is revoked in the records, but the list "
            "that tells the registry is still to be published; that happens by itself."
        ),
    ]


class RevokedCertificate(Certificate, kw_only=True):
    """A revoked certificate, and whether the registry has been told."""

    crl_pending: Annotated[
        bool,
        Meta(
            description="It is revoked in the records, but the list that tells the registry is "
            "still to be published; that happens by itself within minutes."
        ),
    ]
    crl_number: Annotated[
        int | None,
        Meta(
            description="Of a published list that names it; null while that is pending, and for a "
            "certificate that has expired and needs no listing."
        ),
    ]
    also_revoked: Annotated[
        list[Serial], Meta(description="Others that were revoked with it just now.")
    ]


class CertificateList(Struct):
    """One page of certificates."""

    certificates: list[CertificateSummary]
    next_cursor: Annotated[
        str | None,
        Meta(
            description="Give it as cursor to get the next page; null after the last. A page may "
            "hold fewer certificates than asked for, even none, before the last."
        ),
    ]


class ServerCertificate(Certificate, kw_only=True):
    """A certificate for the registry itself."""

    chain: Annotated[Pem, Meta(description="The CAs that clients verify it with.")]


class TrustDocument(Struct):
    """What clients and the registry trust."""

    registry: Registry
    registry_address: Annotated[
        str, Meta(description="Its IP address, for hosts whose DNS does not know it; else empty.")
    ]
    ca_bundle: Annotated[Pem, Meta(description="The CAs to verify the registry with.")]
    client_ca: Annotated[Pem, Meta(description="The CAs whose clients the registry admits.")]
    crl: Annotated[Pem, Meta(description="One revocation list for each of these.")]
    crl_number: Annotated[int, Meta(description="The greatest of the lists' numbers; only grows.")]
    version: Annotated[str, Meta(description="Changes when any of this but the lists changes.")]


class Finding(Struct):
    """One thing that a diagnosis found."""

    code: Annotated[FindingCode, Meta(description="A stable word that programs may act on.")]
    detail: Annotated[str, Meta(description="The same in words, and what to do about it.")]
    refuses: Annotated[bool, Meta(description="The registry refuses the certificate for this.")]


class CertificateFacts(Struct):
    """What the certificate itself says. A stranger's may say anything."""

    serial: Annotated[
        str,
        Meta(pattern="^[0-9a-f]{40,}$", description="Lower-case hex digits, 40 or more."),
    ]
    subject: Annotated[
        str, Meta(description="RFC 4514.", examples=["O=registry-trust,OU=push,CN=ann"])
    ]
    issuer: Annotated[str, Meta(description="RFC 4514.")]
    not_before: Time
    not_after: Time
    fingerprint_sha256: Fingerprint


class RevocationFacts(Struct):
    """When and why it was revoked, and whether the registry knows."""

    revoked_at: Time
    reason: Annotated[str, Meta(description="A name of RFC 5280 section 5.3.1.")]
    crl_number: Annotated[
        int | None, Meta(description="Of the published list that names it; null: none does.")
    ]
    published: Annotated[bool, Meta(description="The published list names it.")]


class CrlFacts(Struct):
    """The published revocation list of the certificate's issuer."""

    number: int | None
    this_update: Time
    next_update: Time
    current: Annotated[bool, Meta(description="The registry may rely on it now.")]


class DiagnosisDocument(Struct):
    """Whether the registry would admit a certificate, and if not, why."""

    admitted: Annotated[bool, Meta(description="No finding refuses it.")]
    access: Annotated[
        Access | None,
        Meta(description="What its subject gives, admitted or not; null: nothing."),
    ]
    findings: Annotated[list[Finding], Meta(description="Empty: all is well.")]
    certificate: CertificateFacts
    revocation: Annotated[RevocationFacts | None, Meta(description="null: it is not revoked.")]
    superseded_by: Annotated[Serial | None, Meta(description="Its successor; null: it has none.")]
    crl: Annotated[
        CrlFacts | None, Meta(description="null: its issuer is unknown, or has no list.")
    ]
    at: Annotated[Time, Meta(description="The moment it was judged for, UTC.")]
