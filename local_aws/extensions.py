"""Everything that is added to MiniStack, in the order it is added. Read this file to know what differs."""

from __future__ import annotations

import asyncio

from local_aws import (
    absent,
    alarms,
    athena,
    audit,
    authorization,
    autoscaler,
    autoscaling,
    cloudformation,
    embedded_metrics,
    events,
    function_errors,
    function_telemetry,
    gateway,
    lambda_aliases,
    metric_filters,
    parameter_events,
    patches,
    public_names,
    registry,
    remembered,
    resource_types,
    stack_policies,
    trails,
    xray,
)
from local_aws.enforcement import (
    deliveries,
    encryption,
    functions,
    network,
    pass_role,
    state_machines,
    tagging,
)
from local_aws.enforcement import trails as trail_rights
from local_aws.insights import service as insights
from local_aws.sagemaker import install as sagemaker
from local_aws.state import Home


def install(home: Home) -> None:
    """Register our services and resource types, before the first request."""
    patches.install(home, functions_proxy=public_names.install())
    registry.install()
    absent.install()
    audit.install(home)
    trails.install()
    authorization.install()
    network.install()
    parameter_events.install()
    cloudformation.install()
    stack_policies.install()
    served = sagemaker.install(
        home,
        scalable_variants=autoscaling.registered_variants,
        deregister_variants=autoscaling.deregister_variants,
    )
    autoscaling.install(served)
    remembered.install()
    resource_types.install()
    alarms.install()
    athena.install()
    embedded_metrics.install()
    metric_filters.install()
    insights.install()
    function_telemetry.install()
    function_errors.install()
    lambda_aliases.install()
    events.install()
    gateway.install()
    xray.install()
    encryption.install()
    functions.install()
    deliveries.install()
    pass_role.install()
    tagging.install()
    state_machines.install()
    trail_rights.install()


async def run() -> None:
    """What goes on in the background while the server runs."""
    await asyncio.gather(alarms.run(), autoscaler.run(), public_names.run())


async def shutdown() -> None:
    """End what our services started."""
    await sagemaker.shutdown()
