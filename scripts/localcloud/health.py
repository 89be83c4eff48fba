"""Whether the local cloud is whole."""

from __future__ import annotations

import http.client

from localcloud import control
from localcloud.layout import Layout
from localcloud.ports import Ports, kept

PARTS = ("emulator", "slack", "functions", "registry", "nginx", "registry-refresh")
SECONDS = 3.0


def get(port: int, path: str) -> tuple[int, bytes] | None:
    """Status and body of a GET on loopback; None when nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def emulator_answers(ports: Ports) -> bool:
    """Whether the emulated AWS is ready."""
    return (get(ports.gateway, "/_ministack/health") or (0, b""))[0] == 200


def registry_answers(ports: Ports) -> bool:
    """Whether the registry itself answers, behind nginx."""
    return (get(ports.storage, "/v2/") or (0, b""))[0] == 200


def ailments(layout: Layout) -> list[str]:
    """What keeps the cloud from being whole, in words; nothing when it is."""
    ports = kept(layout.ports)
    try:
        parts = control.parts(layout)
    except control.NotRunning:
        return ["it is not running"]
    if ports is None or not layout.ready.exists():
        return ["`scripts/local up` did not come to its end"]
    found = [f"{name} was not started" for name in PARTS if name not in parts]
    found += [
        f"{name} does not run (last exit {report['last_exit']})"
        for name, report in parts.items()
        if report["pid"] is None and report["every"] is None
    ]
    if not emulator_answers(ports):
        found.append("the emulated AWS does not answer")
    if not registry_answers(ports):
        found.append("the registry does not answer")
    return found
