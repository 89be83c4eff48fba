"""Backups of the CAs: the file, and what of it is put back."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from chalicelib.domain.model import Validity
from chalicelib.domain.pki.authorities import Authority, AuthorityKind
from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.domain.pki.keys import private_key_pem
from chalicelib.domain.pki.leaves import certificate_pem
from operations import backup_file
from operations.backup import Plan, There, plan
from operations.backup_file import KeptAuthority, Origin
from operations.cloud import CommandError
from tests.unit.authorities import DAY, HOST, NOW, TEN_YEARS, client_ca, server_ca

ORIGIN = Origin("prod", HOST, "123456789012", "eu-central-1", "2026-03-04T05:06:07Z")
PASSPHRASE = "correct horse battery staple"  # noqa: S105  # it protects nothing
CLIENT, SERVER = AuthorityKind.CLIENT, AuthorityKind.SERVER
LATER = Validity(TEN_YEARS.not_before + 100 * DAY, TEN_YEARS.not_after + 100 * DAY)
OLD, NEW = client_ca(1), client_ca(2, LATER)


def pem(ca: Authority) -> str:
    return certificate_pem(ca.certificate)


def key(ca: Authority) -> str:
    return private_key_pem(ca.key).decode()


def kept(ca: Authority, kind: AuthorityKind = CLIENT, *, signs: bool = True) -> KeptAuthority:
    return KeptAuthority(kind, signs, pem(ca), ca.key)


def there(
    known: AuthoritySet | None = None,
    published: Sequence[Authority] = (),
    keys: Sequence[Authority] = (),
    kind: AuthorityKind = CLIENT,
    unreadable: Sequence[Authority] = (),
) -> There:
    held = {ca.id: key(ca) for ca in keys}
    without = frozenset(ca.id for ca in unreadable)
    return There(kind, known, False, [pem(ca) for ca in published], held, without)


def of(*cas: Authority) -> AuthoritySet:
    """The first signs."""
    return AuthoritySet(cas[0].id, {ca.id: pem(ca) for ca in cas})


class TestFile:
    @pytest.fixture
    def passphrase_file(self, tmp_path: Path) -> Path:
        file = tmp_path / "passphrase"
        file.write_text(f"{PASSPHRASE}\nanything else\n")
        file.chmod(0o600)
        return file

    @pytest.fixture
    def text(self, passphrase_file: Path) -> str:
        whole = [kept(OLD, signs=False), kept(NEW), kept(server_ca(), SERVER)]
        return backup_file.render(ORIGIN, whole, passphrase_file)

    def test_what_is_written_is_read_again(self, text: str) -> None:
        read = backup_file.read(text, PASSPHRASE)
        assert [(one.kind, one.id, one.signs) for one in read] == [
            (CLIENT, OLD.id, False),
            (CLIENT, NEW.id, True),
            (SERVER, server_ca().id, True),
        ]
        assert [one.certificate_pem for one in read] == [pem(OLD), pem(NEW), pem(server_ca())]
        for one, ca in zip(read, (OLD, NEW, server_ca()), strict=True):
            assert one.key is not None
            assert one.key.private_numbers() == ca.key.private_numbers()

    def test_it_says_what_it_is_and_how_it_is_used(self, text: str) -> None:
        for said in ("prod", HOST, "123456789012", "2026-03-04T05:06:07Z"):
            assert said in text
        assert "scripts/ca restore --stage prod --from" in text

    def test_no_key_is_in_it_in_the_clear(self, text: str) -> None:
        assert "BEGIN PRIVATE KEY" not in text
        assert "BEGIN EC PRIVATE KEY" not in text
        assert text.count("BEGIN ENCRYPTED PRIVATE KEY") == 3

    def test_openssl_alone_reads_a_key_and_guessing_is_slow(
        self, text: str, passphrase_file: Path
    ) -> None:
        block = re.search(r"-----BEGIN ENC.*?END ENCRYPTED PRIVATE KEY-----\n", text, re.DOTALL)
        assert block is not None
        opened = subprocess.run(
            ["openssl", "pkey", "-passin", f"file:{passphrase_file}"],
            input=block[0].encode(),
            capture_output=True,
            check=True,
        )
        assert opened.stdout.decode().strip() == key(OLD).strip()
        parsed = subprocess.run(
            ["openssl", "asn1parse"], input=block[0].encode(), capture_output=True, check=True
        )
        rounds = int(re.findall(r"prim: INTEGER +:([0-9A-F]+)", parsed.stdout.decode())[-1], 16)
        assert rounds >= 600_000

    def test_another_passphrase_is_told_as_such(self, text: str) -> None:
        with pytest.raises(CommandError, match="passphrase"):
            backup_file.read(text, "wrong horse battery staple")

    def test_a_part_under_another_heading_is_refused(self, text: str) -> None:
        with pytest.raises(CommandError, match="damaged"):
            backup_file.read(text.replace(OLD.id, "0123456789abcdef"), PASSPHRASE)

    def test_a_key_of_another_is_refused(self, text: str) -> None:
        blocks = re.findall(r"-----BEGIN ENC.*?END ENCRYPTED PRIVATE KEY-----", text, re.DOTALL)
        with pytest.raises(CommandError, match="damaged"):
            backup_file.read(text.replace(blocks[0], blocks[1]), PASSPHRASE)

    def test_what_is_no_backup_is_told_as_such(self) -> None:
        with pytest.raises(CommandError, match="no backup"):
            backup_file.read(pem(OLD), PASSPHRASE)

    def test_only_its_owner_may_read_it_and_nothing_is_replaced(self, tmp_path: Path) -> None:
        file = tmp_path / "backup"
        backup_file.write_new(file, "one")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with pytest.raises(CommandError, match="already"):
            backup_file.write_new(file, "two")
        assert file.read_text() == "one"

    def test_nor_is_a_link_followed(self, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CommandError):
            backup_file.write_new(link, "one")
        assert not (tmp_path / "elsewhere").exists()

    @pytest.mark.parametrize(
        ("text", "mode", "said"),
        [("x" * 19, 0o600, "too short"), ("x" * 20, 0o640, "others"), ("x" * 20, 0o604, "others")],
    )
    def test_a_passphrase_that_would_not_protect_is_refused(
        self, tmp_path: Path, text: str, mode: int, said: str
    ) -> None:
        file = tmp_path / "passphrase"
        file.write_text(text)
        file.chmod(mode)
        with pytest.raises(CommandError, match=said):
            backup_file.read_passphrase(file)

    @pytest.mark.parametrize(
        "line",
        ["correct horse battery\r", "correct horse\0battery staple", "x" * 1001, "tab\t" * 10],
        ids=["windows", "nul", "long", "tab"],
    )
    def test_a_passphrase_that_openssl_reads_otherwise_is_refused(
        self, tmp_path: Path, line: str
    ) -> None:
        """Else nobody could read the backup, as is found out on the day it is needed."""
        file = tmp_path / "passphrase"
        file.write_bytes(f"{line}\n".encode())
        file.chmod(0o600)
        with pytest.raises(CommandError, match="take another passphrase"):
            backup_file.read_passphrase(file)

    @pytest.mark.parametrize(
        "line", ["x" * 1000, "größer als zwanzig Zeichen", " spaces around it "]
    )
    def test_any_other_passphrase_opens_what_it_closed(self, tmp_path: Path, line: str) -> None:
        file = tmp_path / "passphrase"
        file.write_bytes(f"{line}    \n".encode() if len(line) < 20 else f"{line}\n".encode())
        file.chmod(0o600)
        text = backup_file.render(ORIGIN, [kept(NEW)], file)
        (read,) = backup_file.read(text, backup_file.read_passphrase(file))
        assert read.key is not None
        assert read.key.public_key() == NEW.key.public_key()

    def test_the_first_line_of_the_passphrase_counts(self, passphrase_file: Path) -> None:
        assert backup_file.read_passphrase(passphrase_file) == PASSPHRASE


class TestPlan:
    @pytest.mark.parametrize(
        ("known", "way"),
        [
            (of(OLD), "distrust client"),
            (of(NEW).with_trusted(OLD.id, pem(OLD)), "retire client --abandon"),
            (of(OLD).with_trusted(NEW.id, pem(NEW)).activated(NEW.id), "retire client --force"),
        ],
        ids=["signs", "pending", "former"],
    )
    def test_of_a_key_that_is_lost_for_good_the_mildest_way_is_named(
        self, known: AuthoritySet, way: str
    ) -> None:
        with pytest.raises(CommandError, match=way):
            plan(there(known, keys=[NEW]), [], trust_the_file=False)

    def test_where_nothing_is_missing_nothing_is_changed(self) -> None:
        found = plan(there(of(OLD, NEW), keys=[OLD, NEW]), [kept(OLD)], trust_the_file=False)
        assert not found.changes

    def test_a_lost_key_comes_from_the_backup(self) -> None:
        found = plan(there(of(OLD)), [kept(OLD)], trust_the_file=False)
        assert (found.put_set, list(found.keys), found.replaced) == (False, [OLD.id], frozenset())

    def test_a_lost_set_is_what_was_published_and_the_first_of_it_signs(self) -> None:
        found = plan(there(published=[NEW, OLD], keys=[OLD, NEW]), [], trust_the_file=False)
        assert (found.put_set, found.keys) == (True, {})
        assert found.known.active == NEW.id
        assert list(found.known.former) == [OLD.id]

    def test_one_that_was_yet_to_sign_is_so_again(self) -> None:
        found = plan(there(published=[OLD, NEW], keys=[OLD, NEW]), [], trust_the_file=False)
        assert list(found.known.pending) == [NEW.id]

    def test_an_older_backup_does_not_bring_back_what_is_trusted_no_more(self) -> None:
        """It was retired, or its key is with a stranger."""
        found = plan(there(published=[NEW], keys=[NEW]), [kept(OLD)], trust_the_file=False)
        assert list(found.known.certificates) == [NEW.id]
        assert found.keys == {}

    def test_nor_does_the_word_of_the_file_count_where_something_is_published(self) -> None:
        found = plan(there(published=[NEW], keys=[NEW]), [kept(OLD)], trust_the_file=True)
        assert list(found.known.certificates) == [NEW.id]

    def test_an_older_backup_that_lacks_a_needed_key_is_refused(self) -> None:
        with pytest.raises(CommandError, match=f"{NEW.id} is not there, nor in the backup"):
            plan(there(published=[NEW, OLD]), [kept(OLD)], trust_the_file=False)

    def test_a_backup_alone_needs_a_word_that_it_is_of_now(self) -> None:
        with pytest.raises(CommandError, match="--trust-the-file"):
            plan(there(), [kept(OLD)], trust_the_file=False)
        found = plan(there(), [kept(OLD), kept(NEW, signs=False)], trust_the_file=True)
        assert (found.known.active, found.put_set) == (OLD.id, True)
        assert set(found.keys) == {OLD.id, NEW.id}

    def test_without_anything_it_says_what_is_left_to_do(self) -> None:
        with pytest.raises(CommandError, match="scripts/ca init"):
            plan(there(), [], trust_the_file=False)

    def test_another_key_under_its_name_is_not_replaced(self) -> None:
        held = There(CLIENT, of(OLD), False, [], {OLD.id: key(NEW)}, frozenset())
        with pytest.raises(CommandError, match="another key"):
            plan(held, [kept(OLD)], trust_the_file=False)

    @pytest.mark.parametrize("held", [{}, {OLD.id: "what is this"}])
    def test_what_can_be_read_no_more_is_replaced(self, held: dict[str, str]) -> None:
        """Its KMS key has gone, or something was written over it."""
        unreadable = frozenset({OLD.id}) - held.keys()
        found = There(CLIENT, of(OLD), False, [], held, unreadable)
        planned = plan(found, [kept(OLD)], trust_the_file=False)
        assert (list(planned.keys), planned.replaced) == ([OLD.id], {OLD.id})

    def test_a_server_ca_that_signed_before_needs_no_key(self) -> None:
        old, new = server_ca(), server_ca(validity=LATER)
        published = there(published=[new, old], keys=[new], kind=SERVER)
        assert plan(published, [], trust_the_file=False).keys == {}

    def test_a_client_ca_that_signed_before_does(self) -> None:
        """It signs its revocation list: without one the registry refuses all of its clients."""
        with pytest.raises(CommandError, match=OLD.id):
            plan(there(published=[NEW, OLD], keys=[NEW]), [], trust_the_file=False)

    def test_the_way_out_is_named_when_a_key_is_lost(self) -> None:
        with pytest.raises(CommandError, match="distrust client"):
            plan(there(of(OLD)), [], trust_the_file=False)
        with pytest.raises(CommandError, match="rotate server"):
            plan(there(of(server_ca()), kind=SERVER), [], trust_the_file=False)


class TestCheck:
    def planned(self, kind: AuthorityKind, ca: Authority) -> Plan:
        return Plan(kind, of(ca), True, False, {}, frozenset())

    def test_our_own_pass(self) -> None:
        self.planned(CLIENT, OLD).check(HOST, NOW)
        self.planned(SERVER, server_ca()).check(HOST, NOW)
        self.planned(SERVER, server_ca("10.1.2.3")).check("10.1.2.3", NOW)

    def test_of_the_other_kind_none_does(self) -> None:
        """A client CA that clients trust the registry by could be anybody's who signs clients."""
        with pytest.raises(CommandError, match="not a client CA"):
            self.planned(CLIENT, server_ca()).check(HOST, NOW)
        with pytest.raises(CommandError, match="not a server CA"):
            self.planned(SERVER, OLD).check(HOST, NOW)

    @pytest.mark.parametrize("host", ["other.example", "10.1.2.4"])
    def test_nor_one_of_another_registry(self, host: str) -> None:
        for ca in (server_ca(), server_ca("10.1.2.3")):
            with pytest.raises(CommandError, match="another registry"):
                self.planned(SERVER, ca).check(host, NOW)

    def test_nor_one_that_has_ended(self) -> None:
        with pytest.raises(CommandError, match="expired"):
            self.planned(CLIENT, OLD).check(HOST, TEN_YEARS.not_after + timedelta(seconds=1))

    def test_nor_one_under_another_id(self) -> None:
        planned = Plan(
            CLIENT, AuthoritySet("0" * 16, {"0" * 16: pem(OLD)}), True, False, {}, frozenset()
        )
        with pytest.raises(CommandError, match="not a client CA"):
            planned.check(HOST, NOW)
