"""The loopback ports of the local cloud: chosen free once, then kept."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from localcloud.layout import read_json, write_private

# Below the range from which Linux takes the ports of outgoing connections (32768 and up), so that
# no passing connection sits on one of ours when the cloud comes up again.
RANGE = range(20000, 32000)


class PortTaken(Exception):
    """Something else listens on a port that was asked for."""


@dataclass(frozen=True)
class Ports:
    """Where the parts listen, all on 127.0.0.1."""

    gateway: int  # the emulated AWS
    registry: int  # nginx, what people call the registry
    storage: int  # the registry itself, behind nginx
    slack: int


def free(port: int) -> bool:
    """Whether we could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(kept_in: Path, wanted: Mapping[str, int | None]) -> Ports:
    """Ports that are free now: those wanted, else those kept from the last time, else any.

    wanted: by field of Ports, None for no wish. Raises PortTaken for a wanted one that is taken;
    a kept one that is taken is replaced, for nobody asked for it by number.
    """
    asked = {name: port for name, port in wanted.items() if port is not None}
    for name, port in asked.items():
        if not free(port) or list(asked.values()).count(port) > 1:
            raise PortTaken(f"port {port} ({name}) is taken")
    before, chosen = read_json(kept_in), dict(asked)
    for name in Ports.__dataclass_fields__:
        if name not in chosen:
            chosen[name] = _kept_or_any(before.get(name), set(chosen.values()))
    ports = Ports(**chosen)
    write_private(kept_in, json.dumps(asdict(ports)) + "\n")
    return ports


def kept(kept_in: Path) -> Ports | None:
    """The ports chosen the last time; None when there are none (or the file is not whole)."""
    values = read_json(kept_in)
    names = Ports.__dataclass_fields__
    if not all(isinstance(values.get(name), int) for name in names):
        return None
    return Ports(**{name: values[name] for name in names})


def _kept_or_any(before: object, taken: set[int]) -> int:
    if isinstance(before, int) and before not in taken and free(before):
        return before
    candidates = random.sample(RANGE, 200)
    return next(port for port in candidates if port not in taken and free(port))
