"""The boot path: one script that hosts without an SSM agent are given as EC2 user data."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chalicelib.domain.instance_host.commands import shared
from chalicelib.domain.templates import HOST, PORT, REGION, URL, checked, fill, read

# AWS "Run commands when you launch an EC2 instance with user data input": 16 KB, before base64.
MAXIMUM_USER_DATA = 16 * 1024


@dataclass(frozen=True, slots=True)
class BootSettings:
    """What the script is told of its deployment; nothing in it is secret.

    api_url: without a slash at its end. registry: HOST or HOST:PORT. metadata_endpoint: where the
    instance metadata service is, unless the script's environment says otherwise.
    """

    api_url: str
    region: str
    registry: str
    metadata_endpoint: str = "http://169.254.169.254"


def user_data(settings: BootSettings) -> str:
    """POSIX sh to be given as user data; it stays on the instance and renews the certificate.

    Raises Misconfigured for a setting that could mean anything but itself in the script.
    """
    registry = checked("registry", settings.registry, rf"{HOST}(:{PORT})?")
    values = {
        "API_URL": checked("api_url", settings.api_url, rf"{URL}(/[A-Za-z0-9._~-]+)*"),
        "REGION": checked("region", settings.region, REGION),
        "REGISTRY": registry,
        "NAME": _file_name(registry),
        "METADATA": checked("metadata_endpoint", settings.metadata_endpoint, URL),
        "COMMON_FUNCTIONS": shared("common.sh"),
        "KEY_FUNCTIONS": shared("key.sh"),
        "TRY_FUNCTIONS": shared("try.sh"),
    }
    return _without_comments(fill(read("instance/user-data.sh"), values))


def _file_name(registry: str) -> str:
    """*registry* in the letters that systemd and cron take in names; no other has the same.

    Debian's cron reads no file in cron.d whose name has a dot or a colon (cron(8)).
    """
    return registry.replace(":", "__").replace(".", "_")  # no host has _ or ends in a dot


def _without_comments(script: str) -> str:
    """*script* with its head's comments alone: there are 16 KB, and the template has the others.

    Empty lines go, too. No line of a here-document or of a quoted text in it may be empty or begin
    with a number sign and a space.
    """
    head, rest = script.split("\nset -eu\n", 1)
    return head + "\nset -eu\n" + re.sub(r"^( *# .*)?\n", "", rest, flags=re.MULTILINE)
