"""EC2 instances of the local cloud that are sandboxes: launched, listed, entered, terminated."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localcloud import deployment, images
from localcloud.aws import REGION, SETTINGS, Caller, Key
from localcloud.environment import from_shell
from localcloud.layout import Layout
from localcloud.processes import until
from localcloud.sandbox import NotRunning, Sandbox

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import InstanceTypeDef, TagSpecificationTypeDef

USER_DATA = "trust/user-data.sh"
BOOT_SECONDS = 60.0
STOPPED_SECONDS = 0.2  # how soon a command ends after its instance
PAGE = 100


class NotUp(Exception):
    """The local cloud is not running."""


class NoUserData(Exception):
    """The config bucket has no script for instances without an agent."""


class NoInstance(Exception):
    """There is no sandbox with this instance id."""


@dataclass(frozen=True)
class Seen:
    """One instance. access: as its tag says, empty without one. enrolment: empty if not known."""

    instance_id: str
    state: str
    access: str
    enrolment: str


@dataclass(frozen=True)
class Instances:
    """The sandboxes of a running cloud. variables: of its file of variables."""

    layout: Layout
    variables: Mapping[str, str]

    @classmethod
    def of(cls, layout: Layout) -> Instances:
        """Those of the cloud in this directory; raises NotUp."""
        if not layout.environment.exists():
            raise NotUp("the local cloud is not running: scripts/local up starts it")
        return cls(layout, from_shell(layout.environment.read_text()))

    def launch(self, access: str, *, image: str, user_data: str = "", count: int = 1) -> list[str]:
        """Launch so many with the Docker instances' profile; their ids, once their machines run.

        access: the value of the tag; empty for no tag.
        """
        stack = deployment.outputs(self._operator)
        tags: TagSpecificationTypeDef = {
            "ResourceType": "instance",
            "Tags": [{"Key": deployment.INSTANCE_TAG, "Value": access}],
        }
        launched = self._ec2.run_instances(
            ImageId=image,
            MinCount=count,
            MaxCount=count,
            IamInstanceProfile={"Name": stack["DockerInstanceProfileName"]},
            UserData=user_data,
            TagSpecifications=[tags] if access else [],
        )
        made = [each["InstanceId"] for each in launched["Instances"]]
        sandboxes = [Sandbox.of(self.layout.instances, each) for each in made]
        if not until(lambda: all(each.running for each in sandboxes), BOOT_SECONDS):
            raise NotRunning(f"not all machines ran within {BOOT_SECONDS:.0f} s")
        return made

    def user_data(self) -> str:
        """The script that an instance without an agent boots with; raises NoUserData."""
        s3 = self._operator.session.client(
            "s3", endpoint_url=self._operator.endpoint, config=SETTINGS
        )
        try:
            found = s3.get_object(Bucket=self.variables["CONFIG_BUCKET"], Key=USER_DATA)
        except s3.exceptions.NoSuchKey as error:
            raise NoUserData(f"{USER_DATA} is not in the config bucket") from error
        return found["Body"].read().decode()

    def terminate(self, instance_ids: Sequence[str]) -> None:
        """Terminate them, all or none; raises NoInstance for what is no sandbox's id."""
        for each in instance_ids:
            self.sandbox(each)
        self._ec2.terminate_instances(InstanceIds=list(instance_ids))

    def sandbox(self, instance_id: str) -> Sandbox:
        """The machine with this instance id; raises NoInstance."""
        sandbox = Sandbox.of(self.layout.instances, instance_id)
        if "/" in instance_id or not sandbox.disk.is_dir():
            raise NoInstance(f"there is no {instance_id!r}; `scripts/local instances` lists them")
        return sandbox

    def run(self, instance_id: str, command: Sequence[str]) -> int:
        """Run it there as root, with our input and output; its exit code, 128 + n for signal n.

        Raises NoInstance, or NotRunning, also when the instance ends before the command.
        """
        sandbox = self.sandbox(instance_id)
        with_registry = {"REGISTRY": self.variables["REGISTRY"]}
        process = subprocess.Popen(sandbox.command(command, with_registry), umask=0o022)
        while True:
            try:
                code = process.wait(STOPPED_SECONDS)
                return code if code >= 0 else 128 - code
            except subprocess.TimeoutExpired:
                if not sandbox.running:
                    process.kill()
                    process.wait()
                    raise NotRunning(f"{instance_id} was stopped or terminated") from None

    def seen(self) -> list[Seen]:
        """All, the terminated ones too."""
        enrolments = dict(self._enrolments())
        pages = self._ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "image-id", "Values": sorted(images.SANDBOXES)}]
        )
        groups = (group for page in pages for group in page["Reservations"])
        return [
            Seen(
                each["InstanceId"],
                each["State"]["Name"],
                _access(each),
                enrolments.get(each["InstanceId"], ""),
            )
            for group in groups
            for each in group["Instances"]
        ]

    def _enrolments(self) -> Iterator[tuple[str, str]]:
        """What the API tells an admin of each instance's enrolment; nothing if it does not."""
        cursor = ""
        while True:
            page = self._ask(f"/admin/instances?{cursor}limit={PAGE}")
            for each in page.get("instances", []):
                why = each.get("reason") or each.get("code")
                yield each["instance_id"], f"{each['state']} ({why})" if why else each["state"]
            if not page.get("next_cursor"):
                return
            cursor = f"cursor={page['next_cursor']}&"

    def _ask(self, path: str) -> dict[str, Any]:
        """The API's answer to an admin; nothing when it is not 200."""
        key = self.variables["ADMIN_ACCESS_KEY_ID"], self.variables["ADMIN_SECRET_ACCESS_KEY"]
        done = subprocess.run(
            [
                *("curl", "--silent", "--fail", "--max-time", "30", "--noproxy", "*"),
                *("--config", "-", "--aws-sigv4", f"aws:amz:{REGION}:execute-api"),
                f"{self.variables['API_URL']}{path}",
            ],
            # By standard input, since everybody on the machine can read a command line.
            input=f'user = "{key[0]}:{key[1]}"\n',
            capture_output=True,
            text=True,
            check=False,
        )
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    @property
    def _operator(self) -> Caller:
        known = self.variables
        key = Key(known["AWS_ACCESS_KEY_ID"], known["AWS_SECRET_ACCESS_KEY"])
        return Caller(known["AWS_ENDPOINT_URL"], key)

    @property
    def _ec2(self) -> EC2Client:
        return self._operator.session.client(
            "ec2", endpoint_url=self._operator.endpoint, config=SETTINGS
        )


def _access(instance: InstanceTypeDef) -> str:
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    return tags.get(deployment.INSTANCE_TAG, "")
