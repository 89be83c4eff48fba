"""What one route of the API takes and answers: obeyed by the edge, and told by the description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from msgspec import Struct

from chalicelib.entrypoints.http.forms import JSON

Query = TypeVar("Query", bound=Struct)
Body = TypeVar("Body", bound=Struct)


class Nothing(Struct, forbid_unknown_fields=True):
    """No query parameters, or no body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepts(Generic[Body]):
    """The body that a route reads.

    shape: what application/json holds. optional: nothing at all stands for {}.
    pem_field: the field that a body of one of *pem_types* is, as it is; None: only JSON is read.
    if_empty: what to tell who sends nothing where something is needed, or was meant.
    rules: what else holds for the JSON, as JSON Schema. examples: of JSON, by their names.
    """

    shape: type[Body]
    optional: bool = False
    pem_field: str | None = None
    pem_types: Sequence[str] = ()
    pem_description: str = ""
    if_empty: str = ""
    rules: Mapping[str, Any] = field(default_factory=dict)
    examples: Mapping[str, Any] = field(default_factory=dict)


NO_BODY = Accepts(shape=Nothing, optional=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One success of a route.

    document: what application/json holds. forms: the media types that Accept chooses from.
    headers: beside those that all answers have.
    """

    description: str
    document: type[Struct]
    forms: Sequence[str] = (JSON,)
    headers: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[Query, Body]):
    """query: its fields are the parameters. successes: by status; all have the same forms.

    problems: the codes it may answer beside those that every route may.
    """

    method: str
    query: type[Query]
    accepts: Accepts[Body]
    successes: Mapping[int, Answers]
    problems: Sequence[str] = ()
    idempotent: bool = False

    @property
    def forms(self) -> Sequence[str]:
        """The media types that Accept chooses from."""
        return next(iter(self.successes.values())).forms
