"""The files of a registry host, as text."""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.registry_host.layout import HostLayout, Version
from chalicelib.domain.registry_host.refresh import (
    RefreshSource,
    refresh_script,
    refresh_settings,
)
from chalicelib.domain.registry_host.storage import FileStorage, S3Storage, yaml_bool
from chalicelib.domain.templates import checked, fill, read

KEEPALIVE_TIME_SINCE: Version = (1, 19, 10)


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
    """Name to text of the systemd units that run registry-refresh again and again.

    Raises Misconfigured for a directory that systemd would read as more than itself.
    """
    # systemd.unit(5): % begins a specifier, which path names of ours have no need for.
    values = {"CONFIG_DIR": checked("config_dir", layout.config_dir, r"[^%]+")}
    return {
        "registry-refresh.service": fill(read("registry/registry-refresh.service"), values),
        "registry-refresh.timer": fill(read("registry/registry-refresh.timer"), {}),
    }


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
