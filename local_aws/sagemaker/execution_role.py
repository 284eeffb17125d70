"""What SageMaker does as a model's execution role: pull the image, join the VPC, read the model data, write
logs and metrics.

docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html, section "CreateModel API: Execution Role
Permissions", lists the rights; a missing one fails the endpoint, or leaves its logs or metrics unwritten.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ministack.core import responses
from ministack.services import cloudwatch_logs

from local_aws import roles, telemetry
from local_aws.enforcement import network
from local_aws.sagemaker.resources import Scope
from local_aws.wire import Json

PRINCIPAL = "sagemaker.amazonaws.com"
SESSION = "SageMaker"
METRICS = "/aws/sagemaker/Endpoints"  # the namespace of what instances measure about themselves
COMPONENT_METRICS = "/aws/sagemaker/InferenceComponents"  # that of what copies of a component measure

_ECR = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([^:@]+)")
_PULL = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")


class RightMissing(Exception):
    """The role may not do what the endpoint takes; the message is what DescribeEndpoint says."""


@dataclass(frozen=True)
class ExecutionRole:
    """The role at `arn`, acted in for the models of `scope`."""

    scope: Scope
    arn: str

    def may(self, action: str, resource: str = "*", **context: str) -> bool:
        with responses.request_scope(self.scope.account, self.scope.region):
            return roles.refusal(self.arn, SESSION, action, resource, context) is None

    def check_image(self, image: str) -> None:
        """Pull a private image: only its rights, for images are not run here. Raises RightMissing."""
        found = _ECR.match(image)
        if not found:
            return
        account, region, name = found.groups()
        repository = f"arn:aws:ecr:{region}:{account}:repository/{name}"
        for right, resource in (("GetAuthorizationToken", "*"), *((right, repository) for right in _PULL)):
            if not self.may(f"ecr:{right}", resource):
                raise RightMissing(
                    f"The role '{self.arn}' does not have {right} permission for the image: '{image}'."
                )

    def check_network(self, vpc_config: Json | None) -> None:
        """Attach instances to the subnets of a VPC, if any are given. Raises RightMissing."""
        if not vpc_config:
            return
        with responses.request_scope(self.scope.account, self.scope.region):
            missing = network.missing_right(self.arn, SESSION, network.SAGEMAKER_RIGHTS)
        if missing:
            raise RightMissing(
                f"The role '{self.arn}' does not have {missing} permission, which VpcConfig takes."
            )

    def credentials(self, vpc_config: Json | None) -> roles.Credentials:
        """To read model data with, through the VPC if there is one. Raises roles.NotAssumable."""
        credentials = roles.assume(self.scope.account, self.scope.region, self.arn, PRINCIPAL, SESSION)
        network.put(credentials.access_key_id, vpc_config)
        return credentials

    def log(self, group: str, stream: str, line: str) -> None:
        """Write one line, making group and stream where they are missing, as far as the role may."""
        account, region = self.scope.account, self.scope.region
        with responses.request_scope(account, region):
            known = cloudwatch_logs._log_groups.get(group)
        arn = f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:"
        if known is None:
            if not self.may("logs:CreateLogGroup", arn):
                return
            telemetry.make_log(account, region, group)
        if known is None or stream not in known["streams"]:
            if not self.may("logs:CreateLogStream", arn + stream):
                return
            telemetry.make_log(account, region, group, stream)
        if self.may("logs:PutLogEvents", arn + stream):
            telemetry.log(account, region, group, stream, line)

    def metric(self, namespace: str, name: str, percent: float, dimensions: dict[str, str]) -> None:
        """Publish what an instance measured about itself, if the role may."""
        if self.may("cloudwatch:PutMetricData", **{"cloudwatch:namespace": namespace}):
            telemetry.metric(
                self.scope.account, self.scope.region, namespace, name, percent, "Percent", dimensions
            )
