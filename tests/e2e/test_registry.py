"""What the certificates are for: the real registry behind the real nginx, with other people's
clients."""

from __future__ import annotations

import json
import subprocess

import pytest

from localcloud.demo.image import write_image


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A small image of our own making, as an OCI layout."""
    directory = tmp_path_factory.mktemp("image")
    write_image(directory, "hello from the tests\n")
    return directory


@pytest.fixture
def certs_d(cloud, tmp_path):
    """certs_d(person, document) asks for a certificate and lays it out as Docker wants it."""

    def make(person, document=None):
        kind = ("--header", "content-type: application/json")
        accept = ("--header", "accept: application/gzip")
        body = json.dumps(document or {}).encode()
        answer = person.ask("POST", "/certs", *kind, *accept, body=body)
        assert answer.status == 201, answer.body
        archive = tmp_path / "bundle.tar.gz"
        archive.write_bytes(answer.body)
        subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
        return tmp_path / cloud.variables["REGISTRY"]

    return make


def skopeo(*arguments):
    return subprocess.run(
        ["skopeo", "--insecure-policy", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def curl(directory, *arguments):
    """In the certificates' directory: curl takes what follows a colon in --cert for a password,
    and the directory's own name has one."""
    command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *map(str, arguments)]
    return subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=30, check=False
    ).stdout


OURS = ("--cacert", "ca.crt", "--cert", "client.cert", "--key", "client.key")


def test_an_image_is_pushed_and_pulled_with_what_was_issued(cloud, dev, certs_d, image, tmp_path):
    certificates, there = certs_d(dev), f"docker://{cloud.variables['REGISTRY']}/e2e/hello:1"

    pushed = skopeo("copy", "--dest-cert-dir", certificates, f"oci:{image}", there)
    assert pushed.returncode == 0, pushed.stderr
    pulled = skopeo("copy", "--src-cert-dir", certificates, there, f"oci:{tmp_path / 'back'}")
    assert pulled.returncode == 0, pulled.stderr
    digests = [
        json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        for layout in (image, tmp_path / "back")
    ]
    assert digests[0] == digests[1]


def test_the_images_are_in_the_stacks_bucket(cloud, dev, certs_d, image):
    there = f"docker://{cloud.variables['REGISTRY']}/e2e/stored:1"
    skopeo("copy", "--dest-cert-dir", certs_d(dev), f"oci:{image}", there)

    outputs = cloud.outputs()
    listed = cloud.client("s3").list_objects_v2(Bucket=outputs["RegistryBucket"])
    assert any("repositories/e2e/stored" in each["Key"] for each in listed["Contents"])


def test_nobody_without_our_certificate_gets_in(cloud, dev, certs_d, tmp_path):
    """Each request differs from the admitted one in its certificate alone."""
    directory, url = certs_d(dev), f"https://{cloud.variables['REGISTRY']}/v2/"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "1"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-subj", "/O=registry-trust/OU=push/CN=dev"]
    command += ["-keyout", tmp_path / "stranger.key", "-out", tmp_path / "stranger.cert"]
    subprocess.run(command, capture_output=True, check=True)
    stranger = ("--cert", tmp_path / "stranger.cert", "--key", tmp_path / "stranger.key")

    assert curl(directory, *OURS, url) == "200"
    assert curl(directory, "--cacert", "ca.crt", url) == "403"
    assert curl(directory, "--cacert", "ca.crt", *stranger, url) == "403"


def test_a_pull_certificate_pulls_but_does_not_push(cloud, dev, certs_d, image, tmp_path):
    there = f"docker://{cloud.variables['REGISTRY']}/e2e/readable:1"
    skopeo("copy", "--dest-cert-dir", certs_d(dev), f"oci:{image}", there)
    reader = certs_d(dev, {"access": "pull"})

    pulled = skopeo("copy", "--src-cert-dir", reader, there, f"oci:{tmp_path / 'back'}")
    assert pulled.returncode == 0, pulled.stderr
    pushed = skopeo("copy", "--dest-cert-dir", reader, f"oci:{image}", f"{there}2")
    assert pushed.returncode != 0


def test_openssl_verifies_the_registry_under_the_trust_alone(cloud, dev, certs_d):
    host, port = cloud.variables["REGISTRY"].split(":")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", host]
    command += ["-verify_hostname", host, "-verify_return_error", "-CAfile"]
    done = subprocess.run(
        [*command, certs_d(dev) / "ca.crt"], input=b"", capture_output=True, check=False
    )
    assert b"Verify return code: 0 (ok)" in done.stdout


def test_the_access_log_says_who_did_what(cloud, dev, certs_d):
    directory = certs_d(dev)
    serial = subprocess.run(
        ["openssl", "x509", "-in", directory / "client.cert", "-noout", "-serial"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    url = f"https://{cloud.variables['REGISTRY']}/v2/e2e/asked/tags/list"
    curl(directory, *OURS, url)

    logs = list((cloud.directory / "registry-host").rglob("access*.log"))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    line = next(line for line in lines if "/v2/e2e/asked/" in line["path"])
    assert line["serial"].upper().zfill(40) == serial.removeprefix("serial=").zfill(40)
    assert (line["access"], line["method"]) == ("push", "GET")
