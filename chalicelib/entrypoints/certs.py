"""Certificates of the caller: ask for one, list them, fetch one or its bundle again."""

from __future__ import annotations

import re

from chalice import Response

from chalicelib import bootstrap
from chalicelib.domain.model import Selection, Status
from chalicelib.entrypoints import answers
from chalicelib.entrypoints.bodies import read_issue_request
from chalicelib.entrypoints.http import JSON, ApiBlueprint, choose_form, json_answer
from chalicelib.errors import InvalidRequest, NotFound

blueprint = ApiBlueprint(__name__)

_SERIAL = re.compile(r"[0-9a-f]{1,40}")
_DEFAULT_LIMIT, _MAXIMUM_LIMIT = 50, 100


@blueprint.route("/certs", methods=["POST"])
def issue_certificate() -> Response:
    """Body: nothing, JSON or a PEM CSR; answers 201 in the form that Accept chooses."""
    form = choose_form(blueprint.header("accept"), answers.FORMS)
    blueprint.query(())
    caller = blueprint.caller()
    request = read_issue_request(blueprint.current_request, blueprint.header("idempotency-key"))
    issuing = bootstrap.services().issuing
    return answers.issued_answer(issuing.issue(request, caller), form, issuing.now(), 201)


@blueprint.route("/certs", methods=["GET"])
def list_certificates() -> Response:
    """Query: status, limit (1 to 100, default 50), cursor; the caller's own, newest first."""
    choose_form(blueprint.header("accept"), (JSON,))
    caller = blueprint.caller()
    given = blueprint.query(("status", "limit", "cursor"))
    catalogue = bootstrap.services().catalogue
    selection = Selection(status=_status(given))
    page = catalogue.own(caller, selection, _limit(given), given.get("cursor"))
    now = catalogue.now()
    shown = [answers.certificate_summary(record, now) for record in page.records]
    return json_answer({"certificates": shown, "next_cursor": page.cursor})


@blueprint.route("/certs/{serial}", methods=["GET"])
def get_certificate(serial: str) -> Response:
    """One of the caller's own; 404 for all others."""
    choose_form(blueprint.header("accept"), (JSON,))
    blueprint.query(())
    catalogue = bootstrap.services().catalogue
    record = catalogue.look_up(canonical_serial(serial), blueprint.caller())
    return json_answer(answers.certificate_document(record, catalogue.now()))


@blueprint.route("/certs/{serial}/bundle", methods=["GET"])
def get_bundle(serial: str) -> Response:
    """The bundle again, in the form that Accept chooses; 404 once its private key has gone."""
    form = choose_form(blueprint.header("accept"), answers.FORMS)
    blueprint.query(())
    issuing = bootstrap.services().issuing
    issued = issuing.bundle_again(canonical_serial(serial), blueprint.caller())
    return answers.issued_answer(issued, form, issuing.now(), 200)


def canonical_serial(text: str) -> str:
    """40 lower-case hex digits, from what people paste: openssl prints upper case, unpadded."""
    digits = text.lower()
    if not _SERIAL.fullmatch(digits):
        raise NotFound("certificate_not_found", "you have no certificate with this serial")
    return digits.zfill(40)


def _status(given: dict[str, str]) -> Status | None:
    value = given.get("status")
    if value is None:
        return None
    if value not in set(Status):
        raise InvalidRequest(
            "unknown_value", f"it must be one of: {', '.join(Status)}", field="status"
        )
    return Status(value)


def _limit(given: dict[str, str]) -> int:
    value = given.get("limit", str(_DEFAULT_LIMIT))
    if not re.fullmatch(r"[0-9]{1,3}", value) or not 1 <= int(value) <= _MAXIMUM_LIMIT:
        raise InvalidRequest(
            "limit_out_of_range", f"limit must be from 1 to {_MAXIMUM_LIMIT}", field="limit"
        )
    return int(value)
