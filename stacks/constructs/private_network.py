"""The private network, as the stacks that run models inside it see it."""

from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from stacks.base import PlatformStack


class PrivateNetwork(Construct):
    """The network stack's VPC, one isolated subnet per zone, and the models' security group, found by parameter."""

    def __init__(self, scope: PlatformStack, construct_id: str = "Network") -> None:
        super().__init__(scope, construct_id)
        zones = list(scope.environment_config.availability_zones)
        self.vpc = ec2.Vpc.from_vpc_attributes(
            self, "Vpc", vpc_id=scope.shared("network/vpc-id"), availability_zones=zones
        )
        self.subnets = [
            ec2.Subnet.from_subnet_attributes(
                self,
                f"Subnet-{zone}",
                subnet_id=scope.shared(f"network/subnets/{zone}"),
                availability_zone=zone,
            )
            for zone in zones
        ]
        self.security_group = ec2.SecurityGroup.from_security_group_id(
            self, "SecurityGroup", scope.shared("network/security-group-id"), mutable=False
        )
