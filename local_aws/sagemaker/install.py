"""Putting SageMaker into MiniStack: its handler, its routes, its place in IAM, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from local_aws.authorization import Request, Right, takes_also
from local_aws.registry import Service, register
from local_aws.sagemaker import cloudformation, deployment, resources, runtime
from local_aws.sagemaker.components import Components
from local_aws.sagemaker.control import Control, DeregisterVariants, ScalableVariants
from local_aws.sagemaker.packages import Packages
from local_aws.state import Home
from local_aws.wire import Json, JsonService, Response


def install(
    home: Home, scalable_variants: ScalableVariants, deregister_variants: DeregisterVariants
) -> JsonService:
    """Serve SageMaker; returns its operations, for services that call them in its own name."""
    operations = {
        **Control(home, scalable_variants, deregister_variants).operations(),
        **Components(home).operations(),
        **Packages().operations(),
    }
    service = JsonService("sagemaker", operations)

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
    takes_also("sagemaker", _rights_on_components)
    cloudformation.install()
    return service


async def shutdown() -> None:
    """Stop the processes of every endpoint and component."""
    await asyncio.gather(*(deployment.end(one) for one in resources.everywhere()))


def _rights_on_components(request: Request) -> Iterator[Right]:
    """Whoever invokes an inference component, or makes one, needs the right on it and on its endpoint."""
    component = request.headers.get(runtime.COMPONENT.lower())
    if request.path.startswith("/endpoints/") and component:
        arn = _arn(request.region, request.account, "inference-component", component)
        yield Right("sagemaker:InvokeEndpoint", arn)
    if request.operation == "CreateInferenceComponent":
        endpoint = str(request.json().get("EndpointName"))
        yield Right(
            "sagemaker:CreateInferenceComponent", _arn(request.region, request.account, "endpoint", endpoint)
        )


def _arn(region: str, account: str, kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:{region}:{account}:{kind}/{name.lower()}"


def _resource_arn(operation: str, parameters: Json, path: str, region: str, account: str) -> str:
    """The ARN that a policy must name for a call; Create and List calls on no resource yet have `*`."""
    if path.startswith("/endpoints/"):
        return _arn(region, account, "endpoint", path.split("/")[2])
    if "ResourceArn" in parameters:
        return str(parameters["ResourceArn"])
    if "ModelPackageArn" in parameters:
        return str(parameters["ModelPackageArn"])
    if operation == "CreateModelPackage":
        # The package has no number yet.
        name = str(parameters.get("ModelPackageGroupName")).rpartition("/")[2]
        return _arn(region, account, "model-package", f"{name}/*")
    if operation == "ListModelPackages":
        return "*"
    for member, kind in (
        ("ModelPackageName", "model-package"),
        ("ModelPackageGroupName", "model-package-group"),
        ("ModelName", "model"),
        ("InferenceComponentName", "inference-component"),
        ("EndpointName", "endpoint"),
        ("EndpointConfigName", "endpoint-config"),
    ):
        if str(parameters.get(member, "")).startswith("arn:"):
            return str(parameters[member])
        if member in parameters:
            return _arn(region, account, kind, str(parameters[member]))
    return "*"
