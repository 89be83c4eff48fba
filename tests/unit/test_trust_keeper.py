"""Keeping the published trust current."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509

from chalicelib.domain.pki.crl import Revocation
from chalicelib.domain.pki.leaves import certificate_pem
from chalicelib.errors import DependencyFailed, Misconfigured
from tests.unit.authorities import DAY, HOST, NOW, client_ca, server_ca
from tests.unit.stand_ins import World

BOTH = [client_ca(1), client_ca(2)]


def lists(pem: str) -> list[x509.CertificateRevocationList]:
    end = "-----END X509 CRL-----\n"
    return [x509.load_pem_x509_crl((part + end).encode()) for part in pem.split(end) if part]


def test_nothing_published_is_told_as_such(world: World) -> None:
    with pytest.raises(Misconfigured) as caught:
        world.trust.current()
    assert caught.value.code == "no_trust"


def test_what_a_refresh_publishes_is_what_is_current(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    refreshed = world.trust.refresh()
    assert caplog.messages == [f"published trust {refreshed.version} with CRL number 1"]
    assert world.trust.current() == refreshed
    assert world.journal.done == ["publish"]


def test_the_trust_names_the_registry_and_holds_every_ca(world: World) -> None:
    world.authorities.clients, servers = BOTH, [server_ca(), server_ca("other." + HOST)]
    world.authorities.servers = servers
    trust = world.trust.refresh()
    assert (trust.registry, trust.registry_address) == (f"{HOST}:8443", "192.0.2.7")
    assert trust.client_ca == "".join(certificate_pem(ca.certificate) for ca in BOTH)
    assert trust.ca_bundle == "".join(certificate_pem(ca.certificate) for ca in servers)


def test_each_client_ca_signs_a_list_of_its_own_revocations(world: World) -> None:
    """nginx refuses every client of a CA whose list is missing."""
    world.authorities.clients = BOTH
    for serial, ca in enumerate(BOTH, 101):
        world.revocations.listed[ca.id] = [Revocation(serial, NOW - DAY, "superseded")]
    found = lists(world.trust.refresh().crl)
    assert [crl.issuer for crl in found] == [ca.certificate.subject for ca in BOTH]
    assert [[entry.serial_number for entry in crl] for crl in found] == [[101], [102]]
    for crl, ca in zip(found, BOTH, strict=True):
        assert crl.is_signature_valid(ca.key.public_key())
        assert crl.last_update_utc == NOW.replace(microsecond=0) - timedelta(minutes=5)


def test_the_number_grows_with_every_refresh_and_is_in_every_list(world: World) -> None:
    world.authorities.clients = BOTH
    for expected in (1, 2, 3):
        trust = world.trust.refresh()
        numbers = [
            crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            for crl in lists(trust.crl)
        ]
        assert [trust.crl_number, *numbers] == [expected] * 3


def test_the_number_is_taken_before_the_revocations_are_read(world: World) -> None:
    """So a list of a greater number never knows less than one of a smaller."""
    seen: list[int] = []

    class Watched(type(world.revocations)):  # type: ignore[misc]
        def revocations(self, issuer_id: str, now: object) -> list[Revocation]:
            seen.append(self.number)
            return []

    world.revocations = Watched(number=41)
    world.trust.refresh()
    assert seen == [42]


def test_a_failed_refresh_leaves_what_was_published(world: World) -> None:
    before = world.trust.refresh()
    world.bundles.fails = True
    with pytest.raises(DependencyFailed):
        world.trust.refresh()
    assert world.trust.current() == before
