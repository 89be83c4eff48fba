"""Settings: complete and well formed, or refused by the name of the first that is not."""

from __future__ import annotations

import pytest

from chalicelib.config import Settings
from chalicelib.errors import Misconfigured
from tests.unit.settings import SETTINGS

VARIABLES = {
    "STAGE": "test",
    "REGISTRY_HOST": "registry.example.com",
    "REGISTRY_PORT": "8443",
    "REGISTRY_HOST_ROLE": "registry-host",
    "PARAMETER_PREFIX": "/registry-trust/test/",
    "CERTIFICATES_TABLE": "certificates",
    "STATE_TABLE": "state",
    "INSTANCES_TABLE": "instances",
    "ENROLMENT_QUEUE_URL": "https://sqs.test/enrolment",
    "CONFIG_BUCKET": "config",
    "DEFAULT_DAYS": "90",
    "MAXIMUM_DAYS": "365",
    "ADMIN_MAXIMUM_DAYS": "730",
    "CERTIFICATES_PER_OWNER": "20",
    "PUSH_PRINCIPALS": "*",
    "INSTANCE_TAG": "registry-trust",
    "INSTANCES_PER_MINUTE": "300",
}


def test_settings_are_what_the_variables_say() -> None:
    assert Settings.from_variables({**VARIABLES, "REGISTRY_ADDRESS": "192.0.2.7"}) == SETTINGS


def test_a_registry_whose_name_everybody_can_resolve_needs_no_address() -> None:
    assert Settings.from_variables(VARIABLES).registry_address == ""


@pytest.mark.parametrize("name", VARIABLES)
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(Misconfigured, match=name) as caught:
        Settings.from_variables({key: text for key, text in VARIABLES.items() if key != name})
    assert caught.value.code == "missing_setting"


@pytest.mark.parametrize(
    "name",
    [
        "REGISTRY_PORT",
        "DEFAULT_DAYS",
        "MAXIMUM_DAYS",
        "ADMIN_MAXIMUM_DAYS",
        "CERTIFICATES_PER_OWNER",
        "INSTANCES_PER_MINUTE",
    ],
)
@pytest.mark.parametrize("text", ["", "ninety", "-1", "1.5", " 1", "0x1"])
def test_a_number_that_is_none_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(Misconfigured, match=name) as caught:
        Settings.from_variables({**VARIABLES, name: text})
    assert caught.value.code == "bad_setting"


@pytest.mark.parametrize(
    ("text", "globs"),
    [("", ()), ("a", ("a",)), ("a,b*", ("a", "b*")), ("a, b", ("a", "b")), (" , a,", ("a",))],
)
def test_push_principals_are_globs_between_commas(text: str, globs: tuple[str, ...]) -> None:
    assert Settings.from_variables({**VARIABLES, "PUSH_PRINCIPALS": text}).push_principals == globs
