"""AWS::SageMaker::Model, ::EndpointConfig and ::Endpoint."""

from __future__ import annotations

import time

from local_aws import api
from local_aws.cloudformation import Created, ResourceType, register
from local_aws.wire import Json, ServiceError

POLL_INTERVAL = 0.1  # seconds
STABILIZATION_TIMEOUT = 3600.0  # seconds, longer than any startup timeout SageMaker allows

_MODEL = (
    "ModelName",
    "PrimaryContainer",
    "Containers",
    "ExecutionRoleArn",
    "VpcConfig",
    "EnableNetworkIsolation",
    "InferenceExecutionConfig",
)
_CONFIG = (
    "EndpointConfigName",
    "ProductionVariants",
    "DataCaptureConfig",
    "KmsKeyId",
    "VpcConfig",
    "EnableNetworkIsolation",
    "AsyncInferenceConfig",
    "ExplainerConfig",
    "ShadowProductionVariants",
    "ExecutionRoleArn",
)
_UPDATE = (
    "EndpointConfigName",
    "DeploymentConfig",
    "RetainAllVariantProperties",
    "ExcludeRetainedVariantProperties",
    "RetainDeploymentConfig",
)


def install() -> None:
    register(
        ResourceType(
            "AWS::SageMaker::Model",
            create=lambda name, properties: _create("Model", name, properties),
            update=lambda physical_id, before, after: _update_tags("Model", physical_id, before, after),
            delete=lambda physical_id, properties: _delete("Model", physical_id),
            name_property="ModelName",
            properties=(*_MODEL, "Tags"),
            replaced_by=_MODEL,
        )
    )
    register(
        ResourceType(
            "AWS::SageMaker::EndpointConfig",
            create=lambda name, properties: _create("EndpointConfig", name, properties),
            update=lambda physical_id, before, after: _update_tags(
                "EndpointConfig", physical_id, before, after
            ),
            delete=lambda physical_id, properties: _delete("EndpointConfig", physical_id),
            name_property="EndpointConfigName",
            properties=(*_CONFIG, "Tags"),
            replaced_by=_CONFIG,
        )
    )
    register(
        ResourceType(
            "AWS::SageMaker::Endpoint",
            create=_create_endpoint,
            update=_update_endpoint,
            delete=_delete_endpoint,
            name_property="EndpointName",
            properties=("EndpointName", *_UPDATE, "Tags"),
            replaced_by=("EndpointName",),
        )
    )


def _create(kind: str, name: str, properties: Json) -> Created:
    created = api.call("sagemaker", f"Create{kind}", {**properties, f"{kind}Name": name})
    return created[f"{kind}Arn"], {f"{kind}Name": name}


def _delete(kind: str, physical_id: str) -> None:
    try:
        api.call("sagemaker", f"Delete{kind}", {f"{kind}Name": _name(physical_id)})
    except ServiceError as error:
        # Gone already: CloudFormation counts that as deleted.
        if "Could not find" not in error.message:
            raise


def _update_tags(kind: str, physical_id: str, before: Json, after: Json) -> Created:
    old = {tag["Key"] for tag in before.get("Tags") or []}
    new = {tag["Key"] for tag in after.get("Tags") or []}
    if old - new:
        api.call("sagemaker", "DeleteTags", {"ResourceArn": physical_id, "TagKeys": sorted(old - new)})
    if new:
        api.call("sagemaker", "AddTags", {"ResourceArn": physical_id, "Tags": after["Tags"]})
    described = api.call("sagemaker", f"Describe{kind}", {f"{kind}Name": _name(physical_id)})
    return physical_id, {f"{kind}Name": described[f"{kind}Name"]}


def _create_endpoint(name: str, properties: Json) -> Created:
    request = {key: properties.get(key) for key in ("EndpointConfigName", "DeploymentConfig", "Tags")}
    created = _create("Endpoint", name, request)
    try:
        _wait_in_service(name)
    except RuntimeError:
        # CloudFormation also deletes what it could not finish; MiniStack deletes only what was created.
        _delete_endpoint(created[0], properties)
        raise
    return created


def _update_endpoint(physical_id: str, before: Json, after: Json) -> Created:
    if any(before.get(name) != after.get(name) for name in _UPDATE):
        name = _name(physical_id)
        request = {key: after[key] for key in _UPDATE if key in after}
        api.call("sagemaker", "UpdateEndpoint", {"EndpointName": name, **request})
        _wait_in_service(name)
    return _update_tags("Endpoint", physical_id, before, after)


def _delete_endpoint(physical_id: str, properties: Json) -> None:
    _delete("Endpoint", physical_id)
    deadline = time.monotonic() + STABILIZATION_TIMEOUT
    while _described(_name(physical_id)) is not None and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)


def _wait_in_service(name: str) -> None:
    """Wait until the endpoint is in service; raises RuntimeError with the reason if it never is."""
    deadline = time.monotonic() + STABILIZATION_TIMEOUT
    while time.monotonic() < deadline:
        described = _described(name)
        if described is None:
            raise RuntimeError(f"Endpoint {name} was deleted while it was being deployed.")
        status, reason = described["EndpointStatus"], described.get("FailureReason")
        if reason and status in ("Failed", "InService"):
            raise RuntimeError(f"Endpoint {name}: {reason}")
        if status == "InService":
            return
        time.sleep(POLL_INTERVAL)
    raise RuntimeError(f"Endpoint {name} was not in service within {STABILIZATION_TIMEOUT:.0f} s.")


def _described(name: str) -> Json | None:
    try:
        return api.call("sagemaker", "DescribeEndpoint", {"EndpointName": name})
    except ServiceError:
        return None


def _name(physical_id: str) -> str:
    return physical_id.rpartition("/")[2]
