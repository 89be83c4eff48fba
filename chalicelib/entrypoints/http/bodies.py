"""What requests may bring: the types that validate bodies and parameters, and describe them.

Their docstrings and descriptions are part of the API's description, and written for its readers.
What depends on the caller or on the stack's parameters is policy's to judge.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from chalicelib.domain import policy
from chalicelib.domain.model import Access, KeyType, RevocationReason
from chalicelib.entrypoints.http.forms import FORM, PEM, PKCS10
from chalicelib.entrypoints.http.operations import Accepts
from chalicelib.entrypoints.http.reading import refusal

Csr = Annotated[
    str,
    Meta(
        description="A certificate signing request in PEM (PKCS #10). Only its public key is "
        "taken, once its signature is verified; RSA with 2048 to 4096 bits, or P-256, P-384, "
        "P-521.",
        extra_json_schema={
            "pattern": "-----BEGIN (NEW )?CERTIFICATE REQUEST-----",
            "format": "pem-csr",
        },
    ),
]
Days = Annotated[
    int,
    Meta(
        description="Lifetime in days; the stack's default when left out.",
        # The least that no stack refuses, and the most that some stack allows.
        extra_json_schema={"minimum": 1, "maximum": policy.LONGEST_LIFETIME.days},
    ),
]
Label = Annotated[
    str,
    Meta(
        max_length=64,
        description="A note of yours, without control characters.",
        # No pattern tells all of what str.isprintable() does.
        extra_json_schema={
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$",
            "format": "printable-text",
        },
        extra=refusal("label_too_long", "a label may have 64 characters"),
    ),
]
_NAME = "[A-Za-z0-9_+=,.@-]{1,64}"
Name = Annotated[
    str,
    Meta(
        pattern=f"^{_NAME}$",
        description="What the service is called; it becomes the subject's CN.",
        examples=["ci-runner"],
        extra=refusal("bad_name", "a name has 1 to 64 letters, digits and +=,.@_-"),
    ),
]
Owner = Annotated[
    str,
    Meta(
        max_length=1024,
        pattern=rf"^arn:aws[a-z-]*:(iam::[0-9]{{12}}:user/([!-~]*/)?"
        rf"|sts::[0-9]{{12}}:assumed-role/{_NAME}/){_NAME}$",
        description="The ARN of an IAM user or of a role's session.",
        examples=["arn:aws:sts::123456789012:assumed-role/ci/runner"],
        extra=refusal("bad_owner", "an owner is the ARN of an IAM user or of a role's session"),
    ),
]


class IssueBody(Struct, forbid_unknown_fields=True):
    """What certificate to issue.

    Without csr we make the key: it is answered now, and kept for a day for its owner to fetch
    again.
    """

    csr: Csr | UnsetType = UNSET
    key_type: (
        Annotated[KeyType, Meta(description="What key to make; ec-p256 when left out.")] | UnsetType
    ) = UNSET
    access: (
        Annotated[Access, Meta(description="What the caller may have at most, when left out.")]
        | UnsetType
    ) = UNSET
    days: Days | UnsetType = UNSET
    label: Label = ""


class NamedBody(IssueBody, forbid_unknown_fields=True, kw_only=True):
    """What certificate to issue, for which service, and who owns it."""

    name: Name
    owner: (
        Annotated[Owner, Meta(description="Who may see, renew and revoke it; else the caller.")]
        | UnsetType
    ) = UNSET


class RenewBody(Struct, forbid_unknown_fields=True):
    """How the successor differs from its predecessor."""

    csr: (
        Annotated[
            Csr,
            Meta(
                description="For a new key: a CSR in PEM. Without one the same public key is "
                "certified again; if we made the key, we make a new one."
            ),
        ]
        | UnsetType
    ) = UNSET
    days: Days | UnsetType = UNSET
    revoke_old: Annotated[
        bool, Meta(description="Revoke the predecessor, as superseded, with the same stroke.")
    ] = False


class RevokeBody(Struct, forbid_unknown_fields=True):
    """Why the certificate is revoked."""

    reason: RevocationReason = RevocationReason.UNSPECIFIED


class EnrolBody(Struct, forbid_unknown_fields=True):
    """Nothing: what an instance is given, its tag says."""


class CsrBody(Struct, forbid_unknown_fields=True):
    """What key to certify."""

    csr: Csr


class DiagnoseBody(Struct, forbid_unknown_fields=True):
    """Which certificate to diagnose: one of the two."""

    certificate: (
        Annotated[
            str,
            Meta(
                description="The certificate in PEM; its chain may follow.",
                extra_json_schema={
                    "pattern": "-----BEGIN CERTIFICATE-----",
                    "format": "pem-certificate",
                },
            ),
        ]
        | UnsetType
    ) = UNSET
    serial: (
        Annotated[
            str,
            Meta(
                description="Its serial, in hexadecimal, as openssl or nginx print it.",
                extra_json_schema={
                    "pattern": "^([0-9A-Fa-f]{1,40}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){0,19})$"
                },
            ),
        ]
        | UnsetType
    ) = UNSET


_EITHER_CSR_OR_KEY_TYPE = {"not": {"required": ["csr", "key_type"]}}
_CSR_ITSELF = "The CSR itself, in PEM."
_FOR_DEFAULTS = "For all the defaults, leave out the body and its content type."

ISSUE = Accepts(
    shape=IssueBody,
    optional=True,
    pem_field="csr",
    pem_types=(PKCS10, PEM, FORM),
    pem_description=_CSR_ITSELF,
    if_empty=_FOR_DEFAULTS,
    rules=_EITHER_CSR_OR_KEY_TYPE,
    examples={
        "all defaults": {},
        "a key of another kind": {"key_type": "ec-p384", "label": "build server 3"},
        "pull only, for a month": {"access": "pull", "days": 30},
    },
)
NAMED = Accepts(
    shape=NamedBody,
    if_empty="Send JSON with at least a name.",
    rules=_EITHER_CSR_OR_KEY_TYPE,
    examples={"a service that pulls": {"name": "ci-runner", "access": "pull", "days": 30}},
)
RENEW = Accepts(
    shape=RenewBody,
    optional=True,
    pem_field="csr",
    pem_types=(PKCS10, PEM, FORM),
    pem_description=_CSR_ITSELF,
    if_empty=_FOR_DEFAULTS,
    examples={
        "all defaults": {},
        "in place of the old one": {"revoke_old": True},
    },
)
REVOKE = Accepts(
    shape=RevokeBody,
    optional=True,
    if_empty="To give no reason, leave out the body and its content type.",
    examples={
        "another is used": {"reason": "superseded"},
        "a laptop is lost": {"reason": "keyCompromise"},
    },
)
ENROL = Accepts(
    shape=EnrolBody,
    optional=True,
    if_empty="Leave out the body and its content type.",
    examples={"all that can be said": {}},
)
REGISTRY = Accepts(
    shape=CsrBody,
    pem_field="csr",
    pem_types=(PKCS10, PEM, FORM),
    pem_description=_CSR_ITSELF,
    if_empty="Send the CSR: curl --data-binary @FILE",
)
DIAGNOSE = Accepts(
    shape=DiagnoseBody,
    pem_field="certificate",
    pem_types=(PEM, FORM),
    pem_description="The certificate itself, in PEM; its chain may follow.",
    if_empty='Send the certificate (curl --data-binary @client.cert) or JSON, {"serial": "..."}.',
    rules={"oneOf": [{"required": ["certificate"]}, {"required": ["serial"]}]},
    examples={"by its serial": {"serial": "5f0c1b9d2a7e4c6380aa14d7e2b9c05f31d6a8e4"}},
)
