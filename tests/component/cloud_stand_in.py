"""A stand-in for S3, the instance metadata service and our API, on loopback, in one process.

It is no emulator: it stands in because these tests need faults that a real cloud would not make
on demand. Where a real one is strict, so is this: signatures are computed again by botocore, S3
refuses x-amz-* headers that are not signed, and metadata is given only for a token.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509

from tests.component.throwaway_pki import ThrowawayCa, certificate_pem, now

ACCESS_KEY, SECRET_KEY, TOKEN = "ASIASTANDIN", "se/cret+" * 5, "session/token+with=" * 20
REGION, BUCKET, ROLE = "eu-west-1", "team-config", "registry-host"
API_PATH = "/v1"
INSTANCE = "i-0123456789abcdef0"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Cloud:
    """What it holds, and what shall go wrong."""

    server_ca: ThrowawayCa
    objects: dict[str, bytes] = field(default_factory=dict)
    host: str = "localhost"
    certificate_life: tuple[timedelta, timedelta] = (timedelta(minutes=-5), timedelta(days=90))
    signer: ThrowawayCa | None = None
    faults: dict[str, Callable[[], tuple[int, bytes]]] = field(default_factory=dict)
    cut_short: set[str] = field(default_factory=set)
    delay: float = 0.0
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def count(self, path: str) -> int:
        return sum(request.path.endswith(path) for request in self.requests)

    def answer(self, request: Request) -> tuple[int, bytes]:
        self.requests.append(request)
        time.sleep(self.delay)
        for path, fault in self.faults.items():
            if request.path.endswith(path):
                return fault()
        if request.path.startswith("/latest/"):
            return metadata(request)
        if request.path.startswith(f"/{BUCKET}/"):
            return self.object(request)
        if (request.method, request.path) == ("POST", f"{API_PATH}/registry/cert"):
            return self.certificate(request)
        return 404, b"nothing here"

    def object(self, request: Request) -> tuple[int, bytes]:
        if wrong := signature_fault(request, self.url, "s3"):
            return 403, f"<Error><Code>{wrong}</Code></Error>".encode()
        name = request.path.removeprefix(f"/{BUCKET}/")
        if request.method == "PUT":
            return self.put(name, request)
        body = self.objects.get(name)
        return (404, b"<Error><Code>NoSuchKey</Code></Error>") if body is None else (200, body)

    def put(self, name: str, request: Request) -> tuple[int, bytes]:
        if not name.startswith("registry-hosts/"):
            return 403, b"<Error><Code>AccessDenied</Code></Error>"
        if sha256(request.body).hexdigest() != request.headers["x-amz-content-sha256"]:
            return 400, b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>"
        self.objects[name] = request.body
        return 200, b""

    def certificate(self, request: Request) -> tuple[int, bytes]:
        if wrong := signature_fault(request, self.url, "execute-api"):
            return 403, json.dumps({"detail": wrong}).encode()
        if request.headers["accept"] != "application/x-pem-file":
            return 406, b"{}"
        csr = x509.load_pem_x509_csr(request.body)
        before, after = self.certificate_life
        ca = self.signer or self.server_ca
        leaf = ca.server(
            csr.public_key(),  # type: ignore[arg-type]
            self.host,
            not_before=now() + before,
            not_after=now() + after,
        )
        return 201, certificate_pem(leaf, ca.certificate)


def metadata(request: Request) -> tuple[int, bytes]:
    path = request.path.removeprefix("/latest/")
    if (request.method, path) == ("PUT", "api/token"):
        asked = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds")
        return (200, b"imds-token==") if asked else (400, b"")
    if request.headers.get("x-aws-ec2-metadata-token") != "imds-token==":
        return 401, b""
    if path == "meta-data/instance-id":
        return 200, INSTANCE.encode()
    if path == "meta-data/iam/security-credentials/":
        return 200, ROLE.encode()
    if path == f"meta-data/iam/security-credentials/{ROLE}":
        keys = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": TOKEN}
        return 200, json.dumps({"Code": "Success", "Type": "AWS-HMAC"} | keys, indent=2).encode()
    return 404, b""


def signature_fault(request: Request, url: str, service: str) -> str:
    """Empty if the request is signed as AWS demands, by botocore's reckoning."""
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    if scheme != "AWS4-HMAC-SHA256":
        return "AccessDenied"
    given = dict(part.strip().split("=", 1) for part in rest.split(","))
    names = given["SignedHeaders"].split(";")
    if any(name.startswith("x-amz-") and name not in names for name in request.headers):
        return "HeadersNotSigned"
    headers = {name: request.headers[name] for name in names}
    again = AWSRequest(request.method, url + request.path, headers=headers, data=request.body)
    again.context["timestamp"] = request.headers["x-amz-date"]
    signer_class = S3SigV4Auth if service == "s3" else SigV4Auth
    signer = signer_class(Credentials(ACCESS_KEY, SECRET_KEY, TOKEN), service, REGION)
    text = signer.string_to_sign(again, signer.canonical_request(again))
    if given["Credential"] != signer.scope(again) or "x-amz-security-token" not in names:
        return "InvalidToken"
    return "" if signer.signature(text, again) == given["Signature"] else "SignatureDoesNotMatch"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: ClassVar[Cloud]

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, answer = self.cloud.answer(Request(self.command, self.path, headers, body))
        missing = 100 if self.path in self.cloud.cut_short else 0
        self.send_response(status)
        self.send_header("content-length", str(len(answer) + missing))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = bool(missing)

    do_GET = do_PUT = do_POST = handle_request  # noqa: N815 - names that the base class calls

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running_cloud(cloud: Cloud, tls: ssl.SSLContext | None = None) -> Iterator[Cloud]:
    handler = type("CloudHandler", (Handler,), {"cloud": cloud})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    cloud.url = f"http://127.0.0.1:{server.server_address[1]}"
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        cloud.url = cloud.url.replace("http:", "https:")
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
