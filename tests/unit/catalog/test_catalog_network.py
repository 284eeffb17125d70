"""What a config may say of its region, zones and network, and what it is told when that cannot work."""

# ruff: noqa: E501  a case and what it is told stand on one line

from pathlib import Path
from typing import Any

import boto3
import pytest
from ruamel.yaml import YAML

from catalog import CatalogError, Environment, load_environment, regions

VPC = {
    "id": "vpc-0a1b2c3d4e5f60718",
    "subnets": {"us-east-1a": "subnet-0a1b2c3d", "us-east-1b": "subnet-0b1b2c3d"},
}
TABLES = {"us-east-1a": "rtb-0a1b2c3d", "us-east-1b": "rtb-0a1b2c3d"}
CIDR = {"cidr": "10.0.0.0/16"}


def write(folder: Path, name: str, **fields: Any) -> None:
    document = {
        "name": name,
        "account": None,
        "region": "us-east-1",
        "availability_zones": ["us-east-1a", "us-east-1b"],
        "network": CIDR,
        **fields,
    }
    with (folder / f"{name}.yaml").open("w") as file:
        YAML().dump(document, file)


def load(folder: Path, **fields: Any) -> Environment:
    write(folder, "dev", **fields)
    return load_environment(folder, "dev")


def refused(folder: Path, **fields: Any) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        load(folder, **fields)
    return [str(problem).split(": ", 1)[1] for problem in caught.value.problems]


def zones(region: str, letters: str) -> dict[str, Any]:
    return {"region": region, "availability_zones": [region + letter for letter in letters]}


def network(**fields: Any) -> dict[str, Any]:
    return {"network": fields}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"region": "us-east-11"}, "region: 'us-east-11' is not allowed: AWS region, as `us-east-1`"),
        (zones("us-esat-1", "ab"), "region: 'us-esat-1' is not allowed: is not a region that this release knows, as us-west-1, us-east-1, us-west-2 (catalog/regions.py)"),
        (zones("eu-west-1", "abd"), "availability_zones[2]: 'eu-west-1d' is not allowed: must be a zone of eu-west-1: eu-west-1a, eu-west-1b, eu-west-1c"),
        (zones("us-west-1", "abc"), "availability_zones: ['us-west-1a', 'us-west-1b', 'us-west-1c'] is not allowed: must be at most 2 zones: us-west-1 offers no more"),
        (zones("eu-south-2", "ab"), "network.s3_prefix_list: null is not allowed: is required in eu-south-2, which the platform's table lacks: what `aws ec2 describe-managed-prefix-lists --region eu-south-2 --filters Name=prefix-list-name,Values=com.amazonaws.eu-south-2.s3` shows"),
        (network(), "network: {} is not allowed: must have either cidr: <range of a VPC to make> or vpc: <one that is there>"),
        (network(cidr="0.0.0.0/16"), "network.cidr: '0.0.0.0/16' is not allowed: must be a range that EC2 gives to a VPC, as one of 10.0.0.0/8"),
        (network(cidr="10.0.0.0/23"), "network.cidr: '10.0.0.0/23' is not allowed: must have a prefix from /16 to /22: room for every zone's subnets"),
        (network(**CIDR, avoid_cidrs=["10.1.0.0/16", "10.0.128.0/17"]), "network.avoid_cidrs[1]: '10.0.128.0/17' is not allowed: overlaps network.cidr 10.0.0.0/16: choose another range there"),
        (network(**CIDR, avoid_cidrs=["10.1.0.1/16"]), "network.avoid_cidrs[0]: '10.1.0.1/16' is not allowed: must be an IPv4 network address, as 10.20.0.0/16 (10.1.0.1/16 has host bits set)"),
        (zones("us-east-2", "ab") | network(**CIDR, private_control_plane=True), "network.dynamodb_prefix_list: null is not allowed: is required in us-east-2, which the platform's table lacks: what `aws ec2 describe-managed-prefix-lists --region us-east-2 --filters Name=prefix-list-name,Values=com.amazonaws.us-east-2.dynamodb` shows"),
        (network(**CIDR, s3_prefix_list="s3"), "network.s3_prefix_list: 's3' is not allowed: Id of the prefix list `com.amazonaws.<region>.s3`, which is all that models may reach. Left out: the platform's table, which knows most regions"),
        (network(vpc={**VPC, "id": "my-vpc"}), "network.vpc.id: 'my-vpc' is not allowed: The VPC, as `vpc-0a1b2c3d4e5f60718`"),
        (network(vpc={**VPC, "cidr": "10.0.0.0/33"}), "network.vpc.cidr: '10.0.0.0/33' is not allowed: must be an IPv4 network address, as 10.20.0.0/16 ('33' is not a valid netmask)"),
        (network(vpc={**VPC, "subnets": {"us-east-1a": "subnet-0a1b2c3d"}}), "network.vpc.subnets: ['us-east-1a'] is not allowed: must have one subnet for each of availability_zones: us-east-1a, us-east-1b"),
        (network(vpc={**VPC, "create_endpoints": True}), "network.vpc.route_tables: [] is not allowed: must have one route table for each zone of subnets: us-east-1a, us-east-1b"),
        (network(vpc={**VPC, "route_tables": TABLES}), "network.vpc.route_tables: ['us-east-1a', 'us-east-1b'] is not allowed: is for create_endpoints: true only: nothing else changes route tables"),
        (network(vpc=VPC, private_control_plane=True), "network.vpc.cidr: null is not allowed: is required with private_control_plane: control functions call the VPC's interface endpoints in that range. Or set create_endpoints: true"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_field_and_the_remedy(
    tmp_path: Path, fields: dict[str, Any], problem: str
) -> None:
    assert refused(tmp_path, **fields) == [problem]


def test_a_vpc_is_made_or_named_but_not_both(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, **network(**CIDR, vpc=VPC))
    assert problem.endswith("must have either cidr: <range of a VPC to make> or vpc: <one that is there>")


@pytest.mark.parametrize(
    "fields",
    [
        {"vpc": VPC},
        {"vpc": VPC | {"cidr": "10.0.0.0/8"}, "private_control_plane": True},
        {"vpc": VPC | {"create_endpoints": True, "route_tables": TABLES}, "private_control_plane": True},
    ],
)
def test_an_existing_vpc_takes_the_place_of_a_range(tmp_path: Path, fields: dict[str, Any]) -> None:
    found = load(tmp_path, network=fields)
    assert found.network.vpc is not None
    assert found.network.vpc.id == VPC["id"]
    assert found.s3_prefix_list == "pl-63a5400a"


def test_a_prefix_list_of_ones_own_comes_before_the_table(tmp_path: Path) -> None:
    assert load(tmp_path, network={**CIDR, "s3_prefix_list": "pl-11111111"}).s3_prefix_list == "pl-11111111"


class TestOverlap:
    PROBLEM = (
        "network.cidr: '10.0.0.0/16' is not allowed: overlaps 10.0.64.0/18 of {}, in the same account and "
        "region: choose another range"
    )

    def test_environments_of_one_account_and_region_must_not_overlap(self, tmp_path: Path) -> None:
        write(tmp_path, "stage", network={"cidr": "10.0.64.0/18"})
        label = f"{tmp_path.name}/stage.yaml"
        assert refused(tmp_path) == [self.PROBLEM.format(label)]

    def test_an_existing_vpc_of_a_known_range_counts_too(self, tmp_path: Path) -> None:
        write(tmp_path, "stage", network={"vpc": VPC | {"cidr": "10.0.64.0/18"}})
        assert refused(tmp_path) == [self.PROBLEM.format(f"{tmp_path.name}/stage.yaml")]

    @pytest.mark.parametrize(
        "elsewhere",
        [
            {"account": "111122223333"},
            zones("us-east-2", "ab"),
            {"network": {"cidr": "10.1.0.0/16"}},
            {"network": {"vpc": VPC}},
            {"network": {}},  # a file with problems of its own says nothing about others
        ],
    )
    def test_others_do_not_count(self, tmp_path: Path, elsewhere: dict[str, Any]) -> None:
        write(tmp_path, "stage", **elsewhere)
        assert load(tmp_path).network.cidr == "10.0.0.0/16"

    def test_two_environments_may_share_an_existing_vpc(self, tmp_path: Path) -> None:
        shared = {"vpc": VPC | {"cidr": "10.0.0.0/16"}}
        write(tmp_path, "stage", network=shared)
        assert load(tmp_path, network=shared).network.vpc is not None


class TestRegions:
    @pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
    def test_every_region_that_boto3_knows_is_known(self, partition: str) -> None:
        known = boto3.Session().get_available_regions("sagemaker", partition_name=partition)
        assert set(known) <= regions.ZONES.keys()

    def test_prefix_lists_are_of_known_regions(self) -> None:
        assert regions.DYNAMODB_PREFIX_LISTS.keys() < regions.S3_PREFIX_LISTS.keys() < regions.ZONES.keys()
