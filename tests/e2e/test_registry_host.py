"""A registry host set up by what scripts/deploy published, on a machine with the stack's profile.

Its nginx, registry, registry-refresh and set-up are real, and so are the clients; systemd, docker
and apt-get are played, see component/host_machine. Certificates come from the stage's API, images
go to the stage's bucket.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from localcloud import images
from localcloud.demo.image import write_image
from localcloud.layout import Layout
from localcloud.processes import until
from localcloud.sandbox import Sandbox
from operations.cloud import api_address
from tests.component.host_machine import HostMachine
from tests.component.real_host import free_port, listens
from tests.e2e.client import Person
from tests.e2e.conftest import Cloud

STAGE = "host"
SCRIPT = "/root/registry-host.sh"


@dataclass(frozen=True)
class Host:
    """A stage, the machine that is its registry host, and the registry's name."""

    cloud: Cloud
    machine: HostMachine
    registry: str

    @property
    def outputs(self) -> dict[str, str]:
        return self.cloud.outputs(STAGE)

    def fetch_script(self) -> None:
        """As whoever launches the machine gets it for its user data."""
        s3 = self.cloud.client("s3")
        where = {"Bucket": self.outputs["ConfigBucket"], "Key": "trust/registry-host.sh"}
        self.machine.write(SCRIPT, s3.get_object(**where)["Body"].read().decode())

    def certificates(self, directory: Path, access: str) -> Path:
        """A directory as Docker keeps it, with a certificate of the stage's."""
        iam, name = self.cloud.client("iam"), f"of-{STAGE}-{access}"
        iam.create_user(UserName=name)
        iam.attach_user_policy(UserName=name, PolicyArn=self.outputs["DeveloperPolicyArn"])
        key = iam.create_access_key(UserName=name)["AccessKey"]
        url = api_address(self.outputs["ApiUrl"], self.cloud.variables["AWS_ENDPOINT_URL"])
        person = Person(url, key["AccessKeyId"], key["SecretAccessKey"], name)
        kinds = (
            "--header",
            "content-type: application/json",
            "--header",
            "accept: application/gzip",
        )
        answer = person.ask("POST", "/certs", *kinds, body=json.dumps({"access": access}).encode())
        assert answer.status == 201, answer.body
        subprocess.run(["tar", "-xz", "-C", directory], input=answer.body, check=True)
        return directory / self.registry


@contextmanager
def without_path(endpoint: str) -> Iterator[str]:
    """The same metadata service at an address without a path, which the registry's SDK drops.

    Machines of the local cloud share a network and so have paths of their own; on EC2 there are
    none.
    """

    class Passing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {k: v for k, v in self.headers.items() if k.lower().startswith("x-aws")}
            asked = Request(endpoint + self.path, headers=headers, method=self.command)  # noqa: S310
            try:
                with urlopen(asked, timeout=10) as answer:  # noqa: S310
                    status, about, body = answer.status, dict(answer.headers), answer.read()
            except HTTPError as error:
                status, about, body = error.code, dict(error.headers), error.read()
            self.send_response(status)
            for name, value in about.items():
                if name.lower().startswith(("x-aws", "content-")):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Passing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def host(cloud: Cloud) -> Iterator[Host]:
    """Deployed, launched, and nothing set up."""
    assert not listens(5000), "the registry of a host listens on port 5000, which is taken here"
    registry = f"localhost:{free_port()}"
    deployed = cloud.run("scripts/deploy", "--stage", STAGE, "--registry-host", registry)
    assert deployed.returncode == 0, deployed.stderr
    profile = cloud.outputs(STAGE)["RegistryHostInstanceProfileName"]
    ec2, layout = cloud.client("ec2"), Layout(cloud.directory)
    launched = ec2.run_instances(
        ImageId=images.WITH_AGENT,
        MinCount=1,
        MaxCount=1,
        IamInstanceProfile={"Name": profile},
    )
    instance_id = str(launched["Instances"][0]["InstanceId"])
    assert until(lambda: Sandbox.of(layout.instances, instance_id).running, 30), instance_id
    endpoint = (layout.metadata / instance_id).read_text().strip()
    with without_path(endpoint) as plain:
        machine = HostMachine(layout.instances, plain, instance_id)
        machine.path("/usr/local/bin/sleep").unlink()  # nothing here has to fail in time
        machine.up()
        yield Host(cloud, machine, registry)
        machine.down()
    ec2.terminate_instances(InstanceIds=[instance_id])
    cloud.remove(STAGE)


def test_run_twice_it_serves_a_push_and_a_pull(host: Host, tmp_path: Path) -> None:
    host.fetch_script()
    first = host.machine.succeeds(f"sh {SCRIPT}")
    print(first)
    container, pid = host.machine.container(), host.machine.pid("registry-nginx.service")

    second = host.machine.succeeds(f"sh {SCRIPT}")

    print(second)
    assert "registry-host: nothing was amiss, nothing was changed\n" in second
    assert second.endswith("all is well\n")
    assert host.machine.container() == container
    assert host.machine.pid("registry-nginx.service") == pid

    write_image(tmp_path / "image", "hello from a host that set itself up\n")
    push, there = host.certificates(tmp_path, "push"), f"docker://{host.registry}/team/hello:1"
    copied = skopeo("--dest-cert-dir", push, f"oci:{tmp_path / 'image'}", there)
    assert copied.returncode == 0, copied.stderr
    copied = skopeo("--src-cert-dir", push, there, f"oci:{tmp_path / 'back'}")
    assert copied.returncode == 0, copied.stderr
    assert manifest(tmp_path / "image") == manifest(tmp_path / "back")


def test_its_images_are_in_the_stages_bucket(host: Host) -> None:
    found = host.cloud.client("s3").list_objects_v2(Bucket=host.outputs["RegistryBucket"])
    keys = [each["Key"] for each in found["Contents"]]
    assert any("/repositories/team/hello/_manifests/tags/1/current/link" in key for key in keys)


def test_who_may_pull_may_not_push(host: Host, tmp_path: Path) -> None:
    write_image(tmp_path / "image", "not for you to send\n")
    pull, there = host.certificates(tmp_path, "pull"), f"docker://{host.registry}/team/hello"
    pulled = skopeo("--src-cert-dir", pull, f"{there}:1", f"oci:{tmp_path / 'back'}")
    assert pulled.returncode == 0, pulled.stderr
    pushed = skopeo("--dest-cert-dir", pull, f"oci:{tmp_path / 'image'}", f"{there}:2")
    assert "may pull only" in pushed.stderr


def test_another_parameter_comes_with_an_upgrade(host: Host) -> None:
    changed = host.cloud.run(
        "scripts/deploy", "--stage", STAGE, "--param", "RegistryRedirects=true"
    )
    assert changed.returncode == 0, changed.stderr
    container = host.machine.container()

    said = host.machine.succeeds("registry-host upgrade")

    assert "runs registry:3 in a new container" in said
    assert host.machine.container() != container
    assert "disable: false" in host.machine.read("/etc/registry-trust/registry.yml")


def test_an_operator_far_away_is_told_how_it_is(host: Host) -> None:
    """Commands of the agent's have processes of their own in these machines, and see no others: so
    what is known by a process id looks bad there, and all else as it is."""
    checked = host.cloud.run("scripts/registry-host", "check", "--stage", STAGE)

    print(checked.stdout)
    said = dict(
        re.findall(rf"^{host.machine.instance_id}: \S+ +(\w+) +(.*)$", checked.stdout, re.M)
    )
    assert said["TLS"].startswith("our certificate is shown on 127.0.0.1:")
    assert said["admission"] == "who shows no certificate is refused"
    assert said["storage"] == "is found, and the registry may list it"
    assert said["nginx"].startswith("does not run")
    assert checked.returncode == 1
    assert f"not all is well on {host.machine.instance_id}" in checked.stderr


def test_of_a_stage_without_a_host_it_says_so(host: Host) -> None:
    checked = host.cloud.run("scripts/registry-host", "check", "--stage", "nowhere")
    assert checked.returncode == 1
    assert "registry-trust-nowhere is not deployed" in checked.stderr


def test_the_local_clouds_own_host_is_looked_at_here(cloud: Cloud) -> None:
    settings = Layout(cloud.directory).registry_host / "etc" / "refresh.env"
    checked = cloud.run("scripts/registry-host", "check", "--here", "--settings", str(settings))
    print(checked.stdout)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAILED" not in checked.stdout


def skopeo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["skopeo", "--insecure-policy", "copy", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def manifest(layout: Path) -> str:
    index = json.loads((layout / "index.json").read_text())
    return str(index["manifests"][0]["digest"])
