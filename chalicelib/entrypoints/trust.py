"""The trust, for everybody; and the registry's own certificate, for its host."""

from __future__ import annotations

from chalicelib import bootstrap
from chalicelib.entrypoints.http import answers, bodies, codes, documents
from chalicelib.entrypoints.http.asked import Asked
from chalicelib.entrypoints.http.blueprint import Answer, ApiBlueprint
from chalicelib.entrypoints.http.forms import JSON, PEM
from chalicelib.entrypoints.http.operations import NO_BODY, Answers, Nothing, Operation

blueprint = ApiBlueprint(__name__)


@blueprint.route(
    "/trust",
    Operation(
        method="GET",
        query=Nothing,
        accepts=NO_BODY,
        successes={
            200: Answers(description="As last published.", document=documents.TrustDocument)
        },
        problems=codes.TRUST,
    ),
)
def get_trust(asked: Asked[Nothing, Nothing]) -> Answer:
    """Get the CAs, the revocation lists, and where the registry is."""
    return answers.trust_answer(bootstrap.services().trust.current())


@blueprint.route(
    "/registry/cert",
    Operation(
        method="POST",
        query=Nothing,
        accepts=bodies.REGISTRY,
        successes={
            201: Answers(
                description="A certificate for the registry's host name.",
                document=documents.ServerCertificate,
                forms=(JSON, PEM),
            )
        },
        problems=(
            *codes.RECORDS,
            *codes.AUTHORITIES,
            *codes.CSR,
            "missing_field",
            "not_the_registry_host",
            "authority_expired",
            "table_unwritable",
            "busy",
        ),
    ),
)
def issue_registry_certificate(asked: Asked[Nothing, bodies.CsrBody]) -> Answer:
    """Issue the registry's own certificate; for the registry's host alone.

    It is for the host name that the stack is configured with, whatever the CSR names.
    """
    csr = asked.body.csr.encode()
    serving = bootstrap.services().serving
    issued = serving.issue(csr, asked.caller)
    return answers.server_certificate_answer(issued, asked.form, serving.now())
