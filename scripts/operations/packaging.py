"""From the source to a template that CloudFormation takes: package, upload, point to it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.exceptions import ClientError

from operations.cloud import CommandError, error_code
from operations.trimming import trim

ROOT = Path(__file__).resolve().parents[2]

_SOURCES = ("app.py", "requirements.txt", ".chalice", "chalicelib", "scripts/operations")
_NOT_SOURCES = frozenset({"__pycache__", "deployments", "deployed"})

# AWS "AWS CloudFormation endpoints and quotas": template body size in a request.
_INLINE_TEMPLATE_BYTES = 51_200


@dataclass(frozen=True, slots=True)
class Package:
    """What chalice made: the functions' code, and the template that still points to a file."""

    code: Path
    template: dict[str, Any]


def package(stage: str, region: str) -> Package:
    """Package the checkout, or take what is there already for the same source."""
    target = ROOT / "build" / stage
    stamp = target / "source.sha256"
    source = f"{source_digest()} {region} {sys.version_info[:2]}"
    if not stamp.exists() or stamp.read_text() != source:
        _chalice_package(stage, region, target)
        trim(target / "deployment.zip")
        stamp.write_text(source)
    template = yaml.safe_load((target / "sam.yaml").read_text())
    return Package(target / "deployment.zip", template)


def _chalice_package(stage: str, region: str, target: Path) -> None:
    chalice = Path(sys.executable).with_name("chalice")  # of our own environment, not of PATH
    command = [str(chalice), "package", "--stage", stage]
    command += ["--merge-template", ".chalice/stack.yaml", "--template-format", "yaml", str(target)]
    environment = {**os.environ, "AWS_DEFAULT_REGION": region}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CommandError(f"chalice package failed:\n{done.stdout}{done.stderr}")


def source_digest() -> str:
    """Changes when what is deployed would change, by its source or by how it is packaged."""
    digest = hashlib.sha256()
    for path in sorted(_source_files()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _source_files() -> Iterator[Path]:
    for name in _SOURCES:
        path = ROOT / name
        for file in [path] if path.is_file() else path.rglob("*"):
            if file.is_file() and not _NOT_SOURCES & set(file.relative_to(ROOT).parts):
                yield file


class ArtifactBucket:
    """Where CloudFormation fetches code from; one for all stages of an account and region."""

    def __init__(self, aws: boto3.Session) -> None:
        account = aws.client("sts").get_caller_identity()["Account"]
        self._s3 = aws.client("s3")
        self._region = aws.region_name
        self._name = f"registry-trust-artifacts-{account}-{aws.region_name}"

    def upload(self, made: Package) -> dict[str, Any]:
        """Upload the code under the name of its content; the template that points there."""
        self._create()
        content = made.code.read_bytes()
        key = f"code/{hashlib.sha256(content).hexdigest()}.zip"
        # Though it may be there: what runs with the CA's key is what we packaged.
        self._s3.put_object(Bucket=self._name, Key=key, Body=content)
        return _pointing_to(made.template, f"s3://{self._name}/{key}")

    def template_argument(self, template: dict[str, Any]) -> dict[str, str]:
        """How to hand the template to CloudFormation: in the call, or too large, from here."""
        body = json.dumps(template, separators=(",", ":"))
        if len(body.encode()) <= _INLINE_TEMPLATE_BYTES:
            return {"TemplateBody": body}
        key = f"template/{hashlib.sha256(body.encode()).hexdigest()}.json"
        self._s3.put_object(Bucket=self._name, Key=key, Body=body.encode())
        # The endpoint knows the domain of its partition: China's is another.
        return {"TemplateURL": f"{self._s3.meta.endpoint_url}/{self._name}/{key}"}

    def _create(self) -> None:
        where: dict[str, Any] = {}
        if self._region != "us-east-1":
            where = {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
        try:
            self._s3.create_bucket(Bucket=self._name, **where)
        except ClientError as error:
            if error_code(error) != "BucketAlreadyOwnedByYou":
                raise
        self._s3.put_public_access_block(
            Bucket=self._name,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )


def _pointing_to(template: dict[str, Any], uri: str) -> dict[str, Any]:
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = uri
    return template


if __name__ == "__main__":  # scripts/check: package for the stage named, upload nothing
    package(sys.argv[1], os.environ["AWS_DEFAULT_REGION"])
