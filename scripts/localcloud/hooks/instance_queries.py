"""DescribeInstances: the filters `instance-id` and `launch-time`, pages, and instances that ended.

MiniStack passes over those two filters, as over all it does not know, so that they let everything
through; it answers all at once; and it forgets a terminated instance within a minute or so. AWS
filters, answers at most 1000 at a time and as many as are asked for, and shows a terminated
instance for about an hour, with its tags.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
"DescribeInstances"

Here a terminated instance is shown for as long as the emulator runs.
"""

from __future__ import annotations

from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind, rebind_entry

# A filter's name to where an instance's record has the value. `*` and `?` stand for characters.
FILTERS = {"instance-id": "InstanceId", "launch-time": "LaunchTime"}
LARGEST_PAGE = 1000
END = b"</DescribeInstancesResponse>"


def apply() -> None:
    """Filter by more, page, and keep what ended."""
    computers = module("services.ec2")
    like = attribute(computers, "_glob_match")

    def wrap(matches: Any) -> Any:
        def matching(record: dict[str, Any], filters: dict[str, list[str]]) -> bool:
            return bool(matches(record, filters)) and all(
                any(like(pattern, record[field]) for pattern in filters[name])
                for name, field in FILTERS.items()
                if name in filters
            )

        return matching

    rebind(computers, "_matches_filters", wrap)
    rebind(computers, "_cleanup_terminated", lambda _: lambda: None)
    rebind_entry(attribute(computers, "_ACTION_MAP"), "DescribeInstances", _paging(computers))


def _paging(computers: Any) -> Any:
    instances = attribute(computers, "_instances")
    filters_in = attribute(computers, "_parse_filters")
    value = attribute(computers, "_p")
    ids_in = attribute(computers, "_parse_member_list")

    def wrap(describe: Any) -> Any:
        def describing(request: Any) -> Any:
            start = int(value(request, "NextToken") or 0)
            size = min(int(value(request, "MaxResults") or LARGEST_PAGE), LARGEST_PAGE)
            if ids_in(request, "InstanceId"):
                return describe(request)
            filters = filters_in(request)
            found = [
                each["InstanceId"]
                for each in list(instances.values())
                if computers._matches_filters(each, filters)
            ]
            page = found[start : start + size]
            if len(page) == len(found):
                return describe(request)
            asked = {f"InstanceId.{number}": [name] for number, name in enumerate(page, 1)}
            answer = describe({**request, **asked})
            return _with_token(answer, start + size) if start + size < len(found) else answer

        return describing

    return wrap


def _with_token(answer: Any, token: int) -> Any:
    status, headers, body = answer
    more = f"<nextToken>{token}</nextToken>".encode()
    return status, headers, body.replace(END, more + END)
