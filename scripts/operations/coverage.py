"""See, with the operator's own credentials, whom a change of the CAs has reached."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import boto3
from cryptography import x509

from chalicelib.adapters.bucket import ConfigBucket
from chalicelib.adapters.store import CertificateListing, EnrolmentStore, Tables
from chalicelib.domain.enrolment.model import Enrolment, EnrolmentPath, EnrolmentState
from chalicelib.domain.identity import is_instance_id
from chalicelib.domain.model import CertificateRecord, Selection, Status
from chalicelib.domain.pki.authorities import AuthorityKind, authority_id
from chalicelib.domain.registry_host.report import (
    MAXIMUM_REPORT,
    REPORT_FRESH,
    REPORT_PREFIX,
    HostReport,
    report_key,
)
from chalicelib.domain.rotation import Facts, HostSight, asked_by_itself
from chalicelib.errors import InvalidRequest, Misconfigured

_PAGE = 1000
_IDS_A_REQUEST = 100

# More than one stack looks after.
_FLEET = 100_000

_STATES = [state for state in EnrolmentState if state is not EnrolmentState.GONE]
# Who changes its state meanwhile is met on its way from enrolled to another, or back.
_ORDER = sorted(_STATES, key=lambda state: state is not EnrolmentState.ENROLLED)


class Coverage:
    """Reads what the hosts report, the records of instances, and the certificates; by indexes."""

    def __init__(self, aws: boto3.Session, outputs: dict[str, str]) -> None:
        self._s3: Any = aws.client("s3")
        self._ec2: Any = aws.client("ec2")
        self._bucket = outputs["ConfigBucket"]
        self._profile = outputs["RegistryHostInstanceProfileName"]
        # boto3 does not read AWS_REGION, and the tables' connection reads no session.
        os.environ.setdefault("AWS_DEFAULT_REGION", aws.region_name)
        tables = Tables(
            outputs["CertificatesTable"], outputs["StateTable"], outputs["InstancesTable"]
        )
        self._enrolments = EnrolmentStore(tables)
        self._listing = CertificateListing(tables)

    def published(self, kind: AuthorityKind) -> Sequence[str]:
        """Ids of the CAs in the published trust, in its order; none when nothing is published.

        Raises DependencyFailed.
        """
        try:
            trust = ConfigBucket(self._s3, self._bucket).read_trust()
        except Misconfigured:
            return []
        pem = trust.client_ca if kind is AuthorityKind.CLIENT else trust.ca_bundle
        return [authority_id(each) for each in x509.load_pem_x509_certificates(pem.encode())]

    def facts(self) -> Facts:
        """All there is to know for a rotation. Raises Misconfigured, DependencyFailed."""
        now = datetime.now(UTC)
        version = ConfigBucket(self._s3, self._bucket).read_trust().version
        enrolments, certificates = self._all_enrolments(version), list(self._certificates(now))
        named = {each.instance_id for each in enrolments if not _holds(each, version)}
        named |= {each.name for each in certificates if asked_by_itself(each)}
        return Facts(
            now=now,
            trust_version=version,
            hosts=tuple(self._hosts(now)),
            enrolments=tuple(enrolments),
            certificates=tuple(certificates),
            running=frozenset(self._running(sorted(named))),
        )

    def _hosts(self, now: datetime) -> Iterator[HostSight]:
        """Those that run, and those that reported of late, wherever they run.

        Who runs under another profile with the same role is known by having reported once.
        """
        keys = list(self._report_keys())
        reports = {each.instance_id: each for each in self._reports(keys, now)}
        running = set(self._running_hosts())
        known = {key.removeprefix(REPORT_PREFIX).removesuffix(".json") for key, _ in keys}
        silent = (known - running) - reports.keys()
        running |= set(self._running(sorted(filter(is_instance_id, silent))))
        for instance_id in sorted(running | reports.keys()):
            yield HostSight(instance_id, instance_id in running, reports.get(instance_id))

    def _running_hosts(self) -> Iterator[str]:
        """Not every endpoint knows the filter for profiles; and some know no filter at all."""
        for each in self._describe([{"Name": "instance-state-name", "Values": ["running"]}]):
            profile = each.get("IamInstanceProfile", {}).get("Arn", "")
            if each["State"]["Name"] == "running" and profile.endswith(f"/{self._profile}"):
                yield each["InstanceId"]

    def _report_keys(self) -> Iterator[tuple[str, datetime]]:
        """Of the last month's, with when each was written."""
        pages = self._s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=REPORT_PREFIX):
            for each in page.get("Contents", []):
                yield each["Key"], each["LastModified"]

    def _reports(self, keys: Sequence[tuple[str, datetime]], now: datetime) -> Iterator[HostReport]:
        """The fresh ones; by S3's clock, too, for a host's own may be wrong."""
        for key, written in keys:
            if now - written < REPORT_FRESH:
                report = self._report(key)
                if report is not None and report.is_fresh(now):
                    yield report

    def _report(self, key: str) -> HostReport | None:
        """None for what is no report, or another host's."""
        body = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"]
        try:
            report = HostReport.from_json(body.read(MAXIMUM_REPORT))
        except InvalidRequest:
            return None
        return report if report_key(report.instance_id) == key else None

    def _all_enrolments(self, version: str) -> Sequence[Enrolment]:
        found: dict[str, Enrolment] = {}
        for state in _ORDER:
            cursor = None
            while True:
                page = self._enrolments.page(state, _PAGE, cursor)
                found |= {each.instance_id: each for each in page.enrolments}
                cursor = page.cursor
                if cursor is None:
                    break
        outdated = self._enrolments.outdated(version, _FLEET)
        return list((found | dict(self._enrolments.get_many(outdated))).values())

    def _certificates(self, now: datetime) -> Iterator[CertificateRecord]:
        """Those of clients that neither ended nor were revoked."""
        # By months of issue: few partitions, where there is one for each day on which some end.
        everything = Selection(status=Status.ACTIVE)
        cursor = None
        while True:
            page = self._listing.page(everything, _PAGE, cursor, now)
            yield from (each for each in page.records if each.access is not None)
            cursor = page.cursor
            if cursor is None:
                return

    def _running(self, ids: Sequence[str]) -> Iterator[str]:
        for start in range(0, len(ids), _IDS_A_REQUEST):
            some = ids[start : start + _IDS_A_REQUEST]
            for each in self._describe([{"Name": "instance-id", "Values": some}]):
                if each["State"]["Name"] == "running" and each["InstanceId"] in some:
                    yield each["InstanceId"]

    def _describe(self, filters: Collection[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        pages = self._ec2.get_paginator("describe_instances")
        for page in pages.paginate(Filters=filters):
            for reservation in page["Reservations"]:
                yield from reservation["Instances"]


def _holds(known: Enrolment, version: str) -> bool:
    enrolled = known.state is EnrolmentState.ENROLLED and known.path is EnrolmentPath.AGENT
    return enrolled and known.trust_version == version
