"""How a GPU model is served that always has instances: as an endpoint's own model, replaced blue/green."""

from collections.abc import Sequence
from typing import Any

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker

from catalog.model import GpuModel
from stacks.base import PlatformStack
from stacks.constructs.instance_scaling import InstanceScaling
from stacks.constructs.updates import Update

Endpoint = sagemaker.CfnEndpoint


def variant(spec: GpuModel, model: sagemaker.CfnModel) -> dict[str, Any]:
    """What the production variant has besides what every one has."""
    return {
        "model_name": model.attr_model_name,
        "initial_instance_count": spec.scaling.min,
        "container_startup_health_check_timeout_in_seconds": spec.gpu.startup_timeout_seconds,
        "model_data_download_timeout_in_seconds": spec.gpu.startup_timeout_seconds,
    }


def serve(
    stack: PlatformStack,
    spec: GpuModel,
    name: str,
    config: sagemaker.CfnEndpointConfig,
    alarms: Sequence[cloudwatch.Alarm],
) -> sagemaker.CfnEndpoint:
    """The endpoint called `name`, and its scaling on the requests in flight; `alarms` undo an update."""
    update = Update.of(spec, stack.environment_config)
    scaling = InstanceScaling(stack, spec, name)
    endpoint = Endpoint(
        stack,
        "Endpoint",
        endpoint_name=name,
        endpoint_config_name=config.attr_endpoint_config_name,
        # The instance count belongs to autoscaling: an update must not shrink a busy endpoint back to `min`.
        retain_all_variant_properties=True,
        deployment_config=Endpoint.DeploymentConfigProperty(
            blue_green_update_policy=Endpoint.BlueGreenUpdatePolicyProperty(
                traffic_routing_configuration=_shift(spec, update),
                termination_wait_in_seconds=update.drain,
                maximum_execution_timeout_in_seconds=update.longest,
            ),
            auto_rollback_configuration=Endpoint.AutoRollbackConfigProperty(
                alarms=[Endpoint.AlarmProperty(alarm_name=alarm.alarm_name) for alarm in alarms]
            ),
        ),
    )
    endpoint.node.add_dependency(scaling.before)
    scaling.after(endpoint)
    return endpoint


def _shift(spec: GpuModel, update: Update) -> sagemaker.CfnEndpoint.TrafficRoutingConfigProperty:
    percent = spec.release.canary_percent
    canary = Endpoint.CapacitySizeProperty(type="CAPACITY_PERCENT", value=percent) if percent else None
    return Endpoint.TrafficRoutingConfigProperty(
        type="CANARY" if canary else "ALL_AT_ONCE",
        canary_size=canary,
        wait_interval_in_seconds=update.bake,
    )
