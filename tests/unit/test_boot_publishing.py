"""scripts/deploy's user data in the config bucket: written when it differs, and only then."""

from __future__ import annotations

import io
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.domain.instance_host import BootSettings, user_data
from operations import boot
from operations.cloud import api_address

OUTPUTS = {"ConfigBucket": "team-config"}
API = "https://abcdefghij.execute-api.eu-central-1.amazonaws.com/v1"


class Bucket:
    """As much of S3, and of a session that has it, as publishing uses."""

    region_name = "eu-central-1"

    def __init__(self, refusal: str = "NoSuchKey") -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.refusal, self.writes = refusal, 0

    def client(self, name: str) -> Bucket:
        assert name == "s3"
        return self

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        assert Bucket == OUTPUTS["ConfigBucket"]
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": self.refusal}}, "GetObject")
        body, content_type = self.objects[Key]
        return {"Body": io.BytesIO(body), "ContentType": content_type}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803
        assert Bucket == OUTPUTS["ConfigBucket"]
        self.objects[Key] = (Body, ContentType)
        self.writes += 1


def publish(bucket: Bucket, port: str = "443", api_url: str = API) -> str:
    parameters = {"RegistryHost": "registry.example.com", "RegistryPort": port}
    return boot.publish(bucket, OUTPUTS, parameters, api_url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("port", "registry"),
    [("443", "registry.example.com"), ("8443", "registry.example.com:8443")],
)
def test_it_is_what_instances_of_this_stack_need(port: str, registry: str) -> None:
    bucket = Bucket()
    assert publish(bucket, port) == "s3://team-config/trust/user-data.sh"
    expected = user_data(BootSettings(API, "eu-central-1", registry)).encode()
    assert bucket.objects == {"trust/user-data.sh": (expected, "text/x-shellscript")}


def test_what_is_there_already_is_not_written_again() -> None:
    bucket = Bucket()
    publish(bucket)
    publish(bucket)
    assert bucket.writes == 1


@pytest.mark.parametrize("spoil", ["text", "type"])
def test_what_differs_is_written_again(spoil: str) -> None:
    bucket = Bucket()
    publish(bucket)
    good = bucket.objects[boot.KEY]
    bucket.objects[boot.KEY] = (b"", good[1]) if spoil == "text" else (good[0], "text/plain")
    publish(bucket)
    assert bucket.objects[boot.KEY] == good


def test_a_bucket_that_cannot_be_read_is_not_written() -> None:
    bucket = Bucket(refusal="AccessDenied")
    with pytest.raises(ClientError):
        publish(bucket)
    assert bucket.writes == 0


def test_on_an_emulator_instances_ask_its_gateway() -> None:
    bucket = Bucket()
    publish(bucket, api_url=api_address(API + "/", "http://127.0.0.1:4566"))
    text = bucket.objects[boot.KEY][0].decode()
    assert "api_url='http://abcdefghij.execute-api.localhost:4566/v1'" in text
