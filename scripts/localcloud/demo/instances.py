"""The third chapter: an EC2 instance enrols itself, works, is robbed and is terminated.

Each telling launches an instance of its own, whose certificate is taken back when it ends.
"""

from __future__ import annotations

import re

from localcloud.demo.commands import command
from localcloud.demo.story import Outcome, Step, Unexpected

PROMISED_ENROLMENT_SECONDS = 90.0
PROMISED_REFUSAL_SECONDS = 60.0

LAUNCH = command(r"""
"$LOCAL" launch --access pull > instance
date +%s%N > launched
cat instance
""")

ENROLLED = command(r"""
for try in $(seq 400); do
  curl -sS "$API_URL/admin/instances/$(cat instance)" \
    signed-by-ADMIN > enrolment
  case $(cat enrolment) in *'"state":"enrolled"'* | *'"state":"failed"'* | '') break ;; esac
  sleep 0.2
done
echo "$((($(date +%s%N) - $(cat launched)) / 1000000)) ms after it was launched"
python3 -c 'import json; e = json.load(open("enrolment")); print(
  e["instance_id"], e["state"], "for", e["access"], "by its", e["path"],
  "with", (e["serial"] or "no")[:8], e["reason"])'
""")

PULL = command(r"""
"$LOCAL" exec "$(cat instance)" -- sh -c '
  skopeo copy -q "docker://$REGISTRY/demo/hello:1" oci:/tmp/hello:1 &&
    ls -l "/etc/containers/certs.d/$REGISTRY/" && grep -o "sha256:[0-9a-f]*" /tmp/hello/index.json'
""")

NO_PUSH = command(r"""
"$LOCAL" exec "$(cat instance)" -- sh -c '
  skopeo copy -q oci:/tmp/hello:1 "docker://$REGISTRY/demo/hello:2"'
""")

# Everything that went between the plane and the instance: each command and what it wrote.
KEY_STAYS = command(r"""
ssm() {
  curl -sS --fail-with-body "$AWS_ENDPOINT_URL/" -H "X-Amz-Target: AmazonSSM.$1" \
    -H 'Content-Type: application/x-amz-json-1.1' --data "$2" \
    --aws-sigv4 "aws:amz:$AWS_REGION:ssm" \
    --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"
}
ssm ListCommands "{\"InstanceId\": \"$(cat instance)\"}" > commands
for id in $(python3 -c 'import json; print(
    *(c["CommandId"] for c in json.load(open("commands"))["Commands"]))'); do
  ssm GetCommandInvocation "{\"CommandId\": \"$id\", \"InstanceId\": \"$(cat instance)\"}"
done > written
"$LOCAL" exec "$(cat instance)" -- sh -c '
  cd "/etc/registry-trust/$REGISTRY" && stat -c "%a %U %n" "$(hostname).key" &&
    sed -n 2p "$(hostname).key"' > key
head -n 1 key
grep -o '"CommandId"' commands | wc -l
tail -n 1 key | grep -c -F -f - commands written
""")

ROBBED = command(r"""
mkdir -p thief
"$LOCAL" exec "$(cat instance)" -- sh -c '
  tar -chf - -C "/etc/containers/certs.d/$REGISTRY" .' | tar -xf - -C thief
(cd thief && curl -sS -o answer -w '%{http_code}\n' \
  --cacert ca.crt --cert client.cert --key client.key "https://$REGISTRY/v2/")
""")

TERMINATED = command(r"""
"$LOCAL" terminate "$(cat instance)"
ended=$(date +%s%N)
for try in $(seq 600); do
  (cd thief && curl -sS -w '\n%{http_code}\n' \
    --cacert ca.crt --cert client.cert --key client.key "https://$REGISTRY/v2/") > answer
  [ "$(tail -n 1 answer)" = 200 ] || break
  sleep 0.1
done
echo "$((($(date +%s%N) - ended) / 1000000)) ms"
cat answer
""")

GONE = command(r"""
curl -sS --fail-with-body "$API_URL/admin/instances/$(cat instance)" \
  signed-by-ADMIN |
  python3 -c 'import json, sys; e = json.load(sys.stdin); print(e["instance_id"], e["state"])'
serial=$(openssl x509 -in thief/client.cert -noout -serial | cut -d = -f 2)
curl -sS --fail-with-body "$API_URL/admin/certs/$serial" \
  signed-by-ADMIN |
  python3 -c 'import json, sys; c = json.load(sys.stdin); print(
    c["serial"][:8], c["status"], c["revoked_by"], c["revocation_reason"])'
""")


def launched(outcome: Outcome) -> str:
    """The id of the instance."""
    said = outcome.succeeded().out.strip()
    if not re.fullmatch(r"i-[0-9a-f]{17}", said):
        raise Unexpected("one instance should have been launched")
    return said


def enrolled_in_time(outcome: Outcome) -> str:
    """What is known of the enrolment, and how long it took."""
    said = outcome.succeeded().says(" enrolled for pull by its agent with ")
    seconds = _milliseconds(said) / 1000
    if seconds >= PROMISED_ENROLMENT_SECONDS:
        raise Unexpected(f"it should have taken less than {PROMISED_ENROLMENT_SECONDS:.0f} s")
    return (
        f"{seconds:.1f} s after it was launched, and nobody did anything:\n{said.splitlines()[1]}"
    )


def key_stayed(outcome: Outcome) -> str:
    """Whose the key is, and that none of what was sent or written holds it."""
    lines = outcome.out.splitlines()  # the last command, grep, fails for having found nothing
    if len(lines) != 4 or not re.fullmatch(r"600 root i-[0-9a-f]{17}\.key", lines[0]):
        raise Unexpected("the key should be root's alone, and known by the instance's id")
    if int(lines[1]) < 2 or lines[2:] != ["commands:0", "written:0"]:
        raise Unexpected("commands should be kept, and none of them should hold the key")
    return f"{lines[0]}; not in any of {lines[1]} commands nor in what they wrote"


def refused_in_time(outcome: Outcome) -> str:
    """How soon after termination the registry refused the copy, and its words."""
    said = outcome.succeeded().says("has been revoked", "\n403")
    milliseconds = _milliseconds(said)
    reason = re.search(r'^\{"errors".*$', said, re.MULTILINE)
    if reason is None or milliseconds >= PROMISED_REFUSAL_SECONDS * 1000:
        raise Unexpected(f"it should be refused in words within {PROMISED_REFUSAL_SECONDS:.0f} s")
    return f"{milliseconds} ms after termination:\n403 {reason[0]}"


def _milliseconds(said: str) -> int:
    taken = re.search(r"^(\d+) ms", said, re.MULTILINE)
    if taken is None:
        raise Unexpected("it should say how long it took")
    return int(taken[1])


STEPS = (
    Step("An EC2 instance is launched with the tag registry-trust=pull", LAUNCH, launched),
    Step("It enrols itself, with a key that was made on it", ENROLLED, enrolled_in_time),
    Step(
        "From inside it pulls the image: its certificate is where engines look for it",
        PULL,
        lambda seen: seen.succeeded().says("ca.crt", "client.cert", "client.key", "sha256:"),
    ),
    Step("It may not push: its tag says pull", NO_PUSH, lambda seen: seen.failed("denied")),
    Step("Its key is root's there, and never went anywhere", KEY_STAYS, key_stayed),
    Step(
        "Somebody robs it of key and certificate, and they work elsewhere too",
        ROBBED,
        lambda seen: seen.succeeded().says("200"),
    ),
    Step("until it is terminated. Nobody has to revoke anything", TERMINATED, refused_in_time),
    Step(
        "What is left of it is a record",
        GONE,
        lambda seen: seen.succeeded().says(" gone", " revoked registry-trust "),
    ),
)
