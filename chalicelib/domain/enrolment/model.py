"""What is known of the enrolment of one EC2 instance. All times are aware UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from chalicelib.domain.model import Access, CertificateRecord, InstanceFacts


class EnrolmentState(StrEnum):
    """Where an instance stands on its way to a working certificate, or after it."""

    LAUNCHED = "launched"
    WAITING_FOR_AGENT = "waiting_for_agent"
    PREPARING = "preparing"
    INSTALLING = "installing"
    ENROLLED = "enrolled"
    FAILED = "failed"
    GONE = "gone"


class EnrolmentPath(StrEnum):
    """How the instance came to its certificate.

    agent: by Run Command, and what was installed was seen to work. boot: it asked by itself.
    """

    AGENT = "agent"
    BOOT = "boot"


class CommandKind(StrEnum):
    """The commands that instances are sent."""

    PREPARE = "prepare"
    INSTALL = "install"


@dataclass(frozen=True, slots=True)
class SentCommand:
    """One command, recorded before it is sent.

    command_id: None while it is being sent, and for good if that broke off.
    nonce: 32 hex digits, which the CSR that *prepare* prints must name.
    """

    kind: CommandKind
    nonce: str
    sent_at: datetime
    command_id: str | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One instance, as the table keeps it.

    since: when it came into its state. began_at: when the present attempt began.
    serial, renew_at: of the certificate that it has or is being given. access: of that too, or,
    when failed, what the tag said.
    owners: ARNs that certificates of it were issued to; several when its role was changed.
    trust_version, launched_at: the trust, and EC2's launch time, when it was last seen to work.
    enrolled_at: when that was. tries: commands and looks in the present attempt.
    failures: attempts in a row that failed. new_key: whether the key on it is to be replaced.
    reason, code: why it is failed or gone; empty otherwise.
    look_at: when it is to be looked at even if nothing happens; None: not any more.
    version: one more with each write; 0 for what was never written.
    """

    instance_id: str
    state: EnrolmentState
    since: datetime
    began_at: datetime
    look_at: datetime | None = None
    access: Access | None = None
    path: EnrolmentPath | None = None
    owners: tuple[str, ...] = ()
    serial: str | None = None
    renew_at: datetime | None = None
    trust_version: str | None = None
    launched_at: datetime | None = None
    enrolled_at: datetime | None = None
    command: SentCommand | None = None
    tries: int = 0
    failures: int = 0
    new_key: bool = False
    reason: str = ""
    code: str = ""
    version: int = 0

    @property
    def at_work(self) -> bool:
        """Whether a command of ours may be under way on it."""
        return self.state in (EnrolmentState.PREPARING, EnrolmentState.INSTALLING)

    @property
    def at_rest(self) -> bool:
        """Whether nothing is done about it until something changes, or it is time to."""
        return self.state in (EnrolmentState.ENROLLED, EnrolmentState.FAILED)

    def is_due(self, now: datetime) -> bool:
        """Whether it is to be looked at by now, even if nothing happened."""
        return self.look_at is not None and now >= self.look_at

    def knows(self, instance: InstanceFacts) -> bool:
        """Whether it is recorded with the instance's present tag, and with its last start."""
        return self.access is instance.access and self.launched_at == instance.launched_at


class CommandStatus(StrEnum):
    """What became of a command on an instance; lost: it will never have an answer."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What SSM says of one command on one instance. out, err: whatever the instance wrote."""

    status: CommandStatus
    out: str = ""
    err: str = ""


class Why(StrEnum):
    """Why an advance is asked for.

    event: something happened to the instance or to a command. look: it is time to.
    certificates: it was issued one that it had asked for by itself, or an admin revoked one.
    admin: an admin wants it enrolled afresh.
    """

    EVENT = "event"
    LOOK = "look"
    CERTIFICATES = "certificates"
    ADMIN = "admin"


# Amazon SQS API Reference, SendMessage: no message can be delayed for longer.
LONGEST_DELAY = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Ask:
    """Asks for an advance of the instance, once *delay* has passed (LONGEST_DELAY at most)."""

    instance_id: str
    why: Why
    delay: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class EnrolmentPage:
    """Some enrolments; *cursor* is where the next page starts, None after the last."""

    enrolments: tuple[Enrolment, ...]
    cursor: str | None


class Task(StrEnum):
    """What a step is.

    KEEP: record it. RETIRE: revoke all its certificates, then record it. SWEEP: the same, unless
    there is none. FIND_AGENT: see whether the agent is online, then agent_found() or
    agent_missing(). READ_COMMAND: see what became of the command, and go on by its kind. PREPARE:
    send that. INSTALL: send that, with the certificate that it has or a new one.
    """

    KEEP = "keep"
    RETIRE = "retire"
    SWEEP = "sweep"
    FIND_AGENT = "find_agent"
    READ_COMMAND = "read_command"
    PREPARE = "prepare"
    INSTALL = "install"


class Taking(StrEnum):
    """Which of its certificates are to be revoked with a step, beside those that it names.

    other_access: those with another access than is recorded of it. own: all of its own.
    """

    NOTHING = "nothing"
    OTHER_ACCESS = "other_access"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Step:
    """*enrolment*: as it is to be recorded. withdraw: certificates to be revoked as superseded."""

    task: Task
    enrolment: Enrolment
    withdraw: tuple[CertificateRecord, ...] = ()
    taking: Taking = Taking.NOTHING


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of an instance from outside.

    instance: None when EC2 knows no such instance. trust_version: of what is published.
    spread: by chance, 0 to 1, so that what began together does not go on together.
    """

    instance_id: str
    instance: InstanceFacts | None
    trust_version: str
    why: Why
    now: datetime
    spread: float = 0.0

    @property
    def access(self) -> Access | None:
        """As the tag says; None also without an instance."""
        return None if self.instance is None else self.instance.access

    @property
    def launched_at(self) -> datetime | None:
        """When it was last started; None without an instance."""
        return None if self.instance is None else self.instance.launched_at
