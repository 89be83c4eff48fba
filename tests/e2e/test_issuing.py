"""POST /certs and what follows from it, on the deployed stack, as people use it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization


def certificate_of(document):
    return x509.load_pem_x509_certificate(document["certificate"].encode())


def test_a_bare_post_gives_a_working_pair(dev):
    answer = dev.ask("POST", "/certs")

    assert answer.status == 201
    document = answer.json
    certificate = certificate_of(document)
    key = serialization.load_pem_private_key(document["private_key"].encode(), None)
    assert key.public_key() == certificate.public_key()
    assert answer.headers["location"] == f"/v1/certs/{document['serial']}"
    assert int(document["serial"], 16) == certificate.serial_number
    assert answer.headers["x-request-id"]
    assert answer.headers["cache-control"] == "no-store"


def test_the_subject_and_owner_are_the_callers(dev):
    document = dev.post("/certs", {"access": "pull"}).json

    certificate = certificate_of(document)
    assert certificate.subject.rfc4514_string() == f"O=registry-trust,OU=pull,CN={dev.name}"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [document["owner"]]
    assert document["owner"].endswith(f":user/{dev.name}")


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "application/pkcs10", "application/x-pem-file"],
)
def test_a_pem_csr_is_taken_as_it_is(dev, make_csr, content_type):
    """The first is what curl --data-binary says by itself."""
    csr = make_csr()
    answer = dev.ask("POST", "/certs", "--header", f"content-type: {content_type}", body=csr)

    assert answer.status == 201, answer.body
    assert "private_key" not in answer.json
    assert certificate_of(answer.json).public_key() == x509.load_pem_x509_csr(csr).public_key()


def test_a_csr_in_json_gets_all_that_json_asks_for(dev, make_csr):
    asked = {"csr": make_csr().decode(), "days": 7, "label": "my laptop", "access": "pull"}
    document = dev.post("/certs", asked).json

    lifetime = certificate_of(document).not_valid_after_utc
    assert (lifetime - certificate_of(document).not_valid_before_utc).days == 7
    assert (document["label"], document["access"]) == ("my laptop", "pull")


@pytest.mark.parametrize("key_type", ["ec-p256", "ec-p384", "rsa-2048", "rsa-3072"])
def test_we_make_the_key_that_is_asked_for(newcomer, key_type):
    person = newcomer(f"maker-{key_type}")
    document = person.post("/certs", {"key_type": key_type}).json

    key = certificate_of(document).public_key()
    kind, _, size = key_type.partition("-")
    assert type(key).__name__.lower().startswith(kind)
    assert key.key_size == int(size.removeprefix("p"))


def test_pem_holds_key_certificate_and_chain(dev):
    answer = dev.ask("POST", "/certs", "--header", "accept: application/x-pem-file")

    assert answer.headers["content-type"].startswith("application/x-pem-file")
    kinds = [line for line in answer.body.decode().splitlines() if line.startswith("-----BEGIN")]
    assert kinds == ["-----BEGIN PRIVATE KEY-----"] + ["-----BEGIN CERTIFICATE-----"] * 2


def test_gzip_unpacks_into_a_certs_d(dev, cloud, tmp_path):
    answer = dev.ask("POST", "/certs", "--header", "accept: application/gzip")
    assert answer.status == 201

    archive = tmp_path / "bundle.tar.gz"
    archive.write_bytes(answer.body)
    subprocess.run(["tar", "-xzf", archive, "-C", tmp_path], check=True)
    directory = tmp_path / cloud.variables["REGISTRY"]
    assert {f.name: f.stat().st_mode & 0o777 for f in directory.iterdir()} == {
        "ca.crt": 0o644,
        "client.cert": 0o644,
        "client.key": 0o600,
    }


def test_the_installer_installs_what_was_issued(dev, cloud, tmp_path):
    answer = dev.ask("POST", "/certs", "--header", "accept: text/x-shellscript")

    script = tmp_path / "install.sh"
    script.write_bytes(answer.body)
    done = subprocess.run(
        ["sh", script, "--help"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert cloud.variables["REGISTRY"] in answer.body.decode()
    assert b"PRIVATE KEY" not in done.stdout.encode() + done.stderr.encode()


def test_the_link_fetches_the_same_bundle_without_credentials(dev, cloud):
    document = dev.ask("POST", "/certs").json

    fetched = subprocess.run(
        ["curl", "-sSf", document["bundle"]["url"]], capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(fetched), mode="r:gz") as archive:
        key = archive.extractfile(f"{cloud.variables['REGISTRY']}/client.key").read().decode()
    assert key == document["private_key"]


def test_a_stored_bundle_with_a_key_is_tagged_to_go(dev, cloud, make_csr):
    s3, bucket = cloud.client("s3"), cloud.variables["CONFIG_BUCKET"]

    def tags(document):
        key = f"certs/{document['serial']}/bundle.tar.gz"
        return s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]

    assert tags(dev.ask("POST", "/certs").json) == [{"Key": "holds-key", "Value": "true"}]
    assert tags(dev.ask("POST", "/certs", body=make_csr()).json) == []


def test_the_bundle_can_be_had_again_in_every_form(dev, make_csr):
    made = dev.ask("POST", "/certs").json
    brought = dev.ask("POST", "/certs", body=make_csr()).json

    again = dev.ask("GET", f"/certs/{made['serial']}/bundle").json
    assert again["private_key"] == made["private_key"]
    for form in ("application/x-pem-file", "application/gzip", "text/x-shellscript"):
        answer = dev.ask("GET", f"/certs/{brought['serial']}/bundle", "--header", f"accept: {form}")
        assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, form)


def test_the_same_request_again_gets_the_same_certificate(newcomer, written):
    person = newcomer("repeater")
    once = ("--header", "idempotency-key: once")
    first = person.ask("POST", "/certs", *once).json
    before = written()

    assert person.ask("POST", "/certs", *once).json["certificate"] == first["certificate"]
    assert person.ask("POST", "/certs", *once).json["private_key"] == first["private_key"]
    assert written() == before
    kind = ("--header", "content-type: application/json")
    other = person.ask("POST", "/certs", *once, *kind, body=b'{"days": 3}')
    assert (other.status, other.code) == (409, "idempotency_key_reused")


def test_twenty_at_once_with_one_idempotency_key_make_one_certificate(newcomer, make_csr):
    person, csr = newcomer("impatient"), make_csr()

    def ask(_):
        return person.ask("POST", "/certs", "--header", "idempotency-key: same", body=csr)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(20)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["serial"] for answer in answers}) == 1


def test_the_quota_holds_when_all_ask_at_once(newcomer):
    person = newcomer("hoarder")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: person.ask("POST", "/certs"), range(28)))

    issued = [answer for answer in answers if answer.status == 201]
    refused = [answer for answer in answers if answer.status != 201]
    assert len(issued) == 20
    assert {(answer.status, answer.code) for answer in refused} == {(429, "quota_exceeded")}
    listed = person.ask("GET", "/certs?limit=100&status=active").json["certificates"]
    assert len(listed) == 20


def test_the_list_pages_newest_first_and_survives_inserts(newcomer):
    person = newcomer("lister")
    serials = [person.ask("POST", "/certs").json["serial"] for _ in range(5)]

    first = person.ask("GET", "/certs?limit=2").json
    person.ask("POST", "/certs")
    second = person.ask("GET", f"/certs?cursor={first['next_cursor']}&limit=2").json
    third = person.ask("GET", f"/certs?cursor={second['next_cursor']}&limit=2").json
    paged = [c["serial"] for page in (first, second, third) for c in page["certificates"]]
    assert sorted(paged) == sorted(serials)
    times = [c["issued_at"] for page in (first, second, third) for c in page["certificates"]]
    assert times == sorted(times, reverse=True)


def test_what_is_anothers_does_not_exist(dev, dev2):
    serial = dev.ask("POST", "/certs").json["serial"]

    absent = dev2.ask("GET", f"/certs/{'0' * 40}")
    for path in (f"/certs/{serial}", f"/certs/{serial}/bundle"):
        answer = dev2.ask("GET", path)
        assert (answer.status, answer.json) == (404, absent.json)
    assert dev.ask("GET", f"/certs/{serial}").status == 200
    listed = dev2.ask("GET", "/certs?limit=100").json["certificates"]
    assert serial not in {c["serial"] for c in listed}


def test_a_cursor_of_anothers_shows_only_ones_own(newcomer, dev2):
    person = newcomer("curious")
    for _ in range(3):
        person.ask("POST", "/certs")
    cursor = person.ask("GET", "/certs?limit=1").json["next_cursor"]

    shown = dev2.ask("GET", f"/certs?cursor={cursor}&limit=100").json["certificates"]
    assert {c["owner"] for c in shown} <= {dev2.ask("POST", "/certs").json["owner"]}


def test_a_key_belongs_to_the_first_who_had_it_certified(dev, dev2, make_csr, written):
    csr = make_csr()
    assert dev.ask("POST", "/certs", body=csr).status == 201
    before = written()

    stolen = dev2.ask("POST", "/certs", body=csr)
    assert (stolen.status, stolen.code) == (400, "key_in_use")
    assert written() == before
    assert dev.ask("POST", "/certs", body=csr).status == 201


def test_the_trust_is_for_every_developer(dev, cloud):
    trust = dev.ask("GET", "/trust").json

    assert trust["registry"] == cloud.variables["REGISTRY"]
    issued = dev.ask("POST", "/certs").json
    assert (trust["ca_bundle"], trust["client_ca"]) == (issued["ca_bundle"], issued["chain"])
    crl = x509.load_pem_x509_crl(trust["crl"].encode())
    authority = x509.load_pem_x509_certificate(trust["client_ca"].encode())
    assert crl.is_signature_valid(authority.public_key())
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert number == trust["crl_number"]


def test_a_revoked_key_is_not_certified_again(newcomer, make_csr, written):
    person, csr = newcomer("unlucky"), make_csr()
    serial = person.ask("POST", "/certs", body=csr).json["serial"]
    assert person.ask("DELETE", f"/certs/{serial}").status == 200
    before = written()

    answer = person.ask("POST", "/certs", body=csr)
    assert (answer.status, answer.code) == (400, "key_revoked")
    assert written() == before
