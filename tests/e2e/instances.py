"""EC2 instances of the tests' cloud: real machines, in sandboxes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from localcloud import images
from localcloud.instances import Instances
from localcloud.layout import Layout, read_json
from localcloud.sandbox import Sandbox

Enrolment = dict[str, Any]
ENROLLED_SECONDS = 90.0
_EVENT = ("version", "id", "detail-type", "account", "time", "region")


@dataclass(frozen=True)
class Fleet:
    """The instances of one cloud, and what the API tells an admin of them."""

    cloud: Any

    @property
    def layout(self) -> Layout:
        return Layout(self.cloud.directory)

    @property
    def known(self) -> Instances:
        return Instances.of(self.layout)

    def launch(self, access: str = "pull", count: int = 1, *, boot: bool = False) -> list[str]:
        """Launched with the tag, or without if *access* is empty; boot: by user data, no agent."""
        known = self.known
        image = images.WITHOUT_AGENT if boot else images.WITH_AGENT
        user_data = known.user_data() if boot else ""
        return known.launch(access, image=image, user_data=user_data, count=count)

    def enrolment(self, instance_id: str) -> Enrolment:
        """What is known of it; nothing if nothing is."""
        answer = self.cloud.person("ADMIN").ask("GET", f"/admin/instances/{instance_id}")
        return dict(answer.json) if answer.status == 200 else {}

    def wait(
        self,
        instance_id: str,
        true: Callable[[Enrolment], object],
        seconds: float = ENROLLED_SECONDS,
    ) -> Enrolment:
        """Its enrolment, once that is true of it; fails when it is not in time."""
        deadline = time.monotonic() + seconds
        while True:
            known = self.enrolment(instance_id)
            if known and true(known):
                return known
            assert time.monotonic() < deadline, known or f"{instance_id} is unknown"
            time.sleep(0.3)

    def enrolled(self, instance_id: str, seconds: float = ENROLLED_SECONDS) -> Enrolment:
        """Its enrolment, once it is enrolled."""
        return self.wait(instance_id, lambda e: e["state"] == "enrolled", seconds)

    def run(self, instance_id: str, script: str) -> subprocess.CompletedProcess[str]:
        """On the instance, as root, with $REGISTRY."""
        variables = {"REGISTRY": self.cloud.variables["REGISTRY"]}
        return subprocess.run(
            self.sandbox(instance_id).command(["sh", "-c", script], variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            umask=0o022,
        )

    def sandbox(self, instance_id: str) -> Sandbox:
        return Sandbox.of(self.layout.instances, instance_id)

    def asks(self, instance_id: str, method: str = "GET", path: str = "/v2/") -> str:
        """The status with which the registry answers the instance's own files."""
        files = 'cd "/etc/containers/certs.d/$REGISTRY" && curl -sS -o /dev/null -w "%{http_code}"'
        shown = "--cacert ca.crt --cert client.cert --key client.key"
        return self.run(
            instance_id, f'{files} {shown} -X {method} "https://$REGISTRY{path}"'
        ).stdout

    def certificate(self, serial: str) -> dict[str, Any]:
        answer = self.cloud.person("ADMIN").ask("GET", f"/admin/certs/{serial}")
        assert answer.status == 200, answer.body
        return dict(answer.json)

    def calls(self) -> dict[str, dict[str, int]]:
        """How often the emulated AWS was called, by action and caller, a moment ago."""
        return read_json(self.layout.api_calls)

    def invoke(self, function: str) -> Any:
        """Have a function of the clock's run now, as an operator does. function: of the outputs."""
        event = {**dict.fromkeys(_EVENT, ""), "source": "operator", "resources": [], "detail": {}}
        answer = self.cloud.client("lambda").invoke(
            FunctionName=self.cloud.outputs()[function], Payload=json.dumps(event).encode()
        )
        said = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, said
        return said

    def reconcile(self) -> int:
        """All instances are compared with their records; how many are to be looked at.

        The clock may have done so a moment before, and then there is none left.
        """
        return int(self.invoke("ReconcileInstancesFunction")["asked"])

    def make_due(self, instance_id: str) -> None:
        """Its next look is an hour ago."""
        past = datetime.now(UTC) - timedelta(hours=1)
        self._set(
            "InstancesTable",
            {"instance_id": instance_id},
            look_at=_time(past),
            due_key=f"{past:%Y-%m-%dT%H:%M:%SZ}#{instance_id}",
        )

    def make_old(self, serial: str) -> None:
        """By its record the certificate began so long ago that its last third has begun."""
        began = datetime.now(UTC) - timedelta(days=300)
        self._set("CertificatesTable", {"serial": serial}, not_before=_time(began))

    def make_ended(self, serial: str) -> None:
        """By its record the certificate ended an hour ago."""
        ended = datetime.now(UTC) - timedelta(hours=1)
        self._set(
            "CertificatesTable",
            {"serial": serial},
            not_after=_time(ended),
            expiry_day=f"{ended:%Y-%m-%d}",
            expiry_key=f"{ended:%Y-%m-%dT%H:%M:%SZ}#{serial}",
        )

    def _set(self, table: str, key: dict[str, str], **attributes: str) -> None:
        self.cloud.client("dynamodb").update_item(
            TableName=self.cloud.outputs()[table],
            Key={name: {"S": value} for name, value in key.items()},
            UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in attributes),
            ExpressionAttributeValues={f":{n}": {"S": v} for n, v in attributes.items()},
        )

    def ec2(self, action: str, instance_id: str) -> None:
        """stop, start or terminate it, as the operator."""
        getattr(self.cloud.client("ec2"), f"{action}_instances")(InstanceIds=[instance_id])

    def load(self, **faults: float) -> None:
        """Make the days bad, or good again."""
        if faults:
            self.layout.faults.write_text(json.dumps(faults))
        else:
            self.layout.faults.unlink(missing_ok=True)


def _time(at: datetime) -> str:
    """As pynamodb writes it."""
    return f"{at:%Y-%m-%dT%H:%M:%S.%f+0000}"
