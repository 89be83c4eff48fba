"""What keeps enrolled instances so: renewal, a new trust, and what makes up for lost events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib.adapters.parameters import authority_set_name
from chalicelib.domain.model import KeyType, Validity
from chalicelib.domain.pki.authorities import AuthorityKind, make_server_authority
from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.domain.pki.keys import make_key
from chalicelib.domain.pki.leaves import certificate_pem
from localcloud.processes import until
from tests.e2e.instances import Fleet

DAY = timedelta(days=1)

# With the credentials of the instance's role, as the metadata service gives them.
ASK_BY_ITSELF = r"""
meta=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest header=X-aws-ec2-metadata-token
token=$(curl -sS -X PUT "$meta/api/token" -H "$header-ttl-seconds: 60")
tell() { curl -sS -H "$header: $token" "$meta/meta-data/iam/security-credentials/$1"; }
tell "$(tell '')" > /tmp/credentials
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" /tmp/credentials; }
curl -sS -w '\n%{http_code}' -X POST "API_URL/certs" --aws-sigv4 aws:amz:us-east-1:execute-api \
  --user "$(field AccessKeyId):$(field SecretAccessKey)" \
  -H "x-amz-security-token: $(field Token)"
"""


@pytest.fixture(scope="module")
def fleet(cloud: Any) -> Fleet:
    return Fleet(cloud)


@pytest.fixture
def launch(fleet: Fleet) -> Iterator[Callable[[], str]]:
    launched: list[str] = []

    def one() -> str:
        launched.extend(fleet.launch("pull"))
        return launched[-1]

    yield one
    for each in launched:
        fleet.ec2("terminate", each)


def test_in_the_last_third_of_its_life_a_certificate_is_renewed_for_the_same_key(
    fleet: Fleet, launch: Callable[[], str]
) -> None:
    id_ = launch()
    before = fleet.enrolled(id_)
    key = fleet.run(id_, "cat /etc/docker/certs.d/$REGISTRY/client.key | sha256sum").stdout
    fleet.make_old(before["serial"])
    fleet.make_due(id_)
    fleet.reconcile()
    after = fleet.wait(id_, lambda e: e["state"] == "enrolled" and e["serial"] != before["serial"])
    assert fleet.asks(id_) == "200"
    assert fleet.certificate(after["serial"])["renews"] == before["serial"]
    old = fleet.certificate(before["serial"])
    assert (old["status"], old["revocation_reason"]) == ("revoked", "superseded")
    assert fleet.run(id_, "cat /etc/docker/certs.d/$REGISTRY/client.key | sha256sum").stdout == key


def test_what_is_in_order_is_looked_at_and_kept(fleet: Fleet, launch: Callable[[], str]) -> None:
    """The twin: due, but its certificate is not old."""
    id_ = launch()
    before = fleet.enrolled(id_)
    fleet.make_due(id_)
    fleet.reconcile()
    after = fleet.wait(
        id_,
        lambda e: e["state"] == "enrolled" and e["enrolled_at"] != before["enrolled_at"],
    )
    assert after["serial"] == before["serial"]


@pytest.fixture
def another_server_ca(fleet: Fleet) -> Iterator[Callable[[], None]]:
    """Call it, and another is trusted beside the one that signs: as a rotation begins."""
    outputs, ssm = fleet.cloud.outputs(), fleet.cloud.client("ssm")
    name = authority_set_name(outputs["ParameterPrefix"], AuthorityKind.SERVER)
    before = ssm.get_parameter(Name=name)["Parameter"]["Value"]

    def publish(value: str) -> None:
        ssm.put_parameter(Name=name, Value=value, Type="String", Overwrite=True)
        fleet.invoke("RefreshCrlFunction")

    def add() -> None:
        validity = Validity.starting(datetime.now(UTC), 100 * DAY, DAY)
        made = make_server_authority(
            make_key(KeyType.EC_P256), 7, validity, outputs["RegistryHost"]
        )
        known = AuthoritySet.from_json(before)
        certificates = {**known.certificates, made.id: certificate_pem(made.certificate)}
        publish(AuthoritySet(known.active, certificates).to_json())

    yield add
    publish(before)


def test_a_new_ca_reaches_an_enrolled_instance(
    fleet: Fleet, launch: Callable[[], str], another_server_ca: Callable[[], None]
) -> None:
    id_ = launch()
    before = fleet.enrolled(id_)
    count = "grep -c BEGIN /etc/docker/certs.d/$REGISTRY/ca.crt"
    assert fleet.run(id_, count).stdout == "1\n"
    another_server_ca()
    fleet.reconcile()
    # A function keeps the trust for a minute; the clock asks again.
    after = fleet.wait(
        id_,
        lambda e: e["state"] == "enrolled" and e["trust_version"] != before["trust_version"],
        seconds=200,
    )
    assert fleet.run(id_, count).stdout == "2\n"
    assert after["serial"] == before["serial"]
    assert fleet.asks(id_) == "200"


def test_a_launch_and_an_end_that_no_event_told_of_are_found_by_the_clock(
    fleet: Fleet, launch: Callable[[], str]
) -> None:
    fleet.load(drop_events=1.0)
    try:
        id_ = launch()
        time.sleep(2)
        assert fleet.enrolment(id_) == {}
        serial = fleet.enrolled(id_, seconds=200)["serial"]
        fleet.ec2("terminate", id_)
        fleet.reconcile()
        fleet.wait(id_, lambda e: e["state"] == "gone")
    finally:
        fleet.load()
    assert fleet.certificate(serial)["status"] == "revoked"


def test_what_stands_in_the_way_is_said_and_once_it_is_gone_the_instance_enrols(
    fleet: Fleet, launch: Callable[[], str]
) -> None:
    with fleet.cloud.denied("AdvanceInstanceRole", "ssm:SendCommand"):
        id_ = launch()
        known = fleet.wait(id_, lambda e: e["code"] == "command_not_sent")
        assert known["state"] == "waiting_for_agent"
        assert known["serial"] is None
    assert fleet.enrolled(id_)["reason"] == ""


def test_who_asks_by_itself_is_looked_at_and_barred_once_its_certificate_was_revoked(
    fleet: Fleet, launch: Callable[[], str]
) -> None:
    id_ = launch()
    serial = fleet.enrolled(id_)["serial"]
    ask = ASK_BY_ITSELF.replace("API_URL", fleet.cloud.variables["API_URL"])
    said = fleet.run(id_, ask).stdout
    assert said.endswith("\n201"), said
    other = json.loads(said.rpartition("\n")[0])["serial"]
    admin = fleet.cloud.person("ADMIN")
    assert admin.ask("DELETE", f"/admin/certs/{serial}").status == 200
    refused = fleet.run(id_, ask).stdout
    assert refused.endswith("\n403"), refused
    assert '"instance_barred"' in refused
    fleet.make_due(id_)
    fleet.reconcile()
    fleet.wait(id_, lambda e: e["code"] == "certificate_revoked")
    assert until(lambda: fleet.certificate(other)["status"] == "revoked", 20)
