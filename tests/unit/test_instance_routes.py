"""The instances that enrol themselves, over HTTP. That only admins get here is IAM's doing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.domain.enrolment.model import (
    CommandKind,
    Enrolment,
    EnrolmentPage,
    EnrolmentPath,
    EnrolmentState,
    SentCommand,
)
from chalicelib.domain.model import Access
from chalicelib.errors import AppError, Conflict, DependencyFailed, InvalidRequest, Misconfigured
from chalicelib.errors import NotFound as Unknown
from tests.unit.answered_problems import assert_problem
from tests.unit.authorities import DAY, NOW
from tests.unit.signed_gateway import ANN, Api
from tests.unit.stand_ins import World

pytestmark = pytest.mark.filterwarnings("ignore:IAMAuthorizer is not a supported")

INSTANCE, OTHER = "i-0123456789abcdef0", "i-0123abcd"
OWNER = f"arn:aws:sts::123456789012:assumed-role/docker-instance/{INSTANCE}"
NO_IDS = ["latest", "i-", "i-0123", f"{INSTANCE}0", INSTANCE.upper(), f"{INSTANCE}%0A", "0123abcd"]
ROOT = "arn:aws:iam::123456789012:root"

WAITING = Enrolment(OTHER, EnrolmentState.WAITING_FOR_AGENT, since=NOW, began_at=NOW)
ENROLLED = Enrolment(
    INSTANCE,
    EnrolmentState.ENROLLED,
    since=NOW + timedelta(microseconds=5),
    began_at=NOW,
    look_at=NOW + DAY + timedelta(microseconds=7),
    access=Access.PULL,
    path=EnrolmentPath.AGENT,
    owners=(OWNER,),
    serial="5a" * 20,
    renew_at=NOW + 60 * DAY,
    trust_version="f00d",
    launched_at=NOW - DAY,
    enrolled_at=NOW,
    command=SentCommand(CommandKind.INSTALL, "ab" * 16, NOW, "command"),
    tries=2,
    failures=1,
    version=9,
)


@dataclass
class Fleet:
    """As services.fleet and services.asking; *error* is raised by all that is asked."""

    known: dict[str, Enrolment] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)
    error: AppError | None = None

    def page(self, state: EnrolmentState | None, limit: int, cursor: str | None) -> EnrolmentPage:
        self._ask((state, limit, cursor))
        found = [each for each in self.known.values() if state in (None, each.state)]
        return EnrolmentPage(tuple(found[:limit]), "next" if len(found) > limit else None)

    def look_up(self, instance_id: str) -> Enrolment:
        self._ask(instance_id)
        if instance_id not in self.known:
            raise Unknown("instance_not_found", "nothing is known of this instance")
        return self.known[instance_id]

    def enrol(self, instance_id: str) -> Enrolment | None:
        self._ask(instance_id)
        return self.known.get(instance_id)

    def _ask(self, what: Any) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append(what)


@pytest.fixture
def fleet(world: World, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    made = Fleet({each.instance_id: each for each in (ENROLLED, WAITING)})
    monkeypatch.setattr(world, "fleet", made, raising=False)
    monkeypatch.setattr(world, "asking", made, raising=False)
    return made


def ids_in(answer: Any) -> Sequence[str]:
    return [each["instance_id"] for each in answer.json_body["instances"]]


class TestOne:
    def test_it_is_told_as_it_is_recorded_with_times_to_the_second(
        self, api: Api, fleet: Fleet
    ) -> None:
        assert api(f"GET /admin/instances/{INSTANCE}").json_body == {
            "instance_id": INSTANCE,
            "state": "enrolled",
            "since": "2026-03-04T05:06:07Z",
            "access": "pull",
            "path": "agent",
            "serial": "5a" * 20,
            "owners": [OWNER],
            "trust_version": "f00d",
            "enrolled_at": "2026-03-04T05:06:07Z",
            "launched_at": "2026-03-03T05:06:07Z",
            "renew_at": "2026-05-03T05:06:07Z",
            "look_at": "2026-03-05T05:06:07Z",
            "tries": 2,
            "failures": 1,
            "code": "",
            "reason": "",
        }

    def test_what_is_not_known_yet_is_null(self, api: Api, fleet: Fleet) -> None:
        told = api(f"GET /admin/instances/{OTHER}").json_body
        nothing = {name for name, value in told.items() if value is None}
        assert nothing == {
            "access", "path", "serial", "trust_version", "enrolled_at", "launched_at", "renew_at",
            "look_at",
        }  # fmt: skip

    @pytest.mark.parametrize("state", EnrolmentState)
    def test_every_state_is_told_with_its_reason(
        self, api: Api, fleet: Fleet, state: EnrolmentState
    ) -> None:
        fleet.known[OTHER] = replace(WAITING, state=state, code="no_agent", reason="no agent")
        told = api(f"GET /admin/instances/{OTHER}").json_body
        assert (told["state"], told["code"], told["reason"]) == (state, "no_agent", "no agent")

    @pytest.mark.parametrize("instance_id", ["i-fedcba98", *NO_IDS])
    def test_another_is_not_found(self, api: Api, fleet: Fleet, instance_id: str) -> None:
        assert_problem(api(f"GET /admin/instances/{instance_id}"), 404, "instance_not_found")

    @pytest.mark.parametrize("instance_id", NO_IDS)
    def test_no_service_is_asked_about_what_is_no_id(
        self, api: Api, fleet: Fleet, instance_id: str
    ) -> None:
        api(f"GET /admin/instances/{instance_id}")
        api(f"POST /admin/instances/{instance_id}/enrol")
        assert fleet.asked == []


class TestListing:
    def test_all_are_listed_or_those_in_one_state(self, api: Api, fleet: Fleet) -> None:
        assert ids_in(api("GET /admin/instances")) == [INSTANCE, OTHER]
        assert ids_in(api("GET /admin/instances?state=waiting_for_agent")) == [OTHER]
        assert ids_in(api("GET /admin/instances?state=gone")) == []

    def test_a_page_goes_on_at_its_cursor(self, api: Api, fleet: Fleet) -> None:
        first = api("GET /admin/instances?limit=1&state=enrolled").json_body
        assert first["next_cursor"] is None
        first = api("GET /admin/instances?limit=1").json_body
        api(f"GET /admin/instances?cursor={first['next_cursor']}&limit=1")
        assert fleet.asked[1:] == [(None, 1, None), (None, 1, "next")]

    def test_50_are_asked_for_unless_told_otherwise(self, api: Api, fleet: Fleet) -> None:
        api("GET /admin/instances")
        api("GET /admin/instances?limit=100")
        assert [limit for _, limit, _ in fleet.asked] == [50, 100]

    @pytest.mark.parametrize(
        ("query", "code", "blamed"),
        [
            ("state=x", "unknown_value", "state"),
            ("state=", "unknown_value", "state"),
            ("state=ENROLLED", "unknown_value", "state"),
            ("limit=0", "limit_out_of_range", "limit"),
            ("limit=101", "limit_out_of_range", "limit"),
            ("limit=1e1", "limit_out_of_range", "limit"),
            ("status=enrolled", "unknown_parameter", "status"),
            ("state=gone&state=failed", "repeated_parameter", "state"),
        ],
    )
    def test_a_bad_query_is_a_problem(
        self, api: Api, fleet: Fleet, query: str, code: str, blamed: str
    ) -> None:
        assert_problem(api(f"GET /admin/instances?{query}"), 400, code, blamed)
        assert fleet.asked == []

    def test_the_states_there_are_are_told(self, api: Api, fleet: Fleet) -> None:
        detail = assert_problem(api("GET /admin/instances?state=x"), 400, "unknown_value", "state")
        assert all(state in detail for state in EnrolmentState)

    def test_a_cursor_of_nobodys_is_a_problem(self, api: Api, fleet: Fleet) -> None:
        fleet.error = InvalidRequest("invalid_cursor", "use next_cursor as it is", field="cursor")
        answer = api("GET /admin/instances?cursor=x")
        assert_problem(answer, 400, "invalid_cursor", "cursor")


class TestEnrolling:
    @pytest.mark.parametrize("body", [b"", {}], ids=["nothing", "an empty object"])
    def test_one_that_is_known_is_accepted_and_told_as_it_is(
        self, api: Api, fleet: Fleet, body: object
    ) -> None:
        answer = api(f"POST /admin/instances/{INSTANCE}/enrol", body)
        assert answer.status_code == 202
        assert answer.json_body == api(f"GET /admin/instances/{INSTANCE}").json_body
        assert fleet.asked == [INSTANCE, INSTANCE]

    def test_one_that_is_new_is_accepted_and_has_no_state_yet(self, api: Api, fleet: Fleet) -> None:
        answer = api("POST /admin/instances/i-fedcba98/enrol")
        told = answer.json_body
        assert answer.status_code == 202
        assert told.pop("instance_id") == "i-fedcba98"
        assert (told.pop("tries"), told.pop("failures"), told.pop("owners")) == (0, 0, [])
        assert (told.pop("code"), told.pop("reason")) == ("", "")
        assert set(told.values()) == {None}

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (Unknown("instance_not_found", "EC2 knows no such instance"), 404),
            (Conflict("instance_not_enrollable", "it carries no tag"), 409),
            (DependencyFailed("queue_unwritable", "the queue did not answer"), 503),
            (DependencyFailed("ec2_unreadable", "EC2 did not answer"), 503),
            (DependencyFailed("table_unreadable", "the table did not answer"), 503),
            (Misconfigured("unreadable_enrolment", "a record is broken"), 500),
        ],
        ids=lambda value: getattr(value, "code", None),
    )
    def test_what_cannot_be_asked_for_is_a_problem(
        self, api: Api, fleet: Fleet, error: AppError, status: int
    ) -> None:
        fleet.error = error
        assert_problem(api(f"POST /admin/instances/{INSTANCE}/enrol"), status, error.code)

    @pytest.mark.parametrize("instance_id", NO_IDS)
    def test_what_is_no_id_is_not_found(self, api: Api, fleet: Fleet, instance_id: str) -> None:
        answer = api(f"POST /admin/instances/{instance_id}/enrol")
        assert_problem(answer, 404, "instance_not_found")

    def test_what_an_admin_cannot_choose_is_refused_and_not_passed_over(
        self, api: Api, fleet: Fleet
    ) -> None:
        answer = api(f"POST /admin/instances/{INSTANCE}/enrol", {"access": "push"})
        assert assert_problem(answer, 400, "unknown_field", "access") == "there are no fields"
        answer = api(f"POST /admin/instances/{INSTANCE}/enrol?access=push")
        detail = assert_problem(answer, 400, "unknown_parameter", "access")
        assert detail == "there are no parameters here"
        assert fleet.asked == []

    def test_it_is_written_down_who_asked_for_what(
        self, api: Api, fleet: Fleet, capsys: pytest.CaptureFixture[str]
    ) -> None:
        api(f"POST /admin/instances/{INSTANCE}/enrol")
        api(f"GET /admin/instances/{INSTANCE}")
        api("GET /admin/instances")
        fleet.error = Conflict("instance_not_enrollable", "it carries no tag")
        api(f"POST /admin/instances/{INSTANCE}/enrol")
        api("POST /admin/instances/elsewhere/enrol")
        granted, refused, unknown = map(json.loads, capsys.readouterr().out.splitlines())
        assert (granted["decision"], granted["action"]) == ("granted", "enrol_instance")
        assert (granted["caller"], granted["instance_id"]) == (ANN, INSTANCE)
        assert (refused["decision"], refused["instance_id"]) == ("refused", INSTANCE)
        assert unknown["code"] == "instance_not_found"
        assert "instance_id" not in unknown


@pytest.mark.parametrize(
    "request_",
    [
        "GET /admin/instances",
        f"GET /admin/instances/{INSTANCE}",
        f"POST /admin/instances/{INSTANCE}/enrol",
    ],
)
def test_the_root_is_no_admin(api: Api, fleet: Fleet, request_: str) -> None:
    assert_problem(api(request_, caller=ROOT), 403, "unrecognised_caller")
    assert fleet.asked == []
