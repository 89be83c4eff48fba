"""Where everything of one registry host lives."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from chalicelib.domain.templates import ADDRESS, HOST, PATH, PORT, checked

Version = tuple[int, int, int]


@dataclass(frozen=True)
class HostLayout:
    """Where everything of one registry host lives. Raises Misconfigured for an unsafe value.

    registry: host[:port] as clients write it, which may differ from where nginx listens.
    listen: what nginx's `listen` takes: a port, or address:port.
    user: whom nginx's workers run as when its master is root; None leaves it to nginx, which is
    right for an unprivileged master.
    nginx_version: of the nginx that will run; directives it does not know are left out.
    """

    registry: str
    config_dir: str
    state_dir: str
    log_dir: str
    run_dir: str
    listen: tuple[str, ...] = ("443", "[::]:443")
    upstream: str = "127.0.0.1:5000"
    user: str | None = None
    worker_processes: str = "auto"
    nginx_version: Version = (1, 18, 0)

    def __post_init__(self) -> None:
        checked("registry", self.registry, rf"{HOST}(:{PORT})?")
        for name in ("config_dir", "state_dir", "log_dir", "run_dir"):
            checked(name, getattr(self, name), PATH)
        for address in self.listen or ("",):
            checked("listen", address, rf"{PORT}|{ADDRESS}")
        checked("upstream", self.upstream, ADDRESS)
        checked("user", self.user or "nobody", r"[a-z_][a-z0-9_-]{0,31}")
        checked("worker_processes", self.worker_processes, r"auto|[1-9][0-9]{0,2}")

    @classmethod
    def system(
        cls,
        registry: str,
        *,
        upstream: str = "127.0.0.1:5000",
        user: str = "www-data",
        nginx_version: Version = (1, 18, 0),
    ) -> HostLayout:
        """A machine of its own, with nginx's master run by root, on the port of *registry*."""
        port = registry.partition(":")[2] or "443"
        return cls(
            registry=registry,
            config_dir="/etc/registry-trust",
            state_dir="/var/lib/registry-trust",
            log_dir="/var/log/registry-trust",
            run_dir="/run/registry-trust",
            listen=(port, f"[::]:{port}"),
            upstream=upstream,
            user=user,
            nginx_version=nginx_version,
        )

    @classmethod
    def under(
        cls,
        prefix: str,
        *,
        registry: str,
        listen: tuple[str, ...],
        upstream: str,
        user: str | None = None,
        nginx_version: Version = (1, 18, 0),
    ) -> HostLayout:
        """Everything below one directory, for an nginx that serves one person.

        user: give "root" when root runs it in a directory that only root may enter.
        """
        return cls(
            registry=registry,
            config_dir=f"{prefix}/etc",
            state_dir=f"{prefix}/state",
            log_dir=f"{prefix}/log",
            run_dir=f"{prefix}/run",
            listen=listen,
            upstream=upstream,
            user=user,
            worker_processes="1",
            nginx_version=nginx_version,
        )

    @property
    def directories(self) -> Mapping[str, int]:
        """Path to mode of what has to exist before anything starts.

        run_dir is open to nginx's workers, who may be another user than its master.
        """
        return {
            self.config_dir: 0o755,
            self.state_dir: 0o700,
            self.log_dir: 0o750,
            self.run_dir: 0o755,
        }

    @property
    def host_name(self) -> str:
        """The registry's name without a port."""
        return self.registry.partition(":")[0]

    @property
    def reload_command(self) -> str:
        """What makes nginx read its files anew, and succeeds when it is not running yet."""
        pid_file = shlex.quote(f"{self.run_dir}/nginx.pid")
        return f'test ! -s {pid_file} || kill -HUP "$(cat {pid_file})"'

    @property
    def trust_dir(self) -> str:
        """Where nginx finds its certificate, the client CAs and their CRLs: a link that moves."""
        return f"{self.state_dir}/current"
