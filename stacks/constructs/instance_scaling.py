"""Autoscaling of an endpoint's instances, which steps aside while a deployment changes their type.

By a custom resource, for CloudFormation's own cannot: https://github.com/aws-cloudformation/
cloudformation-coverage-roadmap/issues/1991. What it does and when: lambda_src/scale_endpoint/.
"""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct, IDependable

from catalog.model import GpuModel
from stacks.base import PlatformStack
from stacks.constructs.function import PlatformFunction
from stacks.constructs.metrics import VARIANT

SECONDS = 60
SERVICE = "sagemaker.application-autoscaling.amazonaws.com"


class InstanceScaling(Construct):
    """The two resources around the endpoint called `endpoint`; `before` is what that must depend on."""

    def __init__(self, stack: PlatformStack, spec: GpuModel, endpoint: str) -> None:
        super().__init__(stack, "InstanceScaling")
        self._properties = {
            "Endpoint": endpoint,
            "Variant": VARIANT,
            "InstanceType": spec.gpu.instance_type,
            "Min": str(spec.scaling.min),
            "Max": str(spec.scaling.max),
            "Target": str(spec.scaling.target_concurrency),
            "In": str(spec.scaling.scale_in_cooldown_seconds),
            "Out": str(spec.scaling.scale_out_cooldown_seconds),
        }
        self._function = self._scaler(stack, spec, endpoint)
        self.before = self._resource("before")

    def after(self, endpoint: IDependable) -> None:
        """Scale it, once it runs on what it should."""
        self._resource("after").node.add_dependency(endpoint)

    def _resource(self, step: str) -> cdk.CustomResource:
        resource = cdk.CustomResource(
            self,
            step.title(),
            resource_type="Custom::InstanceScaling",
            service_token=self._function.function.function_arn,
            # Should the function die without an answer, CloudFormation waits this long, not an hour.
            service_timeout=cdk.Duration.seconds(SECONDS + 30),
            properties={"Step": step, **self._properties},
        )
        # The function may be ready before its policy is attached.
        resource.node.add_dependency(self._function.role)
        return resource

    def _scaler(self, stack: PlatformStack, spec: GpuModel, endpoint: str) -> PlatformFunction:
        targets = stack.regional_arn("application-autoscaling", "scalable-target/*")
        # Application Auto Scaling makes the alarms of target tracking with the rights of who sets the policy.
        alarms = stack.regional_arn("cloudwatch", f"alarm:TargetTracking-endpoint/{endpoint}/*")
        role = (
            f"arn:{stack.partition}:iam::{stack.account}:role/aws-service-role/{SERVICE}/"
            "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
        )
        return PlatformFunction(
            stack,
            "Scaler",
            source="scale_endpoint",
            description=f"Scales the instances of {spec.name} (CloudFormation)",
            environment={},
            memory_mb=256,
            timeout_seconds=SECONDS,
            log_group_name=stack.names.log_group(f"scale-endpoint/{spec.name}"),
            statements=[
                iam.PolicyStatement(
                    sid="Scale",
                    actions=[
                        "application-autoscaling:RegisterScalableTarget",
                        "application-autoscaling:DeregisterScalableTarget",
                        "application-autoscaling:PutScalingPolicy",
                    ],
                    resources=[targets],
                ),
                iam.PolicyStatement(
                    sid="HaveTheEndpointScaled",
                    actions=["sagemaker:DescribeEndpoint", "sagemaker:UpdateEndpointWeightsAndCapacities"],
                    resources=[stack.regional_arn("sagemaker", f"endpoint/{endpoint}")],
                ),
                iam.PolicyStatement(
                    sid="HaveItsAlarmsMade",
                    actions=[
                        "cloudwatch:PutMetricAlarm",
                        "cloudwatch:DescribeAlarms",
                        "cloudwatch:DeleteAlarms",
                    ],
                    resources=[alarms],
                ),
                iam.PolicyStatement(
                    sid="LetTheServiceMakeItsRole",
                    actions=["iam:CreateServiceLinkedRole"],
                    resources=[role],
                    conditions={"StringEquals": {"iam:AWSServiceName": SERVICE}},
                ),
            ],
            wildcards={
                targets: "The ARN of a scalable target ends in an id that AWS makes; what is scaled is the "
                "endpoint whose capacity the role may change.",
                alarms: "Application Auto Scaling ends their names.",
            },
        )
