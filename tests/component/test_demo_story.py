"""The demo tells what happened, and cannot be content with anything else."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from localcloud.demo import certificates, instances, revocation
from localcloud.demo.image import write_image
from localcloud.demo.story import Outcome, Step, Story, Unexpected
from localcloud.demo.telling import CHAPTERS
from localcloud.environment import as_shell


@pytest.fixture
def tell(tmp_path: Path) -> Callable[..., bool]:
    variables = tmp_path / "env"
    variables.write_text(as_shell({"WHO": "dev", "SECRET": "hidden"}))

    def telling(*steps: Step) -> bool:
        return Story(steps, tmp_path / "demo", variables).tell()

    return telling


def plain(outcome: Outcome) -> str:
    return outcome.succeeded().out.strip()


def test_a_step_shows_the_command_as_typed_and_what_was_seen(
    tell: Callable[..., bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell(Step("Who", 'echo "$WHO"; echo "$SECRET" > file', plain))

    shown = capsys.readouterr().out
    assert shown == '\n1. Who\n   $ echo "$WHO"; echo "$SECRET" > file\n   ✓ dev\n'


def test_the_story_ends_at_the_first_step_that_goes_wrong_and_shows_what_it_wrote(
    tell: Callable[..., bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not tell(Step("Falls", "echo why >&2; exit 3", plain), Step("Never", "echo", plain))

    shown = capsys.readouterr().out
    assert "✗ the command should have succeeded" in shown
    assert "it ended with 3 and wrote:\n     why" in shown
    assert "Never" not in shown


def test_a_variable_that_is_not_set_is_an_error_and_not_empty(tell: Callable[..., bool]) -> None:
    assert not tell(Step("Typo", 'echo "$WHOO"', plain))


REVOKED = """revoked by revocation list 5
2210 ms
{"errors":[{"code":"DENIED","message":"this client certificate has been revoked"}]}
403
"""
INSTANCE = "i-0123456789abcdef0"
ENROLLED = f"""7300 ms after it was launched
{INSTANCE} enrolled for pull by its agent with 01234567
"""
STAYED = f"""600 root {INSTANCE}.key
2
commands:0
written:0
"""
TERMINATED = """1400 ms
{"errors":[{"code":"DENIED","message":"this client certificate has been revoked"}]}
403
"""
PUSHED, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_the_seconds_from_revoked_to_refused_are_told() -> None:
    assert "2.2 s after DELETE's answer" in revocation.refused_in_time(Outcome(0, REVOKED, ""))


@pytest.mark.parametrize(
    ("see", "good", "bad"),
    [
        (lambda o: certificates.answered(o, "403"), "{}\n403\n", "{}\n201\n"),
        (certificates.unpacked, "ca.crt\nclient.cert\nclient.key\n", "ca.crt\nclient.cert\n"),
        (lambda o: certificates.certified(o, "OU=push"), "OU = push", "OU = pull"),
        (certificates.same_digests, f"{PUSHED}\n{PUSHED}", f"{PUSHED}\n{OTHER}"),
        (certificates.same_digests, f"{PUSHED}\n{PUSHED}", f"{PUSHED}\n"),
        (revocation.refused_in_time, REVOKED, REVOKED.replace("2210 ms", "60001 ms")),
        (revocation.refused_in_time, REVOKED, REVOKED.replace("403", "200")),
        (revocation.refused_in_time, REVOKED, REVOKED.replace("revoked by", "active by")),
        (revocation.refused_in_time, REVOKED, REVOKED.replace("has been revoked", "has expired")),
        (instances.launched, INSTANCE, f"{INSTANCE}\n{INSTANCE}"),
        (instances.enrolled_in_time, ENROLLED, ENROLLED.replace("7300", "90001")),
        (instances.enrolled_in_time, ENROLLED, ENROLLED.replace(" enrolled ", " failed ")),
        (instances.enrolled_in_time, ENROLLED, ENROLLED.replace("for pull", "for push")),
        (instances.refused_in_time, TERMINATED, TERMINATED.replace("1400", "60001")),
        (instances.refused_in_time, TERMINATED, TERMINATED.replace("403", "200")),
        (instances.refused_in_time, TERMINATED, TERMINATED.replace("has been rev", "is not rev")),
    ],
)
def test_what_differs_from_the_story_is_noticed(
    see: Callable[[Outcome], str], good: str, bad: str
) -> None:
    assert see(Outcome(0, good, ""))
    for wrong in (Outcome(0, bad, ""), Outcome(1, good, "")):
        with pytest.raises(Unexpected):
            see(wrong)


@pytest.mark.parametrize(
    "other",
    [
        STAYED.replace("600 root", "644 root"),
        STAYED.replace("600 root", "600 nobody"),
        STAYED.replace("\n2\n", "\n0\n"),
        STAYED.replace("commands:0", "commands:1"),
        STAYED.replace("written:0", "written:1"),
        "",
    ],
)
def test_a_key_that_went_anywhere_is_noticed(other: str) -> None:
    assert "not in any of 2 commands" in instances.key_stayed(Outcome(1, STAYED, ""))
    with pytest.raises(Unexpected):
        instances.key_stayed(Outcome(1, other, ""))


def test_a_refusal_is_only_one_that_failed_for_the_reason_given() -> None:
    assert Outcome(1, "", 'x\nmsg="push: denied: no"\n').failed("denied") == "denied: no"
    for wrong in (Outcome(0, "denied", ""), Outcome(1, "", "connection refused")):
        with pytest.raises(Unexpected):
            wrong.failed("denied")


EVERY_STEP = [step for chapter in CHAPTERS for step in chapter]


def left_behind(tmp_path: Path, *commands: str) -> list[str]:
    """Where one shell stands after each command, below where it began; clients do nothing."""
    programs, start = tmp_path / "programs", tmp_path / "start"
    (start / "laptop" / "registry").mkdir(parents=True)
    programs.mkdir()
    for name in ("curl", "openssl", "skopeo", "tar", "python3"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    script = "".join(f"{{ {each}\n}} >&2 < /dev/null\npwd\n" for each in commands)
    said = subprocess.run(
        ["sh", "-c", script],
        env={"PATH": f"{programs}:/usr/bin:/bin", "REGISTRY": "registry"},
        cwd=start,
        capture_output=True,
        text=True,
        check=False,
    )
    return [str(Path(line).relative_to(start)) for line in said.stdout.splitlines()]


def test_each_command_leaves_the_shell_where_the_next_one_begins(tmp_path: Path) -> None:
    commands = [step.command for step in EVERY_STEP]

    assert left_behind(tmp_path, *commands) == ["."] * len(commands)


@pytest.mark.parametrize("astray", ['cd "laptop/$REGISTRY"', "exit", "set -e; false"])
def test_a_command_that_leads_those_after_it_astray_is_noticed(tmp_path: Path, astray: str) -> None:
    assert left_behind(tmp_path, astray, "true") != [".", "."]


def test_the_image_made_on_the_spot_is_the_same_image_when_skopeo_has_copied_it(
    tmp_path: Path,
) -> None:
    write_image(tmp_path / "hello", "hello\n")
    subprocess.run(
        ["skopeo", "copy", "-q", f"oci:{tmp_path}/hello", f"oci:{tmp_path}/back"], check=True
    )

    manifests = [
        subprocess.run(
            ["skopeo", "inspect", "--raw", f"oci:{tmp_path}/{name}"],
            capture_output=True,
            check=True,
        ).stdout
        for name in ("hello", "back")
    ]
    assert manifests[0] == manifests[1]
