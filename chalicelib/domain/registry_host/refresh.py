"""What keeps a registry host current: the text of registry-refresh and of its settings."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from chalicelib.domain.registry_host.layout import HostLayout
from chalicelib.domain.templates import BUCKET, REGION, URL, checked, fill, read

# What stands for every address of a machine, and one of them.
LOOPBACK_OF = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - no binding

ONE_LINE = r"[^\x00-\x1f\x7f]+"


@dataclass(frozen=True)
class RefreshSource:
    """Where registry-refresh gets things from, and how it makes nginx take them.

    test_command: the path of a configuration to test is added to it: `nginx -t -q -c`.
    reload_command: has to succeed when nginx is not running yet too; until it does, it is asked
    again at every run.
    endpoint, metadata_endpoint: for a cloud that is not Amazon's.
    """

    config_bucket: str
    region: str
    api_url: str
    test_command: str = "nginx -t -q -c"
    reload_command: str = "systemctl reload-or-restart registry-nginx"
    endpoint: str = ""
    metadata_endpoint: str = ""


def refresh_settings(layout: HostLayout, source: RefreshSource) -> str:
    """refresh.env, quoted for sh. Raises Misconfigured for an unsafe value."""
    values = {
        "CONFIG_BUCKET": checked("config_bucket", source.config_bucket, BUCKET),
        "AWS_REGION": checked("region", source.region, REGION),
        "API_URL": checked("api_url", source.api_url, rf"{URL}(/[A-Za-z0-9_-]+)*"),
        "REGISTRY_HOST": layout.host_name,
        "STATE_DIR": layout.state_dir,
        "SERVE_ADDRESS": serve_address(layout),
        "NGINX_CONFIG": f"{layout.config_dir}/nginx.conf",
        "NGINX_TEST_COMMAND": checked("test_command", source.test_command, ONE_LINE),
        "NGINX_RELOAD_COMMAND": checked("reload_command", source.reload_command, ONE_LINE),
        "AWS_ENDPOINT_URL": checked("endpoint", source.endpoint, rf"({URL})?"),
        "METADATA_ENDPOINT": checked("metadata_endpoint", source.metadata_endpoint, rf"({URL})?"),
    }
    quoted = {name: shlex.quote(value) for name, value in values.items()}
    return fill(read("registry/refresh.env"), quoted)


def serve_address(layout: HostLayout) -> str:
    """address:port on which the host itself finds its nginx: the first of those it listens on."""
    address, _, port = layout.listen[0].rpartition(":")
    return f"{LOOPBACK_OF.get(address, address)}:{port}"


def refresh_script() -> str:
    """registry-refresh: the same for every host; what differs is in refresh.env."""
    return fill(read("registry/registry-refresh"), {"AWS_FUNCTIONS": aws_functions()})


def aws_functions() -> str:
    """What scripts on the host ask AWS with, without the last line break."""
    return read("registry/aws.sh").removesuffix("\n")
