"""Renewing, revoking and diagnosing over HTTP: one's own certificates."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.answered_problems import assert_problem
from tests.unit.authorities import DAY, NOW
from tests.unit.signed_gateway import BOB, Api
from tests.unit.signing_requests import csr, ec_key
from tests.unit.stand_ins import World

pytestmark = pytest.mark.filterwarnings("ignore:IAMAuthorizer is not a supported")

CSR = csr(ec_key())
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
PEM, GZIP, SHELL = "application/x-pem-file", "application/gzip", "text/x-shellscript"
NOBODYS = "f" * 40


def issue(api: Api, body: object = b"", **headers: str) -> str:
    return str(api("POST /certs", body, **headers).json_body["serial"])


def key_of(document: dict[str, str]) -> object:
    return x509.load_pem_x509_certificate(document["certificate"].encode()).public_key()


class TestRenewing:
    def test_a_successor_names_its_predecessor_and_is_named_by_it(self, api: Api) -> None:
        old = issue(api, {"access": "pull", "label": "lab"})
        answer = api(f"POST /certs/{old}/renew")
        document = answer.json_body
        assert answer.status_code == 201
        assert answer.headers["Location"] == f"/v1/certs/{document['serial']}"
        assert (document["renews"], document["access"], document["label"]) == (old, "pull", "lab")
        assert document["crl_pending"] is False
        assert "private_key" in document
        assert api(f"GET /certs/{old}").json_body["superseded_by"] == document["serial"]

    @pytest.mark.parametrize("body", [b"", {}, {"days": 3}])
    def test_an_owners_key_is_certified_again(self, api: Api, body: object) -> None:
        old = issue(api, CSR)
        document = api(f"POST /certs/{old}/renew", body).json_body
        assert key_of(document) == ec_key().public_key()
        assert "private_key" not in document

    @pytest.mark.parametrize("form", ["bare", "json"])
    def test_a_new_key_may_be_brought(self, api: Api, form: str) -> None:
        old, new = issue(api), csr(ec_key(ec.SECP384R1))
        if form == "bare":
            answer = api(f"POST /certs/{old}/renew", new, content_type=FORM)
        else:
            answer = api(f"POST /certs/{old}/renew", {"csr": new.decode()})
        assert key_of(answer.json_body) == ec_key(ec.SECP384R1).public_key()

    @pytest.mark.parametrize("accept", [JSON, PEM, GZIP, SHELL])
    def test_a_successor_comes_in_every_form(self, api: Api, accept: str) -> None:
        answer = api(f"POST /certs/{issue(api)}/renew", accept=accept)
        assert (answer.status_code, answer.headers["Content-Type"]) == (201, accept)
        assert answer.headers["Location"].startswith("/v1/certs/")

    def test_the_old_one_is_revoked_when_asked(self, api: Api, world: World) -> None:
        world.trust.refresh()
        kept, gone = issue(api), issue(api)
        api(f"POST /certs/{kept}/renew")
        assert api(f"POST /certs/{gone}/renew", {"revoke_old": True}).status_code == 201
        shown = api(f"GET /certs/{gone}").json_body
        assert (shown["status"], shown["revocation_reason"]) == ("revoked", "superseded")
        assert api(f"GET /certs/{kept}").json_body["status"] == "active"

    def test_a_list_that_could_not_be_published_is_told(self, api: Api, world: World) -> None:
        world.trust.refresh()
        old = issue(api)
        world.bundles.publishing_fails = True
        answer = api(f"POST /certs/{old}/renew", {"revoke_old": True})
        assert (answer.status_code, answer.json_body["crl_pending"]) == (201, True)

    def test_a_second_successor_is_a_problem_that_names_the_first(self, api: Api) -> None:
        old = issue(api)
        first = api(f"POST /certs/{old}/renew").json_body["serial"]
        assert first in assert_problem(api(f"POST /certs/{old}/renew"), 409, "already_renewed")

    def test_what_is_revoked_is_not_renewed_nor_handed_out(self, api: Api) -> None:
        serial = issue(api)
        api(f"DELETE /certs/{serial}")
        assert_problem(api(f"POST /certs/{serial}/renew"), 409, "certificate_revoked")
        assert_problem(api(f"GET /certs/{serial}/bundle"), 409, "certificate_revoked")

    def test_anothers_is_not_renewed(self, api: Api, world: World) -> None:
        serial, before = issue(api), list(world.journal.done)
        theirs = api(f"POST /certs/{serial}/renew", caller=BOB)
        none = api(f"POST /certs/{NOBODYS}/renew", caller=BOB)
        assert_problem(theirs, 404, "certificate_not_found")
        assert theirs.body == none.body
        assert world.journal.done == before

    def test_an_idempotency_key_repeats_a_renewal_and_nothing_else(self, api: Api) -> None:
        one, two = issue(api), issue(api)
        first, again = (api(f"POST /certs/{one}/renew", idempotency_key="k") for _ in range(2))
        assert first.json_body["serial"] == again.json_body["serial"]
        for request in (f"POST /certs/{two}/renew", "POST /certs"):
            refused = api(request, idempotency_key="k")
            assert_problem(refused, 409, "idempotency_key_reused", "Idempotency-Key")


class TestRevoking:
    @pytest.mark.parametrize("body", [b"", {}, {"reason": "unspecified"}])
    def test_a_revoked_certificate_is_shown_with_the_list_that_names_it(
        self, api: Api, world: World, body: object
    ) -> None:
        world.trust.refresh()
        serial = issue(api)
        answer = api(f"DELETE /certs/{serial}", body)
        document = answer.json_body
        assert answer.status_code == 200
        assert (document["serial"], document["status"]) == (serial, "revoked")
        assert document["revocation_reason"] == "unspecified"
        assert document["revoked_at"] == "2026-03-04T05:06:07Z"
        assert document["crl_number"] == world.bundles.published[-1].crl_number == 2
        assert (document["crl_pending"], document["also_revoked"]) == (False, [])

    def test_the_reason_is_kept(self, api: Api) -> None:
        serial = issue(api)
        api(f"DELETE /certs/{serial}", {"reason": "keyCompromise"})
        assert api(f"GET /certs/{serial}").json_body["revocation_reason"] == "keyCompromise"

    def test_again_changes_nothing(self, api: Api, world: World) -> None:
        world.trust.refresh()
        serial = issue(api)
        api(f"DELETE /certs/{serial}", {"reason": "keyCompromise"})
        world.time = NOW + DAY
        again = api(f"DELETE /certs/{serial}", {"reason": "superseded"})
        assert again.status_code == 200
        assert again.json_body["revocation_reason"] == "keyCompromise"
        assert again.json_body["revoked_at"] == "2026-03-04T05:06:07Z"

    def test_older_ones_of_the_key_fall_with_it_and_are_named(self, api: Api, world: World) -> None:
        world.trust.refresh()
        old = issue(api, CSR)
        world.time += DAY
        new = issue(api, CSR)
        assert api(f"DELETE /certs/{new}").json_body["also_revoked"] == [old]
        assert api(f"GET /certs/{old}").json_body["status"] == "revoked"

    def test_a_list_still_to_be_published_is_told_by_202(self, api: Api, world: World) -> None:
        world.trust.refresh()
        serial = issue(api)
        world.bundles.publishing_fails = True
        answer = api(f"DELETE /certs/{serial}")
        assert answer.status_code == 202
        assert (answer.json_body["crl_pending"], answer.json_body["crl_number"]) == (True, None)
        world.bundles.publishing_fails = False
        assert api(f"DELETE /certs/{serial}").status_code == 200

    def test_an_expired_one_needs_no_list(self, api: Api, world: World) -> None:
        serial = issue(api, {"days": 1})
        world.time = NOW + DAY + timedelta(seconds=1)
        document = api(f"DELETE /certs/{serial}").json_body
        assert (document["crl_number"], document["crl_pending"]) == (None, False)

    def test_anothers_is_not_revoked(self, api: Api, world: World) -> None:
        serial, before = issue(api), list(world.journal.done)
        theirs = api(f"DELETE /certs/{serial}", caller=BOB)
        assert_problem(theirs, 404, "certificate_not_found")
        assert theirs.body == api(f"DELETE /certs/{NOBODYS}", caller=BOB).body
        assert world.journal.done == before

    @pytest.mark.parametrize(
        ("body", "code", "field"),
        [
            ({"reason": "lost"}, "unknown_value", "reason"),
            ({"reason": None}, "wrong_type", "reason"),
            ({"because": "lost"}, "unknown_field", "because"),
            (b"{", "malformed_json", None),
        ],
    )
    def test_a_bad_reason_revokes_nothing(
        self, api: Api, body: object, code: str, field: str | None
    ) -> None:
        serial = issue(api)
        assert_problem(api(f"DELETE /certs/{serial}", body, content_type=JSON), 400, code, field)
        assert api(f"GET /certs/{serial}").json_body["status"] == "active"


class TestDiagnosing:
    @pytest.fixture(autouse=True)
    def _published(self, world: World) -> None:
        world.trust.refresh()

    @pytest.mark.parametrize("how", ["serial", "certificate", "bare", "curl"])
    def test_a_good_certificate_is_admitted(self, api: Api, how: str) -> None:
        issued = api("POST /certs", CSR).json_body
        pem = issued["certificate"]
        if how in ("serial", "certificate"):
            answer = api("POST /certs/diagnose", {how: issued[how]})
        else:
            answer = api(
                "POST /certs/diagnose", pem.encode(), content_type=FORM if how == "curl" else PEM
            )
        document = answer.json_body
        assert (answer.status_code, document["admitted"], document["findings"]) == (200, True, [])
        assert document["certificate"]["serial"] == issued["serial"]
        assert (document["access"], document["revocation"]) == ("push", None)
        assert document["at"] == "2026-03-04T05:06:07Z"
        assert document["crl"]["current"] is True

    def test_a_revoked_one_is_not_and_says_when_and_why(self, api: Api) -> None:
        serial = issue(api)
        api(f"DELETE /certs/{serial}", {"reason": "keyCompromise"})
        document = api("POST /certs/diagnose", {"serial": serial}).json_body
        (finding,) = document["findings"]
        assert document["admitted"] is False
        assert (finding["code"], finding["refuses"]) == ("revoked", True)
        assert document["revocation"] == {
            "revoked_at": "2026-03-04T05:06:07Z",
            "reason": "keyCompromise",
            "crl_number": 2,
            "published": True,
        }

    def test_anothers_is_answered_like_none(self, api: Api) -> None:
        serial = issue(api)
        theirs = api("POST /certs/diagnose", {"serial": serial}, caller=BOB)
        none = api("POST /certs/diagnose", {"serial": NOBODYS}, caller=BOB)
        detail = assert_problem(theirs, 404, "certificate_not_found")
        assert "ask its owner or an admin" in detail
        assert theirs.body == none.body

    @pytest.mark.parametrize(
        ("body", "code", "field"),
        [
            ({}, "certificate_or_serial", None),
            ({"serial": "xyz"}, "invalid_serial", "serial"),
            ({"certificate": "xyz"}, "certificate_not_pem", "certificate"),
            ({"pem": "xyz"}, "unknown_field", "pem"),
        ],
    )
    def test_what_is_no_certificate_is_a_problem(
        self, api: Api, body: object, code: str, field: str | None
    ) -> None:
        assert_problem(api("POST /certs/diagnose", body), 400, code, field)

    def test_a_private_key_is_refused_and_said_to_be_known_now(self, api: Api) -> None:
        key = api("POST /certs").json_body["private_key"]
        answer = api("POST /certs/diagnose", key.encode(), content_type=FORM)
        assert_problem(answer, 400, "private_key_sent", "certificate")
