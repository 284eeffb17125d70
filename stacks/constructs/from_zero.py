"""How a GPU model is served that sleeps: as an inference component, whose copies scale from none.

docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-zero-instances.html. The endpoint has no model
of its own; SageMaker takes its instances away when no copy is left, and brings them back for the first one.
"""

from collections.abc import Sequence
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker

from catalog.model import COPY_GPUS, COPY_MEMORY_MB, GpuModel
from stacks.base import PlatformStack
from stacks.constructs import metrics
from stacks.constructs.alarms import PlatformAlarm, of_model
from stacks.constructs.metrics import VARIANT
from stacks.constructs.private_network import PrivateNetwork
from stacks.constructs.problems import WAKING_SECONDS
from stacks.constructs.updates import Update

Component = sagemaker.CfnInferenceComponent
Config = sagemaker.CfnEndpointConfig


def variant(spec: GpuModel) -> dict[str, Any]:
    """What the production variant has besides what every one has."""
    return {
        # Where it starts; from then on SageMaker follows the copies.
        "initial_instance_count": 1,
        "managed_instance_scaling": Config.ManagedInstanceScalingProperty(
            status="ENABLED", min_instance_count=0, max_instance_count=spec.scaling.max
        ),
        "routing_config": Config.RoutingConfigProperty(routing_strategy="LEAST_OUTSTANDING_REQUESTS"),
    }


def host(role: iam.Role, network: PrivateNetwork) -> dict[str, Any]:
    """What the endpoint configuration has: role, network and isolation, which its components take from it."""
    return {
        "execution_role_arn": role.role_arn,
        "enable_network_isolation": True,
        "vpc_config": Config.VpcConfigProperty(
            subnets=network.subnet_ids, security_group_ids=[network.security_group_id]
        ),
    }


def serve(
    stack: PlatformStack,
    spec: GpuModel,
    name: str,
    config: sagemaker.CfnEndpointConfig,
    model: sagemaker.CfnModel,
    alarms: Sequence[cloudwatch.Alarm],
) -> sagemaker.CfnInferenceComponent:
    """The component on an endpoint, both called `name`; `alarms` undo an update.

    It is made and changed with one copy, awake: a deployment proves that the model starts. Left alone, it
    falls asleep.
    """
    endpoint = sagemaker.CfnEndpoint(
        stack,
        "Endpoint",
        endpoint_name=name,
        endpoint_config_name=config.attr_endpoint_config_name,
    )
    update = Update.of(spec, stack.environment_config)
    one_by_one = Component.InferenceComponentCapacitySizeProperty(type="COPY_COUNT", value=1)
    component = Component(
        stack,
        "Component",
        inference_component_name=name,
        # By reference: the component is deleted before its endpoint, which would leave it behind.
        endpoint_name=endpoint.attr_endpoint_name,
        variant_name=VARIANT,
        specification=Component.InferenceComponentSpecificationProperty(
            # Model data that is a folder in S3 is taken from a model only, not from a container.
            model_name=model.attr_model_name,
            compute_resource_requirements=Component.InferenceComponentComputeResourceRequirementsProperty(
                min_memory_required_in_mb=spec.gpu.copy_memory_mb or COPY_MEMORY_MB,
                number_of_accelerator_devices_required=spec.gpu.copy_gpus or COPY_GPUS,
            ),
            startup_parameters=Component.InferenceComponentStartupParametersProperty(
                container_startup_health_check_timeout_in_seconds=spec.gpu.startup_timeout_seconds,
                model_data_download_timeout_in_seconds=spec.gpu.startup_timeout_seconds,
            ),
        ),
        runtime_config=Component.InferenceComponentRuntimeConfigProperty(copy_count=1),
        deployment_config=Component.InferenceComponentDeploymentConfigProperty(
            rolling_update_policy=Component.InferenceComponentRollingUpdatePolicyProperty(
                maximum_batch_size=one_by_one,
                wait_interval_in_seconds=update.bake,
                maximum_execution_timeout_in_seconds=update.longest,
            ),
            auto_rollback_configuration=Component.AutoRollbackConfigurationProperty(
                alarms=[Component.AlarmProperty(alarm_name=alarm.alarm_name) for alarm in alarms]
            ),
        ),
    )
    _scale(stack, spec, name, component)
    return component


def _scale(
    stack: PlatformStack, spec: GpuModel, name: str, component: sagemaker.CfnInferenceComponent
) -> None:
    """Between none and `scaling.max` copies, by the requests that each has in flight."""
    target = scaling.ScalableTarget(
        stack,
        "Scaling",
        service_namespace=scaling.ServiceNamespace.SAGEMAKER,
        scalable_dimension="sagemaker:inference-component:DesiredCopyCount",
        resource_id=f"inference-component/{name}",
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
    target.node.add_dependency(component)
    target.scale_to_track_metric(
        "Concurrency",
        target_value=spec.scaling.target_concurrency,
        predefined_metric=scaling.PredefinedMetric.SAGEMAKER_INFERENCE_COMPONENT_CONCURRENT_REQUESTS_PER_COPY_HIGH_RESOLUTION,
        scale_in_cooldown=cdk.Duration.seconds(spec.scaling.scale_in_cooldown_seconds),
        scale_out_cooldown=cdk.Duration.seconds(spec.scaling.scale_out_cooldown_seconds),
    )
    # A metric per copy says nothing where there is none: tracking cannot leave zero, a step can.
    wake = scaling.StepScalingAction(
        stack,
        "Wake",
        scaling_target=target,
        adjustment_type=scaling.AdjustmentType.CHANGE_IN_CAPACITY,
        # Requests fail until the copy is there, and the alarm rings on. With the minute of AWS's example each
        # of those would ask for one more copy, up to all that scaling allows.
        cooldown=cdk.Duration.seconds(WAKING_SECONDS),
    )
    wake.add_adjustment(adjustment=1, lower_bound=0)
    PlatformAlarm(
        stack,
        of_model(spec, "wake"),
        metrics.asleep(spec, stack.names),
        description=f"Model {spec.name}: a request came while no copy of it ran. This wakes it.",
        runbook="no-capacity",
        threshold=1,
        calls=actions.ApplicationScalingAction(wake),
    )
