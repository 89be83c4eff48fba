"""The first chapter: a signed request becomes a certificate, and the certificate opens the
registry, as far as it says and for nobody else.

Idempotency keys are there so that telling the story again asks for no new certificates.
"""

from __future__ import annotations

import re

from localcloud.demo.commands import command
from localcloud.demo.story import Outcome, Step, Unexpected

UNSIGNED = command(r"""
curl -sS -w '\n%{http_code}\n' -X POST "$API_URL/certs"
""")

FIRST = command(r"""
curl -sS --fail-with-body -X POST "$API_URL/certs" \
  signed-by-DEV \
  -H 'Accept: application/gzip' -H 'Idempotency-Key: demo-push' > push.tgz &&
  tar -xzf push.tgz && ls "$REGISTRY" || cat push.tgz
""")

LOOK = command(r"""
curl -sS --fail-with-body "$API_URL/trust" \
  signed-by-DEV |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["client_ca"])' > client-ca.crt
openssl x509 -in "$REGISTRY/client.cert" -noout -subject -dates
openssl verify -purpose sslclient -CAfile client-ca.crt "$REGISTRY/client.cert"
""")

OWN_KEY = command(r"""
[ -f own.csr ] || openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
  -subj /CN=whatever -keyout own.key -out own.csr 2> openssl.log
curl -sS --fail-with-body --data-binary @own.csr "$API_URL/certs" \
  signed-by-DEV \
  -H 'Accept: application/x-pem-file' \
  -H "Idempotency-Key: $(sha256sum own.csr | cut -c 1-32)" -o own.pem || cat own.pem
openssl x509 -in own.pem -noout -subject
openssl pkey -in own.key -pubout -out own.pub
openssl x509 -in own.pem -noout -pubkey | cmp - own.pub && echo 'it certifies own.key'
""")

PUSH_AND_PULL = command(r"""
skopeo copy -q --dest-cert-dir "$REGISTRY" oci:hello "docker://$REGISTRY/demo/hello:1"
rm -rf back
skopeo copy -q --src-cert-dir "$REGISTRY" "docker://$REGISTRY/demo/hello:1" oci:back
for image in hello back; do skopeo inspect --format '{{.Digest}}' oci:$image; done
""")

NO_CERTIFICATE = command(r"""
curl -sS -w '\n%{http_code}\n' --cacert "$REGISTRY/ca.crt" "https://$REGISTRY/v2/"
""")

STRANGER = command(r"""
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
  -subj '/CN=a CA of my own' -keyout my-ca.key -out my-ca.crt 2> openssl.log
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
  -CA my-ca.crt -CAkey my-ca.key -subj /CN=dev/OU=push/O=registry-trust \
  -keyout my.key -out my.crt 2> openssl.log
curl -sS -w '\n%{http_code}\n' --cacert "$REGISTRY/ca.crt" \
  --cert my.crt --key my.key "https://$REGISTRY/v2/"
""")

PULL = command(r"""
mkdir -p pull
curl -sS --fail-with-body "$API_URL/certs" \
  -H 'Content-Type: application/json' --data '{"access": "pull"}' \
  signed-by-DEV \
  -H 'Accept: application/gzip' -H 'Idempotency-Key: demo-pull' > pull.tgz &&
  tar -xzf pull.tgz -C pull || cat pull.tgz
skopeo inspect --cert-dir "pull/$REGISTRY" --format '{{.Name}} {{.Digest}}' \
  "docker://$REGISTRY/demo/hello:1"
""")

PULL_MAY_NOT_PUSH = command(r"""
skopeo copy -q --dest-cert-dir "pull/$REGISTRY" oci:hello "docker://$REGISTRY/demo/hello:2"
""")

SOMEBODY_ELSE = command(r"""
serial=$(openssl x509 -in "$REGISTRY/client.cert" -noout -serial | cut -d = -f 2)
curl -sS -w '\n%{http_code}\n' "$API_URL/certs/$serial" \
  signed-by-DEV2
""")


def answered(outcome: Outcome, *statuses: str) -> str:
    """Status and body of a curl that writes the status as its last line."""
    body, _, status = outcome.succeeded().out.strip().rpartition("\n")
    if status not in statuses:
        raise Unexpected(f"the answer should have been {' or '.join(statuses)}, not {status}")
    return f"{status} {body.strip()}".strip()


def unpacked(outcome: Outcome) -> str:
    """The files of a bundle."""
    outcome.succeeded().says("ca.crt", "client.cert", "client.key")
    return "as Docker and skopeo want them: " + ", ".join(outcome.out.split())


def certified(outcome: Outcome, *texts: str) -> str:
    """What openssl says of a certificate; spaces around = differ between its versions."""
    plain = Outcome(outcome.code, outcome.out.replace(" = ", "="), outcome.err)
    return plain.succeeded().says(*texts)


def same_digests(outcome: Outcome) -> str:
    """That two images are one."""
    digests = re.findall(r"sha256:[0-9a-f]{64}", outcome.succeeded().out)
    if len(digests) != 2 or len(set(digests)) != 1:
        raise Unexpected("both digests should be there and be equal")
    return f"what was pushed and what came back are both {digests[0]}"


STEPS = (
    Step(
        "Who are you? A request that nobody signed is refused",
        UNSIGNED,
        lambda seen: answered(seen, "403"),
    ),
    Step("Signed by a developer, the same request becomes a certificate", FIRST, unpacked),
    Step(
        "It says who may do what until when, and the team's own CA signed it",
        LOOK,
        lambda seen: certified(seen, "CN=dev", "OU=push", "notAfter=", ": OK"),
    ),
    Step(
        "Or for a key of your own, which never leaves your machine",
        OWN_KEY,
        lambda seen: certified(seen, "CN=dev", "it certifies own.key"),
    ),
    Step(
        "With its certificate, skopeo pushes an image and pulls it back",
        PUSH_AND_PULL,
        same_digests,
    ),
    Step(
        "Without a certificate the registry lets nobody in",
        NO_CERTIFICATE,
        lambda seen: answered(seen, "400", "403"),
    ),
    Step(
        "Nor with one that says the same but is of somebody else's CA",
        STRANGER,
        lambda seen: answered(seen, "400", "403"),
    ),
    Step(
        "A certificate for pulling pulls",
        PULL,
        lambda seen: seen.succeeded().says("/demo/hello", "sha256:"),
    ),
    Step("and may not push", PULL_MAY_NOT_PUSH, lambda seen: seen.failed("denied")),
    Step(
        "To another developer the certificate does not exist",
        SOMEBODY_ELSE,
        lambda seen: answered(seen, "404"),
    ),
)
