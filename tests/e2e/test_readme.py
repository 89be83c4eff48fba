"""The README's commands for people with certificates, pasted into one shell from first to last."""

from __future__ import annotations

import re
import shutil
import subprocess
import time

import pytest

from localcloud.demo.image import write_image
from tests.e2e.conftest import CHECKOUT

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the README leaves to the reader: root's rights, an image, a serial from a list.
READER = """
sudo() { "$@" --root "$PWD/root"; }
mkdir -p root/etc
skopeo copy -q oci:hello docker-archive:image.tar
"""
SERIAL = """SERIAL=$(api "$API_URL/admin/certs?status=active" |
  grep -o '"serial":"[0-9a-f]*","name":"ci-runner"' | head -n 1 | cut -d '"' -f 4)"""
INSTANCE = """INSTANCE=$(api "$API_URL/admin/instances" |
  grep -o '"instance_id":"i-[0-9a-f]*"' | head -n 1 | cut -d '"' -f 4)"""
# Stands before the real program, and writes down how each call ended.
WATCHED = """#!/bin/sh
{program} "$@"
code=$?
echo "$code {name} $*" >> {calls}
exit "$code"
"""


def blocks(begin, end):
    """The shell commands of the README between two of its headings."""
    text = (CHECKOUT / "README.md").read_text()
    return BLOCK.findall(text[text.index(f"\n## {begin}\n") : text.index(f"\n## {end}\n")])


def launches(block):
    """Whether it launches EC2 instances, on AWS or on the local cloud."""
    return "run-instances" in block or "scripts/local launch" in block


def wants_an_engine(block):
    """Whether it is for Docker, which is not here: tests/e2e/test_usage.py has a stand-in."""
    return block.startswith("docker ")


def script(cloud, who):
    """All of it, as one of the local cloud's people."""
    becoming = blocks("Try it", "What it replaces")[-1]
    given = blocks("Get a certificate", "The API")
    using = [each for each in given if not launches(each) and not wants_an_engine(each)]
    if who != "ADMIN":
        using = [each for each in using if "/admin/" not in each]
    assert len(using) >= 8
    becoming = becoming.replace(".local/env", f"'{cloud.directory}/env'").replace("DEV_", f"{who}_")
    for name, found in (("SERIAL", SERIAL), ("INSTANCE", INSTANCE)):
        using = [re.sub(f"(?m)^{name}=.*$", lambda _, line=found: line, each) for each in using]
    return "\n".join([becoming, READER, *using])


@pytest.fixture(scope="module")
def launched(cloud):
    """What the commands for the local cloud's instances printed; one more instance is known."""
    given = blocks("Get a certificate", "The API")
    (commands,) = [each for each in given if "scripts/local launch" in each]
    done = cloud.run("sh", "-euc", commands)
    assert done.returncode == 0, done.stderr
    cloud.run("scripts/local", "launch")
    for _ in range(100):
        if cloud.person("ADMIN").ask("GET", "/admin/instances").json["instances"]:
            return done.stdout
        time.sleep(0.3)
    raise AssertionError("no instance is known")


def test_instances_of_the_local_cloud_are_launched_entered_and_terminated(launched):
    assert re.search(r"(?m)^i-[0-9a-f]+  running +pull", launched)
    assert "\nhosts\n" in launched


@pytest.mark.parametrize("who", ["DEV", "ADMIN"])
@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.usefixtures("launched")
def test_each_command_works_where_it_stands(cloud, tmp_path, who, shell):
    calls, programs, home = tmp_path / "calls", tmp_path / "programs", tmp_path / "home"
    for each in (programs, home):
        each.mkdir()
    for name in ("curl", "openssl", "skopeo", "tar"):
        watched = WATCHED.format(name=name, program=shutil.which(name), calls=calls)
        (programs / name).write_text(watched)
        (programs / name).chmod(0o755)
    write_image(home / "hello", "hello\n")

    environment = {k: v for k, v in cloud.environment.items() if k not in cloud.variables}
    done = subprocess.run(
        [shell, "-c", script(cloud, who)],
        cwd=home,
        env={**environment, "PATH": f"{programs}:{environment['PATH']}", "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    ended = calls.read_text().splitlines()
    assert [call for call in ended if not call.startswith("0 ")] == [], done.stderr
    assert len([call for call in ended if " curl " in call]) >= 11
    assert not (home / ".registry-trust").exists()
    assert '"admitted":false' in done.stdout
    assert (home / "image" / "index.json").exists()


def test_a_refusal_is_shown_and_an_old_file_is_not(cloud, tmp_path):
    becoming = blocks("Try it", "What it replaces")[-1]
    functions = blocks("Get a certificate", "The API")[0]
    (tmp_path / "old").write_text("an old secret\n")
    tries = """
    save new "$API_URL/certs/00" && echo went on
    save old http://127.0.0.1:1/ && echo went on
    """
    done = subprocess.run(
        [
            "sh",
            "-c",
            becoming.replace(".local/env", f"'{cloud.directory}/env'") + functions + tries,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "certificate_not_found" in done.stderr
    assert done.stdout == ""
    assert "an old secret" not in done.stderr
