"""What is deleted comes back: each part is really deleted, and the command of the page run."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.domain.pki.crl import read_bundle
from localcloud.processes import until
from tests.e2e.client import Person
from tests.e2e.conftest import Cloud, local_cloud
from tests.e2e.instances import Fleet
from tests.e2e.test_revocation import ADMITTED, REFUSED, Holder

PATIENCE = 30.0
CLOCK, OPERATOR = "aws.events", "operator"


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """One of its own: what is deleted here would be missed by the other tests."""
    with local_cloud("recovery-cloud") as running:
        yield running


@pytest.fixture
def somebody(cloud: Cloud) -> Person:
    return cloud.newcomer(f"dev-{secrets.token_hex(4)}")


@pytest.fixture
def issue(somebody: Person, tmp_path: Path) -> Callable[[], Holder]:
    def issuing() -> Holder:
        answer = somebody.ask("POST", "/certs")
        assert answer.status == 201, answer.body
        return Holder(answer.json, tmp_path)

    return issuing


def run(cloud: Cloud, *command: str, fails: bool = False) -> str:
    """All that a command of ours says."""
    done = cloud.run(*command, "--stage", cloud.variables["STAGE"])
    said = done.stdout + done.stderr
    assert (done.returncode != 0) is fails, said
    assert "Traceback" not in said
    return said


def sound(cloud: Cloud) -> None:
    run(cloud, "scripts/recover", "check")


def unsound(cloud: Cloud, *expected: str) -> None:
    """The check names these lines, and the commands on them."""
    said = run(cloud, "scripts/recover", "check", fails=True)
    for each in expected:
        assert each in said, said


def answers(holder: Holder, status: int) -> None:
    assert until(lambda: _answer(holder) == status, PATIENCE), (holder.connect(), status)


def _answer(holder: Holder) -> int:
    try:
        return holder.connect()
    except OSError:
        return 0


def revoke(person: Person, holder: Holder, reason: str = "unspecified") -> None:
    body = json.dumps({"reason": reason}).encode()
    kind = ("--header", "content-type: application/json")
    said = person.ask("DELETE", f"/certs/{holder.serial}", *kind, body=body)
    assert said.status == 200, said.body
    assert not said.json["crl_pending"]


def all_works(person: Person, issue: Callable[[], Holder]) -> None:
    """A certificate is issued, admitted, revoked and refused; one from before goes on."""
    new = issue()
    answers(new, ADMITTED)
    revoke(person, new)
    answers(new, REFUSED)


def invoke(cloud: Cloud, function: str, source: str = OPERATOR) -> dict[str, Any]:
    """A function of the clock's: what it answered, or its error."""
    names = ("version", "id", "detail-type", "account", "time", "region")
    event = {**dict.fromkeys(names, ""), "source": source, "resources": [], "detail": {}}
    answer = cloud.client("lambda").invoke(
        FunctionName=cloud.outputs()[function], Payload=json.dumps(event).encode()
    )
    return dict(json.loads(answer["Payload"].read()))


def published(cloud: Cloud) -> tuple[int, set[str]]:
    """The number of the published list, and the serials on it."""
    bucket = cloud.outputs()["ConfigBucket"]
    body = cloud.client("s3").get_object(Bucket=bucket, Key="trust/client-ca.crl")["Body"].read()
    (only,) = read_bundle(body.decode())
    return only.number or 0, {format(each.serial_number, "040x") for each in only.crl}


class TestTables:
    def drop(self, cloud: Cloud, output: str) -> dict[str, Any]:
        """Delete it; what DynamoDB said of it before."""
        dynamodb, name = cloud.client("dynamodb"), cloud.outputs()[output]
        described = dynamodb.describe_table(TableName=name)["Table"]
        dynamodb.update_table(TableName=name, DeletionProtectionEnabled=False)
        dynamodb.delete_table(TableName=name)
        return dict(described)

    def back_up(self, cloud: Cloud, output: str) -> str:
        made = cloud.client("dynamodb").create_backup(
            TableName=cloud.outputs()[output], BackupName=f"before-{secrets.token_hex(4)}"
        )
        return str(made["BackupDetails"]["BackupArn"])

    def test_the_state_table(
        self, cloud: Cloud, somebody: Person, issue: Callable[[], Holder]
    ) -> None:
        standing, lost = issue(), issue()
        revoke(somebody, lost, "keyCompromise")
        number, _ = published(cloud)
        self.drop(cloud, "StateTable")

        unsound(cloud, "BAD  table state: deleted", "scripts/recover table state --stage local")
        assert somebody.ask("POST", "/certs").status == 503
        assert "errorMessage" in invoke(cloud, "RefreshCrlFunction")
        assert published(cloud)[0] == number  # nothing was published without it
        answers(standing, ADMITTED)
        answers(lost, REFUSED)

        run(cloud, "scripts/recover", "table", "state")
        sound(cloud)
        assert lost.serial in published(cloud)[1]
        all_works(somebody, issue)
        answers(standing, ADMITTED)
        answers(lost, REFUSED)

    def test_a_state_table_of_yesterday_lets_nobody_in_again(
        self, cloud: Cloud, somebody: Person, issue: Callable[[], Holder]
    ) -> None:
        standing, lost = issue(), issue()
        yesterday = self.back_up(cloud, "StateTable")
        revoke(somebody, lost, "keyCompromise")
        later = issue()
        number, _ = published(cloud)
        self.drop(cloud, "StateTable")

        # Whoever restores it without our command: the plane by itself takes nothing off a list.
        cloud.client("dynamodb").restore_table_from_backup(
            TargetTableName=cloud.outputs()["StateTable"], BackupArn=yesterday
        )
        assert invoke(cloud, "RefreshCrlFunction")["crl_number"] > number
        assert lost.serial in published(cloud)[1]
        unsound(cloud, "BAD  table state: there, without", "BAD  revocations: lost: 1 entries")

        self.drop(cloud, "StateTable")
        run(cloud, "scripts/recover", "table", "state", "--backup", yesterday)
        sound(cloud)
        assert lost.serial in published(cloud)[1]
        for holder, status in ((lost, REFUSED), (standing, ADMITTED), (later, ADMITTED)):
            answers(holder, status)
        assert somebody.ask("POST", f"/certs/{lost.serial}/renew").status == 409
        assert published(cloud)[0] > 10**9  # above any that a registry host may hold
        all_works(somebody, issue)

    def test_a_state_table_without_any_backup(
        self, cloud: Cloud, somebody: Person, issue: Callable[[], Holder]
    ) -> None:
        standing, lost, last = issue(), issue(), issue().serial
        for revoke_old in (False, True):  # a line, of which the first and the last stand
            renewed = somebody.post(f"/certs/{last}/renew", {"revoke_old": revoke_old})
            assert renewed.status == 201, renewed.body
            last = renewed.json["serial"]
        revoke(somebody, lost)
        rows = self.lasting_rows(cloud)
        before = self.drop(cloud, "StateTable")
        said = run(cloud, "scripts/recover", "table", "state", "--empty")
        assert "slots and places" in said
        assert self.lasting_rows(cloud) == rows
        sound(cloud)
        after = cloud.client("dynamodb").describe_table(TableName=before["TableName"])["Table"]
        for same in ("KeySchema", "BillingModeSummary", "DeletionProtectionEnabled"):
            assert (same, after.get(same)) == (same, before.get(same))
        answers(lost, REFUSED)
        all_works(somebody, issue)
        answers(standing, ADMITTED)
        # Nothing is missing any more, so nothing is put back a second time.
        assert "no revocation" in run(cloud, "scripts/recover", "revocations")

    def lasting_rows(self, cloud: Cloud) -> dict[tuple[str, str], Any]:
        """All of the state table but what is of a day or a moment, or only ever grows."""
        table = cloud.outputs()["StateTable"]
        pages = cloud.client("dynamodb").get_paginator("scan").paginate(TableName=table)
        items = {(i["pk"]["S"], i["sk"]["S"]): i for page in pages for i in page["Items"]}
        fleeting = ("request#", "crl")
        return {
            key: item
            for key, item in items.items()
            if not key[0].startswith(fleeting) and not key[1].startswith(fleeting)
        }

    def test_the_certificates_table(
        self, cloud: Cloud, somebody: Person, issue: Callable[[], Holder]
    ) -> None:
        standing, lost = issue(), issue()
        revoke(somebody, lost)
        before = self.drop(cloud, "CertificatesTable")
        unsound(cloud, "scripts/recover table certificates --stage local")
        assert "errorMessage" not in invoke(cloud, "RefreshCrlFunction")  # needs no record
        answers(standing, ADMITTED)
        answers(lost, REFUSED)

        run(cloud, "scripts/recover", "table", "certificates")
        sound(cloud)
        assert somebody.ask("GET", f"/certs/{standing.serial}").json["status"] == "active"
        assert somebody.ask("GET", f"/certs/{lost.serial}").json["status"] == "revoked"
        after = cloud.client("dynamodb").describe_table(TableName=before["TableName"])["Table"]
        assert {i["IndexName"] for i in after["GlobalSecondaryIndexes"]} == {
            i["IndexName"] for i in before["GlobalSecondaryIndexes"]
        }
        mappings = cloud.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        followed = [m["EventSourceArn"] for m in mappings if "/stream/" in m["EventSourceArn"]]
        assert after["LatestStreamArn"] in followed
        assert before["LatestStreamArn"] not in followed
        all_works(somebody, issue)

    def test_what_is_announced_goes_on_after_that(self, cloud: Cloud, somebody: Person) -> None:
        sqs, events = cloud.client("sqs"), cloud.client("events")
        queue = sqs.create_queue(QueueName="after-recovery")["QueueUrl"]
        asked = ["QueueArn"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=asked)["Attributes"][
            "QueueArn"
        ]
        pattern = json.dumps({"source": ["registry-trust"], "detail-type": ["CertificateIssued"]})
        events.put_rule(Name="after-recovery", EventPattern=pattern)
        events.put_targets(Rule="after-recovery", Targets=[{"Id": "queue", "Arn": arn}])
        serial = somebody.ask("POST", "/certs").json["serial"]

        def heard() -> bool:
            found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
            return any(serial in message["Body"] for message in found)

        assert until(heard, PATIENCE)

    def test_certificates_of_yesterday(
        self, cloud: Cloud, somebody: Person, issue: Callable[[], Holder]
    ) -> None:
        """A record of before a revocation does not undo it; one of after the backup is lost."""
        lost = issue()
        yesterday = self.back_up(cloud, "CertificatesTable")
        revoke(somebody, lost)
        later = issue()
        self.drop(cloud, "CertificatesTable")
        said = run(cloud, "scripts/recover", "table", "certificates", "--backup", yesterday)
        assert "1 certificates marked as revoked" in said
        sound(cloud)
        found = somebody.ask("GET", f"/certs/{lost.serial}").json
        assert found["status"] == "revoked"
        answers(lost, REFUSED)
        answers(later, ADMITTED)
        assert somebody.ask("GET", f"/certs/{later.serial}").status == 404
        all_works(somebody, issue)

    def test_items_that_were_deleted_come_back_from_the_time_before(
        self, cloud: Cloud, somebody: Person
    ) -> None:
        """The emulator restores to now whatever the time; here a damage is made by its twin."""
        serial = somebody.ask("POST", "/certs").json["serial"]
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        said = run(cloud, "scripts/recover", "table", "certificates", "--to-time", at)
        assert "put back 0 items" in said
        assert somebody.ask("GET", f"/certs/{serial}").status == 200
        sound(cloud)

    @pytest.mark.parametrize("how", [(), ("--empty",)])
    def test_the_instances_table(self, cloud: Cloud, how: tuple[str, ...]) -> None:
        """Instances keep their certificates; those that nobody knows of any more enrol again."""
        fleet = Fleet(cloud)
        (id_,) = fleet.launch("pull")
        try:
            before = fleet.enrolled(id_)
            self.drop(cloud, "InstancesTable")
            assert fleet.asks(id_) == "200"
            run(cloud, "scripts/recover", "table", "instances", *how)
            sound(cloud)
            invoke(cloud, "ReconcileInstancesFunction")
            after = fleet.enrolled(id_)
            assert fleet.asks(id_) == "200"
            if not how:
                assert after["serial"] == before["serial"]
            listed = cloud.person("ADMIN").ask("GET", "/admin/certs?limit=100&status=active")
            own = [c for c in listed.json["certificates"] if c["name"] == id_]
            assert [c["serial"] for c in own] == [after["serial"]]
        finally:
            fleet.ec2("terminate", id_)

    def test_an_instance_that_was_put_out_stays_out(self, cloud: Cloud) -> None:
        fleet = Fleet(cloud)
        (id_,) = fleet.launch("pull")
        try:
            serial = fleet.enrolled(id_)["serial"]
            assert cloud.person("ADMIN").ask("DELETE", f"/admin/certs/{serial}").status == 200
            fleet.wait(id_, lambda e: e["code"] == "certificate_revoked")
            self.drop(cloud, "InstancesTable")
            said = run(cloud, "scripts/recover", "table", "instances", "--empty")
            assert "1 instances stay out" in said
            invoke(cloud, "ReconcileInstancesFunction")
            time.sleep(5)
            assert fleet.enrolment(id_)["code"] == "certificate_revoked"
            assert fleet.asks(id_) != "200"
        finally:
            fleet.ec2("terminate", id_)

    def test_one_that_is_there_is_not_replaced(self, cloud: Cloud) -> None:
        for how in (("--empty",), ("--backup", "arn:aws:dynamodb:x")):
            said = run(cloud, "scripts/recover", "table", "state", *how, fails=True)
            assert "nothing that is there is replaced" in said


@pytest.fixture(scope="module")
def backup(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The arguments by which a backup is read."""
    directory = tmp_path_factory.mktemp("backup")
    passphrase, file = directory / "passphrase", directory / "cas.txt"
    passphrase.write_text(secrets.token_urlsafe(24))
    passphrase.chmod(0o600)
    secret = ("--passphrase-file", str(passphrase))
    run(cloud, "scripts/ca", "export", "--to", str(file), *secret)
    assert file.stat().st_mode & 0o777 == 0o600
    run(cloud, "scripts/ca", "export", "--to", str(file), *secret, fails=True)
    return ("--from", str(file), *secret)


class TestAuthorities:
    def parameters(self, cloud: Cloud) -> dict[str, str]:
        pages = cloud.client("ssm").get_paginator("get_parameters_by_path")
        prefix = f"/registry-trust/{cloud.variables['STAGE']}"
        found = pages.paginate(Path=prefix, Recursive=True, WithDecryption=True)
        return {p["Name"]: p["Value"] for page in found for p in page["Parameters"]}

    @pytest.mark.parametrize("kind", ["client", "server"])
    def test_a_set_comes_back_from_what_was_published(
        self, cloud: Cloud, somebody: Person, issue: Callable[[], Holder], kind: str
    ) -> None:
        before, standing = self.parameters(cloud), issue()
        name = f"/registry-trust/{cloud.variables['STAGE']}/{kind}-ca"
        cloud.client("ssm").delete_parameter(Name=name)
        unsound(cloud, f"BAD  {kind} CA: its parameter is missing", "scripts/ca restore")
        run(cloud, "scripts/ca", "init", fails=True)
        assert self.parameters(cloud).keys() == before.keys() - {name}
        run(cloud, "scripts/ca", "restore")
        assert self.parameters(cloud) == before
        sound(cloud)
        answers(standing, ADMITTED)
        all_works(somebody, issue)

    @pytest.mark.parametrize("kind", ["client", "server"])
    def test_a_key_comes_back_from_the_backup(
        self,
        cloud: Cloud,
        somebody: Person,
        issue: Callable[[], Holder],
        kind: str,
        backup: tuple[str, ...],
    ) -> None:
        before = self.parameters(cloud)
        (name,) = [each for each in before if f"{kind}-ca-key/" in each]
        cloud.client("ssm").delete_parameter(Name=name)
        unsound(cloud, f"BAD  {kind} CA", "its key cannot be read")
        assert "--from" in run(cloud, "scripts/ca", "restore", fails=True)
        run(cloud, "scripts/ca", "restore", *backup)
        assert self.keys_of(self.parameters(cloud)) == self.keys_of(before)
        sound(cloud)
        all_works(somebody, issue)

    def test_all_of_it_comes_back_even_when_nothing_is_published_any_more(
        self,
        cloud: Cloud,
        somebody: Person,
        issue: Callable[[], Holder],
        backup: tuple[str, ...],
    ) -> None:
        before, standing = self.parameters(cloud), issue()
        for name in before:
            if "-ca" in name:
                cloud.client("ssm").delete_parameter(Name=name)
        empty(cloud, "ConfigBucket", "trust/")
        refused = run(cloud, "scripts/ca", "restore", *backup, fails=True)
        assert "--trust-the-file" in refused
        run(cloud, "scripts/ca", "restore", *backup, "--trust-the-file")
        assert self.keys_of(self.parameters(cloud)) == self.keys_of(before)
        answers(standing, ADMITTED)
        all_works(somebody, issue)
        sound(cloud)

    def keys_of(self, parameters: dict[str, str]) -> dict[str, str]:
        return {name: value.strip() for name, value in parameters.items()}

    def test_a_kms_key_that_is_to_be_deleted_is_told_and_kept(
        self, cloud: Cloud, somebody: Person, issue: Callable[[], Holder]
    ) -> None:
        kms, key = cloud.client("kms"), cloud.outputs()["KeyArn"]
        kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
        unsound(cloud, "BAD  KMS key: it is to be deleted", "aws kms cancel-key-deletion")
        kms.cancel_key_deletion(KeyId=key)
        kms.enable_key(KeyId=key)
        sound(cloud)
        all_works(somebody, issue)


def empty(cloud: Cloud, output: str, prefix: str = "") -> None:
    """Every version of every object goes."""
    s3, bucket = cloud.client("s3"), cloud.outputs()[output]
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for each in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
            s3.delete_object(Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"])


def upload(holder: Holder) -> int:
    """What the registry answers to the beginning of a push."""
    with holder.connection() as connection:
        connection.request("POST", "/v2/some/image/blobs/uploads/", headers={"content-length": "0"})
        return connection.getresponse().status


class TestBuckets:
    SETTINGS = (
        "get_bucket_versioning",
        "get_bucket_encryption",
        "get_public_access_block",
        "get_bucket_ownership_controls",
        "get_bucket_lifecycle_configuration",
    )

    def settings(self, cloud: Cloud, output: str) -> dict[str, Any]:
        s3, bucket = cloud.client("s3"), cloud.outputs()[output]
        found = {name: getattr(s3, name)(Bucket=bucket) for name in self.SETTINGS}
        for each in found.values():
            del each["ResponseMetadata"]
        rules = found["get_bucket_lifecycle_configuration"]["Rules"]
        for rule in rules:  # one tag may be said in two ways
            said = rule.pop("Filter")
            tags = [said["Tag"]] if "Tag" in said else said.get("And", {}).get("Tags", [])
            rule["filter"] = (said.get("Prefix", ""), tags)
        return found

    def drop(self, cloud: Cloud, output: str) -> None:
        """Whoever is at work goes on writing to it, such as a registry host its reports."""

        def dropped() -> bool:
            empty(cloud, output)
            try:
                cloud.client("s3").delete_bucket(Bucket=cloud.outputs()[output])
            except ClientError as error:
                if error.response["Error"]["Code"] != "BucketNotEmpty":
                    raise
                return False
            return True

        assert until(dropped, PATIENCE)

    def test_the_config_bucket(
        self, cloud: Cloud, somebody: Person, issue: Callable[[], Holder]
    ) -> None:
        before, standing, lost = self.settings(cloud, "ConfigBucket"), issue(), issue()
        revoke(somebody, lost)
        answers(lost, REFUSED)
        self.drop(cloud, "ConfigBucket")
        unsound(cloud, "BAD  config bucket: deleted", "scripts/recover bucket config")
        answers(standing, ADMITTED)
        unpublished = issue()  # it works by itself; its bundle is stored nowhere
        pending = somebody.ask("DELETE", f"/certs/{unpublished.serial}")
        assert (pending.status, pending.json["crl_pending"]) == (202, True)
        answers(unpublished, ADMITTED)
        assert somebody.ask("GET", "/trust").status == 503

        run(cloud, "scripts/recover", "bucket")
        assert self.settings(cloud, "ConfigBucket") == before
        sound(cloud)
        assert {lost.serial, unpublished.serial} <= published(cloud)[1]
        answers(unpublished, REFUSED)
        there = cloud.client("s3").list_objects_v2(
            Bucket=cloud.outputs()["ConfigBucket"], Prefix="trust/"
        )
        names = {each["Key"] for each in there["Contents"]}
        assert {"trust/user-data.sh", "trust/registry-host.sh", "trust/trust.json"} <= names
        all_works(somebody, issue)
        answers(lost, REFUSED)
        answers(standing, ADMITTED)

    def test_the_registry_bucket(self, cloud: Cloud, issue: Callable[[], Holder]) -> None:
        before = self.settings(cloud, "RegistryBucket")
        self.drop(cloud, "RegistryBucket")
        unsound(cloud, "scripts/recover bucket registry")
        holder = issue()
        assert upload(holder) >= 500
        run(cloud, "scripts/recover", "bucket", "registry")
        assert upload(holder) == 202
        assert self.settings(cloud, "RegistryBucket") == before
        sound(cloud)

    @pytest.mark.parametrize("key", ["trust/client-ca.crl", "trust/ca.crt", "trust/trust.json"])
    def test_a_published_object_is_published_again_by_the_clock(
        self, cloud: Cloud, somebody: Person, issue: Callable[[], Holder], key: str
    ) -> None:
        lost = issue()
        revoke(somebody, lost)
        s3, bucket = cloud.client("s3"), cloud.outputs()["ConfigBucket"]
        s3.delete_object(Bucket=bucket, Key=key)
        unsound(cloud, f"BAD  published trust: missing or damaged: {key}")
        assert invoke(cloud, "RefreshCrlFunction", CLOCK)["crl_number"]
        sound(cloud)
        assert lost.serial in published(cloud)[1]
