"""A network without a way out: isolated subnets for whatever touches models or payloads, and S3 as the only
neighbour.

It is a VPC made here, or one that is already there (`network.vpc`), in which only security groups are made
and, if asked for, endpoints. Everyone else sees the same parameters.
"""

from collections.abc import Mapping, Sequence

import jsii
from aws_cdk import Acknowledgment, Validations
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from constructs import Construct

from catalog.environment import Environment, ExistingVpc
from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge
from stacks.constructs.private_network import CONTROL, MODELS

HTTPS = ec2.Port.tcp(443)

ENDPOINTS = {
    "application-autoscaling": ("application-autoscaling", "scalable-target/*"),
    "cloudformation": ("cloudformation", "stack/{prefix}-*"),
    "cloudwatch": ("monitoring", "*"),
    "dynamodb": ("dynamodb", "table/{prefix}-*"),
    "events": ("events", "event-bus/default"),
    "lambda": ("lambda", "function:{prefix}-*"),
    "sagemaker": ("sagemaker.api", "*/{prefix}-*"),
    "sagemaker:InvokeEndpoint": ("sagemaker.runtime", "*/{prefix}-*"),
    "secretsmanager": ("secretsmanager", "secret:inference/{environment}/*"),
    "logs": ("logs", "*"),
    "sns": ("sns", "{prefix}-*"),
    "sqs": ("sqs", "{prefix}-*"),
    "states": ("states", "*:{prefix}-*"),
    "ssm": ("ssm", "parameter/inference/{environment}/*"),
}
"""IAM's name of a service -> the name of its endpoint, and what is the platform's there; or of an action,
where the service has another endpoint for it. Each is an interface but DynamoDB's, which as one has no
private DNS: like S3's it is a route, and costs nothing."""

INDIRECT = {"kms", "iam"}
"""Services that a function needs rights for and does not call: another does in its name, as S3 when it
decrypts, or looks whether it may, as SageMaker when it is given a role (`iam:PassRole`)."""


class NetworkStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(
            scope, "network", environment, description="Private network of the inference platform"
        )
        self._config = environment.network
        self._endpoints: dict[str, ec2.VpcEndpoint] = {}
        existing = self._config.vpc
        self.vpc = self._existing(existing) if existing else self._made()
        # Where the VPC has endpoints of its own: docs/network.md.
        self._makes_endpoints = not existing or existing.create_endpoints
        if self._makes_endpoints:
            self._endpoints["s3"] = self._s3_endpoint()

        models = self._security_group(
            "Models", "Functions and endpoints that run models: S3 only, no inbound"
        )
        self._share(MODELS, "models", models)
        if self._config.private_control_plane:
            self.control = self._security_group(
                "Control", "Functions that operate the platform: AWS endpoints only, no inbound"
            )
            self._share(CONTROL, "control", self.control)
            self._let_control_call_endpoints()

    @property
    @jsii.member(jsii_name="availabilityZones")
    def availability_zones(self) -> list[str]:
        """The configured zones. The inherited ones are looked up in the account: synthesis asks nobody."""
        return list(self.environment_config.availability_zones)

    def serve(self, calls: Sequence[iam.PolicyStatement]) -> None:
        """Let a control function reach what its role's statements call, and nothing else."""
        for statement in calls:
            for key, actions in _by_endpoint(statement.actions).items():
                if key in INDIRECT:
                    continue
                if key not in ENDPOINTS and key != "s3":
                    raise ValueError(
                        f"A control function calls {', '.join(actions)}, and no endpoint of {key!r} is "
                        "known: add it to ENDPOINTS in stacks/network.py, or let the function run outside "
                        "the network"
                    )
                if key == "dynamodb":
                    peer = ec2.Peer.prefix_list(self.environment_config.dynamodb_prefix_list)
                    self.control.add_egress_rule(peer, HTTPS, "DynamoDB through its gateway endpoint")
                if self._makes_endpoints:
                    self._serve(key, actions, statement.resources)

    def _serve(self, key: str, actions: Sequence[str], resources: Sequence[str]) -> None:
        if key not in self._endpoints:
            subnets = ec2.SubnetSelection(subnets=self._subnets("control"))
            self._endpoints[key] = (
                self.vpc.add_gateway_endpoint(
                    "DynamoDb", service=ec2.GatewayVpcEndpointAwsService.DYNAMODB, subnets=[subnets]
                )
                if key == "dynamodb"
                else ec2.InterfaceVpcEndpoint(
                    self,
                    f"Endpoint-{key.replace(':', '-')}",
                    vpc=self.vpc,
                    service=ec2.InterfaceVpcEndpointAwsService(ENDPOINTS[key][0]),
                    subnets=subnets,
                    security_groups=[self.endpoints],
                    open=False,
                )
            )
        if key != "s3":
            ours = ENDPOINTS[key][1].format(prefix=self.names.prefix, environment=self.names.environment)
            resources = [ours if ours == "*" else self.regional_arn(key.partition(":")[0], ours)]
        self._allow(self._endpoints[key], actions, resources)

    def _made(self) -> ec2.IVpc:
        groups = [
            ec2.SubnetConfiguration(name="models", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24)
        ]
        if self._config.private_control_plane:
            # After the models', whose ranges then stay as they are when this is switched on.
            groups.append(
                ec2.SubnetConfiguration(
                    name="control", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=26
                )
            )
        assert self._config.cidr is not None  # the catalog requires it where there is no VPC yet
        vpc = ec2.Vpc(
            self,
            "Vpc",
            vpc_name=self.names.prefix,
            ip_addresses=ec2.IpAddresses.cidr(self._config.cidr),
            availability_zones=self.availability_zones,
            nat_gateways=0,
            subnet_configuration=groups,
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
        group = self.log_group("FlowLogs", self.names.log_group("vpc-flows"))
        vpc.add_flow_log("Flows", destination=ec2.FlowLogDestination.to_cloud_watch_logs(group))
        return vpc

    def _existing(self, config: ExistingVpc) -> ec2.IVpc:
        zones = self.availability_zones
        return ec2.Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=config.id,
            availability_zones=zones,
            isolated_subnet_ids=[config.subnets[zone] for zone in zones],
            isolated_subnet_route_table_ids=[config.route_tables[zone] for zone in zones]
            if config.create_endpoints
            else None,
        )

    def _subnets(self, group: str) -> list[ec2.ISubnet]:
        """One isolated subnet per zone; in an existing VPC both groups share them."""
        if self._config.vpc:
            return self.vpc.isolated_subnets
        return self.vpc.select_subnets(subnet_group_name=group).subnets

    def _share(self, part: str, group: str, security_group: ec2.SecurityGroup) -> None:
        self.share(f"{part}/security-group-id", security_group.security_group_id)
        for zone, subnet in zip(self.availability_zones, self._subnets(group), strict=True):
            self.share(f"{part}/subnets/{zone}", subnet.subnet_id)

    def _security_group(self, construct_id: str, description: str) -> ec2.SecurityGroup:
        """A group that lets nothing in, and out only what S3's endpoint carries."""
        group = ec2.SecurityGroup(
            self, construct_id, vpc=self.vpc, description=description, allow_all_outbound=False
        )
        # S3's endpoint is a route, and keeps S3's public addresses: the prefix list holds those.
        peer = ec2.Peer.prefix_list(self.environment_config.s3_prefix_list)
        group.add_egress_rule(peer, HTTPS, "S3 through its gateway endpoint")
        return group

    def _let_control_call_endpoints(self) -> None:
        existing = self._config.vpc
        if existing and not existing.create_endpoints:
            assert existing.cidr is not None  # the catalog requires it
            self.control.add_egress_rule(
                ec2.Peer.ipv4(existing.cidr), HTTPS, "Interface endpoints that the VPC has"
            )
            return
        self.endpoints = ec2.SecurityGroup(
            self,
            "Endpoints",
            vpc=self.vpc,
            description="Interface endpoints: the control functions may call them, nobody else",
            allow_all_outbound=False,
        )
        self.control.add_egress_rule(self.endpoints, HTTPS, "Interface endpoints")
        self.endpoints.add_ingress_rule(self.control, HTTPS, "Control functions")

    def _s3_endpoint(self) -> ec2.GatewayVpcEndpoint:
        endpoint = self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        buckets = [self.bucket_arn(purpose) for purpose in ("models", "data")]
        self._allow(
            endpoint,
            ["s3:GetObject", "s3:PutObject", "s3:ListBucket"],
            [*buckets, *(f"{bucket}/*" for bucket in buckets)],
            sid="PlatformBucketsOnly",
        )
        if self._config.private_control_plane:
            endpoint.add_to_policy(
                iam.PolicyStatement(
                    # A custom resource answers with a PUT to an address that CloudFormation signed, so it is
                    # no principal of this account. The bucket's name has the region without its hyphens.
                    sid="AnswerCloudFormation",
                    principals=[iam.AnyPrincipal()],
                    actions=["s3:PutObject"],
                    resources=[
                        f"arn:{self.partition}:s3:::cloudformation-custom-resource-response-"
                        f"{self.region.replace('-', '')}/*"
                    ],
                )
            )
        return endpoint

    def _allow(
        self,
        endpoint: ec2.VpcEndpoint,
        actions: Sequence[str],
        resources: Sequence[str],
        sid: str | None = None,
    ) -> None:
        """Let principals of this account through the endpoint, to these resources."""
        endpoint.add_to_policy(
            iam.PolicyStatement(
                sid=sid,
                principals=[iam.AnyPrincipal()],
                actions=list(actions),
                resources=list(resources),
                conditions={"StringEquals": {"aws:PrincipalAccount": self.account}},
            )
        )


def _by_endpoint(actions: Sequence[str]) -> Mapping[str, list[str]]:
    """`["ssm:GetParameter", "kms:Decrypt"]` -> `{"ssm": ["ssm:GetParameter"], "kms": ["kms:Decrypt"]}`."""
    endpoints: dict[str, list[str]] = {}
    for action in actions:
        key = action if action in ENDPOINTS else action.partition(":")[0]
        endpoints.setdefault(key, []).append(action)
    return endpoints
