"""People with credentials, who ask with curl as the README tells them to."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What came back. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code; the answer must be a problem of the form of RFC 9457."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        problem = self.json
        assert {"type", "title", "status", "detail", "code"} <= set(problem) <= {
            "type", "title", "status", "detail", "code", "field",
        }  # fmt: skip
        assert problem["status"] == self.status
        assert problem["detail"]
        return str(problem["code"])


@dataclass(frozen=True)
class Person:
    """Somebody with an access key. The key goes to curl by standard input, not by its arguments."""

    api_url: str
    access_key_id: str = ""
    secret_access_key: str = ""
    name: str = ""
    session_token: str = ""
    region: str = "us-east-1"

    def ask(self, method: str, path: str, *options: str, body: bytes | None = None) -> Answer:
        """One request with curl --aws-sigv4; *options* are further options of curl's."""
        with tempfile.NamedTemporaryFile() as file:
            if body is not None:
                file.write(body)
                file.flush()
                options = (*options, "--data-binary", f"@{file.name}")
            command = ["curl", "--silent", "--show-error", "--include", "--config", "-"]
            command += ["--request", method, *options, f"{self.api_url}{path}"]
            done = subprocess.run(
                command, input=self._config().encode(), capture_output=True, timeout=60, check=True
            )
        return _parse(done.stdout)

    def _config(self) -> str:
        if not self.access_key_id:
            return ""
        lines = [
            f'aws-sigv4 = "aws:amz:{self.region}:execute-api"',
            f'user = "{self.access_key_id}:{self.secret_access_key}"',
        ]
        if self.session_token:
            lines.append(f'header = "x-amz-security-token: {self.session_token}"')
        return "\n".join(lines)

    def post(self, path: str, document: Any) -> Answer:
        """POST *document* as JSON."""
        kind = ("--header", "content-type: application/json")
        return self.ask("POST", path, *kind, body=json.dumps(document).encode())


def _parse(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    while b" 100 " in head.split(b"\r\n")[0]:  # "100 Continue", before the answer proper
        head, _, body = body.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    return Answer(int(status_line.split()[1]), headers, body)
