"""Callers of the emulated AWS: who signs, and what a client of theirs needs to know."""

from __future__ import annotations

from dataclasses import dataclass

import boto3
from botocore.config import Config

REGION = "us-east-1"
SETTINGS = Config(retries={"total_max_attempts": 2}, connect_timeout=5, read_timeout=30)


@dataclass(frozen=True)
class Key:
    """An access key."""

    access_key_id: str
    secret_access_key: str


# The emulator takes this one for the account's root, whatever the secret.
ROOT = Key("test", "test")


@dataclass(frozen=True)
class Caller:
    """Somebody with a key, and where the emulated AWS is."""

    endpoint: str
    key: Key

    @property
    def session(self) -> boto3.Session:
        """For clients: nothing is taken from the environment or from files in the home."""
        return boto3.Session(
            aws_access_key_id=self.key.access_key_id,
            aws_secret_access_key=self.key.secret_access_key,
            region_name=REGION,
        )

    def environment(self) -> dict[str, str]:
        """The variables by which AWS tools and our own commands find the emulated AWS."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.key.secret_access_key,
        }
