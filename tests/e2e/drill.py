"""A cloud on which CAs are replaced, and who works on it meanwhile."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from chalicelib.adapters.parameters import authority_set_name, key_name
from chalicelib.domain.pki.authorities import AuthorityKind
from chalicelib.domain.pki.authority_set import AuthoritySet
from localcloud.demo.image import write_image
from localcloud.layout import Layout
from localcloud.processes import until
from tests.e2e.client import Person
from tests.e2e.conftest import CHECKOUT, Cloud
from tests.e2e.instances import Fleet
from tests.e2e.pulling import IMAGE, LOOP, MANIFEST, Puller, pulling

PULLED = "drill/hello:1"
PAUSES = {IMAGE: "0.5", MANIFEST: "0.1"}  # seconds between two pulls
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@dataclass(frozen=True)
class Developer:
    """Somebody with a key of their own, and certificates where a container engine has them."""

    person: Person
    registry: str
    home: Path

    @property
    def certs(self) -> Path:
        return self.home / "etc" / "containers" / "certs.d" / self.registry

    def enrol(self) -> None:
        """With a key made here."""
        self.home.mkdir(parents=True)
        command = ["openssl", "req", "-new", "-nodes", "-subj", "/CN=me", "-newkey", "ec"]
        command += ["-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", self.home / "own.key"]
        csr = subprocess.run(command, capture_output=True, check=True).stdout
        self._install("/certs", csr)

    def renew(self) -> None:
        """The same key is certified again."""
        self._install(f"/certs/{self.serial}/renew")

    def _install(self, path: str, csr: bytes | None = None) -> None:
        answer = self.person.ask("POST", path, "--header", "accept: text/x-shellscript", body=csr)
        assert answer.status == 201, answer.body
        command = ["sh", "-s", "--", "--root", self.home, "--key", self.home / "own.key"]
        subprocess.run(command, input=answer.body, capture_output=True, check=True)

    def revoke(self, serial: str) -> None:
        assert self.person.ask("DELETE", f"/certs/{serial}").status == 200

    def take_trust(self) -> None:
        """What everybody is told to do before another server CA signs."""
        incoming = self.certs / "ca.crt.new"
        incoming.write_text(self.published_ca())
        incoming.replace(self.certs / "ca.crt")

    def published_ca(self) -> str:
        """What the registry is to be trusted by."""
        return str(self.person.ask("GET", "/trust").json["ca_bundle"])

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.certs / "client.cert").read_bytes())

    @property
    def serial(self) -> str:
        return f"{self.certificate.serial_number:040x}"

    def pulls(self) -> bool:
        """Whether an image can be had."""
        variables = {"CERTS": str(self.certs), "REGISTRY": self.registry, "IMAGE": PULLED}
        variables["PULLED"] = str(self.home / "pulled")
        command = ["sh", "-c", IMAGE]
        done = subprocess.run(command, env=variables | PATH, capture_output=True, check=False)
        return done.returncode == 0

    def answered(self, ca: Path | None = None) -> str:
        """What the registry answers their certificate: a status, or curl's exit code in words.

        ca: what they trust it by; without it, what they have.
        """
        command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{exitcode}"]
        files = ["--cacert", ca or "ca.crt", "--cert", "client.cert", "--key", "client.key"]
        done = subprocess.run(
            [*command, *files, f"https://{self.registry}/v2/"],
            cwd=self.certs,
            capture_output=True,
            text=True,
            check=False,
        )
        status, _, code = done.stdout.partition(" ")
        return {"0": status, "60": "not trusted"}.get(code, done.stderr)


@dataclass
class Drill:
    """The cloud on which CAs are replaced, and who works on it meanwhile."""

    cloud: Cloud
    directory: Path
    pullers: list[Puller] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)

    @property
    def fleet(self) -> Fleet:
        return Fleet(self.cloud)

    @property
    def registry(self) -> str:
        return self.cloud.variables["REGISTRY"]

    @property
    def layout(self) -> Layout:
        return self.fleet.layout

    @property
    def host(self) -> str:
        """The instance id of the registry's host."""
        profile = self.cloud.outputs()["RegistryHostInstanceProfileName"]
        found = self.cloud.client("ec2").describe_instances()["Reservations"]
        (host,) = (
            each["InstanceId"]
            for reservation in found
            for each in reservation["Instances"]
            if each.get("IamInstanceProfile", {}).get("Arn", "").endswith(f"/{profile}")
        )
        return str(host)

    def developer(self, name: str) -> Developer:
        made = Developer(self.cloud.newcomer(name), self.registry, self.directory / name)
        made.enrol()
        return made

    def push(self, who: Developer) -> None:
        image = self.directory / "image"
        write_image(image, "hello\n")
        there = f"docker://{self.registry}/{PULLED}"
        command = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-cert-dir", who.certs]
        subprocess.run([*command, f"oci:{image}", there], capture_output=True, check=True)

    def have_pull(self, who: Developer, instance_id: str) -> None:
        """Both, images and manifests, from now on."""
        on = f"/etc/containers/certs.d/{self.registry}"
        for what in (IMAGE, MANIFEST):
            word = "images" if what == IMAGE else "manifests"
            variables = {"PULL": what, "PAUSE": PAUSES[what]}
            variables |= {"REGISTRY": self.registry, "IMAGE": PULLED, "PULLED": "/root/pulled"}
            inside = self.fleet.sandbox(instance_id).command(
                ["sh", "-c", LOOP], variables | {"CERTS": on}
            )
            self.pullers.append(pulling(f"instance, {word}", inside))
            outside = {"CERTS": str(who.certs), "PULLED": str(self.directory / "pulled")}
            self.pullers.append(
                pulling(f"developer, {word}", ["sh", "-c", LOOP], variables | outside)
            )

    def wait_for_pulls(self) -> None:
        """Until all that were under way now have come to their end."""
        now = time.monotonic()
        assert until(lambda: all(len(each.since(now)) > 1 for each in self.pullers), 30)

    def stop_pulling(self) -> Sequence[Puller]:
        """Nobody pulls any more; who did."""
        pullers, self.pullers = self.pullers, []
        for each in pullers:
            each.end()
        return pullers

    def authorities(self, kind: AuthorityKind) -> AuthoritySet:
        name = authority_set_name(self.cloud.outputs()["ParameterPrefix"], kind)
        found = self.cloud.client("ssm").get_parameter(Name=name)
        return AuthoritySet.from_json(found["Parameter"]["Value"])

    def keys(self, kind: AuthorityKind) -> set[str]:
        """The ids of authorities whose key there is."""
        path = key_name(self.cloud.outputs()["ParameterPrefix"], kind, "")
        found = self.cloud.client("ssm").get_parameters_by_path(Path=path.rstrip("/"))
        return {each["Name"].removeprefix(path) for each in found["Parameters"]}

    def ca(self, command: str, kind: AuthorityKind, *options: str) -> str:
        """What it said; it must succeed."""
        done = self._ca(command, kind, *options)
        assert done.returncode == 0, (command, kind, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def refused(self, command: str, kind: AuthorityKind, *options: str) -> str:
        """What it said; it must not succeed, and change nothing."""
        before = self.authorities(kind)
        done = self._ca(command, kind, *options)
        assert done.returncode == 1, (command, kind, done.stdout, done.stderr)
        assert self.authorities(kind) == before
        return done.stdout + done.stderr

    def begun(self, command: str, kind: AuthorityKind, *options: str, until_it_says: str) -> str:
        """What it said until then; it is broken off there."""
        line = ["scripts/ca", command, kind, "--stage", self.cloud.variables["STAGE"], *options]
        lines = []
        with subprocess.Popen(
            line, cwd=CHECKOUT, env=self.cloud.environment, stdout=subprocess.PIPE, text=True
        ) as process:
            for said in process.stdout or ():
                lines.append(said)
                if said.startswith(until_it_says):
                    break
            process.terminate()
        return "".join(lines)

    def _ca(
        self, command: str, kind: AuthorityKind, *options: str
    ) -> subprocess.CompletedProcess[str]:
        stage = self.cloud.variables["STAGE"]
        return self.cloud.run("scripts/ca", command, kind, "--stage", stage, *options)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What it is and how long it took is told in the end."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.stages.append(f"{time.monotonic() - began:5.0f} s  {name}")

    def ca_on(self, instance_id: str) -> int:
        """How many CAs an instance trusts the registry by."""
        count = "grep -c BEGIN /etc/docker/certs.d/$REGISTRY/ca.crt"
        return int(self.fleet.run(instance_id, count).stdout or 0)

    def served_by(self) -> str:
        """The id of the server CA that signed what the registry shows now."""
        host, port = self.registry.split(":")
        shown = x509.load_pem_x509_certificate(
            ssl.get_server_certificate((host, int(port))).encode()
        )
        return issuer(shown, self.authorities(AuthorityKind.SERVER))

    def issuer(self, who: Developer) -> str:
        """The id of the client CA that signed what they have now."""
        return issuer(who.certificate, self.authorities(AuthorityKind.CLIENT))

    def host_trusts(self, kind: AuthorityKind) -> bool:
        """Whether the files that nginx was given name all CAs of this kind."""
        name = "client-ca.crt" if kind is AuthorityKind.CLIENT else "ca.crt"
        held = (self.layout.registry_host / "state" / "current" / name).read_text()
        return all(pem in held for pem in self.authorities(kind).certificates.values())

    @property
    def clouds_own(self) -> str:
        """The serial of the certificate that the local cloud came with."""
        directory = Path(self.cloud.variables["REGISTRY_CERTS_DIR"]) / self.registry
        found = x509.load_pem_x509_certificate((directory / "client.cert").read_bytes())
        return f"{found.serial_number:040x}"

    def take_back(self, serial: str) -> None:
        """As an admin does."""
        answer = self.cloud.person("ADMIN").ask("DELETE", f"/admin/certs/{serial}")
        assert answer.status in (200, 202), answer.body

    def told(self, pullers: Sequence[Puller]) -> str:
        """What is to be known of a drill: how long each stage took, who pulled how often."""
        made = sum(len(each.pulls) - len(each.refused) for each in pullers)
        refused = sum(len(each.refused) for each in pullers)
        lines = ["", *self.stages, f"pulls made: {made}, refused: {refused}"]
        lines += [f"{len(p.pulls):6}  {p.name}: {p.told}" for p in pullers]
        self.stages.clear()
        return "\n  ".join(lines)


def issuer(certificate: x509.Certificate, known: AuthoritySet) -> str:
    """The id of that of these CAs which signed it; empty if none did."""
    for id_, pem in known.certificates.items():
        authority = x509.load_pem_x509_certificate(pem.encode())
        with suppress(ValueError, TypeError, InvalidSignature):
            certificate.verify_directly_issued_by(authority)
            return id_
    return ""
