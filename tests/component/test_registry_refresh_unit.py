"""What systemd's unit leaves registry-refresh: as much of it as a sandbox can take away here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from chalicelib.domain.registry_host import host_units
from tests.component.real_host import running_nginx
from tests.component.refreshed_host import Host, new_host_in
from tests.component.throwaway_pki import ThrowawayCa


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_a_refresh_bears_the_read_only_system_and_the_few_powers_of_its_unit(
    tmp_path: Path,
) -> None:
    with new_host_in(tmp_path, ThrowawayCa("Servers"), ThrowawayCa("Clients")) as host:
        host.set("NGINX_RELOAD_COMMAND", ":")  # it would ask systemd, outside
        told = run_as_its_unit(host)
        assert (told.returncode, told.stderr) == (0, "")
        with running_nginx(host.layout):
            host.publish(host.client_ca.crl(6))
            told = run_as_its_unit(host)
            assert (told.returncode, told.stderr) == (0, "")
        assert host.report().certificate.served == "yes"  # type: ignore[union-attr]
        assert host.in_use()["crl-numbers"].split()[1] == b"06"


def run_as_its_unit(host: Host) -> subprocess.CompletedProcess[str]:
    unit = host_units(host.layout)["registry-refresh.service"]

    def directive(name: str) -> list[str]:
        found = re.search(rf"^{name}=(.*)$", unit, re.MULTILINE)
        assert found, name
        return shlex.split(found[1])

    assert directive("ProtectSystem") == ["strict"]
    sandbox = [
        "bwrap",
        "--ro-bind",
        "/",
        "/",
        "--tmpfs",
        "/tmp",  # noqa: S108 - PrivateTmp
        "--dev",
        "/dev",
        "--proc",
        "/proc",
    ]
    sandbox += ["--ro-bind", host.layout.config_dir, host.layout.config_dir, "--cap-drop", "ALL"]
    for path in directive("ReadWritePaths"):
        sandbox += ["--bind-try", path.removeprefix("-"), path.removeprefix("-")]
    for power in directive("CapabilityBoundingSet"):
        sandbox += ["--cap-add", power]
    command = [*sandbox, *directive("ExecStart")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
