"""Where scripts/deploy puts the registry's own machine, and when it refuses to."""

from __future__ import annotations

from typing import Any

import pytest

from operations import placing
from operations.cloud import CommandError

KEPT = {
    "RegistryHost": "registry.example.com",
    "RegistryHostInstance": "false",
    "RegistryHostVpc": "",
    "RegistryHostSubnets": "",
    "RegistryHostZone": "",
    "RegistryHostInstanceType": "t3.small",
}
NETWORK = {"RegistryHostVpc": "vpc-1", "RegistryHostSubnets": "subnet-1,subnet-2"}


class Account:
    """EC2 and Route 53 as far as they are asked; the default VPC has an old zone, the third."""

    def __init__(self) -> None:
        self.default_vpcs = ["vpc-1"]
        self.subnets = {
            # id: (VPC, zone, whether it is the zone's default)
            "subnet-2": ("vpc-1", "b", True),
            "subnet-1": ("vpc-1", "a", True),
            "subnet-3": ("vpc-1", "c", True),
            "subnet-private": ("vpc-1", "a", False),
            "subnet-own": ("vpc-own", "a", False),
        }
        self.offers = {"t3.small": ["a", "b"], "t2.small": ["a", "b", "c"], "t9.tiny": []}
        self.records: list[tuple[str, str]] = []
        self.zones = {"Z1": "example.com.", "Z2": "ample.com.", "Z3": "registry.example.com."}

    def client(self, service: str) -> Account:
        assert service in ("ec2", "route53")
        return self

    def describe_vpcs(self, **asked: Any) -> dict[str, Any]:
        assert asked == {"Filters": [{"Name": "is-default", "Values": ["true"]}]}
        return {"Vpcs": [{"VpcId": each} for each in self.default_vpcs]}

    def describe_subnets(self, **asked: Any) -> dict[str, Any]:
        filters = {each["Name"]: each["Values"] for each in asked.get("Filters", [])}
        ids = asked.get("SubnetIds", self.subnets)
        return {
            "Subnets": [
                {"SubnetId": name, "VpcId": vpc, "AvailabilityZone": zone}
                for name, (vpc, zone, default) in self.subnets.items()
                if name in ids
                and vpc in filters.get("vpc-id", [vpc])
                and (default or "default-for-az" not in filters)
            ]
        }

    def describe_instance_type_offerings(self, **asked: Any) -> dict[str, Any]:
        assert asked["LocationType"] == "availability-zone"
        (wanted,) = asked["Filters"]
        zones = self.offers[wanted["Values"][0]]
        return {"InstanceTypeOfferings": [{"Location": zone} for zone in zones]}

    def get_hosted_zone(self, *, Id: str) -> dict[str, Any]:  # noqa: N803
        return {"HostedZone": {"Name": self.zones[Id]}}

    def list_resource_record_sets(self, **asked: Any) -> dict[str, Any]:
        start = (f"{asked['StartRecordName']}.", asked["StartRecordType"])
        found = sorted(each for each in self.records if each >= start)[: int(asked["MaxItems"])]
        return {"ResourceRecordSets": [{"Name": name, "Type": kind} for name, kind in found]}


def placed(account: Account | None = None, **given: str) -> dict[str, str]:
    return placing.parameters(account or Account(), given, KEPT)  # type: ignore[arg-type]


def test_it_is_in_the_default_vpc_where_there_are_machines_of_its_type():
    assert placed() == NETWORK
    everywhere = NETWORK | {"RegistryHostSubnets": "subnet-1,subnet-2,subnet-3"}
    assert placed(RegistryHostInstanceType="t2.small") == everywhere


def test_a_type_that_no_zone_has_is_said():
    with pytest.raises(CommandError, match=r"no t9\.tiny .*RegistryHostInstanceType="):
        placed(RegistryHostInstanceType="t9.tiny")


def test_a_network_in_force_is_asked_nothing_and_stays():
    kept = KEPT | {"RegistryHostVpc": "vpc-gone", "RegistryHostSubnets": "subnet-gone"}
    nobody: Any = Account()
    nobody.describe_vpcs = nobody.describe_subnets = None
    assert placing.parameters(nobody, {}, kept) == {}


def test_subnets_say_their_vpc():
    assert placed(RegistryHostSubnets="subnet-own") == {
        "RegistryHostVpc": "vpc-own",
        "RegistryHostSubnets": "subnet-own",
    }
    assert placed(RegistryHostSubnets="subnet-1, subnet-private")["RegistryHostSubnets"] == (
        "subnet-1,subnet-private"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"RegistryHostSubnets": "subnet-1,subnet-own"}, "vpc-1 and vpc-own; one VPC"),
        ({"RegistryHostSubnets": "subnet-1", "RegistryHostVpc": "vpc-own"}, "are in vpc-1; one"),
        ({"RegistryHostVpc": "vpc-own"}, "which public subnets"),
    ],
)
def test_a_network_that_is_none_is_refused(given, said):
    with pytest.raises(CommandError, match=said):
        placed(**given)


@pytest.mark.parametrize("lost", ["vpc", "subnets"])
def test_an_account_without_a_default_network_has_to_say_one(lost):
    account = Account()
    if lost == "vpc":
        account.default_vpcs = []
    else:
        account.subnets = {"subnet-private": ("vpc-1", "a", False)}

    with pytest.raises(CommandError, match="RegistryHostSubnets=subnet-"):
        placed(account)
    assert placed(account, RegistryHostSubnets="subnet-private")["RegistryHostVpc"] == "vpc-1"


def test_a_machine_cannot_be_found_by_an_address_that_it_does_not_have_yet():
    with pytest.raises(CommandError, match=r"10\.1\.2\.3.* an address of its own"):
        placed(RegistryHost="10.1.2.3")
    assert placed(RegistryHost="10.example.com") == NETWORK


@pytest.mark.parametrize(("zone", "fits"), [("Z1", True), ("Z2", False), ("Z3", True)])
def test_the_registrys_name_is_in_the_zone(zone, fits):
    """ample.com ends it, too, but is another's."""
    if fits:
        assert placed(RegistryHostZone=zone) == NETWORK
    else:
        with pytest.raises(CommandError, match=r"registry\.example\.com is no name in .* ample"):
            placed(RegistryHostZone=zone)


def test_a_record_that_somebody_made_is_in_the_way():
    account = Account()
    account.records = [("registry.example.com.", "A")]
    with pytest.raises(CommandError, match=r"has a record registry\.example\.com A already"):
        placed(account, RegistryHostZone="Z1")


@pytest.mark.parametrize(
    "record", [("registry.example.com.", "TXT"), ("sregistry.example.com.", "A")]
)
def test_another_record_is_not(record):
    account = Account()
    account.records = [record]
    assert placed(account, RegistryHostZone="Z1") == NETWORK


def test_the_stacks_own_record_is_not_in_its_way():
    account = Account()
    account.records = [("registry.example.com.", "A")]
    kept = KEPT | NETWORK | {"RegistryHostInstance": "true", "RegistryHostZone": "Z1"}
    assert placing.parameters(account, {}, kept) == {}
    with pytest.raises(CommandError, match="already"):
        placing.parameters(account, {}, kept | {"RegistryHostInstance": "false"})
