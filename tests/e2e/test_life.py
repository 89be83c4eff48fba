"""Renew, revoke, list, ask why: on the deployed stack, as people use it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from cryptography import x509

from tests.e2e.client import Person

SHELL = ("--header", "accept: text/x-shellscript")


def certificate_of(document):
    return x509.load_pem_x509_certificate(document["certificate"].encode())


def issue(person: Person, **body):
    answer = person.post("/certs", body)
    assert answer.status == 201, answer.body
    return answer.json


def revoke(person: Person, serial: str, path="/certs", **body):
    given = ("--header", "content-type: application/json", "--data", json.dumps(body))
    return person.ask("DELETE", f"{path}/{serial}", *(given if body else ()))


def listed_serials(trust):
    """What the published lists name."""
    end = "-----END X509 CRL-----\n"
    return {
        entry.serial_number
        for part in trust["crl"].split(end)
        if part
        for entry in x509.load_pem_x509_crl((part + end).encode())
    }


class TestRenewing:
    def test_a_bare_post_renews_a_key_we_made_with_a_new_one(self, dev):
        old = issue(dev, access="pull", label="laptop")
        answer = dev.ask("POST", f"/certs/{old['serial']}/renew")

        assert answer.status == 201
        new = answer.json
        assert answer.headers["location"] == f"/v1/certs/{new['serial']}"
        same = ("name", "owner", "access", "label")
        assert [new[name] for name in same] == [old[name] for name in same]
        assert (new["renews"], new["private_key"] != old["private_key"]) == (old["serial"], True)
        assert dev.ask("GET", f"/certs/{old['serial']}").json["superseded_by"] == new["serial"]

    def test_a_csr_is_taken_as_it_is(self, dev, make_csr):
        old, csr = issue(dev), make_csr()
        new = dev.ask("POST", f"/certs/{old['serial']}/renew", body=csr).json

        assert certificate_of(new).public_key() == x509.load_pem_x509_csr(csr).public_key()
        assert "private_key" not in new

    def test_ones_own_key_is_certified_again_and_the_old_one_revoked_if_asked(self, dev, make_csr):
        old = dev.ask("POST", "/certs", body=make_csr()).json
        answer = dev.post(f"/certs/{old['serial']}/renew", {"revoke_old": True, "days": 3})

        assert (answer.status, answer.json["crl_pending"]) == (201, False)
        assert certificate_of(answer.json).public_key() == certificate_of(old).public_key()
        before = dev.ask("GET", f"/certs/{old['serial']}").json
        assert (before["status"], before["revocation_reason"]) == ("revoked", "superseded")
        assert certificate_of(old).serial_number in listed_serials(dev.ask("GET", "/trust").json)

    def test_it_comes_as_an_installer_too(self, dev):
        old = issue(dev)
        answer = dev.ask("POST", f"/certs/{old['serial']}/renew", *SHELL)
        assert answer.body.startswith(b"#!/bin/sh")

    def test_the_same_request_again_gives_the_same_successor(self, dev):
        old = issue(dev)
        key = ("--header", "idempotency-key: once")
        answers = [dev.ask("POST", f"/certs/{old['serial']}/renew", *key) for _ in range(2)]
        assert answers[0].json["serial"] == answers[1].json["serial"]
        assert answers[0].json["private_key"] == answers[1].json["private_key"]

    def test_an_idempotency_key_is_for_one_route(self, dev):
        key = ("--header", "idempotency-key: once")
        old = dev.ask("POST", "/certs", *key).json
        answer = dev.ask("POST", f"/certs/{old['serial']}/renew", *key)
        assert (answer.status, answer.code) == (409, "idempotency_key_reused")

    def test_twice_is_refused_and_the_successor_named(self, dev):
        old = issue(dev)
        new = dev.ask("POST", f"/certs/{old['serial']}/renew").json
        answer = dev.ask("POST", f"/certs/{old['serial']}/renew")
        assert (answer.status, answer.code) == (409, "already_renewed")
        assert new["serial"] in answer.json["detail"]

    def test_somebody_elses_does_not_exist(self, dev, dev2, written):
        old = issue(dev)
        before = written()
        answer = dev2.ask("POST", f"/certs/{old['serial']}/renew")
        assert (answer.status, answer.code) == (404, "certificate_not_found")
        assert written() == before


class TestRevoking:
    def test_a_bare_delete_revokes_and_the_published_list_says_so(self, dev):
        document = issue(dev)
        answer = revoke(dev, document["serial"])

        assert answer.status == 200
        shown = answer.json
        assert (shown["status"], shown["revocation_reason"]) == ("revoked", "unspecified")
        assert (shown["crl_pending"], shown["also_revoked"]) == (False, [])
        assert shown["revoked_by"] == document["owner"]
        trust = dev.ask("GET", "/trust").json
        assert trust["crl_number"] >= shown["crl_number"]
        assert certificate_of(document).serial_number in listed_serials(trust)

    def test_again_is_well_too_and_changes_nothing(self, dev):
        serial = issue(dev)["serial"]
        first = revoke(dev, serial, reason="keyCompromise").json
        again = revoke(dev, serial, reason="privilegeWithdrawn")
        assert (again.status, again.json["revocation_reason"]) == (200, "keyCompromise")
        assert again.json["revoked_at"] == first["revoked_at"]

    def test_openssls_spelling_of_a_serial_is_understood(self, dev):
        serial = issue(dev)["serial"]
        assert revoke(dev, serial.lstrip("0").upper()).json["serial"] == serial

    @pytest.mark.parametrize("reason", ["certificateHold", "removeFromCRL", "lost", "", 1])
    def test_a_reason_that_there_is_not_is_refused_and_nothing_revoked(self, dev, reason):
        serial = issue(dev)["serial"]
        answer = revoke(dev, serial, reason=reason)
        assert (answer.status, answer.json["field"]) == (400, "reason")
        assert dev.ask("GET", f"/certs/{serial}").json["status"] == "active"

    def test_somebody_elses_does_not_exist(self, dev, dev2):
        serial = issue(dev)["serial"]
        answer = revoke(dev2, serial)
        assert (answer.status, answer.code) == (404, "certificate_not_found")
        assert dev.ask("GET", f"/certs/{serial}").json["status"] == "active"

    def test_its_private_key_is_handed_out_no_more(self, dev):
        document = issue(dev)
        url = document["bundle"]["url"]
        with urllib.request.urlopen(url) as bundle:  # noqa: S310  # of our own cloud
            assert bundle.status == 200
        revoke(dev, document["serial"])

        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url)  # noqa: S310
        assert caught.value.code in (403, 404)
        answer = dev.ask("GET", f"/certs/{document['serial']}/bundle")
        assert (answer.status, answer.code) == (409, "certificate_revoked")

    def test_a_request_made_again_does_not_bring_it_back(self, dev):
        key = ("--header", "idempotency-key: once")
        serial = dev.ask("POST", "/certs", *key).json["serial"]
        revoke(dev, serial)
        answer = dev.ask("POST", "/certs", *key)
        assert (answer.status, answer.code) == (409, "certificate_revoked")

    def test_older_certificates_of_the_key_fall_with_it(self, dev, make_csr):
        csr = make_csr()
        first = dev.ask("POST", "/certs", body=csr).json
        second = dev.ask("POST", f"/certs/{first['serial']}/renew").json
        shown = revoke(dev, second["serial"]).json
        assert shown["also_revoked"] == [first["serial"]]
        both = {certificate_of(each).serial_number for each in (first, second)}
        assert both <= listed_serials(dev.ask("GET", "/trust").json)

    def test_a_full_quota_has_room_again(self, newcomer):
        person = newcomer("squirrel")
        serials = [issue(person)["serial"] for _ in range(20)]
        refused = person.ask("POST", "/certs")
        assert (refused.status, refused.code) == (429, "quota_exceeded")
        revoke(person, serials[7])
        assert person.ask("POST", "/certs").status == 201


class TestPublishingFails:
    """The bucket refuses the list; the revocation stands, and the schedule finishes the job."""

    def unpublishable(self, cloud):
        objects = f"arn:aws:s3:::{cloud.variables['CONFIG_BUCKET']}/trust/*"
        return cloud.denied("ApiHandlerRole", "s3:PutObject", objects)

    def tick(self, cloud):
        """What EventBridge sends every few minutes."""
        event = {
            "version": "0",
            "id": "0",
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": "",
            "time": "",
            "region": "",
            "resources": [],
            "detail": {},
        }
        answer = cloud.client("lambda").invoke(
            FunctionName=cloud.outputs()["RefreshCrlFunction"], Payload=json.dumps(event).encode()
        )
        assert "FunctionError" not in answer
        return json.loads(answer["Payload"].read())["crl_number"]

    def test_the_answer_says_so_and_the_next_tick_publishes_it(self, cloud, dev):
        document = issue(dev)
        number = certificate_of(document).serial_number
        with self.unpublishable(cloud):
            answer = revoke(dev, document["serial"])
            assert (answer.status, answer.json["crl_pending"]) == (202, True)
            assert (answer.json["status"], answer.json["crl_number"]) == ("revoked", None)
            found = dev.post("/certs/diagnose", {"serial": document["serial"]}).json
            assert found["revocation"]["published"] is False
            assert found["admitted"] is True  # for the registry goes by what is published
        assert number not in listed_serials(dev.ask("GET", "/trust").json)

        published = self.tick(cloud)
        trust = dev.ask("GET", "/trust").json
        assert trust["crl_number"] >= published
        assert number in listed_serials(trust)
        assert self.tick(cloud) is None  # nothing is left to do

    def test_asking_again_publishes_it_too(self, cloud, dev):
        document = issue(dev)
        with self.unpublishable(cloud):
            assert revoke(dev, document["serial"]).status == 202
        answer = revoke(dev, document["serial"])
        assert (answer.status, answer.json["crl_pending"]) == (200, False)

    def test_a_renewal_that_replaces_is_still_a_certificate(self, cloud, dev):
        document = issue(dev)
        with self.unpublishable(cloud):
            answer = dev.post(f"/certs/{document['serial']}/renew", {"revoke_old": True})
        assert (answer.status, answer.json["crl_pending"]) == (201, True)
        self.tick(cloud)
        found = dev.post("/certs/diagnose", {"serial": document["serial"]}).json
        assert (found["admitted"], found["superseded_by"]) == (False, answer.json["serial"])


class TestListing:
    def test_pages_survive_what_is_issued_between_them(self, newcomer):
        person = newcomer("pager")
        serials = [issue(person)["serial"] for _ in range(5)]
        seen, cursor = [], ""
        while cursor is not None:
            given = f"cursor={cursor}&limit=2" if cursor else "limit=2"
            page = person.ask("GET", f"/certs?{given}").json
            seen += [each["serial"] for each in page["certificates"]]
            cursor = page["next_cursor"]
            issue(person)
        assert seen == serials[::-1]

    def test_of_a_status_only_those(self, newcomer):
        person = newcomer("sorter")
        active, gone = issue(person), issue(person)
        revoke(person, gone["serial"])
        for status, expected in (("active", [active]), ("revoked", [gone]), ("expired", [])):
            page = person.ask("GET", f"/certs?status={status}").json
            assert [each["serial"] for each in page["certificates"]] == [
                each["serial"] for each in expected
            ]


class TestAdmins:
    @pytest.fixture
    def admin(self, cloud):
        return cloud.person("ADMIN")

    def test_a_service_gets_a_certificate_of_its_name(self, admin, dev):
        owner = issue(dev)["owner"]
        answer = admin.post("/admin/certs", {"name": "ci@build,1=a+b", "owner": owner, "days": 700})

        assert answer.status == 201, answer.body
        document = answer.json
        assert answer.headers["location"] == f"/v1/admin/certs/{document['serial']}"
        assert (document["name"], document["owner"]) == ("ci@build,1=a+b", owner)
        assert document["issued_by"].endswith(":user/admin")
        assert dev.ask("GET", f"/certs/{document['serial']}").status == 200

    def test_they_see_whose_it_may_be_and_filter(self, admin, dev, dev2):
        of_dev, of_dev2 = issue(dev, days=2), issue(dev2, days=300)
        assert admin.ask("GET", f"/admin/certs/{of_dev['serial']}").json["owner"] == of_dev["owner"]
        newest = admin.ask("GET", "/admin/certs?limit=2").json["certificates"]
        assert [each["serial"] for each in newest] == [of_dev2["serial"], of_dev["serial"]]
        owner = of_dev["owner"].replace(":", "%3A").replace("/", "%2F")
        page = admin.ask("GET", f"/admin/certs?owner={owner}").json
        assert [each["serial"] for each in page["certificates"]] == [of_dev["serial"]]

    def test_they_see_what_ends_soonest(self, admin, dev):
        document = issue(dev, days=2)
        end = f"{document['not_after'][:10]}T23:59:59Z".replace(":", "%3A")
        page = admin.ask("GET", f"/admin/certs?expires_before={end}&status=active").json
        found = page["certificates"]
        assert document["serial"] in [each["serial"] for each in found]
        assert [each["not_after"] for each in found] == sorted(each["not_after"] for each in found)
        assert all(each["not_after"] <= f"{document['not_after'][:10]}T23:59:59Z" for each in found)

    def test_they_revoke_and_diagnose_whose_it_may_be(self, admin, dev):
        document = issue(dev)
        answer = revoke(admin, document["serial"], "/admin/certs", reason="privilegeWithdrawn")
        assert (answer.status, answer.json["crl_pending"]) == (200, False)
        shown = dev.ask("GET", f"/certs/{document['serial']}").json
        assert shown["revoked_by"].endswith(":user/admin")
        found = admin.ask(
            "POST", "/admin/certs/diagnose", body=document["certificate"].encode()
        ).json
        assert found["admitted"] is False
        assert found["revocation"]["published"] is True
        assert "revoked" in [finding["code"] for finding in found["findings"]]

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/admin/certs"),
            ("GET", "/admin/certs"),
            ("GET", "/admin/certs/00"),
            ("DELETE", "/admin/certs/00"),
            ("POST", "/admin/certs/diagnose"),
        ],
    )
    def test_nobody_else_is_one(self, dev, method, path):
        """The emulator's refusal has not the form that the stack's gateway gives it."""
        assert dev.ask(method, path).status == 403


class TestDiagnosing:
    def test_a_good_one_is_admitted_by_serial_and_by_pem(self, dev):
        document = issue(dev, access="pull")
        for asked in ({"serial": document["serial"]}, {"certificate": document["certificate"]}):
            found = dev.post("/certs/diagnose", asked).json
            assert (found["admitted"], found["access"]) == (True, "pull")
            assert found["certificate"]["serial"] == document["serial"]

    def test_a_private_key_is_refused_unread(self, dev):
        document = issue(dev)
        answer = dev.ask("POST", "/certs/diagnose", body=document["private_key"].encode())
        assert (answer.status, answer.code) == (400, "private_key_sent")

    def test_somebody_elses_does_not_exist(self, dev, dev2):
        document = issue(dev)
        for asked in ({"serial": document["serial"]}, {"certificate": document["certificate"]}):
            answer = dev2.post("/certs/diagnose", asked)
            assert (answer.status, answer.code) == (404, "certificate_not_found")
