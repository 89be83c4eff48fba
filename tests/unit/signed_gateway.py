"""API Gateway in front of the application, by Chalice's own test client, with signed requests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from chalice import Chalice
from chalice.test import Client, HTTPResponse

ANN = "arn:aws:iam::123456789012:user/ann"
BOB = "arn:aws:iam::123456789012:user/bob"
REQUEST_ID = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
ARRIVAL_MS = 1772600767123


class _Signed:
    """The application, told by each event who signed it, as the IAM authorizer tells."""

    def __init__(self, app: Chalice) -> None:
        self._app = app
        self.caller: str | None = ANN
        self.mount = "/v1"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        context = event["requestContext"]
        context["requestId"] = REQUEST_ID
        context["requestTimeEpoch"] = ARRIVAL_MS
        context["path"] = self.mount + context["path"]
        context["identity"]["userArn"] = self.caller
        context["identity"]["userAgent"] = event["headers"].get("user-agent")
        if not event.get("isBase64Encoded"):
            # API Gateway hands text on, and nothing as None.
            event["body"] = event["body"].decode("utf-8", "replace") or None
        answer: dict[str, Any] = self._app(event, context)
        return answer


@dataclass
class Api:
    """Asks as *caller*, and keeps every request with its answer."""

    app: Chalice
    exchanges: list[tuple[str, HTTPResponse]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._signed = _Signed(self.app)
        self._client = Client(self._signed)  # type: ignore[arg-type]

    def mounted_at(self, mount: str) -> None:
        """Have it below a stage, or a custom domain's base path, or nothing."""
        self._signed.mount = mount

    def __call__(
        self,
        request: str,
        body: object = b"",
        *,
        caller: str | None = ANN,
        **headers: str,
    ) -> HTTPResponse:
        """request: "METHOD /path". body: bytes as they are, else JSON. headers: by their names
        with _ for -, in lower case."""
        method, path = request.split(" ", 1)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if not isinstance(body, bytes):
            sent.setdefault("content-type", "application/json")
            body = json.dumps(body).encode()
        self._signed.caller = caller
        answer = self._client.http.request(method, path, sent, body)
        self.exchanges.append((request, answer))
        return answer
