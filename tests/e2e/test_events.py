"""What the rest of the account hears of certificates, from the deployed stack."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from localcloud.processes import until
from tests.e2e.client import Person
from tests.e2e.conftest import Cloud

# One poll of the stream is a second; a cold function adds its own.
PATIENCE = 20
ISSUED, REVOKED = "CertificateIssued", "CertificateRevoked"


@dataclass
class Listener:
    """A queue behind a rule on the default bus that matches whatever is ours."""

    sqs: Any
    queue: str
    heard: list[Any] = field(default_factory=list)

    def of(self, serial: str) -> list[Any]:
        """The events of one certificate so far, in the order they came."""
        answer = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            self.heard.append(json.loads(message["Body"]))
            self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return [event for event in self.heard if event["detail"]["serial"] == serial]

    def wait_for(self, serial: str, count: int = 1) -> list[Any]:
        """The events of one certificate, at least *count* of them."""
        assert until(lambda: len(self.of(serial)) >= count, PATIENCE), self.heard
        return self.of(serial)


@pytest.fixture(scope="module")
def listener(cloud: Cloud) -> Listener:
    sqs, events = cloud.client("sqs"), cloud.client("events")
    queue = sqs.create_queue(QueueName="listener")["QueueUrl"]
    asked = ["QueueArn"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=asked)["Attributes"]["QueueArn"]
    events.put_rule(Name="listener", EventPattern=json.dumps({"source": ["registry-trust"]}))
    events.put_targets(Rule="listener", Targets=[{"Id": "queue", "Arn": arn}])
    return Listener(sqs, queue)


def issue(person: Person, **body: Any) -> Any:
    answer = person.post("/certs", body)
    assert answer.status == 201, answer.body
    return answer.json


def expected(cloud: Cloud, document: Any) -> dict[str, Any]:
    """The detail that the answer to POST /certs lets one expect."""
    same = ("serial", "name", "owner", "access", "issuer_id", "fingerprint_sha256")
    times = ("not_before", "not_after", "issued_at")
    said = {name: document[name] for name in same + times}
    stage = cloud.variables["STAGE"]
    return {"version": 1, "stage": stage, **said, "issued_by": None, "renews": None}


def test_an_issued_certificate_is_announced_once_as_it_was_answered(
    cloud: Cloud, listener: Listener, dev: Person
) -> None:
    document = issue(dev, label="a laptop", access="pull")

    (event,) = listener.wait_for(document["serial"])
    assert (event["source"], event["detail-type"]) == ("registry-trust", ISSUED)
    assert event["detail"] == expected(cloud, document)
    time.sleep(2)  # a second one would have come by the next poll
    assert len(listener.of(document["serial"])) == 1


def test_what_does_not_say_anything_new_is_not_announced(
    cloud: Cloud, listener: Listener, dev: Person
) -> None:
    """A refused request, and a change of the record that others have no use for."""
    before = issue(dev)
    assert dev.post("/certs", {"days": 9999}).status == 400
    change(cloud, before["serial"], superseded_by="0c" * 20)
    after = issue(dev)

    listener.wait_for(after["serial"])
    assert [event["detail-type"] for event in listener.of(before["serial"])] == [ISSUED]
    owners = [event["detail"]["owner"] for event in listener.heard]
    assert owners.count(before["owner"]) == 2


def test_a_revoked_certificate_is_announced_with_its_reason(
    cloud: Cloud, listener: Listener, dev: Person
) -> None:
    document = issue(dev)
    listener.wait_for(document["serial"])
    asked = ("--header", "content-type: application/json", "--data", '{"reason": "keyCompromise"}')
    answer = dev.ask("DELETE", f"/certs/{document['serial']}", *asked)
    assert answer.status in (200, 202), answer.body

    issued, revoked = listener.wait_for(document["serial"], 2)
    assert (issued["detail-type"], revoked["detail-type"]) == (ISSUED, REVOKED)
    assert revoked["detail"] == {
        **expected(cloud, document),
        "revoked_at": answer.json["revoked_at"],
        "reason": "keyCompromise",
        "revoked_by": document["owner"],
    }
    again = dev.ask("DELETE", f"/certs/{document['serial']}", *asked)
    assert again.status in (200, 202), again.body
    time.sleep(2)
    assert len(listener.of(document["serial"])) == 2


def test_a_renewal_announces_the_successor_and_revokes_aloud_only_if_asked(
    cloud: Cloud, listener: Listener, dev: Person
) -> None:
    first = issue(dev)
    second = renew(dev, first)
    third = renew(dev, second, revoke_old=True)

    (event,) = listener.wait_for(third["serial"])
    assert event["detail"] == {**expected(cloud, third), "renews": second["serial"]}
    _, revoked = listener.wait_for(second["serial"], 2)
    assert (revoked["detail-type"], revoked["detail"]["reason"]) == (REVOKED, "superseded")
    assert [event["detail-type"] for event in listener.of(first["serial"])] == [ISSUED]


def renew(person: Person, document: Any, **body: Any) -> Any:
    answer = person.post(f"/certs/{document['serial']}/renew", body)
    assert answer.status == 201, answer.body
    return answer.json


def test_a_certificate_that_an_admin_had_issued_names_both(
    cloud: Cloud, listener: Listener, dev: Person
) -> None:
    owner = issue(dev)["owner"]
    answer = cloud.person("ADMIN").post("/admin/certs", {"name": "builder", "owner": owner})
    assert answer.status == 201, answer.body

    (event,) = listener.wait_for(answer.json["serial"])
    assert (event["detail"]["name"], event["detail"]["owner"]) == ("builder", owner)
    assert event["detail"]["issued_by"].endswith("/admin")


def change(cloud: Cloud, serial: str, **attributes: str) -> None:
    """Set attributes of a certificate's item, past the code."""
    cloud.client("dynamodb").update_item(
        TableName=cloud.outputs()["CertificatesTable"],
        Key={"serial": {"S": serial}},
        AttributeUpdates={
            name: {"Action": "PUT", "Value": {"S": value}} for name, value in attributes.items()
        },
    )


def test_an_item_that_is_no_certificate_holds_nobody_back(
    cloud: Cloud, listener: Listener, dev: Person
) -> None:
    table = {"TableName": cloud.outputs()["CertificatesTable"]}
    junk = {"serial": {"S": "junk"}, "access": {"S": "push"}}
    cloud.client("dynamodb").put_item(**table, Item=junk)
    try:
        document = issue(dev)
        (event,) = listener.wait_for(document["serial"])
        assert event["detail-type"] == ISSUED
    finally:
        cloud.client("dynamodb").delete_item(**table, Key={"serial": junk["serial"]})


def test_an_outage_of_the_bus_delays_events_and_loses_none(
    cloud: Cloud, listener: Listener, dev: Person
) -> None:
    """Issuing does not notice."""
    with cloud.denied("AnnounceCertificatesRole", "events:PutEvents"):
        documents = [issue(dev) for _ in range(3)]
        time.sleep(3)  # several tries
        assert [listener.of(document["serial"]) for document in documents] == [[], [], []]

    for document in documents:
        assert listener.wait_for(document["serial"])[0]["detail"] == expected(cloud, document)
