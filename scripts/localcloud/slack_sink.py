"""A stand-in for Slack's incoming webhooks: keeps what it is sent, a JSON document a line."""

from __future__ import annotations

import json
import os
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

LARGEST_MESSAGE = 1 << 20  # bytes; Slack takes far less
PATH = "/services/local"


class Webhook(BaseHTTPRequestHandler):
    """One message."""

    server: Sink

    def do_POST(self) -> None:
        """Answer as Slack does: `ok`, or why not (https://docs.slack.dev, incoming webhooks)."""
        if self.path != PATH:
            self._answer(HTTPStatus.NOT_FOUND, "no_service")
            return
        size = int(self.headers.get("Content-Length") or 0)
        if size > LARGEST_MESSAGE:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large")
            return
        try:
            message = json.loads(self.rfile.read(size))
        except ValueError:
            self._answer(HTTPStatus.BAD_REQUEST, "invalid_payload")
            return
        self.server.keep(message)
        self._answer(HTTPStatus.OK, "ok")

    def _answer(self, status: HTTPStatus, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


class Sink(HTTPServer):
    """Listens on loopback and appends to one file."""

    def __init__(self, port: int, file: Path) -> None:
        """Listen; serve_forever takes messages."""
        super().__init__(("127.0.0.1", port), Webhook)
        self.file = file

    def keep(self, message: object) -> None:
        """Append the message with the time (UTC) at which it came."""
        received = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"received": received, "message": message}) + "\n"
        file = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(file, "w") as out:
            out.write(line)


def main(arguments: list[str]) -> int:
    """arguments: the port, the file."""
    port, file = arguments
    Path(file).touch(mode=0o600)
    Sink(int(port), Path(file)).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
