"""A VPC without a way out: isolated subnets for whatever touches models or payloads, and S3 as the only
neighbour.
"""

import jsii
from aws_cdk import Acknowledgment, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from catalog.environment import Environment
from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge


class NetworkStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(
            scope, "network", environment, description="Private network of the inference platform"
        )
        vpc = ec2.Vpc(
            self,
            "Vpc",
            vpc_name=self.names.prefix,
            ip_addresses=ec2.IpAddresses.cidr(environment.network.cidr),
            availability_zones=self.availability_zones,
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="models", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24
                )
            ],
            # It would need a custom resource; nothing here uses the default security group.
            restrict_default_security_group=False,
        )
        # A finding of CDK's own validation, not of cdk-nag.
        Validations.of(vpc).acknowledge(
            Acknowledgment(
                id="CloudFormation-Validate::W3010",
                reason="The zones are chosen in config/<env>.yaml, and three zones stay the same three.",
            )
        )
        acknowledge(
            vpc,
            {
                "VPCDefaultSecurityGroupClosed": "CloudFormation cannot change the default group; nothing is "
                "in it, and the routes lead nowhere else."
            },
        )
        self._allow_only_platform_buckets(vpc)
        self._record_flows(vpc)

        models = ec2.SecurityGroup(
            self,
            "Models",
            vpc=vpc,
            description="Functions and endpoints that run models: no inbound, S3 outbound",
            allow_all_outbound=False,
        )
        models.add_egress_rule(
            # S3's gateway endpoint keeps S3's public addresses. The subnets route nowhere else: no NAT, no
            # gateway.
            ec2.Peer.any_ipv4(),
            ec2.Port.tcp(443),
            "S3 through the gateway endpoint, the only route out",
        )

        self.share("network/security-group-id", models.security_group_id)
        for zone, subnet in zip(environment.availability_zones, vpc.isolated_subnets, strict=True):
            self.share(f"network/subnets/{zone}", subnet.subnet_id)

    @property
    @jsii.member(jsii_name="availabilityZones")
    def availability_zones(self) -> list[str]:
        """The configured zones. The inherited ones are looked up in the account: synthesis asks nobody."""
        return list(self.environment_config.availability_zones)

    def _allow_only_platform_buckets(self, vpc: ec2.Vpc) -> None:
        endpoint = vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        buckets = [self.bucket_arn(purpose) for purpose in ("models", "data")]
        endpoint.add_to_policy(
            iam.PolicyStatement(
                sid="PlatformBucketsOnly",
                principals=[iam.AnyPrincipal()],
                actions=["s3:GetObject", "s3:PutObject", "s3:ListBucket"],
                resources=[*buckets, *(f"{bucket}/*" for bucket in buckets)],
                conditions={"StringEquals": {"aws:PrincipalAccount": self.account}},
            )
        )

    def _record_flows(self, vpc: ec2.Vpc) -> None:
        group = self.log_group("FlowLogs", self.names.log_group("vpc-flows"))
        vpc.add_flow_log("Flows", destination=ec2.FlowLogDestination.to_cloud_watch_logs(group))
