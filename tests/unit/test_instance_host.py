"""The commands and the boot script as text, and what is believed of what instances print."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.enrolment.model import CommandOutcome, CommandStatus
from chalicelib.domain.instance_host import (
    MAXIMUM_OUTPUT,
    BootSettings,
    InstallReport,
    InstallResult,
    csr_in,
    install_command,
    prepare_command,
    report_in,
    user_data,
)
from chalicelib.errors import InvalidRequest, Misconfigured
from tests.component.throwaway_pki import ThrowawayCa, certificate_pem, key_pem

INSTANCE, OTHER = "i-0123456789abcdef0", "i-0123456789abcdef1"
NONCE, EARLIER = "0123456789abcdef" * 2, "f" * 32
SERVERS, CLIENTS = ThrowawayCa("servers"), ThrowawayCa("clients")
LEAF = CLIENTS.client(INSTANCE)
BUNDLE = Bundle(
    registry="registry.example.com:8443",
    ca_bundle=(SERVERS.pem + ThrowawayCa("the next").pem).decode(),
    certificate=certificate_pem(LEAF.certificate).decode(),
    issuer=CLIENTS.pem.decode(),
    registry_address="10.1.2.3",
)
API = "https://abcdefghij.execute-api.ap-southeast-1.amazonaws.com/v1"
SETTINGS = BootSettings(API, "ap-southeast-1", "registry.example.com:8443")
TEXTS = {
    "prepare": prepare_command(INSTANCE, NONCE, BUNDLE.registry, new_key=False),
    "prepare afresh": prepare_command(INSTANCE, NONCE, BUNDLE.registry, new_key=True),
    "install": install_command(BUNDLE, INSTANCE),
    "user data": user_data(SETTINGS),
}

# --- the texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", TEXTS)
def test_shellcheck_has_nothing_to_say_of_it(what: str) -> None:
    told = subprocess.run(
        ["shellcheck", "--shell=sh", "--enable=quote-safe-variables", "-"],
        input=TEXTS[what], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (told.stdout, told.returncode) == ("", 0)


@pytest.mark.parametrize("what", TEXTS)
@pytest.mark.parametrize("shell", [("dash",), ("bash", "--posix"), ("busybox", "sh")])
def test_every_shell_can_read_it(what: str, shell: tuple[str, ...]) -> None:
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed")
    subprocess.run([*shell, "-n"], input=TEXTS[what], text=True, check=True)


@pytest.mark.parametrize("what", TEXTS)
def test_run_command_finds_nothing_in_it_to_fill_in(what: str) -> None:
    """SSM replaces {{ }} in the parameters of a command."""
    assert "{{" not in TEXTS[what]


@pytest.mark.parametrize("what", TEXTS)
def test_it_holds_no_secret_and_every_place_is_filled(what: str) -> None:
    assert "PRIVATE KEY-----" not in TEXTS[what]
    assert not re.search(r"@[A-Z_]+@", TEXTS[what])


def rsa_bundle() -> Bundle:
    """As large as can be: two CAs and a leaf of RSA-4096."""
    key = rsa.generate_private_key(65537, 4096)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a" * 64)])
    start = LEAF.certificate.not_valid_before_utc
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(2**158)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a" * 63)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate_pem(certificate).decode()
    return replace(BUNDLE, ca_bundle=pem * 2, certificate=pem, registry="a" * 63 + ".example:65535")


def test_an_install_command_is_no_longer_than_a_command_may_be() -> None:
    assert len(install_command(rsa_bundle(), INSTANCE)) < 32 * 1024
    assert len(TEXTS["prepare"]) < 8 * 1024


def test_the_boot_script_fits_into_user_data() -> None:
    """AWS "Run commands when you launch an EC2 instance with user data input": 16 KB, raw."""
    long = replace(SETTINGS, registry=("a" * 63 + ".") * 3 + "example:65535")
    assert len(user_data(long).encode()) <= 16 * 1024


def test_the_boot_script_keeps_its_head_and_is_what_it_was_without_comments() -> None:
    text = TEXTS["user data"]
    assert text.startswith("#!/bin/sh\n# registry-trust: EC2 user data ")
    assert "# Usage: registry-trust-enrol-NAME " in text
    assert "# Exit: 0 " in text
    assert not re.search(r"^ *# ", text.partition("\nset -eu\n")[2], flags=re.MULTILINE)


def test_what_stays_on_an_instance_is_named_after_the_registry_as_cron_and_systemd_allow() -> None:
    registries = [
        "a.b-c", "a-b.c", "a-b-c", "a.b.c", "a.b", "a.b:443", "a.b-443", "a.b.443", "a.b443",
        "a.b-c:8443", "A.b", "10.1.2.3:443",
    ]  # fmt: skip
    names = []
    for registry in registries:
        text = user_data(replace(SETTINGS, registry=registry))
        names += re.findall(r"^name='(registry-trust-enrol-[A-Za-z0-9_-]+)'$", text, re.MULTILINE)
    assert len(set(names)) == len(registries)


@pytest.mark.parametrize("bad", ["", "i-1", "i-0123456789ABCDEF0", f"{INSTANCE}\n", "i-$(reboot)0"])
def test_what_is_no_instance_id_gets_no_command(bad: str) -> None:
    with pytest.raises(Misconfigured):
        prepare_command(bad, NONCE, BUNDLE.registry, new_key=False)
    with pytest.raises(Misconfigured):
        install_command(BUNDLE, bad)


@pytest.mark.parametrize(
    "bad", ["", "f" * 31, "F" * 32, "f" * 32 + "\n", "'; reboot; '" + "f" * 20]
)
def test_what_is_no_nonce_gets_no_command(bad: str) -> None:
    with pytest.raises(Misconfigured):
        prepare_command(INSTANCE, bad, BUNDLE.registry, new_key=False)


@pytest.mark.parametrize("bad", ["", "a/b", "..", "a:b", "$(reboot)", "example.com:8443\n"])
def test_what_is_no_registry_gets_no_command(bad: str) -> None:
    with pytest.raises(Misconfigured):
        prepare_command(INSTANCE, NONCE, bad, new_key=False)
    with pytest.raises(Misconfigured):
        install_command(replace(BUNDLE, registry=bad), INSTANCE)


def test_a_bundle_with_a_key_gets_no_command() -> None:
    with pytest.raises(Misconfigured):
        install_command(replace(BUNDLE, private_key=key_pem(LEAF.key).decode()), INSTANCE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_url", "https://api.example.com/v1/"),
        ("api_url", "https://api.example.com/v1'; reboot; '"),
        ("api_url", "ftp://api.example.com"),
        ("api_url", 'https://api.example.com/v1"\nproxy'),
        ("region", "eu-west-1'"),
        ("registry", "registry.example.com/x"),
        ("registry", "$(reboot)"),
        ("metadata_endpoint", "http://169.254.169.254}"),
    ],
)
def test_a_setting_that_could_mean_anything_else_gets_no_script(name: str, value: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        user_data(replace(SETTINGS, **{name: value}))
    assert raised.value.field == name


# --- the CSR --------------------------------------------------------------------------------------

Signer = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KEY = ec.generate_private_key(ec.SECP256R1())


def csr(
    names: list[tuple[x509.ObjectIdentifier, str]] | None = None, key: Signer = KEY
) -> x509.CertificateSigningRequest:
    asked = [(NameOID.COMMON_NAME, INSTANCE), (NameOID.SERIAL_NUMBER, NONCE)]
    subject = x509.Name([x509.NameAttribute(*each) for each in (asked if names is None else names)])
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return x509.CertificateSigningRequestBuilder(subject).sign(key, algorithm)


def pem(request: x509.CertificateSigningRequest) -> str:
    return request.public_bytes(serialization.Encoding.PEM).decode()


def printed(out: str, status: CommandStatus = CommandStatus.SUCCEEDED) -> CommandOutcome:
    return CommandOutcome(status, out)


GOOD = pem(csr())


@pytest.mark.parametrize("text", [GOOD, f"\n{GOOD}\r\n", GOOD.replace("\n", "\r\n")])
def test_the_csr_that_was_asked_for_is_handed_on(text: str) -> None:
    assert csr_in(printed(text), INSTANCE, NONCE) == GOOD.encode()


CN, SERIAL = NameOID.COMMON_NAME, NameOID.SERIAL_NUMBER
NOT_FOR_THIS = {
    "another instance's": [(CN, OTHER), (SERIAL, NONCE)],
    "an earlier one": [(CN, INSTANCE), (SERIAL, EARLIER)],
    "without a nonce": [(CN, INSTANCE)],
    "without a name": [(SERIAL, NONCE)],
    "the other way round": [(SERIAL, NONCE), (CN, INSTANCE)],
    "with more": [(CN, INSTANCE), (SERIAL, NONCE), (CN, OTHER)],
    "in capitals": [(CN, INSTANCE), (SERIAL, NONCE.upper())],
    "with a blank": [(CN, INSTANCE), (SERIAL, NONCE + " ")],
    "another attribute": [(CN, INSTANCE), (NameOID.ORGANIZATION_NAME, NONCE)],
    "with nothing": [],
}


@pytest.mark.parametrize("what", NOT_FOR_THIS)
def test_a_csr_of_somebody_else_or_of_another_time_is_refused(what: str) -> None:
    refused(pem(csr(NOT_FOR_THIS[what])), "csr_not_for_this")


def test_name_and_nonce_in_one_part_of_the_subject_are_refused() -> None:
    both = x509.RelativeDistinguishedName(
        [x509.NameAttribute(CN, INSTANCE), x509.NameAttribute(SERIAL, NONCE)]
    )
    request = x509.CertificateSigningRequestBuilder(x509.Name([both])).sign(KEY, hashes.SHA256())
    refused(pem(request), "csr_not_for_this")


def refused(text: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        csr_in(printed(text), INSTANCE, NONCE)
    assert raised.value.code == code


def with_broken_signature(request: x509.CertificateSigningRequest) -> str:
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    spoilt = x509.load_der_x509_csr(bytes(der))
    return pem(spoilt)


WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505  # that it is refused is the test
OTHERS = {
    "nothing": ("", "no_csr"),
    "words": ("bash: openssl: command not found\n", "no_csr"),
    "a certificate": (BUNDLE.certificate, "csr_not_pem"),
    "a private key": (key_pem(LEAF.key).decode(), "private_key_sent"),
    "a private key too": (GOOD + key_pem(LEAF.key).decode(), "private_key_sent"),
    "two of them": (GOOD + GOOD, "csr_multiple"),
    "more than it": (GOOD + "done\n", "csr_trailing_data"),
    "a word before it": ("hello\n" + GOOD, "csr_not_pem"),
    "an escape before it": ("\x1b[2J" + GOOD, "csr_not_pem"),
    "an escape after it": (GOOD + "\x1b]0;title\x07", "csr_trailing_data"),
    "a character beyond ASCII": (GOOD + "é", "csr_not_pem"),
    "a NUL": (GOOD + "\0", "csr_trailing_data"),
    "half of it": (GOOD[: len(GOOD) // 2], "csr_not_pem"),
    "what SSM cuts off": (GOOD[:-40] + "---Output truncated---", "csr_not_pem"),
    "too much": (GOOD + " " * MAXIMUM_OUTPUT, "csr_too_large"),
    "no DER": (re.sub(r"\n[^-]+\n", "\nAAAA\n", GOOD, count=1), "csr_malformed"),
    "another's signature": (with_broken_signature(csr()), "csr_bad_signature"),
    "a weak key": (pem(csr(key=WEAK)), "rsa_key_size"),
    "an odd key": (pem(csr(key=ed25519.Ed25519PrivateKey.generate())), "unsupported_key"),
    "an odd curve": (pem(csr(key=ec.generate_private_key(ec.SECP192R1()))), "unsupported_key"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_not_one_good_csr_is_refused_with_its_reason(what: str) -> None:
    refused(*OTHERS[what])


@given(st.text() | st.text(st.characters(max_codepoint=255)))
@example("-----BEGIN CERTIFICATE REQUEST-----")
@example(GOOD + "\x85")
def test_whatever_is_printed_raises_nothing_else(text: str) -> None:
    with pytest.raises(InvalidRequest):
        csr_in(printed(text), INSTANCE, NONCE)


DER = x509.load_pem_x509_csr(GOOD.encode()).public_bytes(serialization.Encoding.DER)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=400, deadline=None)
@given(st.data())
def test_a_csr_with_bytes_changed_is_never_taken_for_another(data: st.DataObject) -> None:
    """Any that passes is for this instance and nonce, whatever was done to the rest."""
    der = bytearray(DER)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(der) - 1))
        der[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    body = base64.encodebytes(bytes(der)).decode()
    text = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
    try:
        passed = csr_in(printed(text), INSTANCE, NONCE)
    except InvalidRequest:
        return
    subject = x509.load_pem_x509_csr(passed).subject
    assert [each.value for each in subject] == [INSTANCE, NONCE]


# --- the report -----------------------------------------------------------------------------------

NOISE = "Docker: installed in /etc/docker/certs.d/registry\nTry it: docker pull …\n"


@pytest.mark.parametrize(
    ("line", "result", "detail"),
    [
        ("works", InstallResult.WORKS, ""),
        ("needs_key there is none", InstallResult.NEEDS_KEY, "there is none"),
        ("refused 403 it has been revoked", InstallResult.REFUSED, "403 it has been revoked"),
        ("unreachable could not connect", InstallResult.UNREACHABLE, "could not connect"),
        ("not_installed cannot write", InstallResult.NOT_INSTALLED, "cannot write"),
    ],
)
def test_the_last_line_is_the_report(line: str, result: InstallResult, detail: str) -> None:
    text = f"registry-trust: refused 500 earlier\n{NOISE}registry-trust: {line}\n\n"
    assert report_in(printed(text)) == InstallReport(result, detail)


@pytest.mark.parametrize(
    "out",
    [
        "",
        "registry-trust: works\nand then more\n",
        "registry-trust: worked\n",
        "registry-trust: WORKS\n",
        " registry-trust: works\n",
        "registry-trust: works\n\x1b[2Kregistry-trust: works",
        "x\rregistry-trust: works",
        "registry-trust: ",
    ],
)
def test_what_ends_in_no_report_is_not_installed(out: str) -> None:
    assert report_in(printed(out)).result is InstallResult.NOT_INSTALLED


def test_without_a_report_the_reason_is_what_it_complained_of_last() -> None:
    output = CommandOutcome(CommandStatus.FAILED, "", "a\nregistry-trust: run this as root\n\n")
    assert report_in(output) == InstallReport(InstallResult.NOT_INSTALLED, "run this as root")
    assert report_in(replace(output, err="a\nb\n")).detail == "b"
    agents = "failed to run commands: exit status 1"
    ended = replace(output, err=f"registry-trust: run this as root\n{agents}")
    assert report_in(ended).detail == "run this as root"
    assert report_in(replace(output, err=f"sh: not found\n{agents}")).detail == "sh: not found"
    silent = report_in(CommandOutcome(CommandStatus.LOST))
    assert silent == InstallReport(
        InstallResult.NOT_INSTALLED, "the command ended without a report"
    )


@pytest.mark.parametrize("status", [CommandStatus.FAILED, CommandStatus.LOST])
def test_a_command_that_failed_does_not_work_whatever_it_says(status: CommandStatus) -> None:
    report = report_in(printed("registry-trust: works\n", status))
    assert report.result is InstallResult.NOT_INSTALLED


def test_a_reason_is_one_short_line_of_plain_characters() -> None:
    nasty = "403 \x1b[31mred\x1b[0m \x07\0é\u202e\x9b" + "x" * 999
    report = report_in(printed(f"registry-trust: refused {nasty}\n"))
    assert report.detail == ("403 [31mred[0m " + "x" * 999)[:200]


@given(st.text(), st.text(), st.sampled_from(list(CommandStatus)))
@example("registry-trust: refused " + "é" * 99, "", CommandStatus.SUCCEEDED)
def test_whatever_is_printed_there_is_a_report(out: str, err: str, status: CommandStatus) -> None:
    for text in (out, f"registry-trust: refused {out}"):
        report = report_in(CommandOutcome(status, text, err))
        assert report.result is not InstallResult.WORKS
        assert len(report.detail) <= 200
        assert all(" " <= c <= "~" for c in report.detail)
