"""Everybody's certificates, for admins. Who is one, IAM decides by the path."""

from __future__ import annotations

from chalicelib import bootstrap
from chalicelib.entrypoints.http import answers, bodies, codes, documents, requested
from chalicelib.entrypoints.http.asked import Asked
from chalicelib.entrypoints.http.blueprint import Answer, ApiBlueprint
from chalicelib.entrypoints.http.operations import NO_BODY, Answers, Nothing, Operation
from chalicelib.entrypoints.http.parameters import AnyonesListing

blueprint = ApiBlueprint(__name__)


@blueprint.route(
    "/admin/certs",
    Operation(
        method="POST",
        query=Nothing,
        accepts=bodies.NAMED,
        successes={
            201: Answers(
                description="The certificate, with its private key if we made that: it is kept "
                "for a day, for its owner to fetch again, and nowhere after that.",
                document=documents.IssuedCertificate,
                forms=answers.FORMS,
                headers=("Location",),
            )
        },
        problems=(*codes.ISSUING, *codes.ASKED_FOR, "missing_field", "bad_name", "bad_owner"),
        idempotent=True,
    ),
)
def issue_named_certificate(asked: Asked[Nothing, bodies.NamedBody]) -> Answer:
    """Issue a certificate for a service, by its name.

    It counts to nobody's quota, and may live longer than one that its owner asks for.
    """
    request = requested.named_request(asked)
    issuing = bootstrap.services().issuing
    issued = issuing.issue_named(request, asked.caller)
    return answers.issued_answer(issued, asked.form, issuing.now(), "/admin/certs")


@blueprint.route(
    "/admin/certs",
    Operation(
        method="GET",
        query=AnyonesListing,
        accepts=NO_BODY,
        successes={
            200: Answers(description="One page of them.", document=documents.CertificateList)
        },
        problems=(*codes.LISTING, "bad_owner"),
    ),
)
def list_all_certificates(asked: Asked[AnyonesListing, Nothing]) -> Answer:
    """List certificates of everybody or of one owner, the newest first.

    With expires_before and without owner the one that ends soonest comes first.
    """
    catalogue, given = bootstrap.services().catalogue, asked.query
    page = catalogue.everyones(given.selection(), given.limit, given.start)
    return answers.list_answer(page, catalogue.now())


@blueprint.route(
    "/admin/certs/{serial}",
    Operation(
        method="GET",
        query=Nothing,
        accepts=NO_BODY,
        successes={200: Answers(description="It.", document=documents.Certificate)},
        problems=codes.RECORDS,
    ),
)
def get_any_certificate(asked: Asked[Nothing, Nothing]) -> Answer:
    """Look up a certificate, whose it may be."""
    catalogue = bootstrap.services().catalogue
    record = catalogue.look_up_any(asked.serial)
    return answers.certificate_answer(record, catalogue.now())


@blueprint.route(
    "/admin/certs/{serial}",
    Operation(
        method="DELETE",
        query=Nothing,
        accepts=bodies.REVOKE,
        successes=answers.REVOKED,
        problems=codes.REVOKING,
    ),
)
def revoke_any_certificate(asked: Asked[Nothing, bodies.RevokeBody]) -> Answer:
    """Revoke a certificate, whose it may be; again changes nothing about it.

    With it go what it renews and what renews it, and the older certificates of the same key; all
    of that key if the reason is keyCompromise. Those that still stand go when it is revoked again,
    too. None go if the reason is superseded. The registry refuses them within a minute of a 200.
    """
    reason = asked.body.reason
    revoking = bootstrap.services().revoking
    revoked = revoking.revoke_any(asked.serial, reason, asked.caller)
    return answers.revoked_answer(revoked, revoking.now())


@blueprint.route(
    "/admin/certs/diagnose",
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
def diagnose_any_certificate(asked: Asked[Nothing, bodies.DiagnoseBody]) -> Answer:
    """Say whether the registry would admit a certificate, and if not, why."""
    evidence = requested.evidence(asked)
    return answers.diagnosis_answer(bootstrap.services().diagnosing.diagnose_any(evidence))
