"""What Application Auto Scaling may change: an endpoint's instances, or an inference component's copies."""

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_iam as iam
from constructs import IDependable

from catalog.model import GpuModel
from stacks.base import PlatformStack


def follow_requests(
    stack: PlatformStack,
    spec: GpuModel,
    *,
    of: IDependable,
    resource_id: str,
    dimension: str,
    metric: scaling.PredefinedMetric,
) -> scaling.ScalableTarget:
    """Scales `of` between `scaling.min` and `scaling.max` by the requests that each of it has in flight."""
    target = scaling.ScalableTarget(
        stack,
        "Scaling",
        service_namespace=scaling.ServiceNamespace.SAGEMAKER,
        scalable_dimension=dimension,
        resource_id=resource_id,
        min_capacity=spec.scaling.min,
        max_capacity=spec.scaling.max,
        role=iam.Role.from_role_arn(
            stack,
            "ScalingRole",
            # Application Auto Scaling's service-linked role, which it makes by itself.
            f"arn:{stack.partition}:iam::{stack.account}:role/aws-service-role/"
            "sagemaker.application-autoscaling.amazonaws.com/"
            "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
        ),
    )
    target.node.add_dependency(of)
    target.scale_to_track_metric(
        "Concurrency",
        target_value=spec.scaling.target_concurrency,
        predefined_metric=metric,
        scale_in_cooldown=cdk.Duration.seconds(spec.scaling.scale_in_cooldown_seconds),
        scale_out_cooldown=cdk.Duration.seconds(spec.scaling.scale_out_cooldown_seconds),
    )
    return target
