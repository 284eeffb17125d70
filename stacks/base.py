"""What every stack of the platform is made from: its environment, its names, and the parameters that stacks
share.
"""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from catalog.environment import Environment
from catalog.names import ALIAS, ENVIRONMENT_TAG, Names
from stacks.constructs.acknowledge import acknowledge


class PlatformStack(cdk.Stack):
    """A stack named `inference-<environment>-<name>`, tagged with its environment.

    Ids that AWS generates travel between stacks as SSM parameters (`share`, `shared`), never as
    CloudFormation exports: an export cannot change while another stack imports it, which ties the lifetimes
    of the two together.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        environment: Environment,
        *,
        description: str,
        compact: bool = False,
    ) -> None:
        self.names = Names(environment.name)
        super().__init__(
            scope,
            self.names.resource(name),
            env=cdk.Environment(account=environment.account, region=environment.region),
            description=description,
            suppress_template_indentation=compact,
            tags={ENVIRONMENT_TAG: environment.name},
            termination_protection=environment.retention.keep_data,
        )
        self.environment_config = environment
        self._keys: dict[str, kms.IKey] = {}
        acknowledge(
            self,
            {
                "IAMNoInlinePolicy": "Each role has rights that only it may have: an inline policy goes with "
                "its role, and can be attached to no other."
            },
        )

    @property
    def removal_policy(self) -> cdk.RemovalPolicy:
        """What happens to data when its resource leaves the stack."""
        keep = self.environment_config.retention.keep_data
        return cdk.RemovalPolicy.RETAIN if keep else cdk.RemovalPolicy.DESTROY

    def share(self, path: str, value: str) -> None:
        """Publish an id under `/inference/<environment>/<path>`."""
        ssm.StringParameter(
            self,
            f"Parameter-{path.replace('/', '-')}",
            parameter_name=self.names.parameter(path),
            string_value=value,
        )

    def shared(self, path: str) -> str:
        """Read at deploy time an id that an earlier stack published; order comes from `add_dependency`."""
        return ssm.StringParameter.value_for_string_parameter(self, self.names.parameter(path))

    def key(self, purpose: str) -> kms.IKey:
        """The KMS key of a purpose: `models`, `data`, `logs`, `audit` or `alarms`."""
        if purpose not in self._keys:
            self._keys[purpose] = kms.Key.from_key_arn(self, f"Key-{purpose}", self.shared(f"keys/{purpose}"))
        return self._keys[purpose]

    def log_group(self, construct_id: str, name: str) -> logs.LogGroup:
        """An encrypted log group, kept as long as the environment's configuration says."""
        group = logs.LogGroup(
            self,
            construct_id,
            log_group_name=name,
            encryption_key=self.key("logs"),
            removal_policy=self.removal_policy,
        )
        resource = group.node.default_child
        assert isinstance(resource, logs.CfnLogGroup)
        resource.retention_in_days = self.environment_config.retention.logs_days
        return group

    def bucket_name(self, purpose: str) -> str:
        return self.names.bucket(purpose, self.account, self.region)

    def regional_arn(self, service: str, resource: str) -> str:
        """The ARN of a resource of this account and region whose name we chose."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def bucket_arn(self, purpose: str) -> str:
        return f"arn:{self.partition}:s3:::{self.bucket_name(purpose)}"

    def model_arn(self, target: str, model: str) -> str:
        """What the API invokes: the alias of a CPU model's function, or a GPU model's endpoint.

        Args:
            model: the model's name, or `*` for a policy about every model of the environment.
        """
        name = self.names.model(model)
        if target == "cpu":
            return self.regional_arn("lambda", f"function:{name}:{ALIAS}")
        return self.regional_arn("sagemaker", f"endpoint/{name}")

    def account_principal(self, service: str) -> iam.IPrincipal:
        """A service principal that may act only on behalf of this account (no confused deputy)."""
        return iam.ServicePrincipal(service, conditions={"StringEquals": {"aws:SourceAccount": self.account}})
