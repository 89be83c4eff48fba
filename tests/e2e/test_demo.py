"""scripts/local demo, as a stranger runs it first of all."""

from __future__ import annotations

import re


def test_the_demo_goes_to_its_end_and_shows_no_secret(cloud):
    done = cloud.run("scripts/local", "demo")

    assert done.returncode == 0, done.stdout + done.stderr
    steps = re.findall(r"^\d+\. ", done.stdout, re.MULTILINE)
    assert len(steps) >= 10
    assert f"all {len(steps)} steps went as they should" in done.stdout
    said = done.stdout + done.stderr
    secrets = [value for name, value in cloud.variables.items() if "SECRET" in name]
    assert len(secrets) == 4
    assert not [secret for secret in secrets if secret in said]
    assert "PRIVATE KEY" not in said


def test_the_demo_can_be_told_again(cloud):
    assert cloud.run("scripts/local", "demo").returncode == 0
    assert cloud.run("scripts/local", "status").returncode == 0
