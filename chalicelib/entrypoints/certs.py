"""Certificates of the caller: issue, list, look up, fetch again, renew, revoke, diagnose."""

from __future__ import annotations

from chalicelib import bootstrap
from chalicelib.entrypoints.http import answers, bodies, codes, documents, requested
from chalicelib.entrypoints.http.asked import Asked
from chalicelib.entrypoints.http.blueprint import Answer, ApiBlueprint
from chalicelib.entrypoints.http.operations import NO_BODY, Answers, Nothing, Operation
from chalicelib.entrypoints.http.parameters import Listing

blueprint = ApiBlueprint(__name__)


@blueprint.route(
    "/certs",
    Operation(
        method="POST",
        query=Nothing,
        accepts=bodies.ISSUE,
        successes={
            201: Answers(
                description="The certificate, with its private key if we made that: it is kept "
                "for a day, for its owner to fetch again, and nowhere after that.",
                document=documents.IssuedCertificate,
                forms=answers.FORMS,
                headers=("Location",),
            )
        },
        problems=(*codes.ISSUING, *codes.ASKED_FOR, "quota_exceeded"),
        idempotent=True,
    ),
)
def issue_certificate(asked: Asked[Nothing, bodies.IssueBody]) -> Answer:
    """Issue a certificate to the caller.

    With nothing in the body we make a P-256 key: it is answered now, and kept for a day for its
    owner to fetch again. With a CSR, as the body itself or in JSON, its key is certified, and the
    private key stays where it is.
    """
    request = requested.issue_request(asked)
    issuing = bootstrap.services().issuing
    issued = issuing.issue(request, asked.caller)
    return answers.issued_answer(issued, asked.form, issuing.now(), "/certs")


@blueprint.route(
    "/certs",
    Operation(
        method="GET",
        query=Listing,
        accepts=NO_BODY,
        successes={
            200: Answers(description="One page of them.", document=documents.CertificateList)
        },
        problems=codes.LISTING,
    ),
)
def list_certificates(asked: Asked[Listing, Nothing]) -> Answer:
    """List the caller's certificates, the newest first."""
    catalogue, given = bootstrap.services().catalogue, asked.query
    page = catalogue.own(asked.caller, given.selection(), given.limit, given.start)
    return answers.list_answer(page, catalogue.now())


@blueprint.route(
    "/certs/{serial}",
    Operation(
        method="GET",
        query=Nothing,
        accepts=NO_BODY,
        successes={200: Answers(description="It.", document=documents.Certificate)},
        problems=codes.RECORDS,
    ),
)
def get_certificate(asked: Asked[Nothing, Nothing]) -> Answer:
    """Look up one of the caller's certificates."""
    catalogue = bootstrap.services().catalogue
    record = catalogue.look_up(asked.serial, asked.caller)
    return answers.certificate_answer(record, catalogue.now())


@blueprint.route(
    "/certs/{serial}/bundle",
    Operation(
        method="GET",
        query=Nothing,
        accepts=NO_BODY,
        successes={
            200: Answers(
                description="The same again as when it was issued.",
                document=documents.IssuedCertificate,
                forms=answers.FORMS,
            )
        },
        problems=(*codes.HANDING_OUT, "bundle_expired"),
    ),
)
def get_bundle(asked: Asked[Nothing, Nothing]) -> Answer:
    """Fetch a certificate again, with all that a Docker host needs.

    A private key that we made is there for a day; after that there is no bundle any more.
    """
    issuing = bootstrap.services().issuing
    issued = issuing.bundle_again(asked.serial, asked.caller)
    return answers.bundle_answer(issued, asked.form, issuing.now())


@blueprint.route(
    "/certs/{serial}/renew",
    Operation(
        method="POST",
        query=Nothing,
        accepts=bodies.RENEW,
        successes={
            201: Answers(
                description="The successor, in the forms of a certificate just issued.",
                document=documents.RenewedCertificate,
                forms=answers.FORMS,
                headers=("Location",),
            )
        },
        problems=(
            *codes.ISSUING,
            "already_renewed",
            "not_renewable",
            "grant_ended",
            "access_changed",
            "quota_exceeded",
        ),
        idempotent=True,
    ),
)
def renew_certificate(asked: Asked[Nothing, bodies.RenewBody]) -> Answer:
    """Issue a successor with the same name, owner and access.

    The key stays the same, unless the body brings a CSR; if we made the key, we make a new one.
    """
    request = requested.renew_request(asked)
    issuing = bootstrap.services().issuing
    issued = issuing.renew(asked.serial, request, asked.caller)
    return answers.renewed_answer(issued, asked.form, issuing.now(), revoked_old=request.revoke_old)


@blueprint.route(
    "/certs/{serial}",
    Operation(
        method="DELETE",
        query=Nothing,
        accepts=bodies.REVOKE,
        successes=answers.REVOKED,
        problems=codes.REVOKING,
    ),
)
def revoke_certificate(asked: Asked[Nothing, bodies.RevokeBody]) -> Answer:
    """Revoke one of the caller's certificates; again changes nothing about it.

    With it go the older certificates of the same key; all of that key if the reason is
    keyCompromise, also when it was revoked before; none if it is superseded. The registry refuses
    them within a minute of a 200.
    """
    reason = asked.body.reason
    revoking = bootstrap.services().revoking
    revoked = revoking.revoke(asked.serial, reason, asked.caller)
    return answers.revoked_answer(revoked, revoking.now())


@blueprint.route(
    "/certs/diagnose",
    Operation(
        method="POST",
        query=Nothing,
        accepts=bodies.DIAGNOSE,
        successes={
            200: Answers(description="What was found.", document=documents.DiagnosisDocument)
        },
        problems=codes.DIAGNOSING,
    ),
)
def diagnose_certificate(asked: Asked[Nothing, bodies.DiagnoseBody]) -> Answer:
    """Say whether the registry would admit one of the caller's certificates, and if not, why."""
    evidence = requested.evidence(asked)
    diagnosis = bootstrap.services().diagnosing.diagnose(evidence, asked.caller)
    return answers.diagnosis_answer(diagnosis)
