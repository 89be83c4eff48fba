"""Clients that pull again and again, and what became of each pull."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

# $PULL is one pull, by a process of its own and so over a new connection; it says why it failed.
LOOP = """
while :; do
  if said=$(eval "$PULL" 2>&1); then echo made; else
    printf 'refused %s' "$said" | tr '\\n' ' '
    echo
  fi
  sleep "$PAUSE"
done
"""

# All of an image, which the client forgets again. $CERTS, if set, says where its certificates are.
IMAGE = """
rm -rf "$PULLED" && skopeo --insecure-policy copy -q ${CERTS:+--src-cert-dir "$CERTS"} \
  "docker://$REGISTRY/$IMAGE" "dir:$PULLED"
"""

# Of the image the manifest alone, which takes a hundredth of a second.
MANIFEST = """
cd "$CERTS" && code=$(curl -sS -o /dev/null -w '%{http_code}' -m 20 \
  -H 'accept: application/vnd.oci.image.manifest.v1+json' --cacert ca.crt \
  --cert client.cert --key client.key "https://$REGISTRY/v2/${IMAGE%:*}/manifests/${IMAGE##*:}") &&
  [ "$code" = 200 ] || { echo "the answer was $code"; false; }
"""


@dataclass(frozen=True)
class Pull:
    """One that came to its end at that time of time.monotonic(). why: what a refused one said."""

    at: float
    why: str = ""


@dataclass
class Puller:
    """One client at work. Made by pulling(), ended by end()."""

    name: str
    process: subprocess.Popen[str]
    pulls: list[Pull] = field(default_factory=list)
    ended_at: float = 0.0

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout or ():
            self.pulls.append(Pull(time.monotonic(), line.partition(" ")[2].strip()))

    def since(self, moment: float) -> Sequence[Pull]:
        """Those that ended later."""
        return [pull for pull in list(self.pulls) if pull.at > moment]

    @property
    def refused(self) -> Sequence[Pull]:
        return [pull for pull in list(self.pulls) if pull.why]

    @property
    def longest_pause(self) -> float:
        """Seconds between two ends: of a pull that hung nothing is told but this."""
        times = [pull.at for pull in list(self.pulls)] + [self.ended_at or time.monotonic()]
        return max((b - a for a, b in pairwise(times)), default=0)

    @property
    def told(self) -> str:
        """In words."""
        pause = f"the longest pause {self.longest_pause:.1f} s"
        if not self.refused:
            return f"none refused, {pause}"
        first, last = self.refused[0].at, self.refused[-1].at
        again = next((pull.at for pull in self.pulls if pull.at > last), None)
        out = "to the end" if again is None else f"for {again - first:.0f} s"
        return f"{len(self.refused)} refused, {out}, {pause}"

    def end(self) -> None:
        """It pulls no more. The pull that it is at is not counted."""
        self.ended_at = time.monotonic()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def pulling(name: str, command: Sequence[str], variables: dict[str, str] | None = None) -> Puller:
    """Have *command*, which comes to running LOOP, run until it is ended."""
    process = subprocess.Popen(
        command,
        env={"PATH": os.environ["PATH"], **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        umask=0o022,
    )
    return Puller(name, process)
