"""The files of a registry host, as text."""

from __future__ import annotations

from chalicelib.domain.registry_host.layout import HostLayout, Version
from chalicelib.domain.registry_host.storage import FileStorage, S3Storage, yaml_bool
from chalicelib.domain.templates import checked, fill, read

KEEPALIVE_TIME_SINCE: Version = (1, 19, 10)


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
