"""What importing does: nothing. Packaging imports the application without our environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = sysconfig.get_path("purelib")

ENTRIES = ("enrolment", "schedules", "streams")  # each is its own function, without app.py

# Ours are told from the libraries' by the file that reads; libraries may look for what they like.
WATCH = """
import os, sys
sys.path[:0] = [{root!r}, {libraries!r}]
import boto3, botocore.session, pynamodb.connection

class Watched(type(os.environ)):
    def __getitem__(self, name):
        reader = sys._getframe(1)
        while reader.f_code.co_filename.startswith(("<frozen", os.__file__.rpartition("/")[0])):
            reader = reader.f_back
        if reader.f_code.co_filename.startswith(({root!r} + "/app", {root!r} + "/chalicelib")):
            raise AssertionError(f"{{reader.f_code.co_filename}} reads {{name}}")
        return super().__getitem__(name)

def refuse(*args, **kwargs):
    raise AssertionError("a client is made")

def audit(event, args):
    if event in ("socket.connect", "subprocess.Popen", "os.mkdir") or (
        event == "open" and "w" in str(args[1])
    ):
        raise AssertionError(f"{{event}} {{args}}")

os.environ.__class__ = Watched
boto3.Session.client = botocore.session.Session.create_client = refuse
pynamodb.connection.Connection.__init__ = boto3.Session.__init__ = refuse
sys.addaudithook(audit)
sys.dont_write_bytecode = True
"""


def run_bare(program: str) -> subprocess.CompletedProcess[str]:
    """By a Python with an empty environment, that finds nothing but what *program* shows it."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        env={},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )


def watched(program: str) -> subprocess.CompletedProcess[str]:
    return run_bare(WATCH.format(root=str(ROOT), libraries=LIBRARIES) + program)


@pytest.mark.parametrize("module", ["app", *(f"chalicelib.entrypoints.{name}" for name in ENTRIES)])
def test_importing_an_entry_reads_no_variable_and_makes_no_client(module: str) -> None:
    done = watched(f"import {module}; print('imported')")
    assert (done.stdout, done.stderr) == ("imported\n", "")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("from chalicelib import bootstrap; bootstrap.services()", "config.py reads STAGE"),
        ("from chalicelib.adapters.store import Tables; Tables('a', 'b', 'c')", "client"),
        ("import boto3; boto3.client('s3')", "a client is made"),
    ],
)
def test_the_watch_sees_what_it_watches_for(program: str, said: str) -> None:
    """The twin: each of these does what importing must not."""
    assert said in watched(program).stderr


IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path[:0] = [{root!r}, {libraries!r}]
package = importlib.import_module({package!r})
names = [found.name for found in pkgutil.walk_packages(package.__path__, {package!r} + ".")]
for name in names:
    importlib.import_module(name)
print(len(names), *sorted(set(sys.modules) & {{"boto3", "botocore", "chalice", "pynamodb"}}))
"""


@pytest.mark.parametrize(
    ("package", "imported"),
    [
        ("chalicelib.domain", set()),
        ("chalicelib.services", set()),
        ("chalicelib.adapters", {"boto3", "botocore", "pynamodb"}),
    ],
)
def test_the_core_imports_neither_aws_nor_chalice(package: str, imported: set[str]) -> None:
    program = IMPORT_ALL.format(root=str(ROOT), libraries=LIBRARIES, package=package)
    done = run_bare("import sys; sys.dont_write_bytecode = True\n" + program)
    assert done.stderr == ""
    count, *found = done.stdout.split()
    assert int(count) >= 3
    assert set(found) <= imported
    assert bool(found) == bool(imported)
