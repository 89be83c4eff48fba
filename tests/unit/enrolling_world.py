"""Instances, EC2, SSM and the queue in memory, on one clock; what goes wrong is decided by chance.

A stand-in, true to the contracts that services/enrolling states: real time, real instances and real
commands are in the tests of the deployed stack. Here faults can be had by the thousand.
"""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from chalicelib.domain.enrolment.model import (
    Ask,
    CommandOutcome,
    CommandStatus,
    Enrolment,
    EnrolmentPath,
    EnrolmentState,
    Why,
)
from chalicelib.domain.model import (
    Access,
    CertificateRecord,
    InstanceFacts,
    InstanceState,
    IssueRequest,
    KeyType,
    Status,
)
from chalicelib.domain.pki.authorities import Authority, ids_in
from chalicelib.domain.pki.keys import PrivateKey, make_key, public_key_der
from chalicelib.domain.trust import Trust
from chalicelib.errors import DependencyFailed
from chalicelib.services.enrolling import (
    Asking,
    Commanding,
    Enrolling,
    Holdings,
    InstanceCallers,
    Reconciling,
)
from tests.unit.instances import caller_of, facts_of
from tests.unit.stand_ins import Crash, World, contended

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
VISIBILITY = timedelta(minutes=6)


@dataclass
class Faults:
    """How probable each is, for every event, call or effect."""

    drop: float = 0.0
    double: float = 0.0
    late: float = 0.0
    ssm: float = 0.0
    crash: float = 0.0
    lose_asks: bool = False


@dataclass
class Host:
    """What is on one instance. outcomes: what its next commands end with, whatever they did."""

    key: PrivateKey | None = None
    certificate: str = ""
    online_at: datetime | None = None
    outcomes: list[CommandOutcome] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)

    def rebuild(self) -> None:
        """Its disk is a new one."""
        self.key, self.certificate = None, ""


class MemoryEnrolments:
    """As EnrolmentStore."""

    def __init__(self, effect: Callable[[str, Callable[[], None]], None]) -> None:
        self.kept: dict[str, Enrolment] = {}
        self.due_at: dict[str, datetime | None] = {}
        self.fails = False
        self.before_put: Callable[[Enrolment], None] = lambda _: None
        self._effect = effect

    def get(self, instance_id: str) -> Enrolment | None:
        return self.kept.get(instance_id)

    def get_many(self, instance_ids: Sequence[str]) -> Mapping[str, Enrolment]:
        return {id_: self.kept[id_] for id_ in instance_ids if id_ in self.kept}

    def put(self, enrolment: Enrolment) -> Enrolment:
        self.before_put(enrolment)
        if self.fails:
            raise DependencyFailed("table_unwritable", "the record was not written")
        stored = self.kept.get(enrolment.instance_id)
        if enrolment.version != (0 if stored is None else stored.version):
            raise contended()
        written = replace(enrolment, version=enrolment.version + 1)
        self._effect("enrolment", lambda: self._write(written))
        return written

    def _write(self, enrolment: Enrolment) -> None:
        self.kept[enrolment.instance_id] = enrolment
        self.due_at[enrolment.instance_id] = enrolment.look_at

    def due(self, now: datetime, limit: int) -> Sequence[tuple[str, datetime]]:
        due = [(id_, at) for id_, at in self.due_at.items() if at is not None and at <= now]
        return sorted(due, key=lambda each: each[1])[:limit]

    def outdated(self, trust_version: str, limit: int) -> Sequence[str]:
        enrolled = [e for e in self.kept.values() if e.state is EnrolmentState.ENROLLED]
        given = [e for e in enrolled if e.path is EnrolmentPath.AGENT and e.trust_version]
        return [e.instance_id for e in given if e.trust_version != trust_version][:limit]

    def postpone(self, instance_id: str, seen: datetime, until: datetime) -> bool:
        if self.due_at[instance_id] != seen:
            return False
        self.due_at[instance_id] = until
        return True


@dataclass
class Plane:
    """The control plane and the instances it looks after.

    calls: how many, by what is called. every: how often the schedule runs; for long times seldom.
    """

    seed: int = 0
    faults: Faults = field(default_factory=Faults)
    most: int = 300
    every: timedelta = MINUTE

    def __post_init__(self) -> None:
        self.world = World()
        self.world.limits = replace(self.world.limits, certificates_per_owner=20)
        self.chance = random.Random(self.seed)  # noqa: S311  # which fault, not which key
        self.ec2: dict[str, InstanceFacts] = {}
        self.hosts: dict[str, Host] = {}
        self.calls: dict[str, int] = {}
        self.untagged: set[str] = set()
        self.trusting: Callable[[], Trust] = lambda: self.trust_now
        self.results: dict[str, tuple[datetime, CommandOutcome]] = {}
        self.enrolments = MemoryEnrolments(self._effect)
        self.trust_now: Trust = self.world.trust.refresh()
        self.world.admitting = lambda: ids_in(self.trusting().client_ca)
        self._waiting: list[tuple[datetime, int, Callable[[], None]]] = []
        self._sequence = 0
        self._nonces = 0
        self.at(self.every, self._reconcile)
        self._hook_crashes()
        callers = InstanceCallers(self.enrolments, self, self.world.records, self)
        self.world.callers, self.world.told = callers, callers.was_revoked

    # the services

    @property
    def asking(self) -> Asking:
        return Asking(self.enrolments, self, self)

    @property
    def enrolling(self) -> Enrolling:
        return Enrolling(
            enrolments=self.enrolments,
            instances=self,
            queue=self,
            commanding=self._commanding,
            holdings=self.holdings,
            revoke=self.world.revoking.take_back,
            now=lambda: self.world.time,
            chance=self.chance.random,
        )

    @property
    def reconciling(self) -> Reconciling:
        version = lambda: self.trust_now.version  # noqa: E731
        return Reconciling(self.enrolments, self, self, version, self.most, lambda: self.world.time)

    @property
    def holdings(self) -> Holdings:
        return Holdings(self.world.records, self.world.records, lambda: self.world.time)

    @property
    def _commanding(self) -> Commanding:
        return Commanding(
            enrolments=self.enrolments,
            commands=self,
            records=self.world.records,
            issuer=self.world.instance_issuing,
            holdings=self.holdings,
            trust=self.trusting,
            new_nonce=self._nonce,
        )

    # what a user does

    def launch(
        self, number: int = 0, access: Access | None = Access.PULL, agent: float | None = 20.0
    ) -> str:
        """A new instance; its agent is online so many seconds after it runs, or never."""
        id_ = f"i-{number:017x}"
        now = self.world.time
        pending = facts_of(id_, access=access, state=InstanceState.PENDING)
        self.ec2[id_] = replace(pending, launched_at=now)
        running = now + 5 * SECOND
        online = None if agent is None else running + agent * SECOND
        self.hosts[id_] = Host(online_at=online)
        self.at(5 * SECOND, lambda: self._becomes(id_, InstanceState.RUNNING))
        return id_

    def terminate(self, id_: str) -> None:
        self._becomes(id_, InstanceState.SHUTTING_DOWN)
        self.at(5 * SECOND, lambda: self._becomes(id_, InstanceState.TERMINATED))

    def stop(self, id_: str) -> None:
        self.ec2[id_] = replace(self.ec2[id_], state=InstanceState.STOPPED)

    def start(self, id_: str) -> None:
        self.ec2[id_] = replace(self.ec2[id_], launched_at=self.world.time)
        self._becomes(id_, InstanceState.RUNNING)

    def tag(self, id_: str, access: Access | None) -> None:
        """None takes the tag away."""
        (self.untagged.add if access is None else self.untagged.discard)(id_)
        self.ec2[id_] = replace(self.ec2[id_], access=access)
        self._event(lambda: self.asking.tag_changed(id_))

    def ask_by_itself(self, id_: str) -> CertificateRecord:
        """It asks for a certificate with its role's credentials. Raises as Issuing.issue()."""
        request = IssueRequest(csr_pem=csr_pem(make_key(KeyType.EC_P256), id_, "00").encode())
        return self.world.issuing.issue(request, caller_of(self.ec2[id_])).record

    def give_role(self, id_: str, role: str) -> None:
        arn = facts_of(id_, role=role).session_arn
        self.ec2[id_] = replace(self.ec2[id_], role=role, session_arn=arn)

    def run(self, time: timedelta) -> None:
        """Let what is due happen, for so long."""
        end = self.world.time + time
        while self._waiting and self._waiting[0][0] <= end:
            at, _, do = heapq.heappop(self._waiting)
            self.world.time = max(self.world.time, at)
            do()
        self.world.time = end

    def sign_with(self, *clients: Authority) -> None:
        """These are the client CAs from now on, and published; the first signs."""
        self.world.authorities.clients = list(clients)
        self.trust_now = self.world.trust.refresh()

    # what is to be seen

    def state(self, id_: str) -> EnrolmentState | None:
        known = self.enrolments.kept.get(id_)
        return None if known is None else known.state

    def active(self, id_: str) -> list[CertificateRecord]:
        return [
            record
            for record in self.world.records.by_serial.values()
            if record.name == id_ and record.status(self.world.time) is Status.ACTIVE
        ]

    # EC2

    def facts(self, instance_id: str) -> InstanceFacts | None:
        self._count("DescribeInstances")
        return self.ec2.get(instance_id)

    glance = facts

    def facts_of_all(self, instance_ids: Sequence[str]) -> Mapping[str, InstanceFacts]:
        self._count("DescribeInstances")
        return {id_: self.ec2[id_] for id_ in instance_ids if id_ in self.ec2}

    def launched_since(self, since: datetime) -> Mapping[str, InstanceFacts]:
        return {
            id_: facts
            for id_, facts in self.tagged().items()
            if facts.state in (InstanceState.PENDING, InstanceState.RUNNING)
            and facts.launched_at >= since
        }

    def ended(self) -> Mapping[str, InstanceFacts]:
        over = (InstanceState.SHUTTING_DOWN, InstanceState.TERMINATED)
        return {id_: facts for id_, facts in self.tagged().items() if facts.state in over}

    def tagged(self) -> Mapping[str, InstanceFacts]:
        return {id_: facts for id_, facts in self.ec2.items() if id_ not in self.untagged}

    # SSM

    def online(self, instance_ids: Sequence[str]) -> frozenset[str]:
        self._ssm("DescribeInstanceInformation")
        return frozenset(id_ for id_ in instance_ids if self._is_online(id_))

    def send(self, instance_id: str, script: str, comment: str) -> str:
        self._ssm("SendCommand")
        if not self._is_online(instance_id):
            raise DependencyFailed("agent_offline", "the SSM agent is not there")
        host, command_id = self.hosts[instance_id], f"command-{len(self.results)}"
        host.commands.append(comment)
        ready = self.world.time + self.chance.uniform(0.2, 4) * SECOND
        outcome = self._run(host, instance_id, script)
        self.results[command_id] = (ready, outcome)
        self.at(ready - self.world.time, lambda: self._ended(instance_id))
        return command_id

    def outcome(self, command_id: str, instance_id: str) -> CommandOutcome:
        self._ssm("GetCommandInvocation")
        ready, outcome = self.results[command_id]
        done = self.world.time >= ready
        return outcome if done else CommandOutcome(CommandStatus.RUNNING)

    def _run(self, host: Host, instance_id: str, script: str) -> CommandOutcome:
        outcome = self._do(host, instance_id, script)
        return host.outcomes.pop(0) if host.outcomes else outcome

    def _do(self, host: Host, instance_id: str, script: str) -> CommandOutcome:
        """What the scripts do, in a word; that they do it is tested with real ones."""
        nonce = re.search(r"serialNumber = ([0-9a-f]{32})", script)
        if nonce is not None:
            if host.key is None or "provide_key 'yes'" in script:
                host.key = make_key(KeyType.EC_P256)
            host.prepared.append(script)
            return _succeeded(csr_pem(host.key, instance_id, nonce[1]))
        certificate = re.search(
            r"-----BEGIN CERTIFICATE-----\n[^-]*-----END CERT", script_leaf(script)
        )
        assert certificate is not None
        pem = f"{certificate[0]}IFICATE-----\n"
        leaf = x509.load_pem_x509_certificate(pem.encode())
        if host.key is None or _der(leaf) != public_key_der(host.key.public_key()):
            return _failed("registry-trust: needs_key the key is not on this instance")
        host.certificate = f"{leaf.serial_number:040x}"
        record = self.world.records.by_serial[host.certificate]
        if record.status(self.world.time) is not Status.ACTIVE:
            return _failed("registry-trust: refused 403 this client certificate has been revoked")
        if record.issuer_id not in ids_in(self.trust_now.client_ca):
            return _failed("registry-trust: refused 403 no CA known here signed it")
        return _succeeded("registry-trust: works\n")

    def _is_online(self, id_: str) -> bool:
        host, facts = self.hosts[id_], self.ec2[id_]
        if host.online_at is None or facts.state is not InstanceState.RUNNING:
            return False
        return self.world.time >= host.online_at

    def _ssm(self, call: str) -> None:
        self._count(call)
        if self.chance.random() < self.faults.ssm:
            raise DependencyFailed("ssm_unreadable", "SSM did not answer; ask again")

    # events, the queue, the clock

    def ask(self, asks: Sequence[Ask]) -> None:
        for ask in () if self.faults.lose_asks else asks:
            assert timedelta() <= ask.delay <= timedelta(minutes=15)
            self._effect("ask", lambda ask=ask: self.at(ask.delay, lambda: self._advance(ask)))

    def at(self, delay: timedelta, do: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._waiting, (self.world.time + delay, self._sequence, do))

    def _advance(self, ask: Ask) -> None:
        self._count("advance")
        failed: Sequence[str] = ["message"]
        with suppress(Crash):
            failed = self.enrolling.advance_all([("message", ask)])
        if failed:
            self.at(VISIBILITY, lambda: self._advance(ask))

    def _reconcile(self) -> None:
        self.at(self.every, self._reconcile)
        with suppress(Crash):
            self.reconciling.reconcile(everything=self.world.time.minute < self.every / MINUTE)

    def _becomes(self, id_: str, state: InstanceState) -> None:
        self.ec2[id_] = replace(self.ec2[id_], state=state)
        self._event(lambda: self.asking.instance_changed(id_))

    def _ended(self, id_: str) -> None:
        self._event(lambda: self.asking.command_ended(id_))

    def _event(self, deliver: Callable[[], None]) -> None:
        if self.chance.random() < self.faults.drop:
            return
        for _ in range(2 if self.chance.random() < self.faults.double else 1):
            late = self.chance.uniform(1, 300) if self.chance.random() < self.faults.late else 0.1
            self.at(late * SECOND, lambda: self._delivered(deliver))

    def _delivered(self, deliver: Callable[[], None]) -> None:
        try:
            deliver()
        except Crash:
            self.at(MINUTE, lambda: self._delivered(deliver))  # Lambda tries again

    def _effect(self, name: str, do: Callable[[], None]) -> None:
        """The process may end before an effect, or right after it."""
        self._count(name)
        if self.chance.random() < self.faults.crash / 2:
            raise Crash
        do()
        if self.chance.random() < self.faults.crash / 2:
            raise Crash

    def _hook_crashes(self) -> None:
        write = self.world.journal.write
        self.world.journal.write = lambda name, do: self._effect(name, lambda: write(name, do))  # type: ignore[method-assign]

    def _count(self, call: str) -> None:
        self.calls[call] = self.calls.get(call, 0) + 1

    def _nonce(self) -> str:
        self._nonces += 1
        return f"{self._nonces:032x}"


def csr_pem(key: PrivateKey, instance_id: str, nonce: str) -> str:
    """As prepare prints it."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, instance_id),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, nonce),
        ]
    )
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def script_leaf(script: str) -> str:
    """The part of the installer that holds the client's certificate."""
    return script.partition("END-OF-CERTIFICATE'")[2].partition("END-OF-CERTIFICATE")[0]


def look(instance_id: str) -> Ask:
    return Ask(instance_id, Why.LOOK)


def _der(leaf: x509.Certificate) -> bytes:
    return leaf.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _succeeded(out: str) -> CommandOutcome:
    return CommandOutcome(CommandStatus.SUCCEEDED, out)


def _failed(out: str) -> CommandOutcome:
    return CommandOutcome(CommandStatus.FAILED, out)
