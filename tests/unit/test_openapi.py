"""The description that the API gives of itself: complete, true, valid, and made when asked for."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis

import app
from chalicelib import errors
from chalicelib.entrypoints.http import codes
from chalicelib.entrypoints.http.problems import STATUS_OF
from chalicelib.entrypoints.openapi import description
from tests.unit.signed_gateway import BOB, Api

pytestmark = pytest.mark.filterwarnings("ignore:IAMAuthorizer is not a supported")

CHECKOUT = Path(__file__).parents[2]
Operation = dict[str, Any]


@pytest.fixture
def told(api: Api) -> dict[str, Any]:
    """As it is answered."""
    document: dict[str, Any] = api("GET /openapi.json").json_body
    return document


def operations() -> Iterator[tuple[str, Operation]]:
    for path, methods in description()["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


OPERATIONS = dict(operations())


class TestTheDocument:
    def test_it_is_valid(self, told: dict[str, Any]) -> None:
        schemathesis.openapi.from_dict(told).validate()
        told["paths"]["/certs"]["get"]["responses"]["200"]["surprise"] = {}
        with pytest.raises(jsonschema_rs.ValidationError, match="surprise"):
            schemathesis.openapi.from_dict(told).validate()

    def test_every_schema_in_it_is_one(self, told: dict[str, Any]) -> None:
        for schema in told["components"]["schemas"].values():
            jsonschema_rs.meta.validate(schema)

    def test_every_reference_leads_somewhere(self, told: dict[str, Any]) -> None:
        references = re.findall(r'"\$ref":\s*"#/([^"]*)"', json.dumps(told))
        assert references
        for reference in references:
            found = told
            for step in reference.split("/"):
                found = found[step]

    def test_it_says_where_the_api_is_that_told_it(self, api: Api, told: dict[str, Any]) -> None:
        assert told["servers"] == [{"url": "/v1"}]
        assert api("GET /openapi.json", caller=BOB).json_body == told
        for mount, server in (("/trust/plane", "/trust/plane"), ("", "/")):
            api.mounted_at(mount)
            assert api("GET /openapi.json").json_body["servers"] == [{"url": server}]

    def test_every_request_is_said_to_be_signed(self, told: dict[str, Any]) -> None:
        scheme = told["components"]["securitySchemes"]["sigv4"]
        assert scheme["x-amazon-apigateway-authtype"] == "awsSigv4"
        assert told["security"] == [{"sigv4": []}]
        assert all("security" not in operation for operation in OPERATIONS.values())

    def test_every_thing_has_a_description(self, told: dict[str, Any]) -> None:
        for schema in told["components"]["schemas"].values():
            assert schema.get("description"), schema
        for operation in OPERATIONS.values():
            assert operation["summary"]
            assert operation["description"]
            assert all(each["description"] for each in operation["parameters"])
        tags = {tag["name"] for tag in told["tags"]}
        assert tags == {tag for each in OPERATIONS.values() for tag in each["tags"]}

    def test_every_enumeration_has_a_type(self, told: dict[str, Any]) -> None:
        """Generators of clients want one."""
        found = list(enumerations(told))
        assert len(found) > 5
        assert {schema.get("type") for schema in found} == {"string"}

    def test_no_text_carries_the_indentation_of_its_source(self, told: dict[str, Any]) -> None:
        schemas = told["components"]["schemas"]
        paragraphs = schemas["RevocationReason"]["description"].split("\n")
        assert len(paragraphs) == 3
        assert paragraphs[2].endswith("lists that only tell changes.")
        for schema in schemas.values():
            assert not re.search(r"\n\s|\S\n\S", schema["description"].replace("\n\n", " "))

    def test_the_findings_that_refuse_nothing_are_named(self, told: dict[str, Any]) -> None:
        """Its values are in alphabetical order here, so none is the last."""
        schema = told["components"]["schemas"]["FindingCode"]
        named = set(re.findall(r"[a-z]+(?:_[a-z]+)*", schema["description"])) & set(schema["enum"])
        assert named == {"not_recorded", "record_mismatch", "superseded", "pull_only", "revoked"}

    def test_the_archive_is_said_to_be_named_alone(self, told: dict[str, Any]) -> None:
        assert "application/gzip has to be named alone" in told["info"]["description"]

    def test_it_is_made_once_and_not_before_somebody_asks(self) -> None:
        program = (
            "import app; from chalicelib.entrypoints.openapi import description as made; "
            "assert made.cache_info().currsize == 0; assert made() is made()"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def enumerations(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("enum"), list):
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for each in schema:
            yield from enumerations(each)


class TestOperations:
    def test_parameters_are_in_the_order_that_signatures_want(self) -> None:
        for operation in OPERATIONS.values():
            names = [each["name"] for each in operation["parameters"] if each["in"] == "query"]
            assert names == sorted(names)
        assert names_of("GET /admin/certs") == [
            "cursor", "expires_before", "limit", "owner", "status",
        ]  # fmt: skip

    def test_a_serial_in_a_path_is_said_to_have_no_colons(self) -> None:
        """The code knows those, but curl signs them otherwise than API Gateway."""
        for name, operation in OPERATIONS.items():
            for each in operation["parameters"]:
                if each["name"] == "serial":
                    assert "without colons" in each["description"], name

    def test_the_type_that_curl_gives_is_said_to_be_curls(self) -> None:
        for name in ("POST /certs", "POST /certs/{serial}/renew", "POST /certs/diagnose"):
            content = OPERATIONS[name]["requestBody"]["content"]
            told = {kind for kind, of in content.items() if "curl" in str(of["schema"])}
            assert told == {"application/x-www-form-urlencoded"}, name

    def test_a_key_that_we_make_is_said_to_be_kept_for_a_day_everywhere(self) -> None:
        issuing = OPERATIONS["POST /certs"]
        body = description()["components"]["schemas"]["IssueBody"]
        for text in (issuing["description"], body["description"]):
            assert "answered now, and kept for a day for its owner to fetch again" in text
        for name in ("POST /certs", "POST /admin/certs"):
            told = OPERATIONS[name]["responses"]["201"]["description"]
            assert "kept for a day, for its owner to fetch again" in told

    @pytest.mark.parametrize("path", ["/certs/{serial}", "/admin/certs/{serial}"])
    def test_a_second_revocation_is_said_to_change_nothing_but_of_the_others(
        self, path: str
    ) -> None:
        operation = OPERATIONS[f"DELETE {path}"]
        assert operation["summary"].endswith("again changes nothing about it")
        assert re.search("revoked (before|again)", operation["description"])

    def test_every_route_that_is_registered_is_described_and_no_other(self) -> None:
        registered = {
            f"{method} {path}" for path, methods in app.app.routes.items() for method in methods
        }
        assert set(OPERATIONS) == registered

    def test_each_has_a_name_of_its_own(self) -> None:
        names = [operation["operationId"] for operation in OPERATIONS.values()]
        assert len(set(names)) == len(names)
        assert "issueCertificate" in names

    def test_each_says_what_it_answers_in_which_forms(self) -> None:
        four = {
            "application/json",
            "application/x-pem-file",
            "application/gzip",
            "text/x-shellscript",
        }
        forms = {
            name: set(content)
            for name, operation in OPERATIONS.items()
            for status, answer in operation["responses"].items()
            if (content := answer["content"]) and status < "300"
        }
        in_four = {"POST /certs", "GET /certs/{serial}/bundle", "POST /certs/{serial}/renew",
                   "POST /admin/certs"}  # fmt: skip
        assert {name for name, found in forms.items() if found == four} == in_four
        assert forms["POST /registry/cert"] == {"application/json", "application/x-pem-file"}

    def test_each_success_is_told_apart(self) -> None:
        created = {"POST /certs", "POST /admin/certs", "POST /certs/{serial}/renew",
                   "POST /registry/cert"}  # fmt: skip
        for name, operation in OPERATIONS.items():
            found = {status for status in operation["responses"] if status < "300"}
            expected = {"201"} if name in created else {"200"}
            if name == "POST /admin/instances/{instance_id}/enrol":
                expected = {"202"}
            assert found == (expected | {"202"} if name.startswith("DELETE") else expected), name

    def test_what_is_created_is_told_by_location_and_leads_on(self) -> None:
        answer = OPERATIONS["POST /certs"]["responses"]["201"]
        assert set(answer["headers"]) == {"x-request-id", "Location"}
        assert {"getCertificate", "getBundle", "renewCertificate", "revokeCertificate"} == set(
            answer["links"]
        )
        admins = OPERATIONS["POST /admin/certs"]["responses"]["201"]["links"]
        assert set(admins) == {"getAnyCertificate", "revokeAnyCertificate"}

    def test_idempotency_is_offered_where_something_is_issued(self) -> None:
        offered = {
            name
            for name, operation in OPERATIONS.items()
            if any(each["name"] == "Idempotency-Key" for each in operation["parameters"])
        }
        assert offered == {"POST /certs", "POST /admin/certs", "POST /certs/{serial}/renew"}

    def test_a_body_is_said_to_be_needed_where_it_is(self) -> None:
        needed = {
            name: operation["requestBody"]["required"]
            for name, operation in OPERATIONS.items()
            if "requestBody" in operation
        }
        assert needed == {
            "POST /certs": False,
            "POST /certs/{serial}/renew": False,
            "POST /certs/diagnose": True,
            "DELETE /certs/{serial}": False,
            "POST /admin/certs": True,
            "POST /admin/certs/diagnose": True,
            "DELETE /admin/certs/{serial}": False,
            "POST /admin/instances/{instance_id}/enrol": False,
            "POST /registry/cert": True,
        }

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_its_examples_hold_by_its_own_schema(self, name: str) -> None:
        content = OPERATIONS[name].get("requestBody", {"content": {}})["content"]
        as_json = content.get("application/json", {"schema": {}})
        schema = {**as_json["schema"], "components": description()["components"]}
        validator = jsonschema_rs.Draft202012Validator(schema)
        for example in as_json.get("examples", {}).values():
            validator.validate(example["value"])
        assert not content or not validator.is_valid({"surprise": 1})


RULES = {
    "a CSR and a key type": ("POST /certs", {"csr": "x", "key_type": "ec-p256"}),
    "no day": ("POST /certs", {"days": 0}),
    "too many days": ("POST /certs", {"days": 826}),
    "a long label": ("POST /certs", {"label": "x" * 65}),
    "a label with a line": ("POST /certs", {"label": "a\nb"}),
    "an empty name": ("POST /admin/certs", {"name": ""}),
    "no name": ("POST /admin/certs", {}),
    "a bad owner": ("POST /admin/certs", {"name": "x", "owner": "ann"}),
    "a reason there is not": ("DELETE /certs/{serial}", {"reason": "lost"}),
    "nothing to diagnose": ("POST /certs/diagnose", {}),
    "two things to diagnose": ("POST /certs/diagnose", {"serial": "a", "certificate": "x"}),
    "no serial": ("POST /certs/diagnose", {"serial": "xyz"}),
    "more than an instance": (
        "POST /admin/instances/{instance_id}/enrol",
        {"access": "push"},
    ),
}


@pytest.mark.parametrize(("name", "body"), RULES.values(), ids=RULES)
def test_what_the_description_forbids_is_refused(api: Api, name: str, body: object) -> None:
    """Its twin are the examples, and all that schemathesis sends to the deployed API."""
    schema = OPERATIONS[name]["requestBody"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": description()["components"]}
    assert not jsonschema_rs.Draft202012Validator(whole).is_valid(body)
    assert api(name.replace("{serial}", "ab"), body).status_code == 400


# No answer tells of these: what failed is made good later, or is not asked for by requests.
BEHIND_THE_SCENES = {
    "agent_offline",
    "bundle_not_deleted",
    "bundle_not_stored",
    "bus_unwritable",
    "command_not_sent",
    "csr_not_for_this",
    "malformed_image",
    "no_csr",
    "no_time",
    "no_instance_profile",
    "odd_report",
    "ssm_unreadable",
    "trust_not_stored",
}


def raised() -> Iterator[tuple[str | None, str]]:
    """(error, code) of every place that raises one; None where the error stands elsewhere."""
    kinds = {kind.__name__ for kind in errors.AppError.__subclasses__()}
    for file in (CHECKOUT / "chalicelib").rglob("*.py"):
        tree = ast.parse(file.read_text())
        constants = constants_of(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                name = node.func.id
                code = constant_in(node.args[-1 if name == "readable" else 0], constants)
                if code is not None and (name in kinds or name in SAYERS):
                    yield (name if name in kinds else None), code
            elif isinstance(node, ast.Assign):
                yield from ((None, code) for code in assigned_codes(node))


# Functions that raise an error with the code that they are given.
SAYERS = ("refusal", "_refused", "readable")


def constants_of(module: ast.Module) -> dict[str, str]:
    return {
        target.id: str(node.value.value)
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def constant_in(argument: ast.expr, constants: dict[str, str]) -> str | None:
    if isinstance(argument, ast.Name):
        return constants.get(argument.id)
    return str(argument.value) if isinstance(argument, ast.Constant) else None


def assigned_codes(node: ast.Assign) -> Iterator[str]:
    """Of `code = "x"` and `code, problem = "x", "y"`."""
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        target, value = target.elts[0], value.elts[0]
    if isinstance(target, ast.Name) and target.id == "code" and isinstance(value, ast.Constant):
        yield str(value.value)


def names_of(operation: str) -> list[str]:
    return [each["name"] for each in OPERATIONS[operation]["parameters"]]


def gateways() -> dict[str, tuple[str, str]]:
    """(status, body) of what API Gateway is told to answer by itself, by its own names.

    Without DEFAULT_4XX, which is of no one status, and JSON only with API Gateway's word in it.
    """
    found = {}
    template = (CHECKOUT / ".chalice" / "stack.yaml").read_text()
    section = template.partition("GatewayResponses:\n")[2]
    for name, rest in re.findall(r"^ {8}([A-Z_0-9]+):\n((?: {10}.*\n)+)", section, re.MULTILINE):
        status = re.search(r'StatusCode: "(\d+)"', rest)
        body = re.search(r"application/json: >-\n((?: {14}.*\n)+)", rest)
        if body:
            text = " ".join(line.strip() for line in body[1].splitlines())
            found[name] = (status[1] if status else "", text)
    return found


class TestTheGateway:
    def test_what_it_answers_is_json_and_says_its_own_status(self) -> None:
        answers = gateways()
        assert len(answers) >= 7
        for name, (status, body) in answers.items():
            told = json.loads(body)
            assert {"type", "title", "detail", "code"} <= set(told), name
            if status:
                assert told.get("status", int(status)) == int(status), name

    def test_it_says_what_to_ask_an_admin_for(self) -> None:
        detail = json.loads(gateways()["ACCESS_DENIED"][1])["detail"]
        assert "developer policy of this stack; for /admin the admin policy" in detail

    def test_it_says_what_curl_signs_wrongly(self) -> None:
        detail = json.loads(gateways()["INVALID_SIGNATURE"][1])["detail"]
        for said in ("alphabetical order", "percent-encoded (: and / too)", "colon-separated"):
            assert said in detail


class TestProblems:
    def test_every_code_that_is_raised_is_described_and_no_other(self) -> None:
        of_the_gateway = {code for some in codes.OF_THE_GATEWAY.values() for code in some}
        found = {code for _, code in raised()}
        assert found >= BEHIND_THE_SCENES
        assert found - BEHIND_THE_SCENES == set(codes.MEANINGS) - of_the_gateway

    def test_every_code_comes_with_the_status_of_its_error(self) -> None:
        for name, code in raised():
            if name is not None and code not in BEHIND_THE_SCENES:
                assert codes.STATUSES[code] == STATUS_OF[getattr(errors, name)], code

    def test_what_the_gateway_answers_is_described(self) -> None:
        template = (CHECKOUT / ".chalice" / "stack.yaml").read_text()
        answered = set(re.findall(r'"code":"([a-z_]+)"', template.replace("\n", "")))
        assert answered - {"refused"} == {
            code for some in codes.OF_THE_GATEWAY.values() for code in some
        }

    def test_every_code_is_one_that_some_operation_may_answer(self) -> None:
        told = {
            code
            for operation in OPERATIONS.values()
            for status, answer in operation["responses"].items()
            if status >= "400"
            for code in codes_in(answer)
        }
        assert told == set(codes.MEANINGS)

    def test_every_problem_has_an_example_that_holds(self) -> None:
        for operation in OPERATIONS.values():
            for status, answer in operation["responses"].items():
                for content in answer["content"].values():
                    if status >= "400":
                        whole = {**content["schema"], "components": description()["components"]}
                        jsonschema_rs.Draft202012Validator(whole).validate(content["example"])


def codes_in(answer: dict[str, Any]) -> list[str]:
    schema = answer["content"]["application/problem+json"]["schema"]
    narrowed = schema.get("anyOf", [schema])[0]["allOf"][1]
    found: list[str] = narrowed["properties"]["code"]["enum"]
    return found
