"""What the emulator lacks and we need, added in its own process: one module a gap.

Every hook rebinds private attributes, so they hold for one version of MiniStack only. A name that
has gone, or another version, stops the emulator at start instead of failing somewhere later.
"""

from __future__ import annotations

from importlib import metadata

from localcloud.hooks import (
    dropped_properties,
    event_conditions,
    event_retries,
    instance_metadata,
    parameter_resources,
    policy_variables,
    stream_failures,
)

MINISTACK_VERSION = "1.5.33"


class WrongVersion(Exception):
    """The installed MiniStack is not the one the hooks were written for."""


def apply_all(metadata_directory: str) -> None:
    """Apply every hook; metadata_directory is where instances' metadata endpoints are written.

    Raises WrongVersion, or rebinding.Missing when MiniStack has no attribute of that name.
    """
    installed = metadata.version("ministack")
    if installed != MINISTACK_VERSION:
        raise WrongVersion(f"the hooks are for MiniStack {MINISTACK_VERSION}, not {installed}")
    policy_variables.apply()
    parameter_resources.apply()
    dropped_properties.apply()
    event_retries.apply()
    event_conditions.apply()
    stream_failures.apply()
    instance_metadata.apply(metadata_directory)
