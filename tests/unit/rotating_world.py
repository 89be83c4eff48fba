"""CAs that are replaced, and everybody who goes by them, in memory and on one clock.

Hosts, instances and people take what is published in their own time; what each holds is what it
took. Whether they understand each other is asked of all of them, by the CAs they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from chalicelib.domain.enrolment.model import Enrolment, EnrolmentPath, EnrolmentState
from chalicelib.domain.model import Access, CertificateRecord, KeyType, Validity
from chalicelib.domain.pki.authorities import (
    Authority,
    AuthorityKind,
    make_client_authority,
    make_server_authority,
)
from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.domain.pki.keys import make_key
from chalicelib.domain.pki.leaves import certificate_pem
from chalicelib.domain.policy import BACKDATE
from chalicelib.domain.registry_host.report import HostCertificate, HostReport, Served
from chalicelib.domain.rotation import Facts, HostSight
from operations.ca_parameters import StoredSet
from operations.cloud import CommandError
from operations.rotation import Rotation
from tests.unit.authorities import HOST, NOW

CLIENT, SERVER = AuthorityKind.CLIENT, AuthorityKind.SERVER
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


class BrokenOff(BaseException):
    """The command ends here."""


@dataclass
class Host:
    """What a registry host works with: CAs it admits clients of, and its certificate's."""

    clients: tuple[str, ...]
    servers: tuple[str, ...]
    issuer: str
    reports: bool = True


@dataclass
class Client:
    """Somebody with a certificate, and the CAs that it trusts the registry by.

    instance: told by the plane; a person takes what is there when asked to.
    """

    name: str
    instance: bool
    issuer: str
    servers: tuple[str, ...]
    record: CertificateRecord
    version: str = ""


@dataclass
class RotatingWorld:
    """It is its own clock, parameters and coverage. crash_at: end at that effect, after it."""

    kind: AuthorityKind = CLIENT
    time: datetime = NOW
    keys: dict[AuthorityKind, set[str]] = field(
        default_factory=lambda: {CLIENT: set(), SERVER: set()}
    )
    key_times: dict[str, datetime] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)
    crash_at: int = -1
    before_write: Callable[[], None] = lambda: None
    while_waiting: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.sets: dict[AuthorityKind, AuthoritySet] = {}
        self.versions = {CLIENT: 1, SERVER: 1}
        self.changed = {CLIENT: NOW - DAY, SERVER: NOW - DAY}
        self.history: dict[tuple[AuthorityKind, int], AuthoritySet] = {}
        self.time = NOW - DAY
        for kind in AuthorityKind:
            made = self.make_one(kind)
            self.keys[kind].add(made.id)
            self.sets[kind] = AuthoritySet(made.id, {made.id: certificate_pem(made.certificate)})
            self.history[kind, 1] = self.sets[kind]
        self.time = NOW
        self.effects.clear()
        self.public = dict(self.sets)
        self.hosts = {"i-0000000a": self.host()}
        self.clients = [self.client("i-0000000b"), self.client("i-0000000c"), self.client("ann")]

    # who is there

    def host(self) -> Host:
        trusted = {kind: tuple(self.public[kind].ids) for kind in AuthorityKind}
        return Host(trusted[CLIENT], trusted[SERVER], self.public[SERVER].active)

    def client(self, name: str) -> Client:
        record = self.record(name)
        servers = tuple(self.public[SERVER].ids)
        made = Client(name, name.startswith("i-"), record.issuer_id, servers, record)
        return replace(made, version=self.version)

    def record(self, name: str) -> CertificateRecord:
        issuer, owner = self.sets[CLIENT].active, f"arn:aws:sts::1:assumed-role/role/{name}"
        return CertificateRecord(
            serial=f"{len(name):040x}",
            owner=owner,
            name=name,
            access=Access.PULL,
            issued_at=self.time,
            validity=Validity.starting(self.time, 90 * DAY, BACKDATE),
            fingerprint_sha256="",
            issuer_id=issuer,
            key_id="",
            certificate_pem="",
            label="enrolment" if name.startswith("i-") else "",
        )

    # what they do by and by

    @property
    def version(self) -> str:
        return repr([sorted(self.public[kind].ids) for kind in AuthorityKind])

    def host_refreshes(self, host: Host) -> None:
        host.clients = tuple(self.public[CLIENT].ids)
        host.servers = tuple(self.public[SERVER].ids)
        host.issuer = self.sets[SERVER].active

    def client_takes_trust(self, client: Client) -> None:
        client.servers, client.version = tuple(self.public[SERVER].ids), self.version
        if client.issuer not in self.public[CLIENT].ids:
            self.client_renews(client)

    def client_renews(self, client: Client) -> None:
        client.record = self.record(client.name)
        client.issuer = client.record.issuer_id
        client.servers, client.version = tuple(self.public[SERVER].ids), self.version

    def all_follow(self) -> None:
        for host in self.hosts.values():
            self.host_refreshes(host)
        for client in self.clients:
            if client.instance:
                self.client_takes_trust(client)

    @property
    def misunderstandings(self) -> Sequence[str]:
        """Who cannot use the registry, at which host."""
        return [
            f"{client.name} at {id_}"
            for id_, host in self.hosts.items()
            for client in self.clients
            if client.record.validity.not_after > self.time
            and (client.issuer not in host.clients or host.issuer not in client.servers)
        ]

    # the command

    def rotation(self, kind: AuthorityKind = CLIENT) -> Rotation:
        self.kind = kind
        return Rotation(kind, "prod", self, self, lambda _: self.make_one(kind), self.publish, self)  # type: ignore[arg-type]

    def make_one(self, kind: AuthorityKind) -> Authority:
        validity = Validity.starting(self.time, 3650 * DAY, BACKDATE)
        if kind is CLIENT:
            return make_client_authority(make_key(KeyType.EC_P256), 1, validity)
        return make_server_authority(make_key(KeyType.EC_P256), 1, validity, HOST)

    def publish(self) -> None:
        assert self.keys[CLIENT] >= self.sets[CLIENT].certificates.keys(), "a list is not signed"
        self._effect("publish", lambda: self.public.update(self.sets))

    # as Clock

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return (self.time - NOW).total_seconds()

    def sleep(self, seconds: float) -> None:
        self._effect("wait", lambda: None)
        self.time += timedelta(seconds=seconds)
        self.while_waiting()

    # as CaParameters

    def read(self) -> StoredSet:
        return StoredSet(self.sets[self.kind], self.versions[self.kind], self.changed[self.kind])

    def replace(self, stored: StoredSet, by: AuthoritySet) -> None:
        self.before_write()
        if self.versions[self.kind] != stored.version:
            raise CommandError("another operator")
        self._effect("set", lambda: self._write(by))

    def _write(self, by: AuthoritySet) -> None:
        self.sets[self.kind] = by
        self.versions[self.kind] += 1
        self.changed[self.kind] = self.time

    def expect(self, known: AuthoritySet) -> None:
        if self.sets[self.kind] != known:
            raise CommandError("another operator")

    def add_key(self, authority: Authority) -> None:
        if authority.id not in self.keys[self.kind]:
            self.key_times[authority.id] = self.time
            self._effect("key", lambda: self.keys[self.kind].add(authority.id))

    def delete_key(self, authority_id: str) -> None:
        self._effect("no key", lambda: self.keys[self.kind].discard(authority_id))

    def key_parameter(self, authority_id: str) -> str:
        return f"/{self.kind}-ca-key/{authority_id}"

    def has_key(self, authority_id: str) -> bool:
        return authority_id in self.keys[self.kind]

    def left_keys(self, known: AuthoritySet, before: datetime | None = None) -> Sequence[str]:
        unnamed = sorted(self.keys[self.kind] - known.certificates.keys())
        if before is None:
            return unnamed
        return [id_ for id_ in unnamed if self.key_times.get(id_, NOW - DAY) < before]

    def _effect(self, name: str, do: Callable[[], object]) -> None:
        do()
        self.effects.append(name)
        if len(self.effects) == self.crash_at:
            raise BrokenOff

    # as Coverage

    def published(self, kind: AuthorityKind) -> Sequence[str]:
        return list(self.public[kind].ids)

    def facts(self) -> Facts:
        instances = [each for each in self.clients if each.instance]
        return Facts(
            now=self.time,
            trust_version=self.version,
            hosts=[self._sight(id_, host) for id_, host in self.hosts.items()],
            enrolments=[enrolment(each.name, each.version) for each in instances],
            certificates=[
                each.record for each in self.clients if each.record.validity.not_after > self.time
            ],
            running=frozenset(each.name for each in instances),
        )

    def _sight(self, id_: str, host: Host) -> HostSight:
        certificate = HostCertificate("0" * 40, host.issuer, self.time + 90 * DAY, Served.YES)
        said = report(id_, self.time, host.servers, host.clients, certificate)
        return HostSight(id_, running=True, report=said if host.reports else None)


def report(
    id_: str,
    at: datetime,
    ca: Iterable[str],
    client_ca: Iterable[str],
    certificate: HostCertificate | None,
) -> HostReport:
    return HostReport(
        instance_id=id_,
        time=at,
        ok=True,
        last_success=at,
        last_error="",
        taken=True,
        ca=tuple(ca),
        client_ca=tuple(client_ca),
        crl_until=at + 7 * DAY,
        certificate=certificate,
    )


def enrolment(id_: str, version: str, **changed: object) -> Enrolment:
    """An enrolled one."""
    made = Enrolment(
        id_,
        EnrolmentState.ENROLLED,
        since=NOW,
        began_at=NOW,
        path=EnrolmentPath.AGENT,
        serial="0" * 40,
        trust_version=version,
        enrolled_at=NOW,
    )
    return replace(made, **changed)  # type: ignore[arg-type]
