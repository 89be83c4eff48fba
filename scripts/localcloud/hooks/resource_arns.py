"""What a request is for, where MiniStack does not see it: the ARN that policies are judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
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


def judge_each(
    service: str, find: Callable[[Request], Sequence[str]], facts: Callable[[str], dict[str, str]]
) -> None:
    """Judge a request to the service by every ARN that *find* names; all must be allowed.

    facts: of a resource, by its ARN, the keys that conditions may ask for.
    """
    # Of the request at hand: set while its resource is looked for, read when it is judged.
    named: ContextVar[Sequence[str]] = ContextVar("named", default=())

    def first(request: Request) -> str | None:
        """The first stands for all that are named; enforce judges each of them."""
        named.set(find(request) if request.service == service else ())
        return named.get()[0] if named.get() else None

    def wrap(inner: Any) -> Any:
        def enforce(
            access_key: str,
            action: str,
            of: str,
            region: str,
            resource_arn: str = "*",
            service_context: dict[str, Any] | None = None,
        ) -> Any:
            arns = named.get() if of == service else ()
            for arn in arns or (resource_arn,):
                context = {**(service_context or {}), **(facts(arn) if arns else {})}
                denied = inner(access_key, action, of, region, arn, context)
                if denied:
                    return denied
            return None

        return enforce

    name_resources(first)
    rebind(module("core.iam_evaluator"), "enforce", wrap)


def tag_facts(tags: Any, arn: str, *prefixes: str) -> dict[str, str]:
    """The condition keys that the tags of an EC2 resource make; tags: the emulator's, by id."""
    found = tags.get(arn.rpartition("/")[2]) or []
    return {f"{prefix}/{tag['Key']}": tag["Value"] for tag in found for prefix in prefixes}
