"""A Python function of the platform: built zip, encrypted log group, a role that holds only what it was given."""

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from stacks.base import PlatformStack
from stacks.bundling import host_python, lambda_zip

HANDLER = "handler.handler"

ARCHITECTURES = {"x86_64": lambda_.Architecture.X86_64, "arm64": lambda_.Architecture.ARM_64}


class PlatformFunction(Construct):
    """The function whose code is `lambda_src/<source>/`.

    Args:
        source: folder under `lambda_src/`.
        function_name: only for functions that callers address by name; CloudFormation names the others.
        vpc: with `subnets` and `security_group`, for code that touches models or payloads.
        statements: what the role may do beyond writing its own logs and traces.
    """

    def __init__(
        self,
        scope: PlatformStack,
        construct_id: str,
        *,
        source: str,
        description: str,
        environment: Mapping[str, str],
        statements: Sequence[iam.PolicyStatement],
        memory_mb: int,
        timeout_seconds: int,
        ephemeral_storage_mb: int = 512,
        reserved_concurrency: int | None = None,
        function_name: str | None = None,
        log_group_name: str,
        vpc: ec2.IVpc | None = None,
        subnets: Sequence[ec2.ISubnet] = (),
        security_group: ec2.ISecurityGroup | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        settings = scope.environment_config.functions
        python = host_python() if settings.python == "host" else settings.python
        runtime = lambda_.Runtime(
            f"python{python}", lambda_.RuntimeFamily.PYTHON, supports_snap_start=python >= "3.12"
        )
        self.log_group = scope.log_group(f"{construct_id}Logs", log_group_name)
        self.role = self._role(scope, statements, in_vpc=vpc is not None)
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=function_name,
            description=description,
            runtime=runtime,
            architecture=ARCHITECTURES.get(settings.architecture),
            code=lambda_.Code.from_asset(
                str(lambda_zip(source, python=settings.python, architecture=settings.architecture))
            ),
            handler=HANDLER,
            role=self.role,
            environment=dict(environment),
            memory_size=memory_mb,
            timeout=cdk.Duration.seconds(timeout_seconds),
            ephemeral_storage_size=cdk.Size.mebibytes(ephemeral_storage_mb),
            reserved_concurrent_executions=reserved_concurrency,
            # A snapshot after import and model load takes both out of every later cold start.
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS
            if runtime.supports_snap_start and ephemeral_storage_mb == 512
            else None,
            tracing=lambda_.Tracing.ACTIVE,
            log_group=self.log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnets=list(subnets)) if vpc else None,
            security_groups=[security_group] if security_group else None,
        )

    def _role(
        self, scope: PlatformStack, statements: Sequence[iam.PolicyStatement], *, in_vpc: bool
    ) -> iam.Role:
        role = iam.Role(self, "Role", assumed_by=scope.account_principal("lambda.amazonaws.com"))
        # Assumed by the service for this account only; Lambda adds ENI permissions for the VPC itself.
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
