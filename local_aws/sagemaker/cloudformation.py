"""AWS::SageMaker::Model, ::EndpointConfig and ::Endpoint."""

from __future__ import annotations

import time

from local_aws.cloudformation import ResourceType, call_service, register
from local_aws.wire import Json, JsonService, ServiceError

POLL_INTERVAL = 0.1  # seconds
STABILIZATION_TIMEOUT = 3600.0  # seconds, longer than any startup timeout SageMaker allows

Created = tuple[str, Json]


def install(service: JsonService) -> None:
    types = _Types(service)
    register(
        ResourceType(
            "AWS::SageMaker::Model",
            create=types.create_model,
            update=types.update_tags,
            delete=types.delete_model,
            name_property="ModelName",
            replaced_by=(
                "ModelName",
                "PrimaryContainer",
                "Containers",
                "ExecutionRoleArn",
                "VpcConfig",
                "EnableNetworkIsolation",
                "InferenceExecutionConfig",
            ),
        )
    )
    register(
        ResourceType(
            "AWS::SageMaker::EndpointConfig",
            create=types.create_config,
            update=types.update_tags,
            delete=types.delete_config,
            name_property="EndpointConfigName",
            replaced_by=(
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
            ),
        )
    )
    register(
        ResourceType(
            "AWS::SageMaker::Endpoint",
            create=types.create_endpoint,
            update=types.update_endpoint,
            delete=types.delete_endpoint,
            name_property="EndpointName",
            replaced_by=("EndpointName",),
            waits=True,
        )
    )


class _Types:
    def __init__(self, service: JsonService) -> None:
        self._service = service

    def create_model(self, name: str, properties: Json) -> Created:
        arn = self._call("CreateModel", {"ModelName": name, **properties})["ModelArn"]
        return arn, {"ModelName": name}

    def delete_model(self, physical_id: str, properties: Json) -> None:
        self._delete("DeleteModel", {"ModelName": _name(physical_id)})

    def create_config(self, name: str, properties: Json) -> Created:
        arn = self._call("CreateEndpointConfig", {"EndpointConfigName": name, **properties})[
            "EndpointConfigArn"
        ]
        return arn, {"EndpointConfigName": name}

    def delete_config(self, physical_id: str, properties: Json) -> None:
        self._delete("DeleteEndpointConfig", {"EndpointConfigName": _name(physical_id)})

    def create_endpoint(self, name: str, properties: Json) -> Created:
        request = {
            key: properties[key]
            for key in ("EndpointConfigName", "DeploymentConfig", "Tags")
            if properties.get(key) is not None
        }
        arn = self._call("CreateEndpoint", {"EndpointName": name, **request})["EndpointArn"]
        try:
            self._wait(name)
        except RuntimeError:
            # CloudFormation deletes what it could not create; MiniStack does so only for what was created.
            self.delete_endpoint(arn, properties)
            raise
        return arn, {"EndpointName": name}

    def update_endpoint(self, physical_id: str, before: Json, after: Json) -> Created:
        name = _name(physical_id)
        if {**before, "Tags": None} != {**after, "Tags": None}:
            request = {key: value for key, value in after.items() if key not in ("Tags", "EndpointName")}
            self._call("UpdateEndpoint", {"EndpointName": name, **request})
            self._wait(name)
        self.update_tags(physical_id, before, after)
        return physical_id, {"EndpointName": name}

    def delete_endpoint(self, physical_id: str, properties: Json) -> None:
        name = _name(physical_id)
        self._delete("DeleteEndpoint", {"EndpointName": name})
        deadline = time.monotonic() + STABILIZATION_TIMEOUT
        while self._described(name) is not None and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)

    def update_tags(self, physical_id: str, before: Json, after: Json) -> Created:
        old = {tag["Key"] for tag in before.get("Tags") or []}
        new = {tag["Key"] for tag in after.get("Tags") or []}
        if old - new:
            self._call("DeleteTags", {"ResourceArn": physical_id, "TagKeys": sorted(old - new)})
        if new:
            self._call("AddTags", {"ResourceArn": physical_id, "Tags": after["Tags"]})
        kind = {"model": "Model", "endpoint-config": "EndpointConfig", "endpoint": "Endpoint"}
        resource = physical_id.rpartition(":")[2].partition("/")[0]
        return physical_id, {f"{kind[resource]}Name": _name(physical_id)}

    def _wait(self, name: str) -> None:
        """Wait until the endpoint is in service; raises RuntimeError with the reason if it never is."""
        deadline = time.monotonic() + STABILIZATION_TIMEOUT
        while time.monotonic() < deadline:
            described = self._described(name)
            if described is None:
                raise RuntimeError(f"Endpoint {name} was deleted while it was being deployed.")
            if described.get("FailureReason") and described["EndpointStatus"] in ("Failed", "InService"):
                raise RuntimeError(f"Endpoint {name}: {described['FailureReason']}")
            if described["EndpointStatus"] == "InService":
                return
            time.sleep(POLL_INTERVAL)
        raise RuntimeError(f"Endpoint {name} was not in service within {STABILIZATION_TIMEOUT:.0f} s.")

    def _described(self, name: str) -> Json | None:
        try:
            return self._call("DescribeEndpoint", {"EndpointName": name})
        except ServiceError:
            return None

    def _delete(self, operation: str, request: Json) -> None:
        try:
            self._call(operation, request)
        except ServiceError as error:
            # Gone already: CloudFormation counts that as deleted.
            if "Could not find" not in error.message:
                raise

    def _call(self, operation: str, request: Json) -> Json:
        return call_service(self._service, operation, request)


def _name(physical_id: str) -> str:
    return physical_id.rpartition("/")[2]
