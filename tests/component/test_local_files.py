"""What the local cloud chooses and writes down: ports, addresses, variables."""

from __future__ import annotations

import json
import shlex
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from localcloud import deployment, ports
from localcloud.environment import as_shell, from_shell
from localcloud.layout import read_json, write_private
from operations import packaging
from operations.cloud import api_address


def listening() -> socket.socket:
    """A socket that listens on some port of loopback."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


def test_ports_stay_the_same_from_one_start_to_the_next(tmp_path: Path) -> None:
    first = ports.choose(tmp_path / "p", {})

    assert ports.choose(tmp_path / "p", {}) == first == ports.kept(tmp_path / "p")
    values = (first.gateway, first.registry, first.storage, first.slack)
    assert len(set(values)) == 4


def test_a_kept_port_that_is_taken_now_is_replaced(tmp_path: Path) -> None:
    before = ports.choose(tmp_path / "p", {})
    with listening() as taken:
        port = taken.getsockname()[1]
        (tmp_path / "p").write_text(json.dumps({**vars(before), "gateway": port}))
        after = ports.choose(tmp_path / "p", {})

    assert after.gateway != port
    assert (after.registry, after.storage) == (before.registry, before.storage)


def test_a_wanted_port_is_taken_at_its_word_or_refused_by_name(tmp_path: Path) -> None:
    with listening() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ports.PortTaken, match=rf"port {port} \(gateway\) is taken"):
            ports.choose(tmp_path / "p", {"gateway": port})

    assert ports.choose(tmp_path / "p", {"gateway": port}).gateway == port


def test_a_wanted_port_pushes_aside_the_one_kept_for_another_part(tmp_path: Path) -> None:
    before = ports.choose(tmp_path / "p", {})
    after = ports.choose(tmp_path / "p", {"gateway": before.registry})

    assert after.gateway == before.registry
    assert after.registry not in (before.registry, after.gateway)


@pytest.mark.parametrize("damage", ["", "{", "7", '{"gateway": "x"}'])
def test_a_damaged_file_of_ports_is_made_anew(tmp_path: Path, damage: str) -> None:
    (tmp_path / "p").write_text(damage)
    assert ports.kept(tmp_path / "p") is None

    assert ports.choose(tmp_path / "p", {}) == ports.kept(tmp_path / "p")


def test_the_apis_address_here_has_the_id_and_stage_of_the_one_on_aws() -> None:
    there = {"ApiUrl": "https://abc123.execute-api.us-east-1.amazonaws.com/v1/"}

    assert deployment.api_url(there, 4600) == "http://abc123.execute-api.localhost:4600/v1"


@pytest.mark.parametrize("endpoint", ["", "https://vpce-1.execute-api.example"])
def test_the_apis_address_on_aws_is_the_stacks_own(endpoint: str) -> None:
    there = "https://abc123.execute-api.us-east-1.amazonaws.com/v1/"

    assert api_address(there, endpoint) == there.rstrip("/")


def test_the_stack_is_deployed_again_only_when_what_it_is_made_of_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "ROOT", tmp_path)
    source, other = tmp_path / "chalicelib" / "a.py", tmp_path / "README.md"
    write_private(source, "one")
    before = packaging.source_digest()

    write_private(source.parent / "__pycache__" / "a.pyc", "compiled")
    write_private(other, "no source")
    assert packaging.source_digest() == before
    write_private(source, "two")
    assert packaging.source_digest() != before


def test_code_packaged_otherwise_is_packaged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zip of an earlier way of packaging is not taken for a current one."""
    monkeypatch.setattr(packaging, "ROOT", tmp_path)
    write_private(tmp_path / "chalicelib" / "a.py", "one")
    before = packaging.source_digest()
    write_private(tmp_path / "scripts" / "operations" / "trimming.py", "keep less")
    assert packaging.source_digest() != before


AWKWARD = 'it\'s $HOME `id` $(id) "x" \\ \n # &; *é'


def test_sh_reads_every_variable_exactly_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "env").write_text(as_shell({"PLAIN": "http://a:1/v1", "AWKWARD": AWKWARD}))
    script = f'. {shlex.quote(str(tmp_path))}/env; printenv AWKWARD; printf %s "$PLAIN"'

    said = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, check=True)

    assert said.stdout == f"{AWKWARD}\nhttp://a:1/v1"


def test_the_commands_read_them_as_sh_does(tmp_path: Path) -> None:
    variables = {"PLAIN": "http://a:1/v1", "AWKWARD": AWKWARD, "EMPTY": "", "EQUALS": "a=b=c"}

    assert from_shell(as_shell(variables)) == variables


@pytest.mark.parametrize("name", ["", "A B", "a", "A;id", "1A"])
def test_what_is_no_name_for_a_variable_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        as_shell({name: "x"})


def test_a_file_is_replaced_whole_and_is_private(tmp_path: Path) -> None:
    file = tmp_path / "below" / "f"
    write_private(file, "{}")
    file.chmod(0o644)
    write_private(file, '{"a": 1}')

    assert read_json(file) == {"a": 1}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
