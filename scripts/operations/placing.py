"""Where the registry's own machine is to stand: its name, its network, its zone."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import boto3

from operations.cloud import CommandError

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

_SAY_SUBNETS = "--param RegistryHostSubnets=subnet-…,subnet-…"


def parameters(
    aws: boto3.Session, given: Mapping[str, str], kept: Mapping[str, str]
) -> dict[str, str]:
    """The stack parameters to add to those given, so that the machine has a network.

    kept: what is in force where nothing is given. A network in force stays; without one it is the
    default VPC's. Raises CommandError when the machine could not become the registry.
    """
    wanted = {**kept, **given}
    _refuse_address(wanted["RegistryHost"])
    if wanted["RegistryHostZone"]:
        stands = kept["RegistryHostInstance"] == "true"
        is_ours = stands and kept["RegistryHostZone"] == wanted["RegistryHostZone"]
        _check_zone(aws, wanted["RegistryHostZone"], wanted["RegistryHost"], is_ours=is_ours)
    ec2 = aws.client("ec2")
    if given.get("RegistryHostSubnets"):
        return _network_of(ec2, given["RegistryHostSubnets"], given.get("RegistryHostVpc", ""))
    if given.get("RegistryHostVpc"):
        raise CommandError(f"say which public subnets of the VPC, too: {_SAY_SUBNETS}")
    if wanted["RegistryHostVpc"] and wanted["RegistryHostSubnets"]:
        return {}
    return _default_network(ec2, wanted["RegistryHostInstanceType"])


def _refuse_address(host: str) -> None:
    """Its address is known when it has one, and the server CA certifies one name for good."""
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return
    raise CommandError(
        f"the registry is to be found by an address, {host}, but its machine gets an address of "
        "its own: deploy a stage whose --registry-host is a name, which needs no DNS record"
    )


def _check_zone(aws: boto3.Session, zone: str, host: str, *, is_ours: bool) -> None:
    """is_ours: a record of the name is the stack's own."""
    zones: Any = aws.client("route53")
    name = str(zones.get_hosted_zone(Id=zone)["HostedZone"]["Name"]).rstrip(".")
    if not f".{host}".endswith(f".{name}"):
        raise CommandError(f"{host} is no name in the hosted zone {zone}, which is for {name}")
    # Route 53 lists from there on, in the order of names.
    found = zones.list_resource_record_sets(
        HostedZoneId=zone, StartRecordName=host, StartRecordType="A", MaxItems="1"
    )["ResourceRecordSets"]
    if not is_ours and any((r["Name"].rstrip("."), r["Type"]) == (host, "A") for r in found):
        raise CommandError(
            f"the hosted zone {zone} has a record {host} A already, and CloudFormation makes none "
            "in its place: delete that one, then deploy again"
        )


def _network_of(ec2: EC2Client, named: str, vpc: str) -> dict[str, str]:
    """The subnets as named, and the VPC that they are in; *vpc*, if given, must be that one."""
    ids = [each.strip() for each in named.split(",")]
    found = ec2.describe_subnets(SubnetIds=ids)["Subnets"]
    vpcs = sorted({subnet["VpcId"] for subnet in found})
    if len(vpcs) != 1 or vpc not in ("", vpcs[0]):
        raise CommandError(f"the subnets {named} are in {' and '.join(vpcs)}; one VPC is needed")
    return {"RegistryHostVpc": vpcs[0], "RegistryHostSubnets": ",".join(ids)}


def _default_network(ec2: EC2Client, instance_type: str) -> dict[str, str]:
    """The default VPC's subnets, one a zone, where there are machines of this type.

    The default subnets are public; a machine asks for a public address itself.
    """
    vpcs = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise CommandError(f"there is no default VPC here: name public subnets, {_SAY_SUBNETS}")
    vpc = vpcs[0]["VpcId"]
    subnets = ec2.describe_subnets(
        Filters=[
            {"Name": "vpc-id", "Values": [vpc]},
            {"Name": "default-for-az", "Values": ["true"]},
        ]
    )["Subnets"]
    if not subnets:
        raise CommandError(
            f"the default VPC {vpc} has lost its own subnets: name public ones, {_SAY_SUBNETS}"
        )
    offering = _zones_with(ec2, instance_type)
    chosen = sorted(s["SubnetId"] for s in subnets if s["AvailabilityZone"] in offering)
    if not chosen:
        raise CommandError(
            f"there are no {instance_type} where the default VPC has subnets: choose another type, "
            "--param RegistryHostInstanceType=…"
        )
    return {"RegistryHostVpc": vpc, "RegistryHostSubnets": ",".join(chosen)}


def _zones_with(ec2: EC2Client, instance_type: str) -> set[str]:
    """Old zones lack new types."""
    offers = ec2.describe_instance_type_offerings(
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": [instance_type]}],
    )["InstanceTypeOfferings"]
    return {offer["Location"] for offer in offers}
