"""Hundreds launched at once on a bad day: all make it, and none holds two certificates."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.instances import Fleet

COUNT = int(os.environ.get("STORM_INSTANCES", "200"))
BAD_DAY = {"drop_events": 0.2, "double_events": 0.2, "fail_ssm": 0.1, "seed": 7}
SECONDS = 900.0  # far more than it takes; a machine may be busy
# The functions of the plane; what people and the registry host call is not counted.
FUNCTIONS = ("AdvanceInstance", "OnInstanceState", "OnCommandState", "ReconcileInstances")


@pytest.fixture
def bad_day(cloud: Any) -> Iterator[Fleet]:
    fleet = Fleet(cloud)
    fleet.load(**BAD_DAY)
    yield fleet
    fleet.load()


def states(fleet: Fleet, wanted: set[str]) -> dict[str, str]:
    """In the table: what has become of those that were launched."""
    table = fleet.cloud.outputs()["InstancesTable"]
    pages = fleet.cloud.client("dynamodb").get_paginator("scan").paginate(TableName=table)
    items = (item for page in pages for item in page["Items"])
    return {
        i["instance_id"]["S"]: i["state"]["S"] for i in items if i["instance_id"]["S"] in wanted
    }


def certificates(fleet: Fleet, wanted: set[str]) -> Counter[str]:
    """In the table: how many certificates of each stand."""
    table = fleet.cloud.outputs()["CertificatesTable"]
    pages = fleet.cloud.client("dynamodb").get_paginator("scan").paginate(TableName=table)
    items = (item for page in pages for item in page["Items"])
    return Counter(
        item["name"]["S"]
        for item in items
        if item["name"]["S"] in wanted and "revoked_at" not in item
    )


def calls(fleet: Fleet) -> Counter[str]:
    """How often the plane's functions called AWS, by action."""
    time.sleep(1)  # the count is written a moment late
    return Counter(
        {
            action: sum(n for who, n in by.items() if any(f in who for f in FUNCTIONS))
            for action, by in fleet.calls().items()
        }
    )


def test_all_of_a_storm_are_enrolled_with_one_certificate_each(
    bad_day: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    before = calls(bad_day)
    began = time.monotonic()
    launched = set(bad_day.launch("pull", COUNT))
    times: list[float] = []
    try:
        while len(times) < COUNT:
            now = time.monotonic() - began
            seen = Counter(states(bad_day, launched).values())
            times += [now] * (seen["enrolled"] - len(times))
            assert now < SECONDS, (seen, f"{COUNT - sum(seen.values())} are unknown")
            time.sleep(1)
        spent = calls(bad_day) - before
        standing = certificates(bad_day, launched)
    finally:
        bad_day.load()
        bad_day.cloud.client("ec2").terminate_instances(InstanceIds=sorted(launched))
    with capsys.disabled():
        print(f"\n  {told(times, spent)}")
    assert standing == Counter(dict.fromkeys(launched, 1))


def told(times: list[float], spent: Counter[str]) -> str:
    """The time that half of them, nine of ten and all took, and the calls for one."""
    half, most = times[len(times) // 2], times[len(times) * 9 // 10]
    each = {action: number / COUNT for action, number in spent.most_common() if number}
    dearest = ", ".join(f"{action} {number:.1f}" for action, number in each.items())
    return (
        f"{COUNT} instances enrolled: half in {half:.0f} s, 9 of 10 in {most:.0f} s, all in "
        f"{times[-1]:.0f} s\n  {sum(each.values()):.1f} calls an instance: {dearest}"
    )
