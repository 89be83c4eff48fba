"""A request, read as its operation says, and only as far as somebody asks."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Generic

import msgspec
from chalice.app import MultiDict, Request

from chalicelib.domain.identity import identify, is_instance_id
from chalicelib.domain.model import Caller
from chalicelib.domain.ownership import canonical_serial
from chalicelib.entrypoints.http.forms import choose_form
from chalicelib.entrypoints.http.operations import Body, Operation, Query
from chalicelib.entrypoints.http.reading import convert_texts, read_body
from chalicelib.errors import InvalidRequest, NotFound

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,64}")


@dataclass(frozen=True)
class Asked(Generic[Query, Body]):
    """One request. Each part raises AppError when it is asked for and cannot be had."""

    request: Request
    operation: Operation[Query, Body]

    @cached_property
    def form(self) -> str:
        """The media type of the answer. Raises NotAcceptable."""
        return choose_form(self._header("accept"), self.operation.forms)

    @cached_property
    def caller(self) -> Caller:
        """Who signed it. Raises Forbidden."""
        return identify(str(self.request.context["identity"].get("userArn") or ""))

    @cached_property
    def query(self) -> Query:
        """The query parameters. Raises InvalidRequest, also for one unknown or given twice."""
        given = self.request.query_params or MultiDict({})
        allowed = self.operation.query.__struct_fields__
        for name in given:
            if name not in allowed:
                raise InvalidRequest("unknown_parameter", self._there_are(), field=name[:64])
            if len(given.getlist(name)) > 1:
                raise InvalidRequest("repeated_parameter", "give it once", field=name)
        return convert_texts(dict(given), self.operation.query)

    def _there_are(self) -> str:
        """What may be in the query, told to who put something else there."""
        if allowed := sorted(self.operation.query.__struct_fields__):
            return f"there is no such parameter; there are: {', '.join(allowed)}"
        if not self.operation.accepts.shape.__struct_fields__:
            return "there are no parameters here"
        return "there are no parameters here; what it says belongs into the JSON body"

    @cached_property
    def body(self) -> Body:
        """Raises InvalidRequest, UnsupportedMediaType."""
        return read_body(self.request, self.operation.accepts)

    @cached_property
    def serial(self) -> str:
        """The serial in the path. Raises NotFound for what cannot be one."""
        serial = canonical_serial(self._in_path["serial"])
        if serial is None:
            raise NotFound("certificate_not_found", "a serial has 1 to 40 hexadecimal digits")
        return serial

    @cached_property
    def instance_id(self) -> str:
        """The instance's id in the path. Raises NotFound for what cannot be one."""
        instance_id = self._in_path["instance_id"]
        if not is_instance_id(instance_id):
            raise NotFound(
                "instance_not_found", "an instance's id is i- and 8 or 17 hexadecimal digits"
            )
        return instance_id

    @property
    def named(self) -> dict[str, str]:
        """What the path names, by its parameters. Raises NotFound for what cannot be one."""
        return {parameter: getattr(self, parameter) for parameter in self._in_path}

    @cached_property
    def idempotency_key(self) -> str | None:
        """Raises InvalidRequest."""
        key = self._header("idempotency-key")
        if key is None or _IDEMPOTENCY_KEY.fullmatch(key):
            return key
        raise InvalidRequest(
            "bad_idempotency_key",
            "an Idempotency-Key has 1 to 64 visible ASCII characters",
            field="Idempotency-Key",
        )

    @property
    def digest(self) -> str:
        """SHA-256 over all that was asked: the route, the serial in the path, and the body."""
        path = self.request.context["resourcePath"]
        about = self.serial if self._in_path else None
        asked = [self.operation.method, path, about, self.body]
        return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()

    @property
    def mount(self) -> str:
        """What stands before our paths in the address: stage, or a custom domain's base path."""
        context = self.request.context
        depth = str(context["resourcePath"]).count("/")
        return str(context["path"]).rstrip("/").rsplit("/", depth)[0]

    @property
    def _in_path(self) -> dict[str, str]:
        return self.request.uri_params or {}

    def _header(self, name: str) -> str | None:
        value = self.request.headers.get(name)
        return None if value is None else str(value)
