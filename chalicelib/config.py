"""The settings of one deployment, from the variables that the stack gives each function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chalicelib.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Settings:
    """registry_port: what clients connect to. registry_address: for clients whose DNS lacks it.

    instances_per_minute: how many instances are asked after a minute at most, of their own accord.
    """

    stage: str
    registry_host: str
    registry_port: int
    registry_address: str
    registry_host_role: str
    parameter_prefix: str
    certificates_table: str
    state_table: str
    instances_table: str
    enrolment_queue_url: str
    config_bucket: str
    default_days: int
    maximum_days: int
    admin_maximum_days: int
    certificates_per_owner: int
    push_principals: tuple[str, ...]
    instance_tag: str
    instances_per_minute: int

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> Settings:
        """Raises Misconfigured, naming the first variable that is missing or no number."""

        def text(name: str) -> str:
            if name not in variables:
                raise Misconfigured("missing_setting", f"the variable {name} is not set")
            return variables[name]

        def number(name: str) -> int:
            value = text(name)
            if not value.isdecimal():
                raise Misconfigured("bad_setting", f"the variable {name} must be a whole number")
            return int(value)

        return cls(
            stage=text("STAGE"),
            registry_host=text("REGISTRY_HOST"),
            registry_port=number("REGISTRY_PORT"),
            registry_address=variables.get("REGISTRY_ADDRESS", ""),
            registry_host_role=text("REGISTRY_HOST_ROLE"),
            parameter_prefix=text("PARAMETER_PREFIX"),
            certificates_table=text("CERTIFICATES_TABLE"),
            state_table=text("STATE_TABLE"),
            instances_table=text("INSTANCES_TABLE"),
            enrolment_queue_url=text("ENROLMENT_QUEUE_URL"),
            config_bucket=text("CONFIG_BUCKET"),
            default_days=number("DEFAULT_DAYS"),
            maximum_days=number("MAXIMUM_DAYS"),
            admin_maximum_days=number("ADMIN_MAXIMUM_DAYS"),
            certificates_per_owner=number("CERTIFICATES_PER_OWNER"),
            push_principals=tuple(filter(None, map(str.strip, text("PUSH_PRINCIPALS").split(",")))),
            instance_tag=text("INSTANCE_TAG"),
            instances_per_minute=number("INSTANCES_PER_MINUTE"),
        )
