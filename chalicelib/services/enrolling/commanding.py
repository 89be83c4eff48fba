"""Work on a running instance: find its agent, send it commands, read what became of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.enrolment import changes
from chalicelib.domain.enrolment.changes import REVOKED_BY_HAND, again, failed
from chalicelib.domain.enrolment.model import (
    CommandKind,
    CommandOutcome,
    CommandStatus,
    Enrolment,
    SentCommand,
    Sight,
    Step,
    Task,
)
from chalicelib.domain.instance_host import (
    InstallResult,
    csr_in,
    install_command,
    prepare_command,
    report_in,
)
from chalicelib.domain.model import CertificateRecord, InstanceFacts
from chalicelib.domain.pki.authorities import ids_in
from chalicelib.domain.trust import Trust
from chalicelib.errors import (
    AppError,
    Contended,
    DependencyFailed,
    InvalidRequest,
    Misconfigured,
    QuotaExceeded,
)
from chalicelib.services.enrolling.holdings import readable_record, taken_back_by_hand
from chalicelib.services.enrolling.needs import Commands, Enrolments, Holder, Issuer, Records

log = logging.getLogger(__name__)

# A CSR that is refused for what it is, not for its key: the next one may be well.
_NOT_THE_KEYS_FAULT = frozenset(
    {"no_csr", "csr_not_for_this", "csr_not_pem", "csr_multiple", "csr_too_large"}
)


@dataclass(frozen=True, slots=True)
class Commanding:
    """new_nonce: 32 hex digits, never the same."""

    enrolments: Enrolments
    commands: Commands
    records: Records
    issuer: Issuer
    holdings: Holder
    trust: Callable[[], Trust]
    new_nonce: Callable[[], str]

    def work(self, step: Step, instance: InstanceFacts, sight: Sight) -> Step:
        """What is to be recorded in the end. What fails is tried again later, by the same record.

        Raises Contended when somebody else is at work on it, DependencyFailed when its record
        cannot be written.
        """
        known = step.enrolment
        try:
            match step.task:
                case Task.FIND_AGENT:
                    return self._find_agent(known, instance, sight)
                case Task.READ_COMMAND if known.command is not None:
                    return self._read(known, known.command, instance, sight)
                case Task.PREPARE:
                    return self._prepare(known, sight)
                case Task.INSTALL:
                    return self._install_known(known, instance, sight)
                case _:
                    return step
        except Contended:
            raise
        except QuotaExceeded as error:
            full = again(known, sight, error.code, str(error))
            return replace(full, withdraw=tuple(self._others(known, instance)))
        except AppError as error:
            return again(known, sight, error.code, str(error))

    def _find_agent(self, known: Enrolment, instance: InstanceFacts, sight: Sight) -> Step:
        if instance.session_arn is None:  # an agent there may be all the same
            return again(known, sight, "no_instance_profile", "it has no instance profile")
        if known.instance_id in self.commands.online([known.instance_id]):
            return self.work(changes.agent_found(known, sight), instance, sight)
        record = readable_record(self.records, known.serial)
        if record is not None and taken_back_by_hand(record):
            return _taken_back(known, record, sight)
        asked = changes.may_have_asked(known, sight.why)
        own = self.holdings.own(known, instance) if asked else ()
        return self._without_agent(known, own, sight)

    def _without_agent(
        self, known: Enrolment, own: Sequence[CertificateRecord], sight: Sight
    ) -> Step:
        """What the registry does not admit counts for nothing, and goes once there is another."""
        admitting = ids_in(self.trust().client_ca) if own else ()
        good = [each for each in own if each.issuer_id in admitting]
        step = changes.agent_missing(known, good, sight)
        gone = [
            each
            for each in own
            if each not in good and any(each.issued_at < other.issued_at for other in good)
        ]
        return replace(step, withdraw=(*step.withdraw, *gone))

    def _prepare(self, known: Enrolment, sight: Sight) -> Step:
        nonce = self.new_nonce()
        registry = self.trust().registry
        script = prepare_command(known.instance_id, nonce, registry, new_key=known.new_key)
        return self._send(known, CommandKind.PREPARE, script, nonce, sight)

    def _send(
        self, known: Enrolment, kind: CommandKind, script: str, nonce: str, sight: Sight
    ) -> Step:
        """Record it, then send it: of two who would, one does."""
        recorded = self.enrolments.put(changes.sending(known, kind, nonce, sight))
        if recorded.command is None:
            return Step(Task.KEEP, recorded)
        try:
            comment = f"registry-trust: {kind}"
            command_id = self.commands.send(known.instance_id, script, comment)
        except DependencyFailed as error:
            return again(recorded, sight, error.code, str(error))
        log.info("sent %s to %s as %s", kind, known.instance_id, command_id)
        return Step(Task.KEEP, changes.sent(recorded, recorded.command, command_id, sight))

    def _read(
        self, known: Enrolment, command: SentCommand, instance: InstanceFacts, sight: Sight
    ) -> Step:
        """Of the command that was recorded, whichever one an event told of."""
        try:
            outcome = self.commands.outcome(command.command_id or "", known.instance_id)
        except DependencyFailed:
            return changes.still_running(known, command, sight)
        if outcome.status is CommandStatus.RUNNING:
            return changes.still_running(known, command, sight)
        if outcome.status is CommandStatus.LOST:
            return again(known, sight, "command_lost", "a command did not come to its end")
        if command.kind is CommandKind.PREPARE:
            return self._prepared(known, command, outcome, instance, sight)
        return self._installed(known, outcome, instance, sight)

    def _prepared(
        self,
        known: Enrolment,
        command: SentCommand,
        outcome: CommandOutcome,
        instance: InstanceFacts,
        sight: Sight,
    ) -> Step:
        if outcome.status is not CommandStatus.SUCCEEDED:
            return again(known, sight, "prepare_failed", report_in(outcome).detail)
        trust = self.trust()  # before there is a certificate that this could be in the way of
        old = readable_record(self.records, known.serial)
        try:
            csr_pem = csr_in(outcome, known.instance_id, command.nonce)
            # No caller's Idempotency-Key can have a space in it.
            record = self.issuer.certify(instance, csr_pem, old, f"enrolment {command.nonce}")
        except InvalidRequest as error:
            new_key = error.code not in _NOT_THE_KEYS_FAULT
            return again(replace(known, new_key=new_key), sight, error.code, str(error))
        return self._install(known, record, trust, sight)

    def _install_known(self, known: Enrolment, instance: InstanceFacts, sight: Sight) -> Step:
        """With the certificate that it has, or that one's successor."""
        record = readable_record(self.records, known.serial)
        if record is None:
            return self._prepare(known, sight)
        if taken_back_by_hand(record):
            return _taken_back(known, record, sight)
        if record.revoked_at is not None or record.owner != instance.session_arn:
            return self._prepare(replace(known, new_key=True), sight)
        trust = self.trust()
        if not self.issuer.is_good(record, instance):
            request_key = f"renewal of {record.serial} for {instance.access}"
            try:
                record = self.issuer.renew(instance, record, request_key)
            except InvalidRequest:  # its key is not certified any more
                return self._prepare(replace(known, new_key=True), sight)
        return self._install(known, record, trust, sight)

    def _install(
        self, known: Enrolment, record: CertificateRecord, trust: Trust, sight: Sight
    ) -> Step:
        bundle = Bundle(
            registry=trust.registry,
            ca_bundle=trust.ca_bundle,
            certificate=record.certificate_pem,
            issuer="",  # the registry has it, and nobody else needs it
            registry_address=trust.registry_address,
        )
        given = replace(changes.with_certificate(known, record), trust_version=trust.version)
        try:
            script = install_command(bundle, known.instance_id)
            return self._send(given, CommandKind.INSTALL, script, self.new_nonce(), sight)
        except (DependencyFailed, Misconfigured) as error:
            return again(given, sight, error.code, str(error))

    def _installed(
        self, known: Enrolment, outcome: CommandOutcome, instance: InstanceFacts, sight: Sight
    ) -> Step:
        report = report_in(outcome)
        if report.result is InstallResult.WORKS:
            return changes.works(known, instance, self._others(known, instance), sight)
        lost_key = report.result is InstallResult.NEEDS_KEY
        return again(replace(known, new_key=lost_key), sight, report.result, report.detail)

    def _others(self, known: Enrolment, instance: InstanceFacts) -> Sequence[CertificateRecord]:
        """What it holds beside the certificate that it has, or is being given."""
        own = self.holdings.own(known, instance)
        return [each for each in own if each.serial != known.serial]


def _taken_back(known: Enrolment, record: CertificateRecord, sight: Sight) -> Step:
    reason = (
        f"{record.revoked_by} revoked its certificate; POST /admin/instances/ID/enrol undoes that"
    )
    return failed(known, sight, REVOKED_BY_HAND, reason)
