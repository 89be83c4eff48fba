"""The forms of a bundle, as they are unpacked and read on a Docker host."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from datetime import timedelta

import pytest

from chalicelib.domain.bundle import KEY_BUNDLE_LIFETIME, Bundle, expired, private_key_in
from chalicelib.errors import NotFound
from tests.unit.authorities import NOW, SECOND

THEIRS = Bundle(
    registry="registry.example.com:8443",
    ca_bundle="server CAs\n",
    certificate="certificate\n",
    issuer="client CA\n",
)
OURS = replace(THEIRS, private_key="key\n")
FOLDER = "registry.example.com:8443/"


def members(tar_gz: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar_gz), mode="r:gz") as archive:
        return {member.name: member for member in archive}


def contents(tar_gz: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar_gz), mode="r:gz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in files.items() if file is not None}


def test_an_archive_holds_what_docker_looks_for_in_the_folder_it_looks_in() -> None:
    assert contents(OURS.tar_gz(NOW)) == {
        FOLDER + "ca.crt": b"server CAs\n",
        FOLDER + "client.cert": b"certificate\n",
        FOLDER + "client.key": b"key\n",
    }


def test_an_archive_holds_a_key_only_if_we_made_it() -> None:
    assert set(contents(THEIRS.tar_gz(NOW))) == {FOLDER + "ca.crt", FOLDER + "client.cert"}
    assert "key" not in THEIRS.pem()


def test_the_key_is_for_its_owner_alone_and_the_rest_for_all_to_read() -> None:
    modes = {name: member.mode for name, member in members(OURS.tar_gz(NOW)).items()}
    assert modes == {
        FOLDER + "ca.crt": 0o644,
        FOLDER + "client.cert": 0o644,
        FOLDER + "client.key": 0o600,
    }


def test_members_are_plain_files_of_nobody_in_particular_made_when_issued() -> None:
    for member in members(OURS.tar_gz(NOW)).values():
        assert member.isreg()
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == int(NOW.timestamp())


def test_an_archive_is_the_same_bytes_each_time() -> None:
    assert OURS.tar_gz(NOW) == OURS.tar_gz(NOW)
    assert OURS.tar_gz(NOW) != OURS.tar_gz(NOW + SECOND)
    assert OURS.tar_gz(NOW)[4:8] == bytes(4)  # no time in gzip's own header


def test_an_archive_can_be_made_for_the_longest_host_name_there_is() -> None:
    """253 characters and a port, where the plain tar format has room for 100."""
    host = ".".join(["x" * 63] * 3 + ["y" * 61])
    archive = replace(OURS, registry=f"{host}:8443").tar_gz(NOW)
    assert set(contents(archive)) == {
        f"{host}:8443/{name}" for name in ("ca.crt", "client.cert", "client.key")
    }


def test_pem_is_the_key_if_ours_then_the_certificate_then_its_issuer() -> None:
    """The order in which nginx, curl and openssl want to read a chain."""
    assert OURS.pem() == "key\ncertificate\nclient CA\n"
    assert THEIRS.pem() == "certificate\nclient CA\n"


def test_the_key_is_found_again_in_a_stored_archive() -> None:
    assert private_key_in(OURS.tar_gz(NOW)) == "key\n"


def test_an_archive_without_a_key_says_that_it_has_gone() -> None:
    with pytest.raises(NotFound) as caught:
        private_key_in(THEIRS.tar_gz(NOW))
    assert caught.value.code == expired().code == "bundle_expired"


def test_the_key_is_not_shown_when_a_bundle_is_printed() -> None:
    assert "key" not in repr(OURS).replace("private_key", "")
    assert "certificate" in repr(OURS)


def test_an_archive_with_a_key_is_kept_for_a_day() -> None:
    assert timedelta(days=1) == KEY_BUNDLE_LIFETIME
