"""The one process that owns all others of the local cloud.

It starts parts when told, starts again what ends by itself, and ends with all of them: when it is
asked to, when a vital part ends, and (the kernel sees to that) when it is killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict
from types import FrameType
from typing import Any

from localcloud import control
from localcloud.layout import Layout, write_private
from localcloud.parts import Part, Running
from localcloud.processes import Identity, Lock

LOOK_SECONDS = 0.1  # how often it looks after the parts
RETRY_SECONDS = 5.0  # between attempts at a program that cannot be started


class Supervisor:
    """Keeps the parts. One thread: the kernel ends a child when the *thread* that made it ends."""

    def __init__(self, layout: Layout) -> None:
        """No part runs yet."""
        self.layout = layout
        self.parts: dict[str, Running] = {}
        self.ending = ""

    def run(self) -> None:
        """Serve until told to end or a vital part has ended; no part is left then."""
        self.layout.control.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            with control.short_address(self.layout) as address:
                listener.bind(address)
            listener.listen()
            listener.settimeout(LOOK_SECONDS)
            while not self.ending:
                self._serve_one(listener)
                self._look_after_parts()
        self._say(f"ending: {self.ending}")
        self.layout.ready.unlink(missing_ok=True)
        for running in reversed(self.parts.values()):
            running.stop()
        self.layout.control.unlink(missing_ok=True)

    def end(self, number: int, _frame: FrameType | None) -> None:
        """Signal handler: end as if asked."""
        self.ending = self.ending or signal.Signals(number).name

    def _serve_one(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return
        with connection:
            connection.settimeout(2)
            try:
                request = connection.makefile("rb").readline()
                connection.sendall(json.dumps(self._understand(request)).encode() + b"\n")
            except OSError as error:
                self._say(f"a request was not heard out: {error}")

    def _understand(self, request: bytes) -> dict[str, Any]:
        try:
            return self._answer(json.loads(request))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return {"error": f"that is no request: {error!r}"}

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "report":
                return {"parts": {name: part.report() for name, part in self.parts.items()}}
            case "start":
                return self._start(Part.from_json(request["part"]))
            case "reload":
                running = self.parts.get(str(request.get("part")))
                if running is not None and running.process is not None:
                    running.process.send_signal(signal.SIGHUP)
                return {}
            case "pause":
                self.parts[request["part"]].pause()
                return {}
            case "resume":
                self.parts[request["part"]].resume()
                return {}
            case "stop":
                self.ending = "asked to"
                return {}
            case other:
                return {"error": f"no such request: {other}"}

    def _start(self, part: Part) -> dict[str, Any]:
        before = self.parts.get(part.name)
        if before is not None:
            before.paused = False
            if before.part == part and (before.process or part.every is not None):
                return {}
            before.stop()
        running = Running(part, self.layout.log(part.name))
        try:
            running.start()
        except OSError as error:
            return {"error": f"{part.name} could not be started: {error}"}
        self._say(f"{part.name} started")
        self.parts[part.name] = running
        return {}

    def _look_after_parts(self) -> None:
        for name, running in self.parts.items():
            if running.has_ended() and running.part.every is None:
                self._say(f"{name} ended by itself ({running.last_exit})")
                if running.part.vital:
                    self.ending = f"{name} has ended, and the cloud's state with it"
                    return
            if running.is_due:
                self._start_again(running)

    def _start_again(self, running: Running) -> None:
        try:
            running.start()
        except OSError as error:
            self._say(f"{running.part.name} could not be started again: {error}")
            running.due = time.monotonic() + RETRY_SECONDS

    def _say(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        print(f"{stamp} {text}", flush=True)


def main() -> int:
    """Be the supervisor; 1 when there is one already."""
    layout = Layout.from_environment()
    layout.prepare()
    lock = Lock(layout.supervisor_lock)
    if not lock.take():
        print("supervisor: another one is running", file=sys.stderr)
        return 1
    identity = Identity.of(os.getpid())
    if identity is None:
        raise RuntimeError("/proc does not tell of this process")
    write_private(layout.supervisor, json.dumps(asdict(identity)) + "\n")
    supervisor = Supervisor(layout)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal of `up` may go
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
