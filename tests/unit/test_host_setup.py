"""What makes a machine a registry host, as text: it fits into user data, is the same each time, and
belongs together."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from chalicelib.domain.registry_host import (
    KEEPALIVE_TIME_SINCE,
    HostLayout,
    HostSetup,
    RefreshSource,
    S3Storage,
    host_command,
)
from chalicelib.domain.registry_host.setup import SECRET_PLACE
from chalicelib.domain.templates import TEMPLATES
from chalicelib.errors import Misconfigured
from operations import host

API = "https://abcdefghij.execute-api.eu-west-1.amazonaws.com/v1"
LAYOUT = HostLayout.system("registry.example.com", nginx_version=KEEPALIVE_TIME_SINCE)
STORAGE = S3Storage("eu-west-1", "team-images")
SOURCE = RefreshSource("team-config", "eu-west-1", API, reload_command=host.RELOAD_COMMAND)
SETUP = HostSetup(LAYOUT, STORAGE, SOURCE)
USER_DATA_BYTES = 16 * 1024


def files_of(setup: HostSetup) -> dict[str, tuple[int, str]]:
    with tarfile.open(fileobj=io.BytesIO(setup.release), mode="r:gz") as archive:
        read = {}
        for member in archive:
            content = archive.extractfile(member)
            assert content
            read[member.name] = (member.mode, content.read().decode())
    return read


def test_the_script_is_user_data_even_with_the_longest_of_names() -> None:
    registry = ".".join(["r" * 63] * 3 + ["s" * 61]) + ":65535"
    longest = replace(
        SETUP,
        layout=HostLayout.system(registry, nginx_version=KEEPALIVE_TIME_SINCE),
        source=replace(SOURCE, config_bucket="c" * 63, region="ap-southeast-99"),
        storage=S3Storage("ap-southeast-99", "b" * 63),
        image="i" * 255,
    )
    assert len(longest.script.encode()) < USER_DATA_BYTES


def test_the_release_has_every_file_in_its_place_and_mode() -> None:
    modes = {name: mode for name, (mode, _) in files_of(SETUP).items()}
    assert modes == {
        "install": 0o755,
        "files/etc/registry-trust/logrotate.conf": 0o644,
        "files/etc/registry-trust/nginx.conf": 0o644,
        "files/etc/registry-trust/refresh.env": 0o600,
        "files/etc/registry-trust/registry-refresh": 0o755,
        "files/etc/registry-trust/registry.yml": 0o600,
        "files/etc/systemd/system/registry-logrotate.service": 0o644,
        "files/etc/systemd/system/registry-logrotate.timer": 0o644,
        "files/etc/systemd/system/registry-nginx.service": 0o644,
        "files/etc/systemd/system/registry-refresh.service": 0o644,
        "files/etc/systemd/system/registry-refresh.timer": 0o644,
        "files/etc/tmpfiles.d/registry-trust.conf": 0o644,
        "files/usr/local/sbin/registry-host": 0o755,
    }
    assert not any(re.search(r"@[A-Z_]+@", text) for _, text in files_of(SETUP).values())


def test_the_release_is_the_same_bytes_each_time_and_has_no_time_in_it() -> None:
    again = HostSetup(LAYOUT, STORAGE, SOURCE)
    assert again.release == SETUP.release
    assert SETUP.release[4:8] == bytes(4)  # RFC 1952 section 2.3.1, MTIME
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(SETUP.release))) as archive:
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in archive} == {(0, 0, 0, "")}


def test_the_script_takes_its_release_and_no_other() -> None:
    digest = hashlib.sha256(SETUP.release).hexdigest()
    assert SETUP.release_key == f"trust/registry-host-{digest}.tar.gz"
    assert f"RELEASE='{digest}'\n" in SETUP.script
    changed = replace(SETUP, image="registry:2")
    assert changed.release_key != SETUP.release_key
    assert digest not in changed.script


def test_it_does_nothing_before_its_last_line() -> None:
    """A download that breaks off must not be run in part."""
    for text in (SETUP.script, files_of(SETUP)["install"][1], host_command(LAYOUT)):
        assert text.endswith('\n{ main "$@"; }\n')


def test_the_secret_is_no_partys_but_the_hosts() -> None:
    config = yaml.safe_load(files_of(SETUP)["files/etc/registry-trust/registry.yml"][1])
    assert config["http"]["secret"] == SECRET_PLACE
    assert f"SECRET_PLACE={SECRET_PLACE}\n" in files_of(SETUP)["install"][1]


@pytest.mark.parametrize(
    ("registry", "port"), [("registry.example.com", "443"), ("registry.example.com:8443", "8443")]
)
def test_nginx_listens_on_the_port_of_the_registrys_name(registry: str, port: str) -> None:
    layout = HostLayout.system(registry, nginx_version=KEEPALIVE_TIME_SINCE)
    text = files_of(replace(SETUP, layout=layout))["files/etc/registry-trust/nginx.conf"][1]
    assert set(re.findall(r"listen (\S+) ssl", text)) == {port, f"[::]:{port}"}


def test_what_the_installer_changes_in_nginxs_configuration_is_there_to_be_changed() -> None:
    text = files_of(SETUP)["files/etc/registry-trust/nginx.conf"][1]
    assert len(re.findall(r"^user .*;$", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^ *keepalive_time .*;$", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^ *listen \[::\]", text, re.MULTILINE)) == 2
    assert re.search(
        r"^ *create 0640 www-data www-data$",
        files_of(SETUP)["files/etc/registry-trust/logrotate.conf"][1],
        re.MULTILINE,
    )


@pytest.mark.parametrize(
    "image", ["", "registry:3 --privileged", "Registry", "-registry", "$(id)", "a" * 256]
)
def test_an_image_that_docker_would_read_otherwise_is_refused(image: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        _ = replace(SETUP, image=image).release
    assert refusal.value.field == "image"


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_its_scripts_are_clean_under_shellcheck() -> None:
    whole = (TEMPLATES / "registry/setup.sh").read_text()
    whole = whole.replace("@AWS_FUNCTIONS@", (TEMPLATES / "registry/aws.sh").read_text())
    scripts = {
        "setup.sh": whole,
        "install": files_of(SETUP)["install"][1],
        "registry-host": host_command(LAYOUT),
    }
    for name, text in scripts.items():
        options = ["-s", "sh", "-e", "SC1091"]  # /etc/os-release is the machine's
        told = subprocess.run(
            ["shellcheck", *options, "-"], input=text, capture_output=True, text=True
        )
        assert (name, told.returncode, told.stdout) == (name, 0, "")


@pytest.mark.skipif(not shutil.which("logrotate"), reason="logrotate is not installed")
def test_logrotate_takes_its_configuration(tmp_path: Path) -> None:
    text = files_of(SETUP)["files/etc/registry-trust/logrotate.conf"][1]
    config = tmp_path / "logrotate.conf"
    config.write_text(text.replace("www-data", "root").replace("/var/log", str(tmp_path)))
    config.chmod(0o644)
    told = subprocess.run(
        ["logrotate", "--debug", "--state", str(tmp_path / "status"), str(config)],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "error:" not in told.stderr


# --- publishing -----------------------------------------------------------------------------------

OUTPUTS = {"ConfigBucket": "team-config", "RegistryBucket": "team-images"}
PARAMETERS = {
    "RegistryHost": "registry.example.com",
    "RegistryPort": "443",
    "RegistryImage": "registry:3",
    "RegistryRedirects": "false",
}


class Bucket:
    """As much of S3, and of a session that has it, as publishing uses."""

    region_name = "eu-west-1"

    def __init__(self, refusal: str = "") -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.refusal = refusal
        self.written: list[str] = []

    def client(self, name: str) -> Bucket:
        assert name == "s3"
        return self

    def head_object(self, *, Bucket: str, Key: str) -> None:  # noqa: N803
        assert Bucket == "team-config"
        if self.refusal or Key not in self.objects:
            raise ClientError({"Error": {"Code": self.refusal or "404"}}, "HeadObject")

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        assert Bucket == "team-config"
        if self.refusal or Key not in self.objects:
            raise ClientError({"Error": {"Code": self.refusal or "NoSuchKey"}}, "GetObject")
        body, content_type = self.objects[Key]
        return {"Body": io.BytesIO(body), "ContentType": content_type}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803
        assert Bucket == "team-config"
        self.objects[Key] = (Body, ContentType)
        self.written.append(Key)


def publish(bucket: Bucket, **changes: str) -> str:
    return host.publish(bucket, OUTPUTS, PARAMETERS | changes, API)  # type: ignore[arg-type]


def test_the_release_is_there_before_the_script_that_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    bucket = Bucket()
    assert publish(bucket) == "s3://team-config/trust/registry-host.sh"
    assert bucket.written == [SETUP.release_key, "trust/registry-host.sh"]
    assert bucket.objects[SETUP.release_key] == (SETUP.release, "application/gzip")
    expected = (SETUP.script.encode(), "text/x-shellscript")
    assert bucket.objects["trust/registry-host.sh"] == expected


def test_what_is_there_already_is_not_written_again() -> None:
    bucket = Bucket()
    publish(bucket)
    publish(bucket)
    assert len(bucket.written) == 2


def test_a_change_is_published_and_the_former_release_stays() -> None:
    bucket = Bucket()
    publish(bucket)
    former = bucket.written[0]
    publish(bucket, RegistryRedirects="true", RegistryImage="registry:2", RegistryPort="8443")
    assert len(bucket.written) == 4
    assert former in bucket.objects
    release = bucket.written[2].removeprefix("trust/registry-host-").removesuffix(".tar.gz")
    assert release in bucket.objects["trust/registry-host.sh"][0].decode()


def test_a_bucket_that_cannot_be_read_is_not_written() -> None:
    bucket = Bucket(refusal="AccessDenied")
    with pytest.raises(ClientError):
        publish(bucket)
    assert bucket.written == []


def test_on_an_emulator_the_host_asks_its_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566/")
    setup = host.setup_of(
        "eu-west-1", OUTPUTS, PARAMETERS, "http://id.execute-api.localhost:4566/v1"
    )
    assert "AWS_ENDPOINT_URL='http://127.0.0.1:4566'\n" in setup.script
    config = yaml.safe_load(files_of(setup)["files/etc/registry-trust/registry.yml"][1])
    assert config["storage"]["s3"]["regionendpoint"] == "http://127.0.0.1:4566"
    assert config["storage"]["s3"]["encrypt"] is False
