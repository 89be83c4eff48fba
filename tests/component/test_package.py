"""The package that Lambda gets: whole, and nothing in it that the functions do not need.

The emulator runs functions in its own interpreter, where a requirement missing from the zip would
go unnoticed; here each handler is imported with the zip's content alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from operations.trimming import SERVICES

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def package():
    """(directory of the unpacked zip, the template)"""
    environment = {**os.environ, "AWS_DEFAULT_REGION": "us-east-1", "PYTHONPATH": "scripts:."}
    command = [sys.executable, "-m", "operations.packaging", "check"]
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, timeout=300)
    made = CHECKOUT / "build" / "check"
    return made / "deployment.zip", yaml.safe_load((made / "sam.yaml").read_text())


@pytest.fixture(scope="module")
def unpacked(package, tmp_path_factory):
    directory = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(package[0]) as archive:
        archive.extractall(directory)
    return directory


def handlers(template):
    resources = template["Resources"].values()
    return {
        resource["Properties"]["Handler"]
        for resource in resources
        if resource["Type"] == "AWS::Serverless::Function"
    }


def test_every_handler_imports_from_the_zip_alone_and_reads_no_variable(package, unpacked):
    for handler in handlers(package[1]):
        module, _, name = handler.rpartition(".")
        program = (
            f"import sys; sys.path.insert(0, {str(unpacked)!r}); "
            f"import importlib; found = getattr(importlib.import_module({module!r}), {name!r}); "
            "assert callable(found); import boto3, pynamodb, cryptography, json; "
            "print(json.dumps([m.__file__ for m in (boto3, pynamodb, cryptography)]))"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program],
            env={},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert all(file.startswith(str(unpacked)) for file in json.loads(done.stdout))


def test_the_templates_are_in_the_zip(unpacked):
    assert list((unpacked / "chalicelib" / "templates").rglob("nginx.conf"))
    assert list((unpacked / "chalicelib" / "templates").rglob("install.sh"))


def test_the_zip_is_small(package):
    """Lambda unpacks it at each cold start. AWS "Lambda quotas" allows 250 MB."""
    with zipfile.ZipFile(package[0]) as archive:
        files = [entry for entry in archive.infolist() if not entry.is_dir()]
    assert sum(entry.file_size for entry in files) < 32 * 1024 * 1024
    assert len(files) < 750
    assert not [entry.filename for entry in files if entry.filename.endswith(".pyc")]


def test_the_zip_describes_the_services_that_the_code_makes_clients_of():
    """pynamodb makes the client of dynamodb."""
    source = (CHECKOUT / "chalicelib" / "bootstrap" / "adapters.py").read_text()
    made = set(re.findall(r"""\.client\(\s*["'](\w+)["']""", source))
    assert made | {"dynamodb"} == SERVICES


def test_each_client_can_be_made_from_the_zip_alone(unpacked):
    program = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r}); import boto3; "
        f"[boto3.client(each, region_name='eu-central-1') for each in {sorted(SERVICES)}]"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_of_the_workshop_is_in_the_zip(unpacked):
    there = {entry.name for entry in unpacked.iterdir()}
    assert not there & {"tests", "scripts", "docs", "pytest", "ministack", "mypy", ".chalice"}


def test_each_function_has_a_role_of_its_own(package):
    functions = [
        resource["Properties"]
        for resource in package[1]["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    ]
    roles = [str(properties["Role"]) for properties in functions]
    assert len(set(roles)) == len(roles) > 1


def test_every_route_is_authorised_by_iam(package):
    paths = package[1]["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]["paths"]
    methods = [method for path in paths.values() for method in path.values()]
    assert methods
    assert all(method["security"] == [{"sigv4": []}] for method in methods)
