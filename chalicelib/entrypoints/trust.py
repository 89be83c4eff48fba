"""The trust, for everybody; and the registry's own certificate, for its host."""

from __future__ import annotations

from chalice import Response

from chalicelib import bootstrap
from chalicelib.entrypoints import answers
from chalicelib.entrypoints.bodies import read_csr
from chalicelib.entrypoints.http import JSON, PEM, ApiBlueprint, choose_form, json_answer

blueprint = ApiBlueprint(__name__)


@blueprint.route("/trust", methods=["GET"])
def get_trust() -> Response:
    """The trust as last published: CAs, CRL, where the registry is."""
    choose_form(blueprint.header("accept"), (JSON,))
    blueprint.query(())
    return json_answer(bootstrap.services().trust.current().to_json())


@blueprint.route("/registry/cert", methods=["POST"])
def issue_registry_certificate() -> Response:
    """Body: a PEM CSR, bare or in JSON; answers 201 with a certificate for the registry's host."""
    form = choose_form(blueprint.header("accept"), (JSON, PEM))
    blueprint.query(())
    serving = bootstrap.services().serving
    issued = serving.issue(read_csr(blueprint.current_request), blueprint.caller())
    if form == PEM:
        return Response(
            body=issued.record.certificate_pem + issued.chain,
            status_code=201,
            headers={"Content-Type": PEM, "Cache-Control": "no-store"},
        )
    document = answers.certificate_document(issued.record, serving.now())
    return json_answer({**document, "chain": issued.chain}, 201)
