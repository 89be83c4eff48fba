"""The file that a backup of the CAs is: plain words and PEM, each key encrypted by itself.

Nothing but openssl is needed to read it, should this program not be at hand.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chalicelib.domain.pki.authorities import AuthorityKind, authority_id
from chalicelib.domain.pki.keys import PrivateKey, private_key_pem
from chalicelib.errors import Misconfigured
from operations.cloud import CommandError

MINIMUM_PASSPHRASE = 20
MAXIMUM_PASSPHRASE_BYTES = 1000  # openssl reads no more than 1,023 (openssl-passphrase-options(1))

# As many as OWASP's password storage cheat sheet asks of PBKDF2 with SHA-256; openssl's own default
# of 2,048 leaves a passphrase that people can remember to be guessed.
_ROUNDS = 600_000

_HEADING = re.compile(r"^== (client|server) CA ([0-9a-f]{16}), (signs|trusted) ==$", re.MULTILINE)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.DOTALL)
_KEY = re.compile(
    r"-----BEGIN ENCRYPTED PRIVATE KEY-----.*?-----END ENCRYPTED PRIVATE KEY-----\n", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class KeptAuthority:
    """One CA in a backup. key: None for one whose key was not there; it is left out of repr()."""

    kind: AuthorityKind
    signs: bool
    certificate_pem: str
    key: PrivateKey | None

    def __repr__(self) -> str:
        return f"KeptAuthority({self.kind}, {self.id})"

    @property
    def id(self) -> str:
        """The authority's."""
        certificate = x509.load_pem_x509_certificate(self.certificate_pem.encode())
        return authority_id(certificate)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a backup is of. host: the registry's. made_at: RFC 3339."""

    stage: str
    host: str
    account: str
    region: str
    made_at: str


def read_passphrase(file: Path) -> str:
    """The first line of a file that nobody else may read. Raises CommandError."""
    try:
        status = file.stat()
        text = file.read_bytes().split(b"\n", 1)[0].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read the passphrase from {file}") from error
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise CommandError(f"others may read {file}: chmod 600 it, and take another passphrase")
    if len(text) < MINIMUM_PASSPHRASE:
        raise CommandError(
            f"the passphrase in {file} is too short: at least {MINIMUM_PASSPHRASE} characters in "
            "its first line, such as openssl rand -base64 24 prints"
        )
    # openssl, which reads the file, too, takes these for part of the passphrase, or cuts it there.
    if not text.isprintable() or len(text.encode()) > MAXIMUM_PASSPHRASE_BYTES:
        raise CommandError(
            f"the first line of {file} holds other than printable characters (a Windows line end "
            f"does), or more than {MAXIMUM_PASSPHRASE_BYTES} bytes: take another passphrase"
        )
    return text


def render(origin: Origin, kept: Sequence[KeptAuthority], passphrase_file: Path) -> str:
    """The whole text. Raises CommandError when openssl is not there or refuses."""
    return _HEAD.format(origin=origin) + "".join(_section(one, passphrase_file) for one in kept)


def read(text: str, passphrase: str) -> list[KeptAuthority]:
    """The CAs in a backup, each with the key that is its own.

    Raises CommandError: no backup, another passphrase, or a part that was changed.
    """
    headings = list(_HEADING.finditer(text))
    if not headings:
        raise CommandError("this is no backup of ours: it names no CA")
    ends = [*(each.start() for each in headings[1:]), len(text)]
    return [
        _parse(heading, text[heading.end() : end], passphrase)
        for heading, end in zip(headings, ends, strict=True)
    ]


def write_new(file: Path, text: str) -> None:
    """Readable for its owner alone, and never over what is there. Raises CommandError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        opened = os.open(file, flags, 0o600)
    except FileExistsError as error:
        raise CommandError(f"{file} is there already: a backup never replaces another") from error
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from error
    try:
        with os.fdopen(opened, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        with suppress(OSError):
            file.unlink()
        raise CommandError(f"cannot write {file}: {error.strerror}") from error


def _section(kept: KeptAuthority, passphrase_file: Path) -> str:
    signs = "signs" if kept.signs else "trusted"
    heading = f"\n== {kept.kind} CA {kept.id}, {signs} ==\n"
    certificate = f"Its certificate, which is public:\n{kept.certificate_pem}"
    if kept.key is None:
        return f"{heading}{certificate}Its key was not there, and is not needed any more.\n"
    key = _encrypted(kept.key, passphrase_file)
    return f"{heading}{certificate}Its private key, encrypted with the passphrase:\n{key}"


def _encrypted(key: PrivateKey, passphrase_file: Path) -> str:
    command = ["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256"]
    command += ["-iter", str(_ROUNDS), "-passout", f"file:{passphrase_file}"]
    try:
        done = subprocess.run(
            command, input=private_key_pem(key), capture_output=True, check=True, timeout=60
        )
    except FileNotFoundError as error:
        raise CommandError("openssl is needed to encrypt the keys") from error
    except subprocess.SubprocessError as error:
        raise CommandError("openssl could not encrypt a key") from error
    return done.stdout.decode()


def _parse(heading: re.Match[str], section: str, passphrase: str) -> KeptAuthority:
    said_kind, said_id, role = heading.groups()
    certificate, key = _CERTIFICATE.search(section), _KEY.search(section)
    if certificate is None:
        raise _changed(said_id)
    try:
        kept = KeptAuthority(
            AuthorityKind(said_kind),
            role == "signs",
            certificate[0],
            None if key is None else _decrypted(key[0], passphrase),
        )
        belongs = kept.id == said_id
        public = x509.load_pem_x509_certificate(certificate[0].encode()).public_key()
    except (ValueError, Misconfigured) as error:
        raise _changed(said_id) from error
    if not belongs or (kept.key is not None and kept.key.public_key() != public):
        raise _changed(said_id)
    return kept


def _decrypted(pem: str, passphrase: str) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), passphrase.encode())
    except (ValueError, TypeError):
        # Without its cause: a parser's message may quote what it could not read.
        raise CommandError("the keys cannot be read: is it the passphrase of this file?") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise CommandError("a key in the backup is of an unknown kind")
    return key


def _changed(said_id: str) -> CommandError:
    return CommandError(f"the backup is damaged: what stands under CA {said_id} is not that CA's")


_HEAD = """\
Backup of the certificate authorities of registry-trust, stage {origin.stage}
registry {origin.host}, AWS account {origin.account}, region {origin.region}, made {origin.made_at}

Whoever has this file and its passphrase can make certificates that the registry admits, and a
registry that its clients take for the real one. Keep the two apart from each other, and away from
the AWS account. If both came into other hands: scripts/ca distrust.

What is missing in the account is put back from it, and nothing else, by
  scripts/ca restore --stage {origin.stage} --from THIS-FILE --passphrase-file FILE
Without that program a key is read by
  openssl pkey -in KEY.pem -passin file:FILE
"""
