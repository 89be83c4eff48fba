"""scripts/local demo, as a stranger runs it first of all."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from localcloud.demo.story import Outcome
from localcloud.demo.telling import CHAPTERS
from localcloud.processes import until

# As the demo shows a command: its first line after a $, the others indented below it.
COMMAND = re.compile(r"^   \$ (.+\n(?:     .*\n)*)", re.MULTILINE)


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


def in_one_shell(cloud, commands, where):
    """What each of the commands did, typed one after the other."""
    script = f". '{cloud.directory}/env'\ncd '{cloud.directory}/demo'\n"
    for number, command in enumerate(commands):
        files = f"> '{where}/{number}.out' 2> '{where}/{number}.err'"
        script += f"{{ {command}\n}} {files}\necho $? > '{where}/{number}.code'\n"
    subprocess.run(["sh"], input=script, text=True, timeout=300, check=False)
    return [outcome(where / str(number)) for number in range(len(commands))]


def outcome(file: Path):
    code, out, err = (file.with_suffix(f".{each}") for each in ("code", "out", "err"))
    return Outcome(int(code.read_text()), out.read_text(), err.read_text())


def test_the_commands_it_shows_work_one_after_the_other_in_one_shell(cloud, tmp_path):
    shown = cloud.run("scripts/local", "demo").stdout
    commands = COMMAND.findall(shown)
    steps = [step for chapter in CHAPTERS for step in chapter]
    assert len(commands) == len(steps)

    for step, seen in zip(steps, in_one_shell(cloud, commands, tmp_path), strict=True):
        assert step.see(seen), (step.title, seen)


def test_who_did_what_is_in_the_logs_of_the_functions_and_of_nginx(cloud):
    assert cloud.run("scripts/local", "demo").returncode == 0

    def told(log, *texts):
        shown = cloud.run("scripts/local", "logs", log).stdout.splitlines()
        return any(all(text in line for text in texts) for line in shown)

    assert until(lambda: told("functions", '"audit": true', "revoke_certificate", "granted"), 10)
    assert told("access", '"name":"dev"', '"path":"/v2/"')


def test_what_the_deployment_says_of_the_apis_address_is_where_it_answers(cloud):
    shown = cloud.run("scripts/local", "logs", "deploy").stdout

    assert f" API_URL={cloud.variables['API_URL']}\n" in shown
