"""schemathesis holds the deployed API to its own description, with signed requests.

It asks as a developer, as an admin, and as the registry's host, on a stage of its own with a wide
quota: who has used up a quota is shown nothing but its end. Its summary is printed (pytest -rP).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.client import Person

HERE = Path(__file__).parent
EXAMPLES = "12"  # for each operation and phase: all of it is to take about a minute
SEED = "20261123"  # the same requests each time; run the command that is printed for others
TAG = "described"  # of this stage's instances alone
PARAMETERS = (
    "ActiveCertificatesPerOwner=1000",
    "MaximumDays=825",
    "AdminMaximumDays=825",
    f"InstanceTag={TAG}",
)
OPERATIONS = {
    "developer": ("--exclude-path-regex", "^/(admin|registry)/"),
    "admin": ("--include-path-regex", "^/admin/"),
    # Nothing leads on from the one it may use, so there is no phase of following links.
    "host": ("--include-path", "/registry/cert", "--phases", "examples,coverage,fuzzing"),
}
# That nothing can be published happens to no healthy stack.
NEVER_HERE = {("DELETE /certs/{serial}", 202), ("DELETE /admin/certs/{serial}", 202)}


@dataclass(frozen=True)
class Run:
    """answered: how often an operation answered with a status and a media type."""

    who: str
    code: int
    output: str
    answered: Counter[tuple[str, int, str]]


@pytest.fixture(scope="module")
def stage(cloud):
    name, parameters = "described", [part for each in PARAMETERS for part in ("--param", each)]
    host = ("--registry-host", "registry.example.com:8443")
    done = cloud.run("scripts/deploy", "--stage", name, *host, *parameters)
    assert done.returncode == 0, done.stderr
    yield name
    cloud.remove(name)


@pytest.fixture(scope="module")
def people(cloud, stage):
    outputs = cloud.outputs(stage)
    api, port = (outputs["ApiUrl"].split("/")[2], cloud.variables["AWS_ENDPOINT_URL"])
    url = f"http://{api.split('.')[0]}.execute-api.localhost:{port.rsplit(':', 1)[1]}/v1"
    iam, sts = cloud.client("iam"), cloud.client("sts")

    def user(name, policy):
        iam.create_user(UserName=name)
        iam.attach_user_policy(UserName=name, PolicyArn=outputs[policy])
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return Person(url, key["AccessKeyId"], key["SecretAccessKey"], name)

    def host():
        role = iam.get_role(RoleName=outputs["RegistryHostRoleName"])["Role"]
        anybody = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [anybody]})
        iam.update_assume_role_policy(RoleName=role["RoleName"], PolicyDocument=policy)
        key = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="host")["Credentials"]
        token = key["SessionToken"]
        return Person(url, key["AccessKeyId"], key["SecretAccessKey"], "host", token)

    return {
        "developer": user("described-developer", "DeveloperPolicyArn"),
        "admin": user("described-admin", "AdminPolicyArn"),
        "host": host(),
    }


@pytest.fixture(scope="module")
def description(people):
    answer = people["developer"].ask("GET", "/openapi.json")
    assert answer.status == 200, answer.body
    return answer.json


@pytest.fixture(scope="module")
def instance(cloud, people):
    """The id of an instance that the stage knows. It runs, and nothing runs on it."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": TAG, "Value": "pull"}]}]
    wanted = {"ImageId": "ami-00000000", "InstanceType": "t3.nano", "TagSpecifications": tags}
    launched = cloud.client("ec2").run_instances(**wanted, MinCount=1, MaxCount=1)
    instance_id = launched["Instances"][0]["InstanceId"]
    path = f"/admin/instances/{instance_id}"
    assert people["admin"].ask("POST", f"{path}/enrol").status == 202
    for _ in range(100):
        if people["admin"].ask("GET", path).status == 200:
            return instance_id
        time.sleep(0.3)
    raise AssertionError("the stage does not come to know its instance")


@pytest.fixture(scope="module")
def runs(people, instance, description, tmp_path_factory):
    directory = tmp_path_factory.mktemp("schemathesis")
    (directory / "openapi.json").write_text(json.dumps(description))
    return {who: schemathesis(who, person, instance, directory) for who, person in people.items()}


def schemathesis(who: str, person: Person, instance: str, directory: Path) -> Run:
    answered = directory / f"{who}.json"
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file"]
    command += [HERE / "schemathesis.toml", "run", directory / "openapi.json", "--no-color"]
    command += ["--url", person.api_url, "--max-examples", EXAMPLES, "--seed", SEED]
    environment = {name: v for name, v in os.environ.items() if not name.startswith("AWS_")} | {
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "PYTHONPATH": str(HERE),
        "ANSWERED_FILE": str(answered),
        "INSTANCE_ID": instance,
        "AWS_REGION": person.region,
        "AWS_ACCESS_KEY_ID": person.access_key_id,
        "AWS_SECRET_ACCESS_KEY": person.secret_access_key,
        "AWS_SESSION_TOKEN": person.session_token,
    }
    done = subprocess.run(
        [*map(str, command), *OPERATIONS[who]],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    counts = {
        (label, status, kind): n for label, status, kind, n in json.loads(answered.read_text())
    }
    return Run(who, done.returncode, done.stdout + done.stderr, Counter(counts))


@pytest.mark.parametrize("who", OPERATIONS)
def test_schemathesis_finds_nothing(runs, who):
    run = runs[who]
    print(f"\nschemathesis as {who}:\n{run.output}")
    assert run.code == 0, run.output


def test_every_operation_was_answered_with_each_of_its_successes(runs, description):
    """Else the runs above would show nothing of what they did not reach."""
    answered = {(label, status) for run in runs.values() for label, status, _ in run.answered}
    promised = {
        (f"{method.upper()} {path}", int(status))
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
        if status < "300"
    }
    assert promised - NEVER_HERE - answered == set()


def test_certificates_came_in_every_form(runs):
    for label, who in (("POST /certs", "developer"), ("POST /admin/certs", "admin")):
        forms = {kind for of, status, kind in runs[who].answered if (of, status) == (label, 201)}
        assert len(forms) == 4, label


def test_neither_signatures_nor_quotas_were_in_the_way(runs):
    for run in runs.values():
        total = run.answered.total()
        refused = sum(n for (_, status, _), n in run.answered.items() if status in (403, 429))
        assert total > 20
        assert refused <= total / 100, run.answered
