"""CAs in the emulator's parameters."""

from __future__ import annotations

from chalicelib.adapters.parameters import authority_set_name, key_name
from chalicelib.domain.model import KeyType, Validity
from chalicelib.domain.pki.authorities import (
    AuthorityKind,
    make_client_authority,
    make_server_authority,
)
from chalicelib.domain.pki.authority_set import AuthoritySet
from chalicelib.domain.pki.keys import make_key, private_key_pem
from chalicelib.domain.pki.leaves import certificate_pem
from tests.component.emulated_aws import EmulatedAws
from tests.component.store.records import DAY, NOW

PREFIX = "/registry-trust/test/"


def put_authorities(aws: EmulatedAws) -> None:
    """New ones of both kinds, in place of those that were there."""
    validity = Validity.starting(NOW, 3650 * DAY, DAY)
    key = make_key(KeyType.EC_P256)
    made = {
        AuthorityKind.CLIENT: make_client_authority(key, 1, validity),
        AuthorityKind.SERVER: make_server_authority(key, 1, validity, "r.example"),
    }
    ssm = aws.client("ssm")
    for kind, ca in made.items():
        known = AuthoritySet(ca.id, {ca.id: certificate_pem(ca.certificate)})
        for name, value, type_ in (
            (authority_set_name(PREFIX, kind), known.to_json(), "String"),
            (key_name(PREFIX, kind, ca.id), private_key_pem(key).decode(), "SecureString"),
        ):
            ssm.put_parameter(Name=name, Value=value, Type=type_, Overwrite=True)
