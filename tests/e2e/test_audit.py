"""The audit trail, as it is found in the function's log."""

from __future__ import annotations

import json
import time

import pytest


@pytest.fixture
def log_of(cloud):
    """log_of(person, count): the audit lines about the person, once there are so many of them."""
    logs, group = cloud.client("logs"), cloud.outputs()["FunctionLogs"]

    def written() -> list[str]:
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        return [event["message"] for page in pages for event in page["events"]]

    def find(person, count):
        for _ in range(50):
            lines = [json.loads(line) for line in written() if '"audit": true' in line]
            found = [line for line in lines if line["caller"].endswith(f":user/{person.name}")]
            if len(found) >= count:
                return found
            time.sleep(0.2)
        raise AssertionError(f"{len(found)} of {count} lines: {found}")

    find.everything = lambda: "\n".join(written())
    return find


def test_grants_and_refusals_are_found_in_the_log_and_no_secret_with_them(dev, log_of, make_csr):
    issued = dev.post("/certs", {"access": "pull"}).json
    serial, key = issued["serial"], issued["private_key"]
    dev.ask("GET", f"/certs/{serial}/bundle", "--user-agent", "canary/1.0")
    dev.ask("GET", f"/certs/{serial}")
    dev.ask("POST", "/certs", body=key.encode())
    dev.ask("POST", "/certs/diagnose", body=key.encode())
    dev.ask("POST", "/certs", "--header", "idempotency-key: two words", body=make_csr())
    dev.ask("DELETE", f"/certs/{'f' * 40}")
    dev.ask("DELETE", f"/certs/{serial}")

    lines = log_of(dev, 7)
    told = [(line["action"], line["decision"], line.get("code")) for line in lines]
    assert sorted(told, key=str) == sorted(
        [
            ("issue_certificate", "granted", None),
            ("get_bundle", "granted", None),
            ("issue_certificate", "refused", "private_key_sent"),
            ("diagnose_certificate", "refused", "private_key_sent"),
            ("issue_certificate", "refused", "bad_idempotency_key"),
            ("revoke_certificate", "refused", "certificate_not_found"),
            ("revoke_certificate", "granted", None),
        ],
        key=str,
    )
    fetched = next(line for line in lines if line["action"] == "get_bundle")
    assert (fetched["serial"], fetched["user_agent"]) == (serial, "canary/1.0")
    assert (fetched["private_key"], fetched["access"]) == (True, "pull")
    assert {line["source_ip"] for line in lines} == {"127.0.0.1"}
    assert {line["level"] for line in lines} == {"INFO", "WARN"}
    assert len({line["request_id"] for line in lines}) == len(lines)

    everything = log_of.everything()
    assert "-----BEGIN" not in everything
    assert dev.secret_access_key not in everything
    assert issued["bundle"]["url"] not in everything
    for secret in key.splitlines()[1:-1]:
        assert secret not in everything
