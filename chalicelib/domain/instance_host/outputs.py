"""What an instance printed, read as from a stranger: anybody with root there chose every byte."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from chalicelib.domain.enrolment.model import CommandOutcome, CommandStatus
from chalicelib.domain.pki.requests import public_key_of_csr
from chalicelib.errors import InvalidRequest

# AWS "GetCommandInvocation": the first 24,000 characters of standard output. More is nobody's CSR.
MAXIMUM_OUTPUT = 24_000
MAXIMUM_DETAIL = 200

_OURS = "registry-trust: "
_THE_AGENTS = "failed to run commands: "  # amazon-ssm-agent, agent/plugins/runscript/runscript.go

_REPORT = re.compile(r"registry-trust: (?P<result>[a-z_]+)(?: (?P<detail>.*))?")


class InstallResult(StrEnum):
    """How *install* ended.

    works: the registry answered 200 to the new certificate. needs_key: the instance does not have
    the key that was certified. refused: the registry answered something else. unreachable: it did
    not answer, or not as the registry that our CA certified. not_installed: the installer failed,
    or there is no report.
    """

    WORKS = "works"
    NEEDS_KEY = "needs_key"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NOT_INSTALLED = "not_installed"


@dataclass(frozen=True, slots=True)
class InstallReport:
    """detail: the reason that the instance gave; one line of printable ASCII, 200 at most."""

    result: InstallResult
    detail: str = ""


def csr_in(output: CommandOutcome, instance_id: str, nonce: str) -> bytes:
    """The CSR, in PEM, that *prepare* printed for this instance and this very nonce.

    Whoever runs the instance can have any key certified for it; but nobody else's CSR, nor an
    earlier one, passes: whoever signed this one holds its key, and knew the nonce.
    Raises InvalidRequest with no_csr, csr_not_for_this, or one of public_key_of_csr's codes.
    """
    text = output.out
    if len(text) > MAXIMUM_OUTPUT:
        raise InvalidRequest("csr_too_large", "the instance printed more than a CSR", field="csr")
    if "-----BEGIN " not in text:
        raise InvalidRequest("no_csr", "the instance printed no CSR", field="csr")
    if not text.isascii():
        raise InvalidRequest("csr_not_pem", "the instance printed more than a CSR", field="csr")
    pem = text.encode("ascii")
    public_key_of_csr(pem)
    return _if_for(pem, instance_id, nonce)


def _if_for(pem: bytes, instance_id: str, nonce: str) -> bytes:
    try:
        csr = x509.load_pem_x509_csr(pem)
        named = [[(each.oid, each.value) for each in part] for part in csr.subject.rdns]
        written = csr.public_bytes(serialization.Encoding.PEM)
    except ValueError as error:
        raise InvalidRequest(
            "csr_malformed", "the CSR's subject is unreadable", field="csr"
        ) from error
    if named != [[(NameOID.COMMON_NAME, instance_id)], [(NameOID.SERIAL_NUMBER, nonce)]]:
        raise InvalidRequest(
            "csr_not_for_this", "the CSR was not made for this instance and request", field="csr"
        )
    return written


def report_in(output: CommandOutcome) -> InstallReport:
    """What *install* reported in its last line. Never raises: no report is one of failure."""
    last = _last_line(output.out)
    match = _REPORT.fullmatch(last)
    if match is None or match["result"] not in set(InstallResult):
        return InstallReport(InstallResult.NOT_INSTALLED, _no_report(output))
    result, detail = InstallResult(match["result"]), _shown(match["detail"] or "")
    if result is InstallResult.WORKS and output.status is not CommandStatus.SUCCEEDED:
        detail = "it said that it works, and then failed"
        return InstallReport(InstallResult.NOT_INSTALLED, detail)
    return InstallReport(result, detail)


def _no_report(output: CommandOutcome) -> str:
    """The agent ends the errors of each script that fails with a line of its own."""
    lines = [line for line in output.err[-MAXIMUM_OUTPUT:].split("\n") if line.strip()]
    own = [line for line in lines if line.startswith(_OURS)]
    said = own or [line for line in lines if not line.startswith(_THE_AGENTS)] or [""]
    return _shown(said[-1]).removeprefix(_OURS) or "the command ended without a report"


def _last_line(text: str) -> str:
    """The last line that is not blank. Only line feeds end lines here."""
    return text[-MAXIMUM_OUTPUT:].rstrip().rpartition("\n")[2]


def _shown(text: str) -> str:
    """*text* without what is not printable ASCII, cut to size."""
    return "".join(c for c in text if " " <= c <= "~")[:MAXIMUM_DETAIL].strip()
