"""What stands on a registry host: the text of its nginx, registry and refresh files.

The same files serve a machine of its own and a private prefix, as root and as anybody:

    layout = HostLayout.system("registry.example.com")                    # EC2, root
    layout = HostLayout.under(                                            # anywhere, unprivileged
        "/srv/registry-trust",
        registry="registry.localhost:18443",
        listen=("127.0.0.1:18443",),
        upstream="127.0.0.1:15000",
    )
    storage = S3Storage(region="us-east-1", bucket="b", endpoint="http://127.0.0.1:4566")
    source = RefreshSource(
        config_bucket="c",
        region="us-east-1",
        api_url="http://id.execute-api.localhost:4566/v1",
        endpoint="http://127.0.0.1:4566",
        metadata_endpoint="http://127.0.0.1:1338",
        reload_command=layout.reload_command,
    )
    files = host_files(layout, storage, source, http_secret=secret)       # path -> (mode, text)

The caller makes `layout.directories`, writes the files, and keeps `http_secret` from one rendering
to the next. It runs `sh <config_dir>/registry-refresh <config_dir>/refresh.env` until that has made
`layout.trust_dir`, starts `nginx -c <config_dir>/nginx.conf` and the registry with
`<config_dir>/registry.yml`, and from then on runs registry-refresh again and again, by the units of
`host_units(layout)` where there is systemd: each run is short, exits 0 when all is current, and
tells how it went in `<state_dir>/status.json`.

All that is done by one script on a machine of its own:

    setup = HostSetup(layout, storage, source, image="registry:3")
    setup.script            # to be run there; it fetches `setup.release` from `setup.release_key`
"""

from chalicelib.domain.registry_host.files import (
    COMMAND_PATH,
    KEEPALIVE_TIME_SINCE,
    host_command,
    host_files,
    host_units,
    nginx_config,
    registry_config,
)
from chalicelib.domain.registry_host.layout import HostLayout
from chalicelib.domain.registry_host.refresh import RefreshSource, refresh_settings
from chalicelib.domain.registry_host.setup import SCRIPT_KEY, HostSetup
from chalicelib.domain.registry_host.storage import FileStorage, S3Storage

__all__ = [
    "COMMAND_PATH",
    "KEEPALIVE_TIME_SINCE",
    "SCRIPT_KEY",
    "FileStorage",
    "HostLayout",
    "HostSetup",
    "RefreshSource",
    "S3Storage",
    "host_command",
    "host_files",
    "host_units",
    "nginx_config",
    "refresh_settings",
    "registry_config",
]
