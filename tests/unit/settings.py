"""One deployment's settings, for tests to vary with dataclasses.replace."""

from __future__ import annotations

from chalicelib.config import Settings

SETTINGS = Settings(
    stage="test",
    registry_host="registry.example.com",
    registry_port=8443,
    registry_address="192.0.2.7",
    registry_host_role="registry-host",
    parameter_prefix="/registry-trust/test/",
    certificates_table="certificates",
    state_table="state",
    instances_table="instances",
    enrolment_queue_url="https://sqs.test/enrolment",
    config_bucket="config",
    default_days=90,
    maximum_days=365,
    admin_maximum_days=730,
    certificates_per_owner=20,
    push_principals=("*",),
    instance_tag="registry-trust",
    instances_per_minute=300,
)
