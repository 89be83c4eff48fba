"""What the services rely on, in memory: small, and true to the contracts that services state."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509

from chalicelib.domain.model import (
    BundleLink,
    CertificatePage,
    CertificateRecord,
    InstanceFacts,
    KeyType,
    KeyUse,
    QuotaSlot,
    RevocationReason,
    Selection,
    Status,
    StoredRequest,
    Succession,
)
from chalicelib.domain.pki.authorities import Authority
from chalicelib.domain.pki.keys import PrivateKey, make_key
from chalicelib.domain.policy import Limits
from chalicelib.domain.trust import TRUST_KEYS, PublishedTrust, Trust
from chalicelib.errors import Contended, DependencyFailed, InvalidRequest, Misconfigured
from chalicelib.services.catalogue import Catalogue
from chalicelib.services.diagnosing import Diagnosing
from chalicelib.services.issuing import Delivering, InstanceIssuing, Issuing, Recording, Room
from chalicelib.services.issuing.needs import InstanceCallers
from chalicelib.services.revoking import Revoking
from chalicelib.services.serving import Serving
from chalicelib.services.trust import TrustKeeper
from tests.unit.authorities import HOST, NOW, client_ca, server_ca

DAY = timedelta(days=1)
REGISTRY_HOST_ROLE = "registry-host"


class Crash(BaseException):
    """The process ends here: nothing may catch it."""


@dataclass
class Journal:
    """What was done to the outside world, in order.

    crash_at: end the process at this many effects, before the last of them or just after it.
    """

    done: list[str] = field(default_factory=list)
    crash_at: int = -1
    after: bool = False

    def write(self, effect: str, do: Callable[[], None]) -> None:
        number = len(self.done) + 1
        if number == self.crash_at and not self.after:
            raise Crash
        do()
        self.done.append(effect)
        if number == self.crash_at:
            raise Crash


@dataclass
class MemoryRecords:
    """As CertificateStore, CertificateListing and RevocationStore: each write is all or nothing,
    and one of two that collide is Contended.

    before_add: called at the start of each add(), for what others do meanwhile.
    rows: what the CRLs are made of, by issuer.
    """

    journal: Journal
    by_serial: dict[str, CertificateRecord] = field(default_factory=dict)
    taken: dict[tuple[str, int], tuple[str, datetime]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    revoked_keys: set[str] = field(default_factory=set)
    requests: dict[tuple[str, str], tuple[StoredRequest, datetime]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    unpublished: list[str] = field(default_factory=list)
    number: int = 0
    damaged: set[str] = field(default_factory=set)
    before_add: Callable[[CertificateRecord], None] = lambda _: None
    before_revoke: Callable[[CertificateRecord], None] = lambda _: None
    fails: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def slots(self, owner: str) -> Sequence[QuotaSlot]:
        with self._lock:
            taken = self.taken.items()
            return [QuotaSlot(number, end) for (of, number), (_, end) in taken if of == owner]

    def add(
        self,
        record: CertificateRecord,
        request: StoredRequest | None,
        now: datetime,
        succession: Succession | None = None,
    ) -> StoredRequest | None:
        self.before_add(record)
        if self.fails:
            raise DependencyFailed("table_unwritable", "the record was not written")
        with self._lock:
            earlier = request and self._earlier(request.caller, request.idempotency_key, now)
            if earlier is not None:
                return earlier
            self._refuse_key(record)
            if record.serial in self.by_serial or not self._is_free(record, now, succession):
                raise contended()
            if succession is not None and self.by_serial[succession.old.serial] != succession.old:
                raise contended()
            self.journal.write("record", lambda: self._write(record, request, now, succession))
            return None

    def _is_free(
        self, record: CertificateRecord, now: datetime, succession: Succession | None
    ) -> bool:
        if record.slot is None:
            return True
        holder, end = self.taken.get((record.owner, record.slot), ("", None))
        takes_over = succession is not None and succession.revoke
        return end is None or end < now or (takes_over and holder == succession.old.serial)

    def add_outside_quota(self, record: CertificateRecord) -> None:
        if self.fails:
            raise DependencyFailed("table_unwritable", "the record was not written")
        if record.serial in self.by_serial:
            raise contended()
        self.journal.write("record", lambda: self.by_serial.update({record.serial: record}))

    def earlier_request(
        self, caller: str, idempotency_key: str, now: datetime
    ) -> StoredRequest | None:
        assert idempotency_key, "there is nothing to look for without a key"
        return self._earlier(caller, idempotency_key, now)

    def get(self, serial: str) -> CertificateRecord | None:
        assert re.fullmatch(r"[0-9a-f]{40}", serial), "only serials in their one form are asked for"
        if serial in self.damaged:
            raise Misconfigured("unreadable_record", f"the record of {serial} is broken")
        return self.by_serial.get(serial)

    def page(
        self, selection: Selection, limit: int, cursor: str | None, now: datetime
    ) -> CertificatePage:
        if cursor is not None and cursor not in self.by_serial:
            raise InvalidRequest("invalid_cursor", "use next_cursor as it is", field="cursor")
        newest_first = [record for record in reversed(self.by_serial.values())]
        start = 0
        if cursor is not None:
            start = [record.serial for record in newest_first].index(cursor) + 1
        before = selection.expires_before
        shown = [
            record
            for record in newest_first[start:]
            if selection.owner in (None, record.owner)
            and selection.status in (None, record.status(now))
            and (before is None or now <= record.validity.not_after < before)
        ]
        more = len(shown) > limit
        return CertificatePage(tuple(shown[:limit]), shown[limit - 1].serial if more else None)

    def use_of_key(self, record: CertificateRecord, now: datetime) -> KeyUse:
        standing = [
            each.serial
            for each in self.by_serial.values()
            if each.key_id == record.key_id and each.status(now) is Status.ACTIVE
        ]
        return KeyUse(self.versions.get(record.key_id), tuple(sorted(standing)))

    def standing_in_line(self, record: CertificateRecord, now: datetime) -> Sequence[str]:
        first = record.line or record.serial
        return [
            each.serial
            for each in self.by_serial.values()
            if (each.line or each.serial) == first and each.status(now) is Status.ACTIVE
        ]

    def revoke(
        self,
        record: CertificateRecord,
        reason: RevocationReason,
        by: str,
        now: datetime,
        retire: KeyUse | None,
    ) -> None:
        self.before_revoke(record)
        if self.fails:
            raise DependencyFailed("table_unwritable", "the record was not written")
        with self._lock:
            if self.by_serial[record.serial].revoked_at is not None:
                raise contended()
            if retire is not None and retire.version != self.versions[record.key_id]:
                raise contended()
            self.journal.write("revoke", lambda: self._revoke(record, reason, by, now))
            if retire is not None:
                self.revoked_keys.add(record.key_id)
            if record.slot is not None and record.status(now) is Status.ACTIVE:
                del self.taken[record.owner, record.slot]

    def retire_key(self, record: CertificateRecord, now: datetime) -> None:
        self.revoked_keys.add(record.key_id)

    def revocations(self, issuer_id: str, since: datetime) -> Sequence[dict[str, str]]:
        end = f"{since:%Y-%m-%dT%H:%M:%SZ}"
        return [row for row in self.rows.get(issuer_id, []) if row["sk"] >= end]

    def pending(self) -> Sequence[str]:
        return list(self.unpublished)

    def settle(self, serials: Sequence[str]) -> None:
        self.unpublished = [serial for serial in self.unpublished if serial not in serials]

    def next_crl_number(self, above: int) -> int:
        with self._lock:
            self.number = max(self.number, above) + 1
            return self.number

    def _earlier(self, caller: str, idempotency_key: str, now: datetime) -> StoredRequest | None:
        stored, until = self.requests.get((caller, idempotency_key), (None, now))
        return stored if until > now else None

    def _refuse_key(self, record: CertificateRecord) -> None:
        if self.keys.get(record.key_id, record.owner) != record.owner:
            raise InvalidRequest("key_in_use", "make a new key", field="csr")
        if record.key_id in self.revoked_keys:
            raise InvalidRequest("key_revoked", "make a new key", field="csr")

    def _write(
        self,
        record: CertificateRecord,
        request: StoredRequest | None,
        now: datetime,
        succession: Succession | None,
    ) -> None:
        self.by_serial[record.serial] = record
        if record.slot is not None:
            self.taken[record.owner, record.slot] = (record.serial, record.validity.not_after)
        self.keys[record.key_id] = record.owner
        self.versions[record.key_id] = self.versions.get(record.key_id, 0) + 1
        if request is not None:
            self.requests[request.caller, request.idempotency_key] = (request, now + DAY)
        if succession is not None:
            old = replace(succession.old, superseded_by=record.serial)
            self.by_serial[old.serial] = old
            if succession.revoke:
                self._revoke(old, RevocationReason.SUPERSEDED, record.owner, now)

    def _revoke(
        self, record: CertificateRecord, reason: RevocationReason, by: str, now: datetime
    ) -> None:
        at = now.replace(microsecond=0)
        current = self.by_serial[record.serial]  # what was read of it may be old
        self.by_serial[record.serial] = replace(
            current, revoked_at=at, revocation_reason=reason, revoked_by=by
        )
        if record.status(now) is Status.ACTIVE:
            end = f"{record.validity.not_after:%Y-%m-%dT%H:%M:%SZ}"
            row = {"sk": f"{end}#{record.serial}", "serial": record.serial}
            row |= {"revoked_at": at.isoformat(), "reason": reason.value}
            self.rows.setdefault(record.issuer_id, []).append(row)
            self.unpublished.append(record.serial)


def contended() -> Contended:
    return Contended("busy", "another request of yours got there first; ask again")


@dataclass
class MemoryBundles:
    """As ConfigBucket. Writing fails while *fails* is set.

    published: every trust that ever was, the newest last.
    before_publish: called at the start of each publish(), for what others do meanwhile.
    """

    journal: Journal
    stored: dict[str, bytes] = field(default_factory=dict)
    with_key: set[str] = field(default_factory=set)
    published: list[Trust] = field(default_factory=list)
    before_publish: Callable[[Trust], None] = lambda _: None
    fails: bool = False
    publishing_fails: bool = False
    whole: bool = True

    def put(self, serial: str, tar_gz: bytes, *, holds_key: bool) -> None:
        if self.fails:
            raise DependencyFailed("bundle_not_stored", "the bundle could not be stored")
        self.journal.write("bundle", lambda: self.stored.update({serial: tar_gz}))
        if holds_key:
            self.with_key.add(serial)

    def get(self, serial: str) -> bytes | None:
        return self.stored.get(serial)

    def link(self, serial: str, now: datetime) -> BundleLink:
        end = (now + timedelta(minutes=15)).replace(microsecond=0)
        return BundleLink(f"s3://config/{serial}", f"https://config.test/{serial}", end)

    def delete(self, serial: str) -> None:
        if self.fails:
            raise DependencyFailed("bundle_not_deleted", "the bundle was not deleted")
        self.journal.write("delete", lambda: self.stored.pop(serial, None))

    def published_trust(self) -> PublishedTrust:
        versions = dict.fromkeys(TRUST_KEYS, f"{len(self.published)}") if self.published else {}
        last = self.published[-1] if self.published else None
        number = 0 if last is None else last.crl_number
        lists = "" if last is None else last.crl
        return PublishedTrust(last, versions, number, self.whole, lists)

    def publish(self, trust: Trust, instead_of: PublishedTrust) -> None:
        self.before_publish(trust)
        if self.fails or self.publishing_fails:
            raise DependencyFailed("trust_not_stored", "the trust was not published")
        if instead_of.versions != self.published_trust().versions:
            raise contended()
        self.journal.write("publish", lambda: self.published.append(trust))

    def read_trust(self) -> Trust:
        if not self.published:
            raise Misconfigured("no_trust", "there is no CA yet")
        return self.published[-1]


@dataclass
class Publication:
    """MemoryBundles, to TrustKeeper."""

    bundles: MemoryBundles

    def published(self) -> PublishedTrust:
        return self.bundles.published_trust()

    def publish(self, trust: Trust, instead_of: PublishedTrust) -> None:
        self.bundles.publish(trust, instead_of)

    def read_trust(self) -> Trust:
        return self.bundles.read_trust()


@dataclass
class FixedAuthorities:
    """The first of each kind signs; all of them are trusted."""

    clients: list[Authority] = field(default_factory=lambda: [client_ca()])
    servers: list[Authority] = field(default_factory=lambda: [server_ca()])
    reread_times: int = 0

    def reread(self) -> None:
        self.reread_times += 1

    def client(self) -> Authority:
        return self.clients[0]

    def server(self) -> Authority:
        return self.servers[0]

    def client_signers(self) -> Sequence[Authority]:
        return self.clients

    def client_certificates(self) -> Sequence[x509.Certificate]:
        return [authority.certificate for authority in self.clients]

    def server_certificates(self) -> Sequence[x509.Certificate]:
        return [authority.certificate for authority in self.servers]


class World:
    """All of the above, and the services on it. Its clock stands until a test moves it."""

    def __init__(self) -> None:
        self.time = NOW
        self.journal = Journal()
        self.records = MemoryRecords(self.journal)
        self.bundles = MemoryBundles(self.journal)
        self.authorities = FixedAuthorities()
        self.instances: dict[str, InstanceFacts] = {}
        self.asked_by_themselves: list[str] = []
        self.callers: InstanceCallers = self
        self.told: Callable[[CertificateRecord], None] = lambda record: None
        self.admitting: Callable[[], Sequence[str]] = self.admitted
        self.limits = Limits(90, 365, 730, 3, ("*",))
        self.chance = random.Random(5)  # noqa: S311  # which slot, not which key
        self.serials: list[int] = []
        self.pauses: list[float] = []
        self._last_serial = 2**158
        self.keys_made = 0

    @property
    def issuing(self) -> Issuing:
        return Issuing(
            authorities=self.authorities,
            records=self.records,
            recording=self.recording,
            delivering=self.delivering,
            instances=self.callers,
            publish_revoked=lambda records: self.trust.show_revoked(records),
            limits=self.limits,
            now=lambda: self.time,
            make_key=self.make_key,
        )

    @property
    def recording(self) -> Recording:
        return Recording(
            self.authorities,
            self.records,
            self.limits,
            self.new_serial,
            self.chance,
            self.room.make,
        )

    @property
    def room(self) -> Room:
        def take_back(records: Sequence[CertificateRecord]) -> None:
            self.revoking.take_back(records, RevocationReason.SUPERSEDED, "registry-trust")

        return Room(self.authorities, self.records, take_back, lambda: self.time)

    @property
    def instance_issuing(self) -> InstanceIssuing:
        return InstanceIssuing(
            self.authorities,
            self.records,
            self.recording,
            self.limits,
            lambda: self.admitting(),
            lambda: self.time,
        )

    def admitted(self) -> Sequence[str]:
        return [authority.id for authority in self.authorities.clients]

    @property
    def delivering(self) -> Delivering:
        return Delivering(self.authorities, self.bundles, f"{HOST}:8443", "192.0.2.7")

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(records=self.records, listing=self.records, now=lambda: self.time)

    @property
    def revoking(self) -> Revoking:
        return Revoking(
            records=self.records,
            revocations=self.records,
            withdraw=self.delivering.withdraw,
            publish_revoked=lambda records: self.trust.show_revoked(records),
            told=self.told,
            now=lambda: self.time,
        )

    @property
    def diagnosing(self) -> Diagnosing:
        return Diagnosing(records=self.records, publication=self.bundles, now=lambda: self.time)

    @property
    def serving(self) -> Serving:
        return Serving(
            authorities=self.authorities,
            records=self.records,
            host=HOST,
            role=REGISTRY_HOST_ROLE,
            now=lambda: self.time,
            new_serial=self.new_serial,
        )

    @property
    def trust(self) -> TrustKeeper:
        return TrustKeeper(
            authorities=self.authorities,
            revocations=self.records,
            publication=Publication(self.bundles),
            registry=f"{HOST}:8443",
            registry_address="192.0.2.7",
            now=lambda: self.time,
            pause=self.pause,
        )

    @property
    def untouched(self) -> bool:
        """Whether nothing at all was written."""
        return not self.journal.done

    def facts(self, instance_id: str) -> InstanceFacts | None:
        """As InstanceCallers.facts."""
        assert instance_id, "EC2 is asked about instances alone"
        return self.instances.get(instance_id)

    def was_issued(self, instance_id: str) -> None:
        """As InstanceCallers.was_issued."""
        assert instance_id, "only instances are looked at"
        self.asked_by_themselves.append(instance_id)

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time += timedelta(seconds=seconds)

    def make_key(self, key_type: KeyType) -> PrivateKey:
        self.keys_made += 1
        return make_key(key_type)

    def new_serial(self) -> int:
        """The ones in *serials* first, then others."""
        if self.serials:
            return self.serials.pop(0)
        self._last_serial += 1
        return self._last_serial
