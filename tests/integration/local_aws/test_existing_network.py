"""The network stack in a VPC that somebody else made."""

from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk.assertions import Template

from catalog.environment import Environment
from stacks.network import NetworkStack
from tests.integration.local_aws.embedded import Embedded

ZONES = ["us-east-1a", "us-east-1b"]


@pytest.fixture
def existing(aws: Embedded) -> dict[str, Any]:
    """A VPC with a subnet and a route table per zone, as `network.vpc` names them."""
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    subnets, tables = {}, {}
    for number, zone in enumerate(ZONES):
        block = f"10.77.{number}.0/24"
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=zone)["Subnet"]
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.associate_route_table(RouteTableId=table, SubnetId=subnet["SubnetId"])
        subnets[zone], tables[zone] = subnet["SubnetId"], table
    return {"id": vpc, "subnets": subnets, "create_endpoints": True, "route_tables": tables}


def test_security_groups_and_endpoints_are_made_in_it_and_go_with_the_stack(
    aws: Embedded, existing: dict[str, Any], tmp_path: Path
) -> None:
    environment = Environment.model_validate(
        {
            "name": "landed",
            "account": "000000000000",
            "region": "us-east-1",
            "availability_zones": ZONES,
            "network": {"vpc": existing, "private_control_plane": True},
        }
    )
    ec2, ssm = aws.client("ec2"), aws.client("ssm")
    # What `cdk bootstrap` leaves; this stack is deployed without the CLI.
    ssm.put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String", Overwrite=True)
    in_it = [{"Name": "vpc-id", "Values": [existing["id"]]}]
    before = {group["GroupId"] for group in ec2.describe_security_groups(Filters=in_it)["SecurityGroups"]}

    network = NetworkStack(cdk.App(), environment)
    network.serve([iam.PolicyStatement(actions=["ssm:GetParameters"], resources=["*"])])
    template = Template.from_stack(network).to_json()
    stack = aws.deploy("inference-landed-network", template)
    assert stack["StackStatus"] == "CREATE_COMPLETE", aws.failures("inference-landed-network")

    def parameter(path: str) -> str:
        value = ssm.get_parameter(Name=f"/inference/landed/{path}")["Parameter"]["Value"]
        return str(value)

    assert {zone: parameter(f"network/subnets/{zone}") for zone in ZONES} == existing["subnets"]
    assert {zone: parameter(f"network/control/subnets/{zone}") for zone in ZONES} == existing["subnets"]
    models = parameter("network/security-group-id")
    [group] = ec2.describe_security_groups(GroupIds=[models])["SecurityGroups"]
    assert group["VpcId"] == existing["id"]
    assert group["IpPermissions"] == []
    # Beside it stands CDK's rule to 255.255.255.255, without which EC2 would allow everything.
    [egress] = [rule for rule in group["IpPermissionsEgress"] if rule["PrefixListIds"]]
    assert (egress["IpRanges"], egress["FromPort"]) == ([], 443)
    assert [prefix["PrefixListId"] for prefix in egress["PrefixListIds"]] == ["pl-63a5400a"]
    endpoints = {one["ServiceName"]: one for one in ec2.describe_vpc_endpoints(Filters=in_it)["VpcEndpoints"]}
    assert endpoints.keys() == {"com.amazonaws.us-east-1.s3", "com.amazonaws.us-east-1.ssm"}
    s3, parameters = endpoints["com.amazonaws.us-east-1.s3"], endpoints["com.amazonaws.us-east-1.ssm"]
    assert set(s3["RouteTableIds"]) == set(existing["route_tables"].values())
    assert set(parameters["SubnetIds"]) == set(existing["subnets"].values())

    aws.delete("inference-landed-network")
    after = {group["GroupId"] for group in ec2.describe_security_groups(Filters=in_it)["SecurityGroups"]}
    assert after == before
    left = ec2.describe_vpc_endpoints(Filters=in_it)["VpcEndpoints"]
    assert not [one for one in left if one["State"] != "deleted"]
