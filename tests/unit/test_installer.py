"""The installer as text: a clean script whatever the values, which cannot leave their places."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.domain.bundle import Bundle
from chalicelib.domain.installer import installer
from chalicelib.domain.templates import read
from chalicelib.errors import Misconfigured
from tests.component.throwaway_pki import ThrowawayCa, certificate_pem, key_pem

SERVERS, CLIENTS = ThrowawayCa("servers"), ThrowawayCa("clients")
LEAF = CLIENTS.client("a+=,.@_-b")
BUNDLE = Bundle(
    registry="registry.example.com:8443",
    ca_bundle=(SERVERS.pem + ThrowawayCa("the next").pem).decode(),
    certificate=certificate_pem(LEAF.certificate).decode(),
    issuer=CLIENTS.pem.decode(),
    private_key=key_pem(LEAF.key).decode(),
)
WITHOUT_KEY = replace(BUNDLE, private_key=None)
TEXTS = {
    "with our key": installer(BUNDLE),
    "without a key": installer(WITHOUT_KEY),
    "with an address": installer(replace(BUNDLE, registry_address="10.1.2.3")),
    "at the default port": installer(replace(BUNDLE, registry="registry")),
}


@pytest.mark.parametrize("what", sorted(TEXTS))
def test_shellcheck_has_nothing_to_say_of_it(what: str) -> None:
    told = subprocess.run(
        ["shellcheck", "--shell=sh", "--enable=quote-safe-variables", "-"],
        input=TEXTS[what], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (told.stdout, told.returncode) == ("", 0)


@pytest.mark.parametrize("what", sorted(TEXTS))
@pytest.mark.parametrize("shell", [("dash",), ("bash", "--posix"), ("busybox", "sh")])
def test_every_shell_can_read_it(what: str, shell: tuple[str, ...]) -> None:
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not installed")
    subprocess.run([*shell, "-n"], input=TEXTS[what], text=True, check=True)


@pytest.mark.parametrize("what", sorted(TEXTS))
def test_every_place_is_filled(what: str) -> None:
    assert not re.search(r"@[A-Z_]+@", TEXTS[what])


def test_it_holds_the_key_once_and_only_if_we_made_it() -> None:
    assert BUNDLE.private_key
    assert TEXTS["with our key"].count(BUNDLE.private_key) == 1
    assert "PRIVATE KEY-" not in TEXTS["without a key"]


def test_what_is_secret_and_what_is_foreign_stands_in_quoted_here_documents_alone() -> None:
    """So no shell expands it, and no command has it among its arguments."""
    template = read("install.sh")
    for place in ("CA_BUNDLE", "CERTIFICATE", "PRIVATE_KEY"):
        end = f"END-OF-{place.replace('_', '-')}"
        assert f"  cat <<'{end}'\n@{place}@\n{end}\n}}\n" in template
        assert template.count(f"@{place}@") == 1
    for place in ("REGISTRY", "REGISTRY_ADDRESS", "HOLDS_KEY"):
        assert f"\n{place.lower()}='@{place}@'" in template
        assert template.count(f"@{place}@") == 1


HOSTILE = [
    " ", "a b", "a;b", "a\nb", 'a"b', "a'b", "a$(id)b", "a`id`b", "a\\b", "a|b", "a&b", "a>b",
    "a*b", "a#b", "-n", "..", "../etc", "a/b", "a/../b", "@CA_BUNDLE@", "a:", "a:b", "a:1:2",
    "a\n", "é", "::1%$(id)", "1.2.3.4%'", "10.1.2.3 evil.example.com",
]  # fmt: skip
PEM = BUNDLE.certificate
HOSTILE_PEM = [
    "", "x", f"{PEM}x", f"x\n{PEM}", f"{PEM}END-OF-CERTIFICATE\nid\n", f"{PEM}\n", PEM.strip(),
    PEM.replace("\n", "\r\n"), PEM.replace("\nM", "\n$(id)M", 1), PEM.replace("CERTIFICATE", "KEY"),
    PEM.replace("-----BEGIN", "# @REGISTRY@\n-----BEGIN"),
]  # fmt: skip
PLACES: dict[str, tuple[list[str], Callable[[str], str]]] = {
    "registry": (["", *HOSTILE], lambda v: installer(replace(BUNDLE, registry=v))),
    "registry_address": (
        [*HOSTILE, "a", "1.2.3", "::g"],
        lambda v: installer(replace(BUNDLE, registry_address=v)),
    ),
    "ca_bundle": (HOSTILE_PEM, lambda v: installer(replace(BUNDLE, ca_bundle=v))),
    "certificate": (HOSTILE_PEM, lambda v: installer(replace(BUNDLE, certificate=v))),
    "private_key": ([*HOSTILE_PEM, PEM], lambda v: installer(replace(BUNDLE, private_key=v))),
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in PLACES for value in PLACES[field][0]]
)
def test_a_value_that_could_mean_more_than_itself_is_refused(field: str, value: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        PLACES[field][1](value)
    assert refusal.value.field == field
    assert PEM not in str(refusal.value)


@pytest.mark.parametrize("address", ["10.1.2.3", "2001:db8::7", "::ffff:10.1.2.3"])
def test_an_address_is_for_a_registry_that_has_a_name(address: str) -> None:
    assert f"registry_address='{address}'" in installer(replace(BUNDLE, registry_address=address))
    by_address = replace(BUNDLE, registry="10.1.2.3:8443")
    assert "registry_address=''" in installer(replace(by_address, registry_address=address))
