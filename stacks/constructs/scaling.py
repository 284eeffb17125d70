"""What Application Auto Scaling may change: an endpoint's instances, or an inference component's copies."""

from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_iam as iam

from catalog.model import GpuModel
from stacks.base import PlatformStack


def scalable_target(
    stack: PlatformStack, spec: GpuModel, resource_id: str, dimension: str
) -> scaling.ScalableTarget:
    """Between `scaling.min` and `scaling.max`; the caller says what must exist first."""
    return scaling.ScalableTarget(
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
