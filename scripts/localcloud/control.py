"""How the commands speak with the supervisor: one JSON line each way over a socket.

The socket is in a directory that only its owner can enter, which is all its protection.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from localcloud.layout import Layout
from localcloud.parts import Part
from localcloud.processes import until

ANSWER_SECONDS = 30.0


class NotRunning(Exception):
    """No supervisor answers."""


class Refused(Exception):
    """The supervisor says that it could not."""


@contextmanager
def short_address(layout: Layout) -> Iterator[str]:
    """A name of the control socket that fits into a socket address (108 bytes), however deep
    the checkout lies."""
    directory = os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{layout.control.name}"
    finally:
        os.close(directory)


def ask(layout: Layout, request: dict[str, Any], seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
    """The supervisor's answer. Raises NotRunning or Refused."""
    try:
        with socket.socket(socket.AF_UNIX) as connection, short_address(layout) as address:
            connection.settimeout(seconds)
            connection.connect(address)
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(connection.makefile("rb").readline())
    except (OSError, ValueError) as error:
        raise NotRunning("the local cloud is not running") from error
    if "error" in answer:
        raise Refused(answer["error"])
    return dict(answer)


def parts(layout: Layout) -> dict[str, dict[str, Any]]:
    """By name: pid (None when it does not run now), starts, last_exit, every, paused."""
    return dict(ask(layout, {"do": "report"}, seconds=5)["parts"])


def start(layout: Layout, part: Part) -> None:
    """Have the part run; one of that name that differs is stopped first, one that is the same
    is left alone."""
    ask(layout, {"do": "start", "part": part.to_json()})


def reload(layout: Layout, name: str) -> None:
    """Send the part SIGHUP; one that does not run now will read its files when it starts."""
    ask(layout, {"do": "reload", "part": name})


@contextmanager
def paused(layout: Layout, name: str) -> Iterator[None]:
    """Meanwhile the part does not run: for tests of what its absence does.

    Raises Refused for a part that there is none of, or whose present run does not end in time.
    """
    ask(layout, {"do": "pause", "part": name})
    try:
        if not until(lambda: parts(layout)[name]["pid"] is None, ANSWER_SECONDS):
            raise Refused(f"the present run of {name} does not end")
        yield
    finally:
        ask(layout, {"do": "resume", "part": name})


def stop(layout: Layout) -> None:
    """End the cloud; returns when the supervisor has begun to."""
    ask(layout, {"do": "stop"})
