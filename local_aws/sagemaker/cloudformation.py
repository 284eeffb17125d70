"""AWS::SageMaker::Model, ::EndpointConfig, ::Endpoint and ::InferenceComponent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

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
_ENDPOINT = ("EndpointConfigName", "DeploymentConfig", "Tags")
_UPDATE = (
    "EndpointConfigName",
    "DeploymentConfig",
    "RetainAllVariantProperties",
    "ExcludeRetainedVariantProperties",
    "RetainDeploymentConfig",
)

_COMPONENT = ("Specification", "Specifications", "RuntimeConfig", "DeploymentConfig")
_COMPONENT_MADE = ("EndpointName", "VariantName", "Specification", "Specifications", "RuntimeConfig", "Tags")
_COMPONENT_PLACE = ("InferenceComponentName", "EndpointName", "EndpointArn", "VariantName")


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
            create=_create_served("Endpoint", _ENDPOINT, _delete_endpoint),
            update=_update_served("Endpoint", _UPDATE, _call),
            delete=_delete_endpoint,
            name_property="EndpointName",
            properties=("EndpointName", *_UPDATE, "Tags"),
            replaced_by=("EndpointName",),
        )
    )
    register(
        ResourceType(
            "AWS::SageMaker::InferenceComponent",
            create=_create_served("InferenceComponent", _COMPONENT_MADE, _delete_component),
            update=_update_served("InferenceComponent", _COMPONENT, _when_settled),
            delete=_delete_component,
            name_property="InferenceComponentName",
            properties=(*_COMPONENT_PLACE, *_COMPONENT, "Tags"),
            replaced_by=_COMPONENT_PLACE,
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


def _create_served(
    kind: str, taken: Sequence[str], delete: Callable[[str, Json], None]
) -> Callable[[str, Json], Created]:
    """Makes an endpoint or a component of the properties that are `taken`, and waits until it serves."""

    def create(name: str, properties: Json) -> Created:
        created = _create(kind, name, {key: properties[key] for key in taken if key in properties})
        try:
            _wait_in_service(kind, name)
        except RuntimeError:
            # CloudFormation also deletes what it could not finish; MiniStack deletes only what was created.
            delete(created[0], properties)
            raise
        return created

    return create


def _update_served(
    kind: str, changed: Sequence[str], call: Callable[[str, Json], None]
) -> Callable[[str, Json, Json], Created]:
    """Updates an endpoint or a component whose `changed` properties differ, and waits until it serves."""

    def update(physical_id: str, before: Json, after: Json) -> Created:
        if any(before.get(name) != after.get(name) for name in changed):
            name = _name(physical_id)
            request = {key: after[key] for key in changed if key in after}
            call(f"Update{kind}", {f"{kind}Name": name, **request})
            _wait_in_service(kind, name)
        return _update_tags(kind, physical_id, before, after)

    return update


def _call(operation: str, request: Json) -> None:
    api.call("sagemaker", operation, request)


def _delete_endpoint(physical_id: str, properties: Json) -> None:
    _delete("Endpoint", physical_id)
    _wait_gone("Endpoint", _name(physical_id))


def _delete_component(physical_id: str, properties: Json) -> None:
    if _described("InferenceComponent", _name(physical_id)) is not None:
        _when_settled("DeleteInferenceComponent", {"InferenceComponentName": _name(physical_id)})
        _wait_gone("InferenceComponent", _name(physical_id))


def _when_settled(operation: str, request: Json) -> None:
    """Call an operation that is refused while autoscaling changes the number of copies."""
    deadline = time.monotonic() + STABILIZATION_TIMEOUT
    while True:
        try:
            _call(operation, request)
            return
        except ServiceError as error:
            busy = "in-progress" in error.message or "while it is in state" in error.message
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(POLL_INTERVAL)


def _wait_in_service(kind: str, name: str) -> None:
    """Wait until an endpoint or a component is in service; raises RuntimeError, with why it never is."""
    deadline = time.monotonic() + STABILIZATION_TIMEOUT
    while time.monotonic() < deadline:
        described = _described(kind, name)
        if described is None:
            raise RuntimeError(f"{kind} {name} was deleted while it was being deployed.")
        status, reason = described[f"{kind}Status"], described.get("FailureReason")
        if reason and status in ("Failed", "InService"):
            raise RuntimeError(f"{kind} {name}: {reason}")
        if status == "InService":
            return
        time.sleep(POLL_INTERVAL)
    raise RuntimeError(f"{kind} {name} was not in service within {STABILIZATION_TIMEOUT:.0f} s.")


def _wait_gone(kind: str, name: str) -> None:
    deadline = time.monotonic() + STABILIZATION_TIMEOUT
    while _described(kind, name) is not None and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)


def _described(kind: str, name: str) -> Json | None:
    try:
        return api.call("sagemaker", f"Describe{kind}", {f"{kind}Name": name})
    except ServiceError:
        return None


def _name(physical_id: str) -> str:
    return physical_id.rpartition("/")[2]
