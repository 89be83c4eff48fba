"""IAM policy variables: `${aws:userid}` and the like in resources and conditions.

MiniStack compares them as they stand, so a statement that holds one never matches.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind

VARIABLE = re.compile(r"\$\{([^}]*)\}")
LITERALS = frozenset("*?$")

Resolve = Callable[[str], Any]


def apply() -> None:
    """Expand variables for each request, just before statements are matched against it."""
    evaluator = module("core.iam_evaluator")
    value_of = attribute(evaluator, "_resolve_condition_key")

    def wrap(first_match: Any) -> Any:
        def expanding(context: Any, statements: list[Any], effect: str) -> Any:
            expanded = [expand_statement(s, lambda key: value_of(key, context)) for s in statements]
            return first_match(context, [s for s in expanded if s is not None], effect)

        return expanding

    rebind(evaluator, "_first_match", wrap)


def expand(text: str, resolve: Resolve) -> str | None:
    """The text with its variables replaced, or None when one has neither value nor default.

    A value that itself holds `*` or `?` would act as a wildcard here, as a literal on AWS; names
    and ids, which is all we use, cannot hold either.
    """
    unresolved = False

    def replacement(match: re.Match[str]) -> str:
        nonlocal unresolved
        key, _, default = (part.strip() for part in match.group(1).partition(","))
        if key in LITERALS:
            return key
        value = resolve(key)
        if value is None and not default:
            unresolved = True
            return ""
        return str(value) if value is not None else default.strip("'")

    expanded = VARIABLE.sub(replacement, text)
    return None if unresolved else expanded


def expand_statement(statement: Any, resolve: Resolve) -> Any | None:
    """The statement for this request, or None when none of its resources can be resolved."""
    held = (statement.resources, statement.not_resources, statement.conditions)
    if "${" not in str(held):
        return statement
    resources = [r for r in (expand(text, resolve) for text in statement.resources) if r]
    if statement.resources and not resources:
        return None
    return dataclasses.replace(
        statement,
        resources=resources,
        not_resources=[_or_itself(text, resolve) for text in statement.not_resources],
        conditions=_expand_conditions(statement.conditions, resolve),
    )


def _expand_conditions(conditions: dict[str, Any], resolve: Resolve) -> dict[str, Any]:
    return {
        operator: {
            key: [
                _or_itself(str(value), resolve)
                for value in (values if isinstance(values, list) else [values])
            ]
            for key, values in tests.items()
        }
        for operator, tests in conditions.items()
    }


def _or_itself(text: str, resolve: Resolve) -> str:
    """What cannot be resolved stays as it stands, and so equals nothing real."""
    expanded = expand(text, resolve)
    return text if expanded is None else expanded
