"""An instance metadata service for every EC2 instance, as each has on AWS.

MiniStack has one for all, whose credentials belong to nobody and are refused when they sign. Here
an instance is given an endpoint of its own when it is launched; the credentials it hands out are
sessions `assumed-role/ROLE/<instance id>` of the role in its instance profile, which is what the
registry host and every enrolling instance sign with. Only IMDSv2 is answered.

Where an instance's endpoint listens is written to `<directory>/<instance id>`: on AWS it would be
http://169.254.169.254. SDKs find it through AWS_EC2_METADATA_SERVICE_ENDPOINT. All machines share
the network here, so the path of a sandbox's endpoint begins with a word that no other one knows.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
"Use the Instance Metadata Service to access instance metadata"
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind_entry
from localcloud.images import SANDBOXES

CREDENTIALS = "/latest/meta-data/iam/security-credentials"
CREDENTIAL_SECONDS = 6 * 3600
RENEWED_BEFORE_SECONDS = 3 * 3600
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105  the name of a header, not a token


def apply(directory: Path) -> None:
    """Start an endpoint with each instance that RunInstances makes; end it with the instance."""
    machines, responses = module("services.ec2"), module("core.responses")
    actions, instances = attribute(machines, "_ACTION_MAP"), attribute(machines, "_instances")
    account, region = attribute(responses, "get_account_id"), attribute(responses, "get_region")
    sessions = Sessions()
    endpoints: dict[str, Endpoint] = {}

    def running(run: Any) -> Any:
        def launch(request: Any) -> Any:
            before = set(instances.keys())
            answer = run(request)
            for name in set(instances.keys()) - before:
                machine = Machine(instances[name], account(), region(), sessions)
                endpoints[name] = start_endpoint(machine, directory)
            return answer

        return launch

    def terminating(terminate: Any) -> Any:
        def end(request: Any) -> Any:
            answer = terminate(request)
            for name in [n for n in endpoints if _has_ended(instances.get(n))]:
                end_endpoint(endpoints.pop(name), name, directory)
            return answer

        return end

    rebind_entry(actions, "RunInstances", running)
    rebind_entry(actions, "TerminateInstances", terminating)


def _has_ended(record: dict[str, Any] | None) -> bool:
    return record is not None and record["State"]["Name"] == "terminated"


class Sessions:
    """Role sessions that the emulator's IAM knows, so that what they sign is accepted."""

    def __init__(self) -> None:
        """Find what is needed of the emulator's IAM and STS; raises Missing."""
        identities, tokens = module("services.iam"), module("services.sts")
        self._new_key = attribute(identities, "_gen_session_access_key")
        self._new_secret = attribute(identities, "_gen_secret")
        self._new_token = attribute(identities, "_gen_session_token")
        self._profiles = attribute(identities, "_instance_profiles")
        self._register = attribute(tokens, "register_session")
        self._role_id = attribute(tokens, "_role_id")

    def role_in(self, profile_arn: str, account: str) -> str | None:
        """The name of the role in an instance profile; None when there is no such profile."""
        profile = self._profiles.get_scoped(account, None, profile_arn.rsplit("/", 1)[-1])
        roles = (profile or {}).get("Roles") or [None]
        name: str | None = roles[0]["RoleName"] if isinstance(roles[0], dict) else roles[0]
        return name

    def begin(self, account: str, role: str, name: str, expires: float) -> tuple[str, str, str]:
        """A new session of the role: its access key id, secret access key and token."""
        key, secret, token = self._new_key(), self._new_secret(), self._new_token()
        session = {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{role}/{name}",
            "UserId": f"{self._role_id(f'arn:aws:iam::{account}:role/{role}')}:{name}",
            "SecretAccessKey": secret,
            "SessionToken": token,
            "Expiration": expires,
            "AccountId": account,
            "PrincipalType": "AssumedRole",
        }
        self._register(key, session)
        return key, secret, token


@dataclass
class Machine:
    """One instance as its metadata service tells of it."""

    record: dict[str, Any]  # the emulator's own, which changes with the instance
    account: str
    region: str
    sessions: Sessions
    credentials: dict[str, str] | None = None
    credentials_of: str | None = None  # the role that they belong to
    renew_at: float = 0.0  # seconds since the epoch

    @property
    def instance_id(self) -> str:
        """As EC2 knows it."""
        return str(self.record["InstanceId"])

    def role(self) -> str | None:
        """The role in the instance profile that it has now."""
        profile = (self.record.get("IamInstanceProfile") or {}).get("Arn", "")
        return self.sessions.role_in(profile, self.account)

    def credentials_document(self, role: str) -> str:
        """Credentials that hold for hours yet; the same ones until they are to be renewed."""
        now = time.time()
        if self.credentials is None or self.credentials_of != role or now >= self.renew_at:
            expires = now + CREDENTIAL_SECONDS
            key, secret, token = self.sessions.begin(self.account, role, self.instance_id, expires)
            self.credentials = {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "LastUpdated": time.strftime(TIME_FORMAT, time.gmtime(now)),
                "AccessKeyId": key,
                "SecretAccessKey": secret,
                "Token": token,
                "Expiration": time.strftime(TIME_FORMAT, time.gmtime(expires)),
            }
            self.credentials_of, self.renew_at = role, expires - RENEWED_BEFORE_SECONDS
        return json.dumps(self.credentials)

    def tell(self, path: str) -> str | None:
        """What is at a metadata path; None when there is nothing."""
        if path.startswith(CREDENTIALS):
            role = self.role()
            if role is None:
                return None
            answers = {CREDENTIALS: role, f"{CREDENTIALS}/{role}": None}
            if path not in answers:
                return None
            return answers[path] or self.credentials_document(role)
        facts: dict[str, Callable[[], str]] = {
            "/latest/meta-data/instance-id": lambda: self.instance_id,
            "/latest/meta-data/local-ipv4": lambda: str(self.record["PrivateIpAddress"]),
            "/latest/meta-data/placement/region": lambda: self.region,
            "/latest/dynamic/instance-identity/document": self._identity_document,
        }
        return facts[path]() if path in facts else None

    def _identity_document(self) -> str:
        return json.dumps(
            {
                "accountId": self.account,
                "instanceId": self.instance_id,
                "privateIp": self.record["PrivateIpAddress"],
                "region": self.region,
            }
        )


class Endpoint(ThreadingHTTPServer):
    """The metadata service of one instance, on a loopback port of its own."""

    daemon_threads = True

    def __init__(self, machine: Machine) -> None:
        """Listen; serve_forever answers."""
        super().__init__(("127.0.0.1", 0), Answer)
        self.machine = machine
        self.token = secrets.token_urlsafe(32)
        in_sandbox = machine.record["ImageId"] in SANDBOXES
        self.path = f"/{secrets.token_urlsafe(16)}" if in_sandbox else ""


class Answer(BaseHTTPRequestHandler):
    """One request to a metadata service."""

    server: Endpoint

    def do_PUT(self) -> None:
        """Hand out the token that every other request must show."""
        if self._asked() == "/latest/api/token" and f"{TOKEN_HEADER}-ttl-seconds" in self.headers:
            self._send(HTTPStatus.OK, self.server.token)
        else:
            self._send(HTTPStatus.BAD_REQUEST)

    def do_GET(self) -> None:
        """Tell a fact, to those who show the token."""
        shown = self.headers.get(TOKEN_HEADER, "")
        if not secrets.compare_digest(shown.encode(), self.server.token.encode()):
            self._send(HTTPStatus.UNAUTHORIZED)
            return
        fact = self.server.machine.tell(self._asked())
        self._send(HTTPStatus.NOT_FOUND if fact is None else HTTPStatus.OK, fact or "")

    def _asked(self) -> str:
        """The path below this instance's own; empty for any other."""
        path = self.path.rstrip("/")
        return path.removeprefix(self.server.path) if path.startswith(self.server.path) else ""

    def _send(self, status: HTTPStatus, text: str = "") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header(f"{TOKEN_HEADER}-ttl-seconds", str(CREDENTIAL_SECONDS))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the log is the emulator's."""


def start_endpoint(machine: Machine, directory: Path) -> Endpoint:
    """Start the instance's endpoint and write its URL where others look for it."""
    endpoint = Endpoint(machine)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    directory.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{endpoint.server_address[1]}{endpoint.path}"
    (directory / machine.instance_id).write_text(url + "\n")
    return endpoint


def end_endpoint(endpoint: Endpoint, instance_id: str, directory: Path) -> None:
    """Nobody is told anything about that instance any more."""
    (directory / instance_id).unlink(missing_ok=True)
    # Away from the caller, who would wait for it to notice.
    threading.Thread(target=_close, args=(endpoint,), daemon=True).start()


def _close(endpoint: Endpoint) -> None:
    endpoint.shutdown()
    endpoint.server_close()
