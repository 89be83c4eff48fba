"""scripts/local as people call it, as far as it goes without the whole cloud."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from localcloud import control, keeper
from localcloud.layout import CHECKOUT, Layout


def local(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHECKOUT / "scripts" / "local", *arguments],
        env={**os.environ, "REGISTRY_TRUST_LOCAL": str(directory)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


WRONG = [
    (),
    ("nonsense",),
    ("up", "--gateway-port", "http"),
    ("launch", "--access", "all"),
    ("launch", "--count", "0"),
    ("launch", "--boot", "--no-agent"),
    ("exec",),
    ("terminate",),
]
COMMANDS = (
    *("up", "down", "status", "logs", "env", "demo"),
    *("launch", "instances", "exec", "terminate"),
)


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_call_is_told_what_would_be_right(tmp_path: Path, arguments: tuple[str]) -> None:
    called = local(tmp_path, *arguments)

    assert called.returncode == 2
    assert "usage: scripts/local" in called.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(tmp_path: Path, command: str) -> None:
    called = local(tmp_path, command, "--help")

    assert (called.returncode, called.stderr) == (0, "")
    assert f"usage: scripts/local {command}" in called.stdout


def test_help_is_help_however_it_is_asked_for(tmp_path: Path) -> None:
    assert local(tmp_path, "help").stdout == local(tmp_path, "--help").stdout != ""


def test_what_is_not_up_says_so_and_coming_down_again_is_no_error(tmp_path: Path) -> None:
    assert local(tmp_path, "status").returncode == 1
    wanting = (("env",), ("logs",), ("launch",), ("instances",), ("exec", "i", "--", "x"))
    for command in (*wanting, ("terminate", "i")):
        called = local(tmp_path, *command)
        assert called.returncode == 1
        assert "scripts/local up starts it" in called.stderr
    assert local(tmp_path, "down").returncode == 0


def test_a_step_that_fails_is_named_with_the_reason_and_the_log(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        called = local(tmp_path, "up", "--gateway-port", port)

    assert called.returncode == 1
    assert f"supervisor: port {port} (gateway) is taken" in called.stderr
    assert "supervisor.log" in called.stderr


def test_status_of_a_cloud_that_is_half_up_is_a_failure(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    before = os.umask(0o022)
    layout.prepare()
    keeper.start(layout)
    try:
        assert control.parts(layout) == {}
        called = local(tmp_path, "status")
    finally:
        keeper.stop(layout)
        os.umask(before)

    assert called.returncode == 1
    assert "did not come to its end" in called.stdout


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A cloud that is down and has left logs."""
    layout = Layout(tmp_path)
    for file in (layout.log("functions"), layout.registry_host / "log" / "access.log"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"a line of {file.stem}\n")
    return tmp_path


def test_logs_are_shown_those_of_the_registry_host_among_them(logged: Path) -> None:
    everything = local(logged, "logs").stdout
    assert "a line of functions" in everything
    assert "a line of access" in everything

    assert local(logged, "logs", "access").stdout == "a line of access\n"


def test_a_log_that_is_not_there_is_told_which_are(logged: Path) -> None:
    called = local(logged, "logs", "nonsense")

    assert (called.returncode, called.stdout) == (1, "")
    assert "there are: functions, access" in called.stderr
