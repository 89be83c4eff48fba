"""A machine in a sandbox: what stands for an EC2 instance on the local cloud.

bubblewrap gives it its own root-owned /etc, /var, /root, /home, /tmp, /run, /usr/local and /opt,
which lie below the instance's directory, and its own processes and host name. Of the machine that
runs the cloud it sees /usr, read-only, and what /etc must have of it for its programs to run;
nothing of the checkout, of .local or of anybody's home. The network is the machine's, since all
parts of the local cloud are on loopback.

Who runs in it is root and owns these files, whoever runs the cloud: that is who it is outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcloud.layout import read_json, write_private

# Where each lies in the machine, and its mode.
OWN = {
    "etc": 0o755,
    "var": 0o755,
    "root": 0o700,
    "home": 0o755,
    "tmp": 0o1777,
    "run": 0o755,
    "usr/local": 0o755,
    "opt": 0o755,
}
GONE_AT_BOOT = ("tmp", "run")
DIRECTORIES = {
    **dict.fromkeys(("etc/alternatives", "etc/containers", "etc/ld.so.conf.d"), 0o755),
    **dict.fromkeys(("etc/ssl", "etc/ssl/certs"), 0o755),
    **dict.fromkeys(("var/cache", "var/lib", "var/log", "var/spool"), 0o755),
    **dict.fromkeys((f"usr/local/{each}" for each in ("bin", "etc", "lib", "sbin")), 0o755),
    "var/tmp": 0o1777,
}
# Of the machine that runs the cloud; not /etc/ssl/private.
BORROWED = (
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf"),
)
MERGED_INTO_USR = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    ),
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 {name}\n",
    "etc/hostname": "{name}\n",
    "etc/resolv.conf": "# everything that it needs is on loopback\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "etc/os-release": (
        'PRETTY_NAME="an instance of the local cloud"\nNAME="registry-trust sandbox"\nID=sandbox\n'
    ),
    "etc/containers/policy.json": '{{"default": [{{"type": "insecureAcceptAnything"}}]}}\n',
}


class NotRunning(Exception):
    """There is no such sandbox, or its instance is stopped or terminated."""


@dataclass(frozen=True)
class Sandbox:
    """One machine.

    directory: all that it has. instance_id: also its host name.
    """

    directory: Path
    instance_id: str

    @classmethod
    def of(cls, instances: Path, instance_id: str) -> Sandbox:
        """That of the instance, below the directory of them all."""
        return cls(instances / instance_id, instance_id)

    @property
    def disk(self) -> Path:
        """Its own directories lie below, by their paths in the machine.

        Root in there may have put any symbolic link on it: do not follow one.
        """
        return self.directory / "disk"

    def boot(self, metadata_endpoint: str) -> None:
        """Let processes run in it, on the disk it has, or on a new one the first time."""
        if not self.disk.exists():
            self.format()
        for name in GONE_AT_BOOT:
            _empty(self.disk / name)
        state = {"metadata_endpoint": metadata_endpoint}
        write_private(self._state, json.dumps(state) + "\n")

    def halt(self) -> None:
        """Let no further process start in it; its disk stays."""
        self._state.unlink(missing_ok=True)

    def remove(self) -> None:
        """It is gone, with its disk."""
        self.halt()
        _remove(self.directory)

    def format(self) -> None:
        """Give it a new disk, as after the old one was lost; none of its processes should run."""
        incoming = self.directory / "disk.new"
        _remove(incoming)
        for name, mode in {**OWN, **DIRECTORIES}.items():
            (incoming / name).mkdir(parents=True)
            (incoming / name).chmod(mode)
        (incoming / "usr").chmod(0o755)
        for name, text in FILES.items():
            (incoming / name).write_text(text.format(name=self.instance_id))
            (incoming / name).chmod(0o644)
        _remove(self.disk)
        incoming.rename(self.disk)

    @property
    def running(self) -> bool:
        """Whether processes may run in it now."""
        return self._state.exists()

    def command(
        self, arguments: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> list[str]:
        """The command line, for this machine, of a command in the sandbox as root.

        variables: of its environment, besides PATH, HOME and where the metadata service is. Raises
        NotRunning. It ends with the thread that starts it.
        """
        endpoint = read_json(self._state).get("metadata_endpoint")
        if endpoint is None:
            raise NotRunning(f"{self.instance_id} does not run, or is no sandbox")
        environment = {
            "PATH": PATH,
            "HOME": "/root",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": str(endpoint),
            **(variables or {}),
        }
        return [
            *("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-drop", "ALL"),
            *("--unshare-pid", "--unshare-uts", "--unshare-ipc", "--hostname", self.instance_id),
            *("--die-with-parent", "--clearenv"),
            *self._mounts(),
            *(part for name, value in environment.items() for part in ("--setenv", name, value)),
            *("--chdir", "/root", "--", *arguments),
        ]

    @property
    def _state(self) -> Path:
        return self.directory / "running.json"

    def _mounts(self) -> Iterator[str]:
        yield from ("--ro-bind", "/usr", "/usr", "--dev", "/dev", "--proc", "/proc")
        for name in MERGED_INTO_USR:
            path = Path("/", name)
            if path.is_symlink():
                yield from ("--symlink", os.readlink(path), str(path))
            elif path.is_dir():
                yield from ("--ro-bind", str(path), str(path))
        for name in OWN:
            yield from ("--bind", str(self.disk / name), f"/{name}")
        for borrowed in BORROWED:
            yield from ("--ro-bind-try", borrowed, borrowed)
        yield from ("--remount-ro", "/")


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            _remove(entry)
        else:
            entry.unlink()


def _remove(directory: Path) -> None:
    """Take the directory away, links in it unfollowed, and directories that may not be entered."""
    for path, names, _ in os.walk(directory):
        for name in names:
            below = Path(path, name)
            if not below.is_symlink():
                below.chmod(stat.S_IRWXU)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
