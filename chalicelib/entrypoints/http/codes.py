"""Every code that a problem may carry, what it means, and which codes go together.

The texts are part of the API's description. Which status a code comes with is its error's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chalicelib.entrypoints.http.problems import STATUS_OF
from chalicelib.errors import (
    AppError,
    Conflict,
    DependencyFailed,
    Forbidden,
    InvalidRequest,
    Misconfigured,
    NotAcceptable,
    NotFound,
    QuotaExceeded,
    UnsupportedMediaType,
)

_OF_ERRORS: Mapping[type[AppError], Mapping[str, str]] = {
    InvalidRequest: {
        "bad_idempotency_key": "The Idempotency-Key is not 1 to 64 visible ASCII characters.",
        "bad_name": "The service's name has characters that a name may not have, or too many.",
        "bad_owner": "The owner is not the ARN of an IAM user or of a role's session.",
        "bad_time": "The time is not in the form 2026-03-04T05:06:07Z, or with an offset, +01:00.",
        "body_not_utf8": "The body is not UTF-8 text.",
        "certificate_malformed": "The PEM block does not hold a readable certificate.",
        "certificate_multiple": "There is more than a certificate and its chain.",
        "certificate_not_pem": "It is not a certificate in PEM.",
        "certificate_or_serial": "Give one of the two, certificate or serial.",
        "certificate_too_large": "The certificate is longer than any of ours.",
        "csr_and_key_type": "A CSR brings its own key, so there is no key type to choose.",
        "csr_bad_signature": "The CSR is not signed by the key it holds.",
        "csr_malformed": "The PEM block does not hold a readable CSR.",
        "csr_multiple": "There is more than one CSR.",
        "csr_not_pem": "It is not a CSR in PEM; curl's -d drops the line breaks.",
        "csr_too_large": "The CSR is over 16 KiB.",
        "csr_trailing_data": "Something follows the CSR.",
        "days_out_of_range": "The lifetime is not from 1 day to what the stack allows.",
        "empty_body": "There is nothing in the body, though it is needed, or said to be a file.",
        "invalid_cursor": "It is not a cursor that this list gave.",
        "invalid_serial": "It is not a serial in hexadecimal.",
        "key_in_use": "The key is certified for somebody else.",
        "key_is_ca": "The key is a CA's.",
        "key_revoked": "A certificate of this key was revoked.",
        "label_not_printable": "The label holds control characters.",
        "label_too_long": "The label has more than 64 characters.",
        "limit_out_of_range": "The limit is not from 1 to 100.",
        "malformed_json": "The body is not JSON.",
        "missing_field": "A field that the body needs is not there.",
        "never_matches": "Nothing can be both: status=expired, and about to expire.",
        "private_key_sent": "A private key was sent: treat it as known to others.",
        "repeated_parameter": "A query parameter is given more than once.",
        "rsa_exponent": "The RSA key's public exponent is not 65537.",
        "rsa_key_size": "The RSA key has fewer than 2048 bits, or more than 4096.",
        "rsa_modulus": "The RSA key's modulus has a small factor.",
        "unknown_field": "The body has a field that there is not.",
        "unknown_parameter": "The query has a parameter that there is not.",
        "unknown_value": "It is not one of the values that there are.",
        "unsupported_key": "The key is neither RSA nor EC on P-256, P-384 or P-521.",
        "wrong_type": "A field, or the body, is of another type than it has to be.",
    },
    Forbidden: {
        "access_changed": "The caller may not have the access of the certificate any more.",
        "instance_barred": "The EC2 instance's certificate was taken back by hand.",
        "instance_not_tagged": "The EC2 instance has no tag that says what it may have.",
        "not_that_instance": "The session is named like an EC2 instance, but is none of that role.",
        "not_the_registry_host": "The caller is not the registry's host.",
        "push_not_allowed": "The caller may have pull access, but not push.",
        "unrecognised_caller": "The caller is neither an IAM user nor a session of a role.",
    },
    NotFound: {
        "bundle_expired": "The private key was kept for a day and has gone.",
        "certificate_not_found": "There is no such certificate, or it is somebody else's.",
        "instance_not_found": "There is no such EC2 instance, or nothing is known of it here.",
    },
    NotAcceptable: {"not_acceptable": "None of the forms that Accept names can be made."},
    Conflict: {
        "already_renewed": "The certificate has a successor, which is active; the detail names it.",
        "certificate_revoked": "The certificate is revoked.",
        "grant_ended": "An admin had it issued, and it has ended or was taken back.",
        "idempotency_key_reused": "The Idempotency-Key was used for another request.",
        "instance_not_enrollable": "The EC2 instance has no tag with an access, or does not run.",
        "key_lost": "The first answer to this Idempotency-Key was lost, and the key in it.",
        "not_renewable": "It is the registry's own certificate, which its host renews.",
        "not_revocable": "It is the registry's own certificate, which no list can name.",
    },
    UnsupportedMediaType: {"unsupported_media_type": "The body is of a type that is not read."},
    QuotaExceeded: {"quota_exceeded": "The caller holds as many active certificates as it may."},
    Misconfigured: {
        "authority_expired": "The CA has expired.",
        "bad_setting": "A setting of the service cannot be read.",
        "missing_setting": "A setting of the service is missing.",
        "no_authority": "There is no CA yet.",
        "no_trust": "Nothing has been published yet.",
        "template_mismatch": "The installer's template does not fit.",
        "unreadable_crl": "A published revocation list cannot be read.",
        "unreadable_enrolment": "The record of an instance cannot be read.",
        "unreadable_record": "A record does not hold a readable certificate.",
        "unreadable_trust": "The published CAs cannot be read.",
        "unsafe_value": "A setting would not be safe in the installer.",
        "unusable_authority": "A CA cannot be used.",
    },
    DependencyFailed: {
        "authority_unreadable": "The CAs could not be read.",
        "bucket_unreadable": "What is stored could not be read.",
        "busy": "Other requests got in the way.",
        "ec2_unreadable": "EC2 did not answer.",
        "queue_unwritable": "It could not be asked for: the queue did not answer.",
        "table_unreadable": "The records could not be read.",
        "table_unwritable": "The record could not be written.",
    },
}

# What API Gateway answers by itself, before this service is asked; in the form of a problem too.
OF_THE_GATEWAY: Mapping[int, Mapping[str, str]] = {
    403: {
        "bad_signature": "The signature does not fit.",
        "expired_credentials": "The credentials have expired.",
        "not_allowed": "No policy allows the caller this.",
        "not_signed": "The request is not signed, or its path or method does not exist.",
    },
    413: {"too_large": "The request is larger than API Gateway takes."},
    429: {"throttled": "Too many requests came at once."},
    500: {"internal_error": "Something went wrong on our side."},
    504: {"timeout": "There was no answer in time."},
}

MEANINGS: Mapping[str, str] = {
    code: meaning
    for some in (*_OF_ERRORS.values(), *OF_THE_GATEWAY.values())
    for code, meaning in some.items()
}
STATUSES: Mapping[str, int] = {
    **{code: STATUS_OF[error] for error, some in _OF_ERRORS.items() for code in some},
    **{code: status for status, some in OF_THE_GATEWAY.items() for code in some},
}

EVERYWHERE = (
    *(code for some in OF_THE_GATEWAY.values() for code in some),
    "unknown_parameter",
    "repeated_parameter",
    "not_acceptable",
)
CALLER = ("unrecognised_caller",)
BODY = (
    "empty_body",
    "body_not_utf8",
    "malformed_json",
    "unsupported_media_type",
    "unknown_field",
    "wrong_type",
)
PATH: Mapping[str, Sequence[str]] = {
    "serial": ("certificate_not_found",),
    "instance_id": ("instance_not_found",),
}
STACK = ("missing_setting", "bad_setting")
CSR = (
    "private_key_sent",
    "csr_too_large",
    "csr_not_pem",
    "csr_multiple",
    "csr_trailing_data",
    "csr_malformed",
    "csr_bad_signature",
    "unsupported_key",
    "rsa_key_size",
    "rsa_exponent",
    "rsa_modulus",
    "key_is_ca",
)
RECORDS = (*STACK, "table_unreadable", "unreadable_record")
AUTHORITIES = ("no_authority", "unusable_authority", "authority_unreadable")
# Everything that hands out a bundle may fail for these.
HANDING_OUT = (
    *RECORDS,
    *AUTHORITIES,
    "bucket_unreadable",
    "busy",
    "certificate_revoked",
    "template_mismatch",
    "unsafe_value",
)
ISSUING = (
    *HANDING_OUT,
    *CSR,
    "key_in_use",
    "key_revoked",
    "days_out_of_range",
    "bad_idempotency_key",
    "idempotency_key_reused",
    "key_lost",
    "not_that_instance",
    "instance_barred",
    "unreadable_enrolment",
    "instance_not_tagged",
    "push_not_allowed",
    "ec2_unreadable",
    "authority_expired",
    "table_unwritable",
)
ASKED_FOR = ("csr_and_key_type", "unknown_value", "label_too_long", "label_not_printable")
LISTING = (
    *RECORDS,
    "unknown_value",
    "limit_out_of_range",
    "bad_time",
    "never_matches",
    "invalid_cursor",
)
LISTING_INSTANCES = (
    *STACK,
    "table_unreadable",
    "unknown_value",
    "limit_out_of_range",
    "invalid_cursor",
)
ENROLMENTS = (*STACK, "table_unreadable", "unreadable_enrolment")
ENROLLING = (*ENROLMENTS, "instance_not_enrollable", "ec2_unreadable", "queue_unwritable")
REVOKING = (*RECORDS, "unknown_value", "not_revocable", "table_unwritable", "busy")
TRUST = (*STACK, "no_trust", "bucket_unreadable")
DIAGNOSING = (
    *RECORDS,
    *TRUST,
    "certificate_or_serial",
    "certificate_not_found",
    "certificate_too_large",
    "certificate_not_pem",
    "certificate_multiple",
    "certificate_malformed",
    "private_key_sent",
    "invalid_serial",
    "unreadable_crl",
    "unreadable_trust",
)
