"""The files of a registry host, as text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from chalicelib.domain.registry_host.layout import HostLayout, Version
from chalicelib.domain.registry_host.refresh import (
    RefreshSource,
    aws_functions,
    refresh_script,
    refresh_settings,
)
from chalicelib.domain.registry_host.storage import FileStorage, S3Storage, yaml_bool
from chalicelib.domain.templates import checked, fill, read

KEEPALIVE_TIME_SINCE: Version = (1, 19, 10)
COMMAND_PATH = "/usr/local/sbin/registry-host"
UNITS = (
    "registry-nginx.service",
    "registry-refresh.service",
    "registry-refresh.timer",
    "registry-logrotate.service",
    "registry-logrotate.timer",
)


def host_files(
    layout: HostLayout,
    storage: S3Storage | FileStorage,
    source: RefreshSource,
    *,
    http_secret: str,
    redirect: bool = False,
) -> Mapping[str, tuple[int, str]]:
    """Path to mode and text of every file of a registry host."""
    registry = registry_config(layout, storage, http_secret=http_secret, redirect=redirect)
    return {
        f"{layout.config_dir}/nginx.conf": (0o644, nginx_config(layout)),
        f"{layout.config_dir}/registry.yml": (0o600, registry),
        f"{layout.config_dir}/refresh.env": (0o600, refresh_settings(layout, source)),
        f"{layout.config_dir}/registry-refresh": (0o755, refresh_script()),
    }


def host_units(layout: HostLayout) -> Mapping[str, str]:
    """Name to text of the systemd units: nginx, registry-refresh, the rotation of logs.

    Raises Misconfigured for a directory that systemd would read as more than itself.
    """
    # systemd.unit(5): % begins a specifier, which path names of ours have no need for.
    texts = {name: read(f"registry/{name}") for name in UNITS}
    directories = {
        field.upper(): checked(field, getattr(layout, field), r"[^%]+")
        for field in ("config_dir", "state_dir", "log_dir", "run_dir")
    }
    return {name: fill(text, _wanted(text, directories)) for name, text in texts.items()}


def machine_files(layout: HostLayout) -> Mapping[str, tuple[int, str]]:
    """Path to mode and text of what a machine of its own has besides `host_files`."""
    directories = {
        field.upper(): getattr(layout, field) for field in ("state_dir", "log_dir", "run_dir")
    }
    units = {f"/etc/systemd/system/{name}": text for name, text in host_units(layout).items()}
    logrotate, tmpfiles = read("registry/logrotate.conf"), read("registry/tmpfiles.conf")
    texts = {
        f"{layout.config_dir}/logrotate.conf": fill(logrotate, _wanted(logrotate, directories)),
        "/etc/tmpfiles.d/registry-trust.conf": fill(tmpfiles, _wanted(tmpfiles, directories)),
        **units,
    }
    command = {COMMAND_PATH: (0o755, host_command(layout))}
    return {path: (0o644, text) for path, text in texts.items()} | command


def host_command(layout: HostLayout) -> str:
    """registry-host: what looks after a host, run by whoever is responsible for it."""
    values = {"CONFIG_DIR": shlex.quote(layout.config_dir), "AWS_FUNCTIONS": aws_functions()}
    return fill(read("registry/registry-host"), values)


def _wanted(template: str, values: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in values.items() if f"@{name}@" in template}


def nginx_config(layout: HostLayout) -> str:
    """nginx.conf: a whole configuration, not a part of somebody else's."""
    listen = [f"        listen {address} ssl" for address in layout.listen]
    has_keepalive_time = layout.nginx_version >= KEEPALIVE_TIME_SINCE
    values = {
        "USER": f"user {layout.user};" if layout.user else "",
        "WORKER_PROCESSES": layout.worker_processes,
        "RUN_DIR": layout.run_dir,
        "LOG_DIR": layout.log_dir,
        "TRUST_DIR": layout.trust_dir,
        "KEEPALIVE_TIME": "keepalive_time 1m;" if has_keepalive_time else "",
        "UPSTREAM": layout.upstream,
        "LISTEN": "\n".join(f"{line};" for line in listen),
        "DEFAULT_LISTEN": "\n".join(f"{line} default_server;" for line in listen),
        "SERVER_NAME": layout.host_name,
        "REGISTRY": layout.registry,
    }
    return fill(read("registry/nginx.conf"), values)


def registry_config(
    layout: HostLayout,
    storage: S3Storage | FileStorage,
    *,
    http_secret: str,
    redirect: bool = False,
) -> str:
    """registry.yml. http_secret: 32 or more characters of base64, base64url or hex.

    redirect: send clients to S3 for layers; those that trust only our CA cannot follow.
    """
    secret = checked("http_secret", http_secret, r"[A-Za-z0-9_+/=-]{32,256}")
    values = {
        "STORAGE": "\n".join(storage.lines()),
        "REDIRECT_DISABLED": yaml_bool(not redirect),
        "UPSTREAM": layout.upstream,
        "HTTP_SECRET": secret,
    }
    return fill(read("registry/registry.yml"), values)
