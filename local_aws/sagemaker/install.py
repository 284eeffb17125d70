"""Putting SageMaker into MiniStack: its handler, its routes, its place in IAM, and its end."""

from __future__ import annotations

import asyncio

from local_aws.registry import Service, register
from local_aws.sagemaker import cloudformation, deployment, resources, runtime
from local_aws.sagemaker.control import Control, ScalableVariants
from local_aws.state import Home
from local_aws.wire import Json, Response


def install(home: Home, scalable_variants: ScalableVariants) -> None:
    control = Control(home, scalable_variants)
    service = control.service()

    async def handle(method: str, path: str, headers: Json, body: bytes, query: Json) -> Response:
        # Control plane and runtime sign for the same service; only the former sends its operation's name.
        if "x-amz-target" in headers:
            return await service.handle(method, path, headers, body, query)
        return await runtime.handle(method, path, headers, body, query)

    register(
        Service(
            name="sagemaker",
            handler=handle,
            target_prefix="SageMaker.",
            host_patterns=(r"api\.sagemaker\.", r"runtime\.sagemaker\."),
            rest_models=("sagemaker-runtime",),
            resource_arn=_resource_arn,
        )
    )
    cloudformation.install()


async def shutdown() -> None:
    """Stop every endpoint's processes."""
    await asyncio.gather(*(deployment.end(endpoint) for endpoint in resources.everywhere()))


def _resource_arn(operation: str, parameters: Json, path: str, region: str, account: str) -> str:
    """The ARN that a policy must name for a call; Create and List calls on no resource yet have `*`."""
    if path.startswith("/endpoints/"):
        return f"arn:aws:sagemaker:{region}:{account}:endpoint/{path.split('/')[2].lower()}"
    if "ResourceArn" in parameters:
        return str(parameters["ResourceArn"])
    for member, kind in (
        ("ModelName", "model"),
        ("EndpointName", "endpoint"),
        ("EndpointConfigName", "endpoint-config"),
    ):
        if member in parameters:
            return f"arn:aws:sagemaker:{region}:{account}:{kind}/{str(parameters[member]).lower()}"
    return "*"
