"""What is asked of S3, and the links that are handed out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from chalicelib.adapters.bucket import ConfigBucket
from chalicelib.bootstrap import Services
from tests.unit.settings import SETTINGS

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Recorder:
    """Keeps the arguments of put_object."""

    def __init__(self) -> None:
        self.put: dict[str, Any] = {}

    def put_object(self, **arguments: Any) -> None:
        self.put = arguments


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "config-bucket.s3.amazonaws.com"),
        ("eu-central-1", "config-bucket.s3.eu-central-1.amazonaws.com"),
        ("eu-south-1", "config-bucket.s3.eu-south-1.amazonaws.com"),
        ("cn-north-1", "config-bucket.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_a_link_names_the_endpoint_of_the_region(monkeypatch, region, host):
    """The global one redirects a new bucket's readers to the region, and there it does not fit."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", region)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    settings = replace(SETTINGS, config_bucket="config-bucket")
    link = Services(settings).issuing.delivering.bundles.link("ab12", NOW)

    parts = urlsplit(link.url)
    assert (parts.scheme, parts.netloc) == ("https", host)
    assert parts.path == "/certs/ab12/bundle.tar.gz"
    assert f"%2F{region}%2Fs3%2Faws4_request" in parts.query


def test_only_a_bundle_that_holds_a_key_is_tagged():
    """Without a tag the header is left out: S3 documents no empty one."""
    s3 = Recorder()
    bucket: Any = ConfigBucket(s3, "config-bucket")  # type: ignore[arg-type]

    bucket.put("ab12", b"", holds_key=True)
    assert s3.put["Tagging"] == "holds-key=true"
    bucket.put("ab12", b"", holds_key=False)
    assert "Tagging" not in s3.put
