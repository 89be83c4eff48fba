"""The commands of docs/rotation.md that are not scripts of ours: each does what is said of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.conftest import Cloud
from tests.e2e.pages import ENGINES, Desk, block, functions

PAGE = "docs/rotation.md"
ROOT = 'sudo() { "$@"; }\n'
INTO_ROOT = 'sudo() { "$@" --root "$PWD/root"; }\n'


@pytest.fixture
def desk(cloud: Cloud, tmp_path: Path, request: pytest.FixtureRequest) -> Desk:
    name = re.sub(r"[^a-z]+", "-", request.node.name)[:60]
    desk = Desk(tmp_path, cloud, cloud.newcomer(name))
    desk.get_certificate()
    return desk


def test_who_renews_has_what_is_new_installed_and_gives_the_old_back(desk: Desk) -> None:
    old = desk.run(functions() + 'serial "$REGISTRY/client.cert"').stdout.strip().lower()

    done = desk.run(functions() + INTO_ROOT + block("revoke_old", PAGE))

    assert done.returncode == 0, done.stderr
    installed = 'serial "/etc/docker/certs.d/$REGISTRY/client.cert"'
    new = desk.run(functions() + installed).stdout.strip().lower()
    assert desk.person.ask("GET", f"/certs/{old}").json["status"] == "revoked"
    renewed = desk.person.ask("GET", f"/certs/{new}")
    assert (renewed.status, renewed.json.get("renews")) == (200, old), renewed.body


def test_todays_ca_alone_can_be_installed_for_every_engine_that_has_one(desk: Desk) -> None:
    stale = [desk.certs(engine) / desk.registry / "ca.crt" for engine in ENGINES]
    for each in stale:
        each.write_text("stale\n")
    for each in (desk.certs("containerd") / desk.registry).iterdir():
        each.unlink()
    (desk.certs("containerd") / desk.registry).rmdir()

    done = desk.run(functions() + ROOT + block("ca_bundle", PAGE))

    assert done.returncode == 0, done.stderr
    wanted = desk.person.ask("GET", "/trust").json["ca_bundle"]
    assert [each.read_text() for each in stale if each.exists()] == [wanted, wanted]


def test_serials_that_were_let_in_and_never_issued_are_found(desk: Desk, cloud: Cloud) -> None:
    admin = Desk(desk.directory, cloud, cloud.person("ADMIN"))
    seen = desk.run(
        "cd $REGISTRY && curl -sS --cacert ca.crt --cert client.cert --key client.key "
        "https://$REGISTRY/v2/"
    )
    assert seen.returncode == 0, seen.stderr
    logs = f"{cloud.directory}/registry-host/log"
    listing, names = (
        ROOT + block(each, PAGE).replace("/var/log/registry-trust", logs)
        for each in ("> serials", "sed -n")
    )

    listed, named = desk.run(listing + "cat serials"), desk.run(names)
    with (desk.directory / "serials").open("a") as serials:
        serials.write("7B20864309871DA87B88684DEC6C6E0BC97B128F\n")
    done = admin.run(functions() + block("not ours", PAGE))

    own = json.loads(desk.person.ask("GET", "/certs").body)["certificates"]
    assert {each["serial"] for each in own} & set(listed.stdout.lower().split())
    assert re.search(rf"(?m)^ +1 {desk.person.name} 127\.0\.0\.1$", named.stdout), named.stdout
    assert done.returncode == 0, done.stderr
    assert done.stdout == "not ours: 7B20864309871DA87B88684DEC6C6E0BC97B128F\n"
