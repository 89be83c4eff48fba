"""The second chapter: a certificate is renewed, taken back, refused, and the refusal explained.

Each telling issues two certificates and takes both back, so that none of them counts against the
quota afterwards. An idempotency key would get a revoked one refused at the second telling.
"""

from __future__ import annotations

import re

from localcloud.demo.certificates import answered
from localcloud.demo.commands import command
from localcloud.demo.story import Outcome, Step, Unexpected

PROMISED_SECONDS = 60.0

LAPTOP = command(r"""
mkdir -p laptop
curl -sS --fail-with-body "$API_URL/certs" \
  -H 'Content-Type: application/json' --data '{"label": "laptop"}' \
  signed-by-DEV \
  -H 'Accept: application/gzip' > laptop.tgz &&
  tar -xzf laptop.tgz -C laptop || cat laptop.tgz
skopeo inspect --cert-dir "laptop/$REGISTRY" --format '{{.Name}} {{.Digest}}' \
  "docker://$REGISTRY/demo/hello:1"
""")

RENEW = command(r"""
serial=$(openssl x509 -in "laptop/$REGISTRY/client.cert" -noout -serial | cut -d = -f 2)
curl -sS --fail-with-body "$API_URL/certs/$serial/renew" \
  -H 'Content-Type: application/json' --data '{"revoke_old": true}' \
  signed-by-DEV \
  -H 'Accept: application/gzip' > laptop.tgz &&
  tar -xzf laptop.tgz -C laptop || cat laptop.tgz
renewed=$(openssl x509 -in "laptop/$REGISTRY/client.cert" -noout -serial | cut -d = -f 2)
curl -sS --fail-with-body "$API_URL/certs/$renewed" \
  signed-by-DEV |
  python3 -c 'import json, sys; c = json.load(sys.stdin); print(
    c["serial"][:8], c["status"], "takes the place of", c["renews"][:8])'
skopeo inspect --cert-dir "laptop/$REGISTRY" --format '{{.Name}} {{.Digest}}' \
  "docker://$REGISTRY/demo/hello:1"
""")

REVOKE = command(r"""
serial=$(openssl x509 -in "laptop/$REGISTRY/client.cert" -noout -serial | cut -d = -f 2)
curl -sS --fail-with-body -X DELETE "$API_URL/certs/$serial" \
  -H 'Content-Type: application/json' --data '{"reason": "keyCompromise"}' \
  signed-by-DEV |
  python3 -c 'import json, sys; c = json.load(sys.stdin); print(
    c["status"], "by revocation list", c["crl_number"])'
answered=$(date +%s%N)
for try in $(seq 300); do
  (cd "laptop/$REGISTRY" && curl -sS -w '\n%{http_code}\n' \
    --cacert ca.crt --cert client.cert --key client.key "https://$REGISTRY/v2/") > answer
  [ "$(tail -n 1 answer)" = 200 ] || break
  sleep 0.1
done
echo "$((($(date +%s%N) - answered) / 1000000)) ms"
cat answer
""")

WHY = command(r"""
curl -sS --fail-with-body --data-binary "@laptop/$REGISTRY/client.cert" \
  "$API_URL/certs/diagnose" \
  signed-by-DEV |
  python3 -c 'import json, sys; d = json.load(sys.stdin); print(
    "admitted:", d["admitted"], *("\n" + f["code"] + ": " + f["detail"] for f in d["findings"]))'
""")

FOR_GOOD = command(r"""
serial=$(openssl x509 -in "laptop/$REGISTRY/client.cert" -noout -serial | cut -d = -f 2)
curl -sS -w '\n%{http_code}\n' -X POST "$API_URL/certs/$serial/renew" \
  signed-by-DEV
""")

UNTOUCHED = command(r"""
skopeo inspect --cert-dir "$REGISTRY" --format '{{.Name}} {{.Digest}}' \
  "docker://$REGISTRY/demo/hello:1"
""")

ADMIN = command(r"""
curl -sS --fail-with-body "$API_URL/admin/certs?limit=1&status=revoked" \
  signed-by-ADMIN |
  python3 -c 'import json, sys; [c] = json.load(sys.stdin)["certificates"]; print(
    c["owner"], c["label"], c["status"], c["revoked_at"], c["revocation_reason"])'
""")

NO_ADMIN = command(r"""
curl -sS -w '\n%{http_code}\n' "$API_URL/admin/certs" \
  signed-by-DEV
""")


def refused_in_time(outcome: Outcome) -> str:
    """How long the registry took to refuse what DELETE had said is revoked, and its words."""
    said = outcome.succeeded().says("revoked by revocation list", "has been revoked", "\n403")
    taken = re.search(r"^(\d+) ms$", said, re.MULTILINE)
    reason = re.search(r'^\{"errors".*$', said, re.MULTILINE)
    if taken is None or reason is None:
        raise Unexpected("the registry should have refused it, in words")
    seconds = int(taken[1]) / 1000
    if seconds >= PROMISED_SECONDS:
        raise Unexpected(f"the refusal should have come within {PROMISED_SECONDS:.0f} s")
    return f"{said.splitlines()[0]}; {seconds:.1f} s after DELETE's answer:\n403 {reason[0]}"


STEPS = (
    Step(
        "Somebody's laptop has a certificate of its own",
        LAPTOP,
        lambda seen: seen.succeeded().says("/demo/hello", "sha256:"),
    ),
    Step(
        "Renewed in time it has a new key; the old certificate goes with the same stroke",
        RENEW,
        lambda seen: seen.succeeded().says("active takes the place of", "/demo/hello"),
    ),
    Step(
        "The laptop is lost. One DELETE, and the registry refuses its certificate",
        REVOKE,
        refused_in_time,
    ),
    Step(
        "Why is it refused? Its owner can ask",
        WHY,
        lambda seen: seen.succeeded().says("admitted: False", "revoked: ", "keyCompromise"),
    ),
    Step(
        "It is for good: what is revoked cannot be renewed",
        FOR_GOOD,
        lambda seen: answered(seen, "409"),
    ),
    Step(
        "Certificates that nobody touched go on working",
        UNTOUCHED,
        lambda seen: seen.succeeded().says("/demo/hello", "sha256:"),
    ),
    Step(
        "An admin sees everybody's, and what became of them",
        ADMIN,
        lambda seen: seen.succeeded().says(":user/dev laptop revoked ", "keyCompromise"),
    ),
    Step(
        "which is not for developers",
        NO_ADMIN,
        lambda seen: answered(seen, "403"),
    ),
)
