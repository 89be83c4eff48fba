"""The deployed local cloud, its people, and what they bring."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from localcloud.processes import until
from tests.e2e.client import Person

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cloud:
    """A running local cloud. variables: what its env file says."""

    directory: Path
    variables: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """For commands that the operator runs on it."""
        own = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        return {**own, **self.variables, "REGISTRY_TRUST_LOCAL": str(self.directory)}

    @property
    def operator(self) -> boto3.Session:
        """May do all."""
        return boto3.Session(
            self.variables["AWS_ACCESS_KEY_ID"],
            self.variables["AWS_SECRET_ACCESS_KEY"],
            region_name=self.variables["AWS_REGION"],
        )

    def client(self, service: str) -> Any:
        """A boto3 client of the operator's."""
        return self.operator.client(service, endpoint_url=self.variables["AWS_ENDPOINT_URL"])

    def stack(self, stage: str = "") -> dict[str, Any]:
        """What CloudFormation says of the stack of a stage; of the cloud's own without one."""
        name = f"registry-trust-{stage}" if stage else self.variables["STACK_NAME"]
        return self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]

    def outputs(self, stage: str = "") -> dict[str, str]:
        """The outputs of that stack."""
        return {o["OutputKey"]: o["OutputValue"] for o in self.stack(stage)["Outputs"]}

    def remove(self, stage: str) -> None:
        """Delete the stack of another stage: its functions look at each instance that starts."""
        formation, name = self.client("cloudformation"), f"registry-trust-{stage}"
        formation.delete_stack(StackName=name)
        assert until(lambda: not self._deployed(name), 60), name

    def _deployed(self, name: str) -> bool:
        pages = self.client("cloudformation").get_paginator("list_stacks").paginate()
        stacks = [stack for page in pages for stack in page["StackSummaries"]]
        there = {s["StackName"] for s in stacks if s["StackStatus"] != "DELETE_COMPLETE"}
        return name in there

    def person(self, prefix: str) -> Person:
        """DEV, DEV2 or ADMIN."""
        return Person(
            self.variables["API_URL"],
            self.variables[f"{prefix}_ACCESS_KEY_ID"],
            self.variables[f"{prefix}_SECRET_ACCESS_KEY"],
            prefix.lower(),
        )

    def newcomer(self, name: str, policy: str | None = "DeveloperPolicyArn") -> Person:
        """A new IAM user with the policy of this output of the stack's."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        if policy:
            iam.attach_user_policy(UserName=name, PolicyArn=self.outputs()[policy])
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return Person(self.variables["API_URL"], key["AccessKeyId"], key["SecretAccessKey"], name)

    @contextmanager
    def denied(self, role: str, action: str, resource: str = "*") -> Iterator[None]:
        """Meanwhile the role with this logical id in the stack may not do that."""
        formation, iam = self.client("cloudformation"), self.client("iam")
        found = formation.describe_stack_resource(
            StackName=self.variables["STACK_NAME"], LogicalResourceId=role
        )
        name = found["StackResourceDetail"]["PhysicalResourceId"]
        deny = {"Effect": "Deny", "Action": action, "Resource": resource}
        document = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        iam.put_role_policy(RoleName=name, PolicyName="outage", PolicyDocument=document)
        try:
            yield
        finally:
            iam.delete_role_policy(RoleName=name, PolicyName="outage")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """One of our scripts, as the operator runs it."""
        return subprocess.run(
            command,
            cwd=CHECKOUT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """A local cloud of the tests' own, beside one that a developer may have running."""
    with local_cloud("test-cloud") as running:
        yield running


@contextmanager
def local_cloud(name: str) -> Iterator[Cloud]:
    """A new local cloud in this directory of build/, beside any others; it is down in the end."""
    directory = CHECKOUT / "build" / name
    own = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    own["REGISTRY_TRUST_LOCAL"] = str(directory)
    _local("down", own)
    try:
        up = _local("up", own)
        assert up.returncode == 0, up.stdout + up.stderr
        yield Cloud(directory, _variables(directory / "env"))
    finally:
        down = _local("down", own)
    assert down.returncode == 0, down.stdout + down.stderr


def _local(command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["scripts/local", command],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _variables(file: Path) -> dict[str, str]:
    words = shlex.split(file.read_text(), comments=True)
    return dict(word.split("=", 1) for word in words if "=" in word)


@pytest.fixture
def dev(newcomer: Callable[..., Person]) -> Person:
    """A developer, new to it: one test's certificates do not count against another's quota."""
    return newcomer(f"dev-{secrets.token_hex(4)}")


@pytest.fixture
def dev2(newcomer: Callable[..., Person]) -> Person:
    """Another developer."""
    return newcomer(f"dev2-{secrets.token_hex(4)}")


@pytest.fixture(scope="session")
def newcomer(cloud: Cloud) -> Callable[..., Person]:
    """Makes IAM users: newcomer(name) with the developer policy, newcomer(name, None) with none."""
    return cloud.newcomer


@pytest.fixture(scope="session")
def written(cloud: Cloud) -> Callable[[], tuple[int, int, int]]:
    """How much the stack has recorded: certificates, state items, objects in the config bucket."""
    outputs = cloud.outputs()
    dynamodb, s3 = cloud.client("dynamodb"), cloud.client("s3")

    def count() -> tuple[int, int, int]:
        tables = (outputs["CertificatesTable"], outputs["StateTable"])
        certificates, state = (dynamodb.scan(TableName=t, Select="COUNT")["Count"] for t in tables)
        listed = s3.list_objects_v2(Bucket=outputs["ConfigBucket"], Prefix="certs/")
        return certificates, state, listed["KeyCount"]

    return count


@pytest.fixture(scope="session")
def make_csr(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """make_csr('ec', 'ec_paramgen_curve:P-256') and so on: a CSR by openssl, with its key gone."""
    directory = tmp_path_factory.mktemp("csr")

    def make(algorithm: str = "ec", *options: str) -> bytes:
        chosen = options or (("ec_paramgen_curve:P-256",) if algorithm == "ec" else ())
        command = ["openssl", "req", "-new", "-nodes", "-subj", "/CN=whatever"]
        command += ["-newkey", algorithm, "-keyout", str(directory / "key")]
        for option in chosen:
            command += ["-pkeyopt", option]
        return subprocess.run(command, capture_output=True, check=True).stdout

    return make
