"""A Python function of the platform: built zip, encrypted log group, a role that holds only what it was
given.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import Acknowledgment, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from catalog.errors import CatalogError, Problem
from stacks.base import PlatformStack
from stacks.bundling import host_python, lambda_zip
from stacks.constructs.acknowledge import acknowledge, acknowledge_wildcards
from stacks.constructs.private_network import PrivateNetwork

HANDLER = "handler"
"""What every entry point is called."""

NEWEST_PYTHON = "3.14"

ENVIRONMENT_BYTES = 4096
"""Lambda's limit for all environment variables of a function together."""

ARCHITECTURES = {"x86_64": lambda_.Architecture.X86_64, "arm64": lambda_.Architecture.ARM_64}


class PlatformFunction(Construct):
    """The function whose code is `lambda_src/<source>/`.

    Args:
        source: folder under `lambda_src/`.
        module: the file there that has the entry point, without `.py`.
        files: what else its code reads, by the path in the deployment package.
        snapshot: start published versions from a snapshot (SnapStart) taken after the model is loaded, where
            the runtime can; the caller publishes the versions.
        function_name: only for functions that callers address by name; CloudFormation names the others.
        network: for code that touches models or payloads. Others are control functions, and run where
            `network.private_control_plane` says.
        public: for a control function that calls public addresses: it always runs outside the VPC.
        statements: what the code calls; writing its own logs and traces is the role's anyway.
        wildcards: the resources with a wildcard in `statements` -> why no narrower one is possible.
    """

    def __init__(
        self,
        scope: PlatformStack,
        construct_id: str,
        *,
        source: str,
        module: str = "handler",
        files: Mapping[str, Path] | None = None,
        description: str,
        environment: Mapping[str, str],
        statements: Sequence[iam.PolicyStatement],
        memory_mb: int,
        timeout_seconds: int,
        ephemeral_storage_mb: int = 512,
        reserved_concurrency: int | None = None,
        wildcards: Mapping[str, str] | None = None,
        snapshot: bool = False,
        function_name: str | None = None,
        log_group_name: str,
        network: PrivateNetwork | None = None,
        public: bool = False,
    ) -> None:
        super().__init__(scope, construct_id)
        self._check_size(scope, source, environment)
        if network is None and not public:
            network = PrivateNetwork.for_control(scope, statements)
        settings = scope.environment_config.functions
        python = host_python() if settings.python == "host" else settings.python
        runtime = lambda_.Runtime(
            f"python{python}", lambda_.RuntimeFamily.PYTHON, supports_snap_start=python >= "3.12"
        )
        # SnapStart takes no function with more than the smallest /tmp.
        snapshot = snapshot and runtime.supports_snap_start and ephemeral_storage_mb == 512
        self.log_group = scope.log_group(f"{construct_id}Logs", log_group_name)
        self.role = self._role(scope, statements)
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=function_name,
            description=description,
            runtime=runtime,
            architecture=ARCHITECTURES.get(settings.architecture),
            code=lambda_.Code.from_asset(
                str(
                    lambda_zip(
                        source, python=settings.python, architecture=settings.architecture, files=files
                    )
                )
            ),
            handler=f"{module}.{HANDLER}",
            role=self.role,
            environment=dict(environment),
            memory_size=memory_mb,
            timeout=cdk.Duration.seconds(timeout_seconds),
            ephemeral_storage_size=cdk.Size.mebibytes(ephemeral_storage_mb),
            reserved_concurrent_executions=reserved_concurrency,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if snapshot else None,
            tracing=lambda_.Tracing.ACTIVE,
            log_group=self.log_group,
            logging_format=lambda_.LoggingFormat.JSON,
        )
        self._acknowledge(private=network is not None, reserved=reserved_concurrency is not None)
        everywhere = ["X-Ray has no resource-level rights for writing traces."]
        if snapshot:
            Validations.of(self.function).acknowledge(
                Acknowledgment(
                    id="Annotation::@aws-cdk/aws-lambda:snapStartRequirePublish",
                    reason="The model's stack publishes versions, and callers only ever reach those.",
                )
            )
        if network is not None:
            everywhere.append(self._attach(network))
        acknowledge_wildcards(self.role, {**(wildcards or {}), "*": " ".join(everywhere)})
        if settings.python != NEWEST_PYTHON:
            chosen = f"config/{scope.environment_config.name}.yaml chooses Python {python}."
            acknowledge(self.function, {"L1": chosen, "LambdaLatestVersion": chosen})

    def _acknowledge(self, *, private: bool, reserved: bool) -> None:
        findings = {
            "LambdaDLQ": "API Gateway waits for the answer, and CloudFormation fails the deployment without "
            "one: no event is lost that somebody does not hear of.",
            "CKV_AWS_173": "Names and limits, nothing secret; Lambda encrypts them with a key of its own.",
        }
        if not private:
            findings["LambdaInsideVPC"] = (
                "It only calls public addresses, AWS's own APIs above all, and payloads never reach it. "
                "network.private_control_plane moves what can be moved inside."
            )
        if not reserved:
            findings["LambdaConcurrency"] = (
                "Whoever calls it is throttled; a reservation would take from the account's quota, all of "
                "which a new account needs."
            )
        acknowledge(self.function, findings)

    def _check_size(self, scope: PlatformStack, source: str, environment: Mapping[str, str]) -> None:
        size = sum(len(name) + len(value) for name, value in environment.items())
        if size > ENVIRONMENT_BYTES:
            message = (
                f"the environment variables of the function {source} have {size} bytes of the "
                f"{ENVIRONMENT_BYTES} that Lambda takes, which no request raises: give some models an "
                "environment of their own, or shorter names"
            )
            raise CatalogError([Problem(f"config/{scope.environment_config.name}.yaml", 1, "", message)])

    def _attach(self, network: PrivateNetwork) -> str:
        """Put the function into the network; returns why the right to do so needs a wildcard."""
        # Through the L1: the L2 wants a whole VPC, and only these ids are ever used.
        resource = self.function.node.default_child
        assert isinstance(resource, lambda_.CfnFunction)
        resource.vpc_config = lambda_.CfnFunction.VpcConfigProperty(
            subnet_ids=network.subnet_ids, security_group_ids=[network.security_group_id]
        )
        self.role.add_to_policy(
            iam.PolicyStatement(
                sid="AttachToTheNetwork",
                actions=[
                    "ec2:CreateNetworkInterface",
                    "ec2:DeleteNetworkInterface",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeSubnets",
                    "ec2:AssignPrivateIpAddresses",
                    "ec2:UnassignPrivateIpAddresses",
                ],
                resources=["*"],
            )
        )
        # Lambda checks these rights when the function is made.
        self.function.node.add_dependency(self.role)
        return "Network interfaces do not exist yet when the right is needed; Describe knows no resources."

    def _role(self, scope: PlatformStack, statements: Sequence[iam.PolicyStatement]) -> iam.Role:
        role = iam.Role(self, "Role", assumed_by=scope.account_principal("lambda.amazonaws.com"))
        role.add_to_policy(
            iam.PolicyStatement(
                sid="WriteLogs",
                actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                resources=[self.log_group.log_group_arn],
            )
        )
        for statement in statements:
            role.add_to_policy(statement)
        return role
