"""The diagnosis against the real nginx: for each kind of certificate, and of trust, the verdict is
what nginx then answers to the real curl."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from chalicelib.domain.diagnosis import Diagnosis, Rules, judge
from chalicelib.domain.model import Access, Grant, RevocationReason, Validity
from chalicelib.domain.pki.authorities import Authority, key_usage, make_client_authority
from chalicelib.domain.pki.certificates import certificate_of_pem
from chalicelib.domain.pki.crl import Revocation, sign_crl
from chalicelib.domain.pki.leaves import new_serial, sign_client_leaf
from chalicelib.domain.trust import Trust
from tests.component.real_host import HOST, RealHost, layout_under, running_nginx, running_registry
from tests.component.test_registry_host import HOSTILE_NAMES, ODD_SUBJECTS
from tests.component.throwaway_pki import (
    DAY,
    ThrowawayCa,
    certificate_pem,
    crl_pem,
    new_key,
    now,
    subject,
)

UPLOADS = "/v2/team/app/blobs/uploads/"
HOUR = timedelta(hours=1)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a client shows. chain: certificates that it sends along."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        return certificate_pem(self.certificate, *self.chain)


@dataclasses.dataclass
class Host(RealHost):
    """Its third client CA, and that CA's list, are of our own making."""

    ours: Authority = dataclasses.field(
        default_factory=lambda: make_client_authority(new_key(), 5, around(3650 * DAY))
    )

    @property
    def trust(self) -> Trust:
        """As published: the very files that nginx reads."""
        directory = Path(self.layout.trust_dir)
        return Trust(
            registry=self.layout.registry,
            registry_address="",
            ca_bundle=self.server_ca.pem.decode(),
            client_ca=(directory / "client-ca.crt").read_text(),
            crl=(directory / "client-ca.crl").read_text(),
            crl_number=1,
        )

    def publish(self, cas: bytes, lists: bytes) -> None:
        self.write_files()
        directory = Path(self.layout.trust_dir)
        (directory / "client-ca.crt").write_bytes(cas)
        (directory / "client-ca.crl").write_bytes(lists)

    def diagnose(self, shown: Shown) -> Diagnosis:
        return judge(certificate_of_pem(shown.pem), None, Rules.of(self.trust), now())

    def answers(self, shown: Shown, method: str = "GET", path: str = "/v2/") -> str:
        """The status that curl sees; 000 when there is no TLS connection at all."""
        certificate, key, ca = (self.scratch / name for name in ("c.pem", "k.pem", "ca.pem"))
        certificate.write_bytes(shown.pem)
        key.write_bytes(pem_of_key(shown.key))
        ca.write_bytes(self.server_ca.pem)
        command = ["curl", "-q", "-sS", "--noproxy", "*", "-X", method, "-o", "/dev/null"]
        command += ["--cacert", str(ca), "--cert", str(certificate), "--key", str(key)]
        # The client is to show whatever it has, and leave the judgement to nginx.
        command += ["--ciphers", "DEFAULT@SECLEVEL=0", "-w", "%{http_code}"]
        command += [f"https://{HOST}:{self.port}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.stdout

    def access(self, shown: Shown) -> tuple[bool, Access | None]:
        """Whether nginx lets it in, and what it may do there, found by doing it."""
        get, post = self.answers(shown), self.answers(shown, "POST", UPLOADS)
        found = {
            ("200", "202"): (True, Access.PUSH),
            ("200", "403"): (True, Access.PULL),
            ("403", "403"): (False, None),
            ("000", "000"): (False, None),
        }
        return found[get, post]

    def agrees(self, shown: Shown) -> Diagnosis:
        """The diagnosis, once it has been found to say what nginx does."""
        said = self.diagnose(shown)
        assert (said.admitted, said.access if said.admitted else None) == self.access(shown)
        assert said.admitted != any(finding.refuses for finding in said.findings)
        return said


def pem_of_key(key: Key) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def around(length: timedelta) -> Validity:
    return Validity.starting(now(), length, DAY)


def codes(said: Diagnosis) -> set[str]:
    """But for what says nothing here, where nothing is on record and most are for pulling."""
    return {finding.code.value for finding in said.findings} - {"not_recorded", "pull_only"}


# --- certificates ---------------------------------------------------------------------------------


def made(
    ca: ThrowawayCa | Authority,
    *extensions: tuple[x509.ExtensionType, bool],
    key: Key | None = None,
    name: x509.Name | None = None,
    validity: Validity | None = None,
    serial: int | None = None,
    signed_by: ec.EllipticCurvePrivateKey | None = None,
) -> Shown:
    """A certificate of *ca* with these extensions alone."""
    key, validity = key or new_key(), validity or around(30 * DAY)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject("ann", "pull") if name is None else name)
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signer = signed_by or ca.key
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return Shown(builder.sign(signer, hashes.SHA256()), key)


def for_clients(*others: x509.ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    return (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, *others]), False)


def for_others(usage: x509.ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
    return (x509.ExtendedKeyUsage([usage]), False)


def issued(ca: Authority, access: Access, name: str = "ann", key: Key | None = None) -> Shown:
    """As POST /certs issues it."""
    key = key or new_key()
    assert not isinstance(key, ed25519.Ed25519PrivateKey)
    grant = Grant(name, f"arn:aws:iam::123456789012:user/{name}", access, 30 * DAY)
    leaf = sign_client_leaf(ca, grant, key.public_key(), new_serial(), around(30 * DAY))
    return Shown(leaf, key)


def thrown(ca: ThrowawayCa, name: str = "ann", access: str = "pull", **options: object) -> Shown:
    leaf = ca.client(name, access, **options)  # type: ignore[arg-type]
    return Shown(leaf.certificate, leaf.key)


def served(host: Host) -> Shown:
    key = new_key()
    return Shown(host.server_ca.server(key.public_key(), HOST), key)


def self_signed(name: x509.Name) -> Shown:
    stranger = ThrowawayCa("Nobody")
    return made(dataclasses.replace(stranger), for_clients(), key=stranger.key, name=name)


def with_its_chain(host: Host) -> Shown:
    """As POST /certs answers it as application/x-pem-file."""
    return dataclasses.replace(issued(host.ours, Access.PUSH), chain=(host.ours.certificate,))


def by_an_intermediate(host: Host) -> Shown:
    """Of a CA below ours, which no CA of ours may sign: pathLen is 0."""
    between = made(
        host.ours,
        (x509.BasicConstraints(True, None), True),
        (key_usage("key_cert_sign"), True),
        name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Between")]),
    )
    assert isinstance(between.key, ec.EllipticCurvePrivateKey)
    leaf = made(Authority(between.certificate, between.key), for_clients())
    return dataclasses.replace(leaf, chain=(between.certificate, host.ours.certificate))


def weakly_signed(host: Host) -> Shown:
    """By openssl: `cryptography` neither makes SHA-1 signatures nor takes them for such."""
    ca, ca_key, key = host.client_ca.certificate, host.client_ca.key, new_key()
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject("ann", "push"))
    pem = csr.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (host.scratch / "ca").write_bytes(certificate_pem(ca) + pem_of_key(ca_key))
    command = ["openssl", "x509", "-req", "-sha1", "-days", "9", "-CA", str(host.scratch / "ca")]
    done = subprocess.run(command, input=pem, capture_output=True, check=True)
    certificate = x509.load_pem_x509_certificate(done.stdout)
    assert certificate.signature_algorithm_oid == SignatureAlgorithmOID.ECDSA_WITH_SHA1
    return Shown(certificate, key)


REVOKED = {name: 1000 + number for number, name in enumerate(["ours", "first", "second"])}
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
RSA_2048 = rsa.generate_private_key(65537, 2048)
RSA_1024 = rsa.generate_private_key(65537, 1024)  # noqa: S505  # too weak on purpose

# Each with what it is refused for; admitted where there is nothing.
KINDS: dict[str, tuple[Callable[[Host], Shown], set[str]]] = {
    "ours, push": (lambda h: issued(h.ours, Access.PUSH), set()),
    "ours, pull": (lambda h: issued(h.ours, Access.PULL), set()),
    "ours, RSA": (lambda h: issued(h.ours, Access.PUSH, key=RSA_2048), set()),
    "ours, P-384": (
        lambda h: issued(h.ours, Access.PUSH, key=ec.generate_private_key(ec.SECP384R1())),
        set(),
    ),
    "ours, P-521": (
        lambda h: issued(h.ours, Access.PUSH, key=ec.generate_private_key(ec.SECP521R1())),
        set(),
    ),
    "ours, with its chain": (with_its_chain, set()),
    "of a CA below ours, with its chain": (by_an_intermediate, {"unknown_issuer"}),
    "another client CA's": (lambda h: thrown(h.client_ca), set()),
    "a third one's": (lambda h: thrown(h.second_client_ca, access="push"), set()),
    "ours, revoked": (lambda h: made(h.ours, for_clients(), serial=REVOKED["ours"]), {"revoked"}),
    "revoked, and another CA's": (
        lambda h: made(h.client_ca, for_clients(), serial=REVOKED["first"]),
        {"revoked"},
    ),
    "of a serial that another CA revoked": (
        lambda h: made(h.ours, for_clients(), serial=REVOKED["second"]),
        set(),
    ),
    "expired": (
        lambda h: thrown(h.client_ca, not_before=now() - 2 * DAY, not_after=now() - HOUR),
        {"expired"},
    ),
    "expired this second": (lambda h: thrown(h.client_ca, not_after=now()), {"expired"}),
    "not yet valid": (lambda h: thrown(h.client_ca, not_before=now() + HOUR), {"not_yet_valid"}),
    "valid from this second on": (lambda h: thrown(h.client_ca, not_before=now()), set()),
    "expired and revoked": (
        lambda h: made(
            h.ours,
            for_clients(),
            serial=REVOKED["ours"],
            validity=Validity(now() - 2 * DAY, now() - DAY),
        ),
        {"expired", "revoked"},
    ),
    "a stranger's": (lambda h: thrown(ThrowawayCa("Strangers")), {"unknown_issuer"}),
    "self-signed": (lambda h: self_signed(subject("x", "push")), {"unknown_issuer"}),
    "of a CA named like ours": (
        lambda h: thrown(ThrowawayCa(h.client_ca.name), access="push"),
        {"bad_signature"},
    ),
    "of a key that claims to be our CA": (
        lambda h: made(h.ours, for_clients(), signed_by=new_key()),
        {"bad_signature"},
    ),
    "the registry's own": (served, {"server_certificate"}),
    "the server CA's, for a client": (
        lambda h: made(h.server_ca, for_clients()),
        {"server_certificate"},
    ),
    "a client CA itself": (
        lambda h: Shown(h.client_ca.certificate, h.client_ca.key),
        {"ca_certificate"},
    ),
    "the server CA itself": (
        lambda h: Shown(h.server_ca.certificate, h.server_ca.key),
        {"ca_certificate"},
    ),
    "for servers": (
        lambda h: made(h.ours, for_others(ExtendedKeyUsageOID.SERVER_AUTH)),
        {"not_for_clients"},
    ),
    "for any use": (
        lambda h: made(h.ours, for_others(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)),
        {"not_for_clients"},
    ),
    "for clients and servers": (
        lambda h: made(h.ours, for_clients(ExtendedKeyUsageOID.SERVER_AUTH)),
        set(),
    ),
    "for no use in particular": (lambda h: made(h.ours), set()),
    "with a key for encryption": (
        lambda h: made(h.ours, for_clients(), (key_usage("key_encipherment"), True)),
        {"not_for_clients"},
    ),
    "with a key for agreement": (
        lambda h: made(h.ours, for_clients(), (key_usage("key_agreement"), True)),
        set(),
    ),
    "with a key for signatures": (
        lambda h: made(h.ours, for_clients(), (key_usage("digital_signature"), True)),
        set(),
    ),
    "a CA's, though for clients": (
        lambda h: made(h.ours, for_clients(), (x509.BasicConstraints(True, None), True)),
        set(),
    ),
    "with a critical extension of nobody's": (
        lambda h: made(h.ours, for_clients(), (UNKNOWN, True)),
        {"not_for_clients"},
    ),
    "with an extension of nobody's": (
        lambda h: made(h.ours, for_clients(), (UNKNOWN, False)),
        set(),
    ),
    "with a weak key": (
        lambda h: made(h.ours, for_clients(), key=RSA_1024),
        {"not_for_clients"},
    ),
    "with a weak digest": (
        weakly_signed,
        {"bad_signature"},
    ),
    "with an Ed25519 key": (
        lambda h: made(h.ours, for_clients(), key=ed25519.Ed25519PrivateKey.generate()),
        set(),
    ),
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    scratch = tmp_path_factory.mktemp("host")
    host = Host(layout_under(scratch / "host"), scratch)
    cas = host.client_ca.pem + host.second_client_ca.pem + certificate_pem(host.ours.certificate)
    lists = crl_pem(
        host.client_ca.crl(1, [REVOKED["first"]]), host.second_client_ca.crl(1, [REVOKED["second"]])
    )
    revoked = Revocation(REVOKED["ours"], now() - DAY, "keyCompromise")
    host.publish(cas, lists + sign_crl(host.ours, 1, now(), [revoked]).encode())
    with running_registry(host.layout, scratch / "images"), running_nginx(host.layout):
        yield host


@pytest.mark.parametrize("kind", KINDS)
def test_the_verdict_is_what_nginx_does(host: Host, kind: str) -> None:
    make, refused_for = KINDS[kind]
    said = host.agrees(make(host))
    assert codes(said) == refused_for
    assert said.admitted == (not refused_for)


@pytest.mark.parametrize("case", sorted(ODD_SUBJECTS))
def test_a_subject_that_nginx_gives_no_access_is_told_so(host: Host, case: str) -> None:
    said = host.agrees(made(host.ours, for_clients(), name=ODD_SUBJECTS[case]))
    assert codes(said) == {"no_access"}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_leads_the_diagnosis_astray(host: Host, name: str) -> None:
    for access in Access:
        said = host.agrees(made(host.ours, for_clients(), name=subject(name, access)))
        assert (said.admitted, said.access) == (True, access)


# --- trust ----------------------------------------------------------------------------------------


def removed(host: Host) -> bytes:
    """A list whose one entry takes a serial off another list."""
    entry = (
        x509.RevokedCertificateBuilder()
        .serial_number(REVOKED["first"])
        .revocation_date(now() - DAY)
        .add_extension(x509.CRLReason(x509.ReasonFlags.remove_from_crl), False)
    )
    ca = host.client_ca
    builder = (
        x509.CertificateRevocationListBuilder(
            ca.certificate.subject, revoked_certificates=[entry.build()]
        )
        .last_update(now() - HOUR)
        .next_update(now() + HOUR)
    )
    return crl_pem(builder.sign(ca.key, hashes.SHA256()))


def expired_list(ca: ThrowawayCa) -> bytes:
    """Newer than a good one, which is 5 minutes old."""
    start = now() - timedelta(minutes=2)
    return crl_pem(ca.crl(last_update=start, next_update=start + timedelta(minutes=1)))


def expired_ca() -> Authority:
    return make_client_authority(new_key(), 6, Validity(now() - 2 * DAY, now() - DAY))


# What is published, from what is published when all is well; and what a client of the first CA is
# then refused for, and one of the second.
TRUSTS: dict[str, tuple[Callable[[Host, bytes, bytes], bytes], set[str], set[str]]] = {
    "as it should be": (lambda h, one, two: one + two, set(), set()),
    "the other way round": (lambda h, one, two: two + one, set(), set()),
    "one list is missing": (lambda h, one, two: one, set(), {"crl_missing"}),
    "one list is another CA's of the same name": (
        lambda h, one, two: one + crl_pem(ThrowawayCa(h.second_client_ca.name).crl()),
        set(),
        {"crl_bad_signature"},
    ),
    "one list has expired": (
        lambda h, one, two: one + expired_list(h.second_client_ca),
        set(),
        {"crl_expired"},
    ),
    "one list expires this second": (
        lambda h, one, two: one + crl_pem(h.second_client_ca.crl(next_update=now())),
        set(),
        {"crl_expired"},
    ),
    "one list is from the future": (
        lambda h, one, two: one + crl_pem(h.second_client_ca.crl(last_update=now() + HOUR)),
        set(),
        {"crl_not_yet_valid"},
    ),
    "one list names its own CA": (
        lambda h, one, two: (
            one + crl_pem(h.second_client_ca.crl(1, [h.second_client_ca.certificate.serial_number]))
        ),
        set(),
        {"issuer_revoked"},
    ),
    "an expired list stands before a good one": (
        lambda h, one, two: expired_list(h.client_ca) + one + two,
        set(),
        set(),
    ),
    "an expired list stands behind a good one": (
        lambda h, one, two: one + two + expired_list(h.client_ca),
        set(),
        set(),
    ),
    "an older list of the same CA revokes it": (
        lambda h, one, two: (
            one + two + crl_pem(h.client_ca.crl(1, [REVOKED["first"]], last_update=now() - DAY))
        ),
        set(),
        set(),
    ),
    "a newer list of the same CA revokes it": (
        lambda h, one, two: (
            one
            + two
            + crl_pem(
                h.client_ca.crl(1, [REVOKED["first"]], last_update=now() - timedelta(minutes=1))
            )
        ),
        {"revoked"},
        set(),
    ),
    "a list that takes it off another": (lambda h, one, two: removed(h) + two, set(), set()),
}


@pytest.mark.parametrize("published", TRUSTS)
def test_the_verdict_is_what_nginx_does_with_this_trust(tmp_path: Path, published: str) -> None:
    make, first, second = TRUSTS[published]
    host = Host(layout_under(tmp_path / "host"), tmp_path)
    lists = (crl_pem(host.client_ca.crl()), crl_pem(host.second_client_ca.crl()))
    host.publish(host.client_ca.pem + host.second_client_ca.pem, make(host, *lists))
    with running_registry(host.layout, tmp_path / "images"), running_nginx(host.layout):
        one = made(host.client_ca, for_clients(), serial=REVOKED["first"])
        two = made(host.second_client_ca, for_clients(), serial=REVOKED["second"])
        assert codes(host.agrees(one)) == first
        assert codes(host.agrees(two)) == second


def test_a_client_of_a_ca_that_has_expired_is_refused(tmp_path: Path) -> None:
    host = Host(layout_under(tmp_path / "host"), tmp_path, ours=expired_ca())
    cas = host.client_ca.pem + certificate_pem(host.ours.certificate)
    lists = crl_pem(host.client_ca.crl()) + sign_crl(host.ours, 1, now(), []).encode()
    host.publish(cas, lists)
    with running_registry(host.layout, tmp_path / "images"), running_nginx(host.layout):
        assert codes(host.agrees(made(host.ours, for_clients()))) == {"issuer_not_valid"}
        assert codes(host.agrees(made(host.client_ca, for_clients()))) == set()


def test_openssl_and_nginx_go_by_a_list_of_100_000(tmp_path: Path) -> None:
    host = Host(layout_under(tmp_path / "host"), tmp_path)
    reasons = list(RevocationReason)
    revocations = [
        Revocation(1000 + n, now() - DAY, reasons[n % len(reasons)].value) for n in range(100_000)
    ]
    long = sign_crl(host.ours, 7, now(), revocations).encode()
    host.publish(certificate_pem(host.ours.certificate), long)
    directory = host.layout.trust_dir
    files = ["-in", f"{directory}/client-ca.crl", "-CAfile", f"{directory}/client-ca.crt"]
    verified = subprocess.run(
        ["openssl", "crl", "-verify", "-noout", "-crlnumber", *files],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("verify OK" in verified.stderr, verified.stdout) == (True, "crlNumber=0x07\n")
    with running_registry(host.layout, tmp_path / "images"), running_nginx(host.layout):
        for serial in (1000, 50_000, 100_999):
            said = host.agrees(made(host.ours, for_clients(), serial=serial))
            assert codes(said) == {"revoked"}
        assert host.agrees(made(host.ours, for_clients(), serial=101_000)).admitted
