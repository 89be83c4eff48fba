"""scripts/deploy: package, upload, create or update the stack, make its CAs once."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import boto3

from operations import authorities, boot, cloud, host, placing
from operations.cloud import CommandError
from operations.packaging import ArtifactBucket, package
from operations.stack import Stack, of_stage

_STAGE = re.compile(r"[a-z][a-z0-9-]{0,30}")
_HOST_AND_PORT = re.compile(r"(?P<host>[A-Za-z0-9.-]+)(?::(?P<port>\d{1,5}))?")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    given = _parse(arguments)
    return cloud.run("scripts/deploy", lambda: deploy(given))


def deploy(given: argparse.Namespace) -> None:
    """Raises CommandError."""
    aws = cloud.session()
    identity = aws.client("sts").get_caller_identity()
    _say(f"stage {given.stage}, account {identity['Account']}, region {aws.region_name}")
    stack = of_stage(aws, given.stage)
    parameters = _parameters(given, stack)

    _say("packaging the functions")
    made = package(given.stage, aws.region_name)
    _refuse_unknown(parameters, made.template["Parameters"])
    parameters |= _place_registry_host(aws, parameters, stack, made.template["Parameters"])
    artifacts = ArtifactBucket(aws)
    template = artifacts.upload(made)
    _say("handing the template to CloudFormation")
    outcome = stack.deploy(artifacts.template_argument(template), parameters)
    _say(f"the stack is {outcome}")
    _furnish(aws, given, stack)


def _furnish(aws: boto3.Session, given: argparse.Namespace, stack: Stack) -> None:
    """Put into the stack what is no resource of its: CAs, trust, what machines fetch."""
    outputs = stack.outputs()
    if given.slack_webhook_file:
        _store_webhook(aws, outputs, given.slack_webhook_file)
    made_now = authorities.make_missing(aws, outputs, given.key_type)
    _say(f"made the {' and the '.join(made_now)} CA" if made_now else "the CAs are there already")
    authorities.publish(aws, outputs)
    _say("published the trust")
    api_url = cloud.api_address(outputs["ApiUrl"], os.environ.get("AWS_ENDPOINT_URL", ""))
    parameters = stack.parameters()
    script = boot.publish(aws, outputs, parameters, api_url)
    _say(f"published the instances' user data: {script}")
    set_up = host.publish(aws, outputs, parameters, api_url)
    _say(f"published what a registry host is made by: {set_up}")
    registry = _registry_host(given.stage, outputs, parameters, set_up)
    instance = (parameters["InstanceTag"], script)
    _print_next(given.stage, aws.region_name, outputs, api_url, instance, registry)


def _parameters(given: argparse.Namespace, stack: Stack) -> dict[str, str]:
    parameters = {"Stage": given.stage, **dict(given.param)}
    if given.registry_host:
        match = _HOST_AND_PORT.fullmatch(given.registry_host)
        if match is None or not 0 < int(match["port"] or 443) < 65536:
            raise CommandError(
                "--registry-host must be a host name or an IPv4 address, or HOST:PORT"
            )
        parameters["RegistryHost"] = match["host"].lower()
        parameters["RegistryPort"] = match["port"] or "443"
    elif "RegistryHost" not in stack.parameters():
        raise CommandError("the first time, say where the registry is: --registry-host HOST[:PORT]")
    if given.with_registry_host and parameters.setdefault("RegistryHostInstance", "true") != "true":
        raise CommandError("--with-registry-host, or RegistryHostInstance=false: not both")
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        parameters.setdefault("RequireTls", "false")
    return parameters


def _refuse_unknown(parameters: Mapping[str, str], known: Collection[str]) -> None:
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise CommandError(
            f"no such parameter: {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )


def _place_registry_host(
    aws: boto3.Session, given: Mapping[str, str], stack: Stack, known: Mapping[str, Any]
) -> dict[str, str]:
    """What its machine needs besides what was given, if there is to be one."""
    by_default = {name: str(each["Default"]) for name, each in known.items() if "Default" in each}
    kept = {**by_default, **stack.parameters()}
    if {**kept, **given}["RegistryHostInstance"] != "true":
        return {}
    return placing.parameters(aws, given, kept)


def _store_webhook(aws: boto3.Session, outputs: dict[str, str], file: Path) -> None:
    webhook = file.read_text().strip()
    if not re.fullmatch(r"https?://\S+", webhook):
        raise CommandError(f"{file} must hold one line, the address of a Slack webhook")
    aws.client("ssm").put_parameter(
        Name=f"{outputs['ParameterPrefix']}slack-webhook",
        Value=webhook,
        Type="SecureString",
        KeyId=outputs["KeyArn"],
        Overwrite=True,
    )
    _say("stored the Slack webhook")


def _registry_host(
    stage: str, outputs: dict[str, str], parameters: dict[str, str], set_up: str
) -> str:
    """What there is to do about the registry, on lines of its own. set_up: where its script is."""
    address, name = outputs.get("RegistryHostAddress"), parameters["RegistryHost"]
    if address is None:
        lines = [
            f"launch it under the instance profile {outputs['RegistryHostInstanceProfileName']},",
            f"with {set_up} as its user data,",
            "or have that done: scripts/deploy --with-registry-host",
        ]
    elif parameters["RegistryHostZone"]:
        lines = [f"is {name}, {address}: Route 53 has the record"]
    else:
        lines = [f"is {address}. Make a DNS record: {name} A {address}"]
        if not parameters["RegistryAddress"]:
            lines.append("The clients that are set up here need none: they are told the address")
    if address is not None:
        lines.append("A new machine takes some minutes. How it is:")
        lines.append(f"scripts/registry-host check --stage {stage}")
        lines.append("One that runs takes changed settings over by: sudo registry-host upgrade")
    return f"\n{' ' * 18}".join(lines)


def _print_next(
    stage: str,
    region: str,
    outputs: dict[str, str],
    api_url: str,
    instance: tuple[str, str],
    registry: str,
) -> None:
    """instance: the tag that makes one ours, and where the user data is. registry: what of it."""
    tag, script = instance
    print(
        f"""
deployed. What next:

  let people in   attach {outputs["DeveloperPolicyArn"]}
                  to those who need certificates (admins: {outputs["AdminPolicyArn"]})
  the registry    {registry}
  an instance     launch it under the instance profile {outputs["DockerInstanceProfileName"]},
                  tagged {tag}=pull or push: it enrols itself. Without an SSM agent
                  it needs {script} as its user data
  a certificate   export AWS_REGION={region} API_URL={api_url}
                  and then as README says under "Get a certificate"
  the CAs         scripts/ca show --stage {stage}"""
    )


def _say(text: str) -> None:
    print(f"deploy: {text}", file=sys.stderr, flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/deploy",
        description="Create or update a registry-trust stack, and make its CAs the first time. "
        "Uses your AWS credentials and AWS_REGION; honours AWS_ENDPOINT_URL.",
        epilog="exit codes: 0 deployed, 1 failed (the old stack goes on serving), 2 wrong call",
    )
    parser.add_argument("--stage", required=True, type=_stage, help="which deployment, e.g. prod")
    parser.add_argument("--registry-host", metavar="HOST[:PORT]", help="needed the first time")
    parser.add_argument(
        "--with-registry-host",
        action="store_true",
        help="have a machine for the registry made too; kept until RegistryHostInstance=false",
    )
    parser.add_argument("--slack-webhook-file", type=_file, metavar="F", help="kept encrypted")
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        type=_assignment,
        metavar="KEY=VALUE",
        help="a parameter of .chalice/stack.yaml, e.g. MaximumDays=30; kept until changed",
    )
    parser.add_argument(
        "--key-type",
        default="ec-p256",
        choices=authorities.KEY_TYPES,
        help="of new CAs; default ec-p256",
    )
    return parser.parse_args(arguments)


def _stage(text: str) -> str:
    if not _STAGE.fullmatch(text):
        raise argparse.ArgumentTypeError("lower-case letters, digits and hyphens, at most 31")
    return text


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return Path(text)


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.isalnum():
        raise argparse.ArgumentTypeError(f"{text} is not KEY=VALUE")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
