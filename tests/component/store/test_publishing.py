"""Publishing the trust on a real emulator: it only moves forward, and no revocation is lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.bootstrap import Services
from chalicelib.domain.model import Caller, IssueRequest, RevocationReason
from chalicelib.domain.pki.crl import read_bundle
from chalicelib.domain.trust import TRUST_KEYS, Trust
from chalicelib.errors import Contended, Misconfigured
from chalicelib.services.revoking import Revoked
from tests.component.emulated_aws import EmulatedAws
from tests.component.store.authorities import PREFIX, put_authorities
from tests.unit.settings import SETTINGS

BUCKET = "config"


@pytest.fixture
def services(aws: EmulatedAws) -> Services:
    put_authorities(aws)
    return Services(replace(SETTINGS, parameter_prefix=PREFIX, certificates_per_owner=100))


def objects(aws: EmulatedAws) -> dict[str, str]:
    s3 = aws.client("s3")
    return {
        key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode() for key in TRUST_KEYS
    }


def numbers_published(aws: EmulatedAws) -> list[int | None]:
    """Of every version of the list that there ever was, oldest first."""
    s3 = aws.client("s3")
    versions = s3.list_object_versions(Bucket=BUCKET, Prefix="trust/client-ca.crl")["Versions"]
    bodies = [
        s3.get_object(Bucket=BUCKET, Key=each["Key"], VersionId=each["VersionId"])["Body"].read()
        for each in reversed(versions)
    ]
    return [crl.number for body in bodies for crl in read_bundle(body.decode())]


def test_what_is_published_is_in_all_its_objects(aws: EmulatedAws, services: Services) -> None:
    trust = services.trust.refresh()
    assert {key: text.encode() for key, text in objects(aws).items()} == trust.objects()
    assert services.trust.current() == trust


@pytest.mark.parametrize("changed", TRUST_KEYS)
def test_an_object_that_changed_meanwhile_is_not_overwritten(
    aws: EmulatedAws, services: Services, changed: str
) -> None:
    bucket: Any = services.trust.publication
    trust = services.trust.refresh()
    before = bucket.published()
    aws.client("s3").put_object(Bucket=BUCKET, Key=changed, Body=b"newer")
    with pytest.raises(Contended):
        bucket.publish(replace(trust, registry="other.example", crl="other"), before)
    assert objects(aws)[changed] == "newer"
    assert not bucket.published().whole
    assert services.trust.keep() is not None  # it read that anew, and may
    assert bucket.published().whole


def test_an_object_that_has_gone_is_written_again(aws: EmulatedAws, services: Services) -> None:
    trust = services.trust.refresh()
    for key in TRUST_KEYS:
        aws.client("s3").delete_object(Bucket=BUCKET, Key=key)
        services.trust.refresh()
    assert objects(aws).keys() == trust.objects().keys()


def test_the_first_publication_of_two_at_once_stands(aws: EmulatedAws, services: Services) -> None:
    s3 = aws.client("s3")
    for key in TRUST_KEYS:
        s3.delete_object(Bucket=BUCKET, Key=key)
    bucket: Any = services.trust.publication
    nothing = bucket.published()
    assert (nothing.trust, nothing.versions, nothing.number) == (None, {}, 0)
    trust = Trust("r", "", "ca", "ca", "", 1)
    bucket.publish(trust, nothing)
    with pytest.raises(Contended):
        bucket.publish(replace(trust, crl_number=2), nothing)
    assert bucket.read_trust() == trust


def test_a_restored_counter_does_not_take_the_published_number_back(
    aws: EmulatedAws, services: Services
) -> None:
    for _ in range(3):
        published = services.trust.refresh().crl_number
    number = {"number": {"Action": "PUT", "Value": {"N": "1"}}}
    key = {"pk": {"S": "crl"}, "sk": {"S": "number"}}
    aws.client("dynamodb").update_item(TableName="state", Key=key, AttributeUpdates=number)
    assert services.trust.refresh().crl_number > published


@pytest.mark.parametrize("lost", [(), ("trust/trust.json",)])
def test_what_was_published_as_revoked_stays_so_when_its_rows_are_lost(
    aws: EmulatedAws, services: Services, owner: str, lost: tuple[str, ...]
) -> None:
    """Also when the document has gone with them: the list still lies by itself."""
    caller, keeper = Caller(owner, "ann"), services.trust
    keeper.refresh()
    serial = services.issuing.issue(IssueRequest(), caller).record.serial
    services.revoking.revoke(serial, RevocationReason.KEY_COMPROMISE, caller)
    dynamodb = aws.client("dynamodb")
    for item in dynamodb.scan(TableName="state")["Items"]:
        key = {name: item[name] for name in ("pk", "sk")}
        dynamodb.delete_item(TableName="state", Key=key)
    for each in lost:
        aws.client("s3").delete_object(Bucket=BUCKET, Key=each)
    keeper.refresh()
    (published,) = read_bundle(objects(aws)["trust/client-ca.crl"])
    entry = published.listed(int(serial, 16))
    assert entry is not None
    assert entry.reason == "keyCompromise"


def test_revocations_at_once_are_all_published_and_the_number_only_grows(
    aws: EmulatedAws, services: Services, owner: str
) -> None:
    s3 = aws.client("s3")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    caller = Caller(owner, "ann")
    serials = [services.issuing.issue(IssueRequest(), caller).record.serial for _ in range(8)]
    services.trust.refresh()
    revoking, together = services.revoking, threading.Barrier(8)

    def revoke(serial: str) -> Revoked:
        together.wait()
        return revoking.revoke(serial, RevocationReason.UNSPECIFIED, caller)

    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(revoke, serials))
    if any(each.crl_pending for each in done):  # it lost eight times: the schedule finishes that
        assert services.trust.keep() is not None
    (published,) = read_bundle(objects(aws)["trust/client-ca.crl"])
    assert all(published.listed(int(serial, 16)) for serial in serials)
    assert services.trust.current().crl == objects(aws)["trust/client-ca.crl"]
    numbers = [number for number in numbers_published(aws) if number is not None]
    assert len(numbers) > 2
    assert numbers == sorted(set(numbers))
    assert not set(serials) & set(services.trust.revocations.pending())
    print(f"{len(numbers)} publications, {sum(each.crl_pending for each in done)} left pending")


def test_the_version_of_the_trust_is_told_without_reading_it(
    services: Services,
) -> None:
    bucket: Any = services.trust.publication
    trust = services.trust.refresh()
    calls: list[str] = []
    bucket._s3.meta.events.register("before-call", lambda model, **_: calls.append(model.name))
    assert bucket.trust_version() == trust.version
    assert calls == ["HeadObject"]


def test_the_version_of_a_trust_published_without_it_is_read(
    aws: EmulatedAws, services: Services
) -> None:
    """As by a release that did not write it beside the number."""
    trust = replace(services.trust.refresh(), registry="earlier.example")
    document = trust.objects()["trust/trust.json"]
    aws.client("s3").put_object(
        Bucket=BUCKET, Key="trust/trust.json", Body=document, Metadata={"crl-number": "1"}
    )
    bucket: Any = services.trust.publication
    assert bucket.trust_version() == trust.version
    services.trust.refresh()


def test_a_trust_that_was_never_published_has_no_version(
    aws: EmulatedAws, services: Services
) -> None:
    services.trust.refresh()
    aws.client("s3").delete_object(Bucket=BUCKET, Key="trust/trust.json")
    bucket: Any = services.trust.publication
    with pytest.raises(Misconfigured) as caught:
        bucket.trust_version()
    assert caught.value.code == "no_trust"
    services.trust.refresh()
