"""Everybody's certificates over HTTP. That only admins get here is IAM's doing."""

from __future__ import annotations

import pytest

from tests.unit.answered_problems import assert_problem
from tests.unit.authorities import DAY, NOW
from tests.unit.signed_gateway import ANN, BOB, Api
from tests.unit.signing_requests import csr, ec_key
from tests.unit.stand_ins import REGISTRY_HOST_ROLE, World

pytestmark = pytest.mark.filterwarnings("ignore:IAMAuthorizer is not a supported")

ADMIN = "arn:aws:iam::123456789012:user/root-of-all-ann"
ROOT = "arn:aws:iam::123456789012:root"


def issue(api: Api, **headers: str) -> str:
    return str(api("POST /certs", **headers).json_body["serial"])


class TestNamed:
    def test_a_service_gets_one_by_its_name(self, api: Api) -> None:
        answer = api("POST /admin/certs", {"name": "ci", "owner": BOB, "days": 400}, caller=ADMIN)
        document = answer.json_body
        assert answer.status_code == 201
        assert answer.headers["Location"] == f"/v1/admin/certs/{document['serial']}"
        assert (document["name"], document["owner"]) == ("ci", BOB)
        assert document["issued_by"] == ADMIN
        assert document["not_after"] == "2027-04-08T05:06:07Z"
        assert api(f"GET /certs/{document['serial']}", caller=BOB).status_code == 200

    def test_without_an_owner_it_is_the_admins(self, api: Api) -> None:
        document = api("POST /admin/certs", {"name": "ci"}, caller=ADMIN).json_body
        assert document["owner"] == ADMIN

    def test_it_counts_to_nobodys_quota(self, api: Api) -> None:
        made = [api("POST /admin/certs", {"name": "ci", "owner": ANN}) for _ in range(5)]
        assert {answer.status_code for answer in made} == {201}
        assert api("POST /certs").status_code == 201

    @pytest.mark.parametrize(
        ("body", "code", "field"),
        [
            ({}, "missing_field", "name"),
            ({"name": "a b"}, "bad_name", "name"),
            ({"name": "ci\n"}, "bad_name", "name"),
            ({"name": "ci", "owner": "ann"}, "bad_owner", "owner"),
            ({"name": "ci", "owner": ROOT}, "bad_owner", "owner"),
            ({"name": "ci", "owner": f"{BOB}\n"}, "bad_owner", "owner"),
            ({"name": "ci", "days": 731}, "days_out_of_range", "days"),
            ({"name": "ci", "csr": "x", "key_type": "ec-p256"}, "csr_and_key_type", "key_type"),
        ],
    )
    def test_bad_input_is_a_problem_and_writes_nothing(
        self, api: Api, world: World, body: object, code: str, field: str
    ) -> None:
        assert_problem(api("POST /admin/certs", body), 400, code, field)
        assert world.untouched


class TestListing:
    def test_everybodys_are_listed_and_one_owners_when_asked(self, api: Api) -> None:
        hers, his = issue(api), issue(api, caller=BOB)
        everyones = api("GET /admin/certs", caller=ADMIN).json_body["certificates"]
        assert [each["serial"] for each in everyones] == [his, hers]
        of_bob = api(f"GET /admin/certs?owner={BOB}", caller=ADMIN).json_body["certificates"]
        assert [each["serial"] for each in of_bob] == [his]

    def test_a_page_goes_on_at_its_cursor(self, api: Api) -> None:
        serials = [issue(api) for _ in range(3)]
        first = api("GET /admin/certs?limit=2").json_body
        rest = api(f"GET /admin/certs?limit=2&cursor={first['next_cursor']}").json_body
        shown = [each["serial"] for each in first["certificates"] + rest["certificates"]]
        assert sorted(shown) == sorted(serials)

    @pytest.mark.parametrize("path", ["/certs", "/admin/certs"])
    @pytest.mark.parametrize(
        ("before", "found"),
        [
            ("2026-03-06T05:06:08Z", 1),
            ("2026-03-06T06:06:08%2B01:00", 1),
            ("2026-03-06T05:06:07Z", 0),
            ("9999-12-31T23:59:59Z", 1),
        ],
    )
    def test_what_ends_before_a_time_is_found(
        self, api: Api, path: str, before: str, found: int
    ) -> None:
        api("POST /certs", {"days": 2})
        shown = api(f"GET {path}?expires_before={before}").json_body["certificates"]
        assert len(shown) == found

    @pytest.mark.parametrize(
        ("query", "code", "field"),
        [
            ("owner=ann", "bad_owner", "owner"),
            ("owner=", "bad_owner", "owner"),
            (f"owner={ROOT}", "bad_owner", "owner"),
            (f"owner={BOB}{'x' * 1024}", "bad_owner", "owner"),
            ("status=gone", "unknown_value", "status"),
            ("limit=0", "limit_out_of_range", "limit"),
            ("limit=1e1", "limit_out_of_range", "limit"),
            ("limit=1.0", "limit_out_of_range", "limit"),
            (f"limit={'9' * 30}", "limit_out_of_range", "limit"),
            ("cursor=x", "invalid_cursor", "cursor"),
            ("expires_before=", "bad_time", "expires_before"),
            ("expires_before=tomorrow", "bad_time", "expires_before"),
            ("expires_before=1772600767", "bad_time", "expires_before"),
            ("expires_before=2026-03-06", "bad_time", "expires_before"),
            ("expires_before=2026-03-06T05:06:07", "bad_time", "expires_before"),
            ("expires_before=2026-03-06T05:06:07+01:00", "bad_time", "expires_before"),
            ("expires_before=2026-02-30T05:06:07Z", "bad_time", "expires_before"),
            ("expires_before=0001-01-01T00:00:00%2B01:00", "bad_time", "expires_before"),
            ("expires_before=9999-12-31T23:59:59-01:00", "bad_time", "expires_before"),
            (
                "expires_before=2030-01-01T00:00:00Z&status=expired",
                "never_matches",
                "expires_before",
            ),
            ("owners=x", "unknown_parameter", "owners"),
        ],
    )
    def test_a_bad_query_is_a_problem(self, api: Api, query: str, code: str, field: str) -> None:
        assert_problem(api(f"GET /admin/certs?{query}"), 400, code, field)

    @pytest.mark.parametrize("path", ["/certs", "/admin/certs"])
    @pytest.mark.parametrize("status", ["active", "revoked"])
    def test_what_is_about_to_expire_may_be_of_a_status(
        self, api: Api, path: str, status: str
    ) -> None:
        """The twin of the contradiction above."""
        query = f"expires_before=2030-01-01T00:00:00Z&status={status}"
        assert api(f"GET {path}?{query}").status_code == 200

    def test_the_form_of_a_time_is_shown_with_an_offset_too(self, api: Api) -> None:
        answer = api("GET /certs?expires_before=2030-01-01")
        detail = assert_problem(answer, 400, "bad_time", "expires_before")
        assert "2026-03-04T05:06:07Z" in detail
        assert "%2B01:00" in detail
        for form in ("2026-03-04T05:06:07Z", "2026-03-04T05:06:07%2B01:00"):
            assert api(f"GET /certs?expires_before={form}").status_code == 200

    def test_owners_are_for_admins_to_ask_for(self, api: Api) -> None:
        assert_problem(api(f"GET /certs?owner={BOB}"), 400, "unknown_parameter", "owner")


class TestOne:
    def test_anybodys_is_shown(self, api: Api) -> None:
        serial = issue(api)
        shown = api(f"GET /admin/certs/{serial.upper().lstrip('0')}", caller=ADMIN)
        assert (shown.status_code, shown.json_body["owner"]) == (200, ANN)

    def test_anybodys_is_revoked(self, api: Api, world: World) -> None:
        world.trust.refresh()
        serial = issue(api)
        answer = api(f"DELETE /admin/certs/{serial}", {"reason": "keyCompromise"}, caller=ADMIN)
        assert (answer.status_code, answer.json_body["revoked_by"]) == (200, ADMIN)
        assert api(f"GET /certs/{serial}").json_body["status"] == "revoked"

    def test_anybodys_is_diagnosed(self, api: Api, world: World) -> None:
        world.trust.refresh()
        serial = issue(api)
        answer = api("POST /admin/certs/diagnose", {"serial": serial}, caller=ADMIN)
        assert answer.json_body["admitted"] is True

    @pytest.mark.parametrize("serial", ["f" * 40, "latest", "0" * 41])
    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_nobodys_is_not_found(self, api: Api, method: str, serial: str) -> None:
        answer = api(f"{method} /admin/certs/{serial}", caller=ADMIN)
        assert_problem(answer, 404, "certificate_not_found")

    def test_the_registrys_own_is_not_revoked(self, api: Api, world: World) -> None:
        host = f"arn:aws:sts::123456789012:assumed-role/{REGISTRY_HOST_ROLE}/i-0123abcd"
        serial = api("POST /registry/cert", csr(ec_key()), caller=host).json_body["serial"]
        answer = api(f"DELETE /admin/certs/{serial}", caller=ADMIN)
        assert_problem(answer, 409, "not_revocable")

    @pytest.mark.parametrize(
        "request_", ["GET /admin/certs", "GET /admin/certs/ab", "POST /admin/certs/diagnose"]
    )
    def test_the_root_is_no_admin(self, api: Api, request_: str) -> None:
        assert_problem(api(request_, {}, caller=ROOT), 403, "unrecognised_caller")


def test_the_clock_of_the_status_is_the_services(api: Api, world: World) -> None:
    api("POST /certs", {"days": 1})
    world.time = NOW + 2 * DAY
    (shown,) = api("GET /admin/certs?status=expired").json_body["certificates"]
    assert shown["status"] == "expired"
