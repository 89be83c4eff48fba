"""What schemathesis needs to ask this API: signatures, and values that no schema can describe.

`schemathesis run`, which test_openapi.py starts, loads it. Values that a schema gives a format are
placeholders until the request is sent. Accept is not in the description, as OpenAPI says, so it is
chosen here from the forms that an answer is described to have.
"""

from __future__ import annotations

import atexit
import io
import itertools
import json
import os
import socket
import tarfile
from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
import schemathesis
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import strategies as st

CREDENTIALS = Credentials(
    os.environ["AWS_ACCESS_KEY_ID"],
    os.environ["AWS_SECRET_ACCESS_KEY"],
    os.environ.get("AWS_SESSION_TOKEN"),
)
REGION = os.environ["AWS_REGION"]
GZIP = "application/gzip"
PEM_TYPES = ("application/pkcs10", "application/x-pem-file", "application/x-www-form-urlencoded")
CSR = "-----BEGIN CERTIFICATE REQUEST-----"
CERTIFICATE = "-----BEGIN CERTIFICATE-----"

answered: Counter[tuple[str, int, str]] = Counter()
certificates: deque[str] = deque(maxlen=20)
pages: dict[str, dict[str, Any]] = {}  # by operation, the query that gets a second page
turn = itertools.count()

schemathesis.openapi.format("pem-csr", st.just(CSR))
schemathesis.openapi.format("pem-certificate", st.just(CERTIFICATE))
# Letters, marks, numbers, punctuation, symbols and the space: what Python calls printable.
PRINTABLE = st.characters(categories=("L", "M", "N", "P", "S"), include_characters=" ")
schemathesis.openapi.format("printable-text", st.text(PRINTABLE, max_size=64))


class Signed(requests.auth.AuthBase):
    """AWS Signature Version 4, over what is really sent."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Signatures know no plus for a space.
        path, mark, query = request.url.partition("?")
        request.url = path + mark + query.replace("+", "%20")
        signed = AWSRequest(request.method, request.url, {}, request.body or b"")
        SigV4Auth(CREDENTIALS, "execute-api", REGION).add_auth(signed)
        request.headers.update(dict(signed.headers))
        return request


schemathesis.auth.set_from_requests(Signed())


@schemathesis.serializer(*PEM_TYPES)
def as_it_is(context: Any, value: Any) -> bytes:
    """A body that is no JSON and has no fields: the text itself."""
    return str(value).encode()


resolve = socket.getaddrinfo


def resolve_localhost(host: Any, *more: Any, **options: Any) -> Any:
    """Names below localhost are this machine (RFC 6761 section 6.3), which libc does not know."""
    below = isinstance(host, str) and host.endswith(".localhost")
    return resolve("127.0.0.1" if below else host, *more, **options)


socket.getaddrinfo = resolve_localhost


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Put real values where the description can only say that they are real."""
    if isinstance(case.body, dict):
        case.body = {name: real(value) for name, value in case.body.items()}
    else:
        case.body = real(case.body)
    if "cursor" in case.query and case.meta.generation.mode.is_positive:
        first = {name: value for name, value in case.query.items() if name != "cursor"}
        case.query = pages.get(case.operation.label, first)
    if case.meta.generation.mode.is_positive and case.query.get("status") == "expired":
        # The two contradict each other, which the parameters' schemas cannot say.
        case.query.pop("expires_before", None)
    if "instance_id" in case.path_parameters and case.meta.generation.mode.is_positive:
        # All but one of those that the schema describes do not exist.
        case.path_parameters["instance_id"] = os.environ["INSTANCE_ID"]
    if "Accept" not in case.headers:
        case.headers["Accept"] = form(case)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Keep what later requests may ask about, and count."""
    kind = response.headers.get("content-type", ["none"])[0].partition(";")[0]
    answered[case.operation.label, response.status_code, kind] += 1
    if kind != "application/json" or response.status_code >= 300:
        return
    document = response.json()
    if "certificate" in document:
        certificates.append(document["certificate"])
    if document.get("next_cursor"):
        pages[case.operation.label] = {**case.query, "cursor": document["next_cursor"]}


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """False for what is no fault of this API's."""
    # The emulated API Gateway refuses in words of its own, AWS's in those of the template. It takes
    # a line feed in a path for one that no policy allows.
    if response.status_code == 403 and set(response.json()) <= {"message", "__type"}:
        return False
    # A bad text may be an empty one, which is the same as no body where none is needed.
    if failure.title == "Schema-violating request accepted" and not response.request.body:
        return bool(case.operation.definition.raw["requestBody"]["required"])
    return True


@schemathesis.deserializer(GZIP)
def archive(context: Any, response: Any) -> Any:
    """What is in it; raises for what is no archive."""
    with tarfile.open(fileobj=io.BytesIO(response.content)) as opened:
        names = [name.rpartition("/")[2] for name in opened.getnames()]
    assert names[:2] == ["ca.crt", "client.cert"]
    return names


@atexit.register
def report() -> None:
    found = [[*key, count] for key, count in sorted(answered.items())]
    Path(os.environ["ANSWERED_FILE"]).write_text(json.dumps(found))


def form(case: Any) -> str:
    """One of the media types of a success, in turn; JSON where links lead on from the answer."""
    if case.meta.phase.name == "stateful":
        return "application/json"
    responses = case.operation.definition.raw["responses"]
    forms = [
        kind for status in responses if status < "300" for kind in responses[status]["content"]
    ]
    return forms[next(turn) % len(forms)]


def real(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)  # JSON Schema takes 1.0 for an integer; this API wants it written as one
    if isinstance(value, str) and CSR in value:
        return csr()
    if isinstance(value, str) and CERTIFICATE in value:
        return certificates[next(turn) % len(certificates)] if certificates else stranger()
    return value


def csr() -> str:
    """Each of a key of its own: a key belongs to who had it certified first."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    made = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def stranger() -> str:
    """A certificate that no CA of ours signed."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()
