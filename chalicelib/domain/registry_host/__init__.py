"""What stands on a registry host: the text of its nginx and registry files.

The same files serve a machine of its own and a private prefix, as root and as anybody:

    layout = HostLayout.system("registry.example.com")                    # EC2, root
    layout = HostLayout.under(                                            # anywhere, unprivileged
        "/home/ann/code/.local/registry-host",
        registry="registry.localhost:18443",
        listen=("127.0.0.1:18443",),
        upstream="127.0.0.1:15000",
    )
    storage = S3Storage(region="us-east-1", bucket="b", endpoint="http://127.0.0.1:4566")
    nginx_config(layout); registry_config(layout, storage, http_secret=secret)

The caller makes `layout.directories` and keeps `http_secret` from one rendering to the next.
"""

from chalicelib.domain.registry_host.files import nginx_config, registry_config
from chalicelib.domain.registry_host.layout import HostLayout
from chalicelib.domain.registry_host.storage import FileStorage, S3Storage

__all__ = ["FileStorage", "HostLayout", "S3Storage", "nginx_config", "registry_config"]
