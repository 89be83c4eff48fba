"""What we issue, judged by other people's programs: OpenSSL, GnuTLS and pkilint."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from chalicelib.domain.model import Access, Grant, KeyType, Validity
from chalicelib.domain.pki.authorities import (
    Authority,
    make_client_authority,
    make_server_authority,
)
from chalicelib.domain.pki.crl import Revocation, sign_crl
from chalicelib.domain.pki.keys import LeafPublicKey, make_key
from chalicelib.domain.pki.leaves import certificate_pem, sign_client_leaf, sign_server_leaf

NOW = datetime.now(UTC)  # the programs have real clocks
DAY = timedelta(days=1)
LONG = Validity.starting(NOW, 3650 * DAY, timedelta(minutes=5))
SHORT = Validity.starting(NOW, 90 * DAY, timedelta(minutes=5))
HOST = "registry.example.com"
OWNERS = {
    "ann": "arn:aws:iam::123456789012:user/team/ann",
    "ann@example.com": "arn:aws-us-gov:sts::123456789012:assumed-role/deploy/ann@example.com",
    "a+=,.@_-b": "arn:aws-cn:sts::123456789012:assumed-role/r+=,.@_-/a+=,.@_-b",
}
CLIENT, SERVER = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"  # the EKUs of RFC 5280 section 4.2.1.12
CA_TYPES = [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_3072, KeyType.RSA_4096]
SERIAL = 2**158 + 77


@functools.cache
def ca(kind: str, key_type: KeyType = KeyType.EC_P256, host: str = HOST) -> Authority:
    key = make_key(key_type)
    if kind == "client":
        return make_client_authority(key, 2**157, LONG)
    return make_server_authority(key, 2**157, LONG, host)


@functools.cache
def leaf_key(name: str) -> LeafPublicKey:
    """Of one of our types, or P-521, which we accept and do not make."""
    if name == "ec-p521":
        return ec.generate_private_key(ec.SECP521R1()).public_key()
    return make_key(KeyType(name)).public_key()


def leaf(kind: str, issuer: Authority, key: str = "ec-p256", name: str = "ann") -> str:
    if kind == "server":
        return certificate_pem(sign_server_leaf(issuer, HOST, leaf_key(key), SERIAL, SHORT))
    grant = Grant(name, OWNERS[name], Access.PUSH, 90 * DAY)
    return certificate_pem(sign_client_leaf(issuer, grant, leaf_key(key), SERIAL, SHORT))


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


class Judges:
    """Each answers whether it would take the certificate for this purpose from this CA."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.leaf, self.crl = (directory / name for name in ("ca", "leaf", "crl"))

    def write(self, certificate: str, issuer: Authority, crl: str = "") -> None:
        self.ca.write_text(certificate_pem(issuer.certificate))
        self.leaf.write_text(certificate)
        self.crl.write_text(crl)

    def openssl(self, purpose: str, *options: str | Path) -> tuple[bool, str]:
        name = {"client": "sslclient", "server": "sslserver"}[purpose]
        command = ["openssl", "verify", "-x509_strict", "-purpose", name]
        done = run([*command, *options, "-CAfile", self.ca, self.leaf])
        return done.returncode == 0, done.stdout + done.stderr

    def gnutls(self, purpose: str, *options: str) -> tuple[bool, str]:
        oid = {"client": CLIENT, "server": SERVER}[purpose]
        command = ["certtool", "--verify", f"--verify-purpose={oid}", "--verify-profile=medium"]
        files = ["--load-ca-certificate", self.ca, "--infile", self.leaf]
        done = run([*command, *options, *files])
        said = done.stdout + done.stderr
        trusted = "Chain verification output: Verified. The certificate is trusted." in said
        assert trusted == (done.returncode == 0)
        return trusted, said

    def both(self, purpose: str) -> tuple[bool, bool]:
        return self.openssl(purpose)[0], self.gnutls(purpose)[0]


@pytest.fixture
def judges(tmp_path: Path) -> Judges:
    return Judges(tmp_path)


TYPES = [
    *((ca_type, "ec-p256") for ca_type in CA_TYPES),
    *((KeyType.EC_P256, key) for key in ("ec-p384", "ec-p521", "rsa-2048", "rsa-3072", "rsa-4096")),
    (KeyType.RSA_4096, "rsa-4096"),
]


@pytest.mark.parametrize(("ca_type", "key"), TYPES)
@pytest.mark.parametrize(("kind", "other"), [("client", "server"), ("server", "client")])
def test_a_leaf_is_good_for_its_own_purpose_and_no_other(
    judges: Judges, kind: str, other: str, ca_type: KeyType, key: str
) -> None:
    judges.write(leaf(kind, ca(kind, ca_type), key), ca(kind, ca_type))
    assert judges.both(kind) == (True, True)
    assert judges.both(other) == (False, False)


@pytest.mark.parametrize("kind", ["client", "server"])
def test_a_leaf_is_good_under_its_own_ca_and_no_other(judges: Judges, kind: str) -> None:
    certificate = leaf(kind, ca(kind))
    judges.write(certificate, ca(kind, KeyType.EC_P384))
    assert judges.both(kind) == (False, False)


@pytest.mark.parametrize(("kind", "other"), [("client", "server"), ("server", "client")])
def test_a_ca_for_one_kind_cannot_sign_the_other_for_openssl(
    judges: Judges, kind: str, other: str
) -> None:
    """And so for nginx. GnuTLS does not ask for what a trusted CA is; but the client CA is trusted
    by nginx alone, and what the server CA may sign is bound by its name constraints as well."""
    judges.write(leaf(other, ca(kind)), ca(kind))
    good, said = judges.openssl(other)
    assert not good
    assert "purpose" in said


def test_a_ca_below_a_ca_is_refused(judges: Judges) -> None:
    """pathLen 0: whoever gets a CA certificate signed by ours still cannot sign."""
    root, key = ca("client"), make_key(KeyType.EC_P256)
    below = make_client_authority(key, 3, LONG).certificate
    forged = (
        _rebuilt(below, root.certificate.subject).sign(root.key, below.signature_hash_algorithm)  # type: ignore[arg-type]
    )
    judges.write(leaf("client", Authority(forged, key)) + certificate_pem(forged), root)
    assert not judges.openssl("client", "-untrusted", judges.leaf)[0]
    assert not judges.gnutls("client")[0]


def _rebuilt(certificate: x509.Certificate, issuer: x509.Name) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(
        issuer,
        certificate.subject,
        certificate.public_key(),  # type: ignore[arg-type]
        certificate.serial_number,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )
    for extension in certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder


BOUND_TO = {
    "registry.example.com": ("evil.example.net", "example.com", "192.0.2.7", "2001:db8::7"),
    "192.0.2.7": ("192.0.2.8", "registry.example.com", "2001:db8::7"),
    "2001:db8::7": ("2001:db8::8", "registry.example.com", "192.0.2.7"),
}


@pytest.mark.parametrize(
    ("host", "other"), [(host, other) for host, others in BOUND_TO.items() for other in others]
)
def test_the_server_ca_cannot_vouch_for_another_host(judges: Judges, host: str, other: str) -> None:
    """Machines that trust it risk nothing but their registry, even if its key is stolen."""
    issuer = ca("server", host=host)
    for name, good in ((host, True), (other, False)):
        signed = sign_server_leaf(issuer, name, leaf_key("ec-p256"), SERIAL, SHORT)
        judges.write(certificate_pem(signed), issuer)
        by_openssl, said = judges.openssl("server")
        assert by_openssl is good
        assert ("subtree violation" in said) is not good
        by_gnutls, said = judges.gnutls("server")
        assert by_gnutls is good
        assert ("violates the signer's constraints" in said) is not good


@pytest.mark.parametrize("host", [HOST, "192.0.2.7", "2001:db8::7"])
def test_clients_find_the_host_in_the_certificate(judges: Judges, host: str) -> None:
    issuer = ca("server", host=host)
    signed = sign_server_leaf(issuer, host, leaf_key("ec-p256"), SERIAL, SHORT)
    judges.write(certificate_pem(signed), issuer)
    option = "-verify_hostname" if host == HOST else "-verify_ip"
    assert judges.openssl("server", option, host)[0]
    assert not judges.openssl("server", option, "x.example" if host == HOST else "192.0.2.9")[0]
    if host == HOST:  # certtool compares names only
        assert judges.gnutls("server", f"--verify-hostname={host}")[0]
        assert not judges.gnutls("server", "--verify-hostname=x.example")[0]


@pytest.mark.parametrize("ca_type", CA_TYPES)
def test_a_list_is_signed_by_its_ca_for_openssl_and_gnutls(
    judges: Judges, ca_type: KeyType
) -> None:
    crl = sign_crl(ca("client", ca_type), 1, NOW, [Revocation(5, NOW - DAY, "keyCompromise")])
    for issuer, good in ((ca("client", ca_type), True), (ca("server", ca_type), False)):
        judges.write("", issuer, crl)
        by_openssl = run(["openssl", "crl", "-in", judges.crl, "-CAfile", judges.ca, "-noout"])
        assert ("verify OK" in by_openssl.stderr) is good
        by_gnutls = run(
            ["certtool", "--verify-crl", "--load-ca-certificate", judges.ca, "--infile", judges.crl]
        )
        assert ("Verification output: Verified." in by_gnutls.stdout + by_gnutls.stderr) is good


def test_openssl_refuses_whom_the_list_names_and_takes_the_others(judges: Judges) -> None:
    """The check that nginx makes, by the same library."""
    issuer = ca("client")
    for revoked, good in ((SERIAL, False), (SERIAL + 1, True)):
        crl = sign_crl(issuer, 1, NOW, [Revocation(revoked, NOW - DAY, "superseded")])
        judges.write(leaf("client", issuer), issuer, crl)
        verdict, said = judges.openssl("client", "-crl_check", "-CRLfile", judges.crl)
        assert verdict is good
        assert ("certificate revoked" in said) is not good


def findings(linter: str, file: Path, *options: str) -> list[tuple[str, str]]:
    """Code and text of what pkilint holds against it, from notice upwards."""
    program = Path(sys.executable).with_name(linter)
    done = run([program, "lint", "-s", "NOTICE", "-f", "JSON", *options, file])
    assert done.stderr == ""
    return [
        (finding["code"], finding.get("message") or "")
        for result in json.loads(done.stdout)["results"]
        for finding in result["finding_descriptions"]
    ]


@pytest.mark.parametrize("ca_type", CA_TYPES)
@pytest.mark.parametrize("kind", ["client", "server"])
def test_pkilint_finds_nothing_in_a_ca(judges: Judges, kind: str, ca_type: KeyType) -> None:
    judges.write("", ca(kind, ca_type))
    assert findings("lint_pkix_cert", judges.ca) == []


@pytest.mark.parametrize("host", [*BOUND_TO])
def test_pkilint_finds_nothing_in_the_registrys_certificate_and_its_ca(
    judges: Judges, host: str
) -> None:
    issuer = ca("server", host=host)
    signed = sign_server_leaf(issuer, host, leaf_key("ec-p256"), SERIAL, SHORT)
    judges.write(certificate_pem(signed), issuer)
    assert findings("lint_pkix_cert", judges.leaf) == []
    assert findings("lint_pkix_cert", judges.ca) == []


@pytest.mark.parametrize("name", OWNERS)
def test_pkilint_finds_nothing_in_a_clients_certificate_but_an_arn(
    judges: Judges, name: str
) -> None:
    """It takes for a URI only what names a web server. RFC 5280 section 4.2.1.6 asks for a scheme
    and a scheme-specific part by the syntax of RFC 3986, and an ARN is that: a scheme, then a
    rootless path (section 3.3)."""
    judges.write(leaf("client", ca("client"), name=name), ca("client"))
    owner = OWNERS[name]
    assert findings("lint_pkix_cert", judges.leaf) == [
        ("pkix.invalid_uri_syntax", f'Invalid URI syntax: "{owner}"')
    ]
    segment = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
    assert re.fullmatch(rf"[A-Za-z][A-Za-z0-9+.-]*:{segment}+(?:/{segment}*)*", owner)


@pytest.mark.parametrize("ca_type", CA_TYPES)
def test_pkilint_finds_nothing_in_a_list(judges: Judges, ca_type: KeyType) -> None:
    reasons = ["keyCompromise", "superseded", "cessationOfOperation", "unspecified"]
    revoked = [Revocation(n + 1, NOW - n * DAY, reason) for n, reason in enumerate(reasons)]
    judges.write("", ca("client"), sign_crl(ca("client", ca_type), 41, NOW, revoked))
    assert findings("lint_crl", judges.crl, "-t", "CRL", "-p", "PKIX") == []


def test_pkilint_would_have_found_something(judges: Judges) -> None:
    """The twin of the above: a leaf that nobody should issue."""
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, leaf_key("ec-p256"), 1)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + DAY)
    judges.leaf.write_text(certificate_pem(builder.sign(ca("client").key, hashes.SHA256())))
    assert findings("lint_pkix_cert", judges.leaf)
