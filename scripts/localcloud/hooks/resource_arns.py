"""What a request is for, where MiniStack does not see it: the ARN that policies are judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.hooks.rebinding import module, rebind


@dataclass(frozen=True)
class Request:
    """Of what the emulator knows of a request before it judges it, the parts that name things."""

    service: str
    headers: Mapping[str, str]
    body: bytes
    query: Mapping[str, Any]
    region: str
    account: str


def name_resources(find: Callable[[Request], str | None]) -> None:
    """Judge a request by the ARN that *find* names; where it names none, as before."""

    def wrap(inner: Any) -> Any:
        def extract(
            service: str,
            method: str,
            path: str,
            headers: dict[str, str],
            body: bytes,
            query: dict[str, Any],
            region: str,
            account: str,
        ) -> str:
            named = find(Request(service, headers, body, query, region, account))
            if named is not None:
                return named
            found: str = inner(service, method, path, headers, body, query, region, account)
            return found

        return extract

    rebind(module("core.iam_actions"), "extract_resource_arn", wrap)
