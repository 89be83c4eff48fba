"""Bringing the local cloud up, step by step. Every step may be repeated: what is there already is
used, what is missing is made, what is stale is replaced."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from localcloud import (
    control,
    deployment,
    environment,
    health,
    keeper,
    people,
    programs,
    registry_host,
    slack_sink,
)
from localcloud.aws import ROOT, Caller, Key
from localcloud.layout import CHECKOUT, Layout, read_json, write_private
from localcloud.parts import Part
from localcloud.ports import Ports, choose, kept
from localcloud.processes import until
from localcloud.push_certificate import PushCertificate
from operations.packaging import source_digest

PEOPLE = {"dev": "DeveloperPolicyArn", "dev2": "DeveloperPolicyArn", "admin": "AdminPolicyArn"}
READY_SECONDS = 30.0


class NotReady(Exception):
    """Something did not come to answer in time."""


@dataclass
class BringUp:
    """The work in progress: what each step found out for those after it."""

    layout: Layout
    wanted_ports: Mapping[str, int | None]
    ports: Ports = field(init=False)
    operator: Caller = field(init=False)
    keys: dict[str, Key] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    host: registry_host.RegistryHost = field(init=False)

    @property
    def gateway(self) -> str:
        """The emulated AWS."""
        return f"http://127.0.0.1:{self.ports.gateway}"

    @property
    def certificate(self) -> PushCertificate:
        """The push certificate in REGISTRY_CERTS_DIR."""
        return PushCertificate(self.host.registry, self.layout.certificates)

    def start_supervisor(self) -> None:
        """The process that owns the others, and free ports for them."""
        if keeper.answers(self.layout):
            self.ports = self._ports_in_use()
            return
        keeper.clear(self.layout)
        self.ports = choose(self.layout.ports, self.wanted_ports)
        keeper.start(self.layout)

    def _ports_in_use(self) -> Ports:
        before = kept(self.layout.ports)
        if before is None:
            raise NotReady(f"{self.layout.ports} is damaged; run `scripts/local down` first")
        for name, port in self.wanted_ports.items():
            if port not in (None, getattr(before, name)):
                raise NotReady(f"it runs with another {name} port; run `scripts/local down` first")
        return before

    def start_emulator(self) -> None:
        """The emulated AWS, and the stand-in for Slack."""
        for part in (self._emulator(), self._slack()):
            control.start(self.layout, part)
        self._wait_for("the emulated AWS", lambda: health.emulator_answers(self.ports))

    def _emulator(self) -> Part:
        command = [sys.executable, "-m", "localcloud.emulator"]
        arguments = [str(self.ports.gateway), str(self.layout.root)]
        return self._python_part("emulator", [*command, *arguments], vital=True)

    def _slack(self) -> Part:
        command = [sys.executable, "-m", "localcloud.slack_sink"]
        return self._python_part("slack", [*command, str(self.ports.slack), str(self.layout.slack)])

    def _python_part(self, name: str, command: list[str], *, vital: bool = False) -> Part:
        variables = {
            "PATH": deployment.plain_environment().get("PATH", ""),
            "PYTHONPATH": str(CHECKOUT / "scripts"),
            "HOME": str(self.layout.temporary),
            "TMPDIR": str(self.layout.temporary),
            "LANG": "C.UTF-8",
        }
        return Part(name, command, variables, str(self.layout.temporary), vital=vital)

    def make_operator(self) -> None:
        """An IAM user with an administrator's rights, for everything from here on."""
        key_file = self.layout.keys / "operator.json"
        key = people.ensure_operator(Caller(self.gateway, ROOT), key_file)
        self.operator = Caller(self.gateway, key)

    def deploy(self) -> None:
        """Our stack, unless what is deployed is what the checkout holds."""
        webhook = f"http://127.0.0.1:{self.ports.slack}{slack_sink.PATH}\n"
        write_private(self.layout.slack_webhook, webhook)
        digest, deployed = source_digest(), self.layout.root / "deployed.json"
        # The emulated AWS forgets all when it ends, and it ends with the supervisor.
        wanted = {"sources": digest, "supervisor": read_json(self.layout.supervisor)}
        if read_json(deployed) != wanted:
            deployment.deploy(
                self.operator,
                registry_host.registry_name(self.ports),
                self.layout.slack_webhook,
                self.layout.log("deploy"),
            )
            write_private(deployed, json.dumps(wanted) + "\n")
        self.outputs = deployment.outputs(self.operator)

    def follow_functions(self) -> None:
        """What the functions write to CloudWatch Logs comes to be a log like the others."""
        command = [sys.executable, "-m", "localcloud.function_log", self.gateway]
        arguments = [str(self.layout.keys / "operator.json"), self.outputs["FunctionLogs"]]
        control.start(self.layout, self._python_part("functions", [*command, *arguments]))

    def make_people(self) -> None:
        """Two developers and an admin."""
        for name, policy in PEOPLE.items():
            key_file = self.layout.keys / f"{name}.json"
            arn = self.outputs[policy]
            self.keys[name] = people.ensure_person(self.operator, name, arn, key_file)

    def launch_registry_host(self) -> None:
        """The emulated instance whose role the registry and registry-refresh sign with."""
        profile = self.outputs["RegistryHostInstanceProfileName"]
        instance, is_new = registry_host.ensure_instance(self.operator, profile)
        if is_new:  # and so its disk is empty
            shutil.rmtree(self.layout.registry_host, ignore_errors=True)
        self.host = registry_host.RegistryHost(
            self.layout,
            self.ports,
            self.outputs,
            deployment.api_url(self.outputs, self.ports.gateway),
            (self.layout.metadata / instance).read_text().strip(),
        )
        self.host.write_files()

    def fetch_trust(self) -> None:
        """registry-refresh, once: client CAs, CRL and a server certificate."""
        programs.run(
            self.host.refresh_command(),
            environment=self.host.environment(),
            log=self.layout.log("registry-refresh"),
            directory=self.layout.registry_host,
            seconds=60,
        )

    def start_registry(self) -> None:
        """The registry, nginx, and registry-refresh every other second."""
        for part in self.host.parts():
            control.start(self.layout, part)
        self._wait_for("the registry", lambda: health.registry_answers(self.ports))

    def certify_dev(self) -> None:
        """A push certificate for dev; a working one is kept."""
        if not self.certificate.works():
            self.certificate.fetch(self.host.api_url, self.keys["dev"])
            self._wait_for("the registry, to a push certificate", self.certificate.works)

    def write_environment(self) -> None:
        """The variables for people and tests."""
        variables = {
            "API_URL": self.host.api_url,
            **self.operator.environment(),
            **environment.key_variables("DEV", self.keys["dev"]),
            **environment.key_variables("DEV2", self.keys["dev2"]),
            **environment.key_variables("ADMIN", self.keys["admin"]),
            "REGISTRY": self.host.registry,
            "REGISTRY_CERTS_DIR": str(self.layout.certificates),
            "CONFIG_BUCKET": self.outputs["ConfigBucket"],
            "STACK_NAME": deployment.STACK,
            "STAGE": deployment.STAGE,
            "SLACK_SINK": str(self.layout.slack),
            "LOCAL": str(CHECKOUT / "scripts" / "local"),
            "REGISTRY_TRUST_LOCAL": str(self.layout.root),
        }
        write_private(self.layout.environment, environment.as_shell(variables))
        ready = {"sources": source_digest()}
        write_private(self.layout.ready, json.dumps(ready) + "\n")

    def _wait_for(self, what: str, true: Callable[[], bool]) -> None:
        if not until(true, READY_SECONDS, step=0.1):
            raise NotReady(f"{what} did not answer within {READY_SECONDS:.0f} s")


# What each step is called, does, and where more may be read when it fails.
STEPS: tuple[tuple[str, Callable[[BringUp], None], str], ...] = (
    ("supervisor", BringUp.start_supervisor, "supervisor"),
    ("emulated AWS", BringUp.start_emulator, "emulator"),
    ("operator", BringUp.make_operator, "emulator"),
    ("stack", BringUp.deploy, "deploy"),
    ("functions' log", BringUp.follow_functions, "functions"),
    ("people", BringUp.make_people, "emulator"),
    ("registry host", BringUp.launch_registry_host, "emulator"),
    ("trust", BringUp.fetch_trust, "registry-refresh"),
    ("registry", BringUp.start_registry, "registry"),
    ("push certificate", BringUp.certify_dev, "emulator"),
    ("variables", BringUp.write_environment, "supervisor"),
)
