"""What the emulator lacks and we need, added in its own process: one module a gap.

Every hook rebinds private attributes, so they hold for one version of MiniStack only. A name that
has gone, or another version, stops the emulator at start instead of failing somewhere later.
"""

from __future__ import annotations

from importlib import metadata

from localcloud.hooks import (
    call_counts,
    dropped_properties,
    elastic_ips,
    event_conditions,
    event_retries,
    faults,
    instance_metadata,
    instance_offers,
    instance_profiles,
    instance_queries,
    instance_states,
    instance_tags,
    machines,
    policy_variables,
    queue_batches,
    run_command,
    ssm_resources,
    stream_failures,
    table_backups,
)
from localcloud.hooks.faults import Faults
from localcloud.hooks.machines import Machines
from localcloud.hooks.service_events import ServiceEvents
from localcloud.hooks.timetable import Timetable
from localcloud.layout import Layout

MINISTACK_VERSION = "1.5.33"


class WrongVersion(Exception):
    """The installed MiniStack is not the one the hooks were written for."""


def apply_all(layout: Layout) -> None:
    """Apply every hook; layout says where instances are kept, and what tests read and write.

    Raises WrongVersion, or rebinding.Missing when MiniStack has no attribute of that name.
    """
    installed = metadata.version("ministack")
    if installed != MINISTACK_VERSION:
        raise WrongVersion(f"the hooks are for MiniStack {MINISTACK_VERSION}, not {installed}")
    policy_variables.apply()
    ssm_resources.apply()
    queue_batches.apply()
    instance_profiles.apply()
    elastic_ips.apply()
    instance_offers.apply()
    dropped_properties.apply()
    event_retries.apply()
    event_conditions.apply()
    stream_failures.apply()
    table_backups.apply()
    _apply_to_instances(layout)


def _apply_to_instances(layout: Layout) -> None:
    timetable, dice = Timetable(), Faults(layout.faults)
    events, sandboxes = ServiceEvents(timetable, dice), Machines(layout, timetable, dice)
    call_counts.apply(layout.api_calls, timetable)
    instance_metadata.apply(layout.metadata)  # before the machines, which ask it where it listens
    instance_states.apply(events, sandboxes)
    instance_tags.apply(events)
    instance_queries.apply()
    machines.apply(sandboxes)
    run_command.apply(sandboxes, events)
    faults.apply(dice)  # last, so that what is throttled gets no further
