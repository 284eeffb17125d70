"""SageMaker's control plane: the operations on models, endpoint configurations, endpoints and tags."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from local_aws import roles
from local_aws.sagemaker import deployment, resources
from local_aws.sagemaker.execution_role import PRINCIPAL
from local_aws.sagemaker.resources import Endpoint, EndpointConfig, Model, Resources, Scope, Variant
from local_aws.state import Home
from local_aws.wire import Json, Operation, ServiceError, validation_error

DEFAULT_PAGE = 10
DEFAULT_WEIGHT = 1.0

# Asked before an update: the variants of an endpoint (account, region, endpoint) that are scalable targets.
# They are none any longer once it is deleted.
ScalableVariants = Callable[[str, str, str], set[str]]
DeregisterVariants = Callable[[str, str, str], None]


class Control:
    """The operations, for the account and region of the request that is being answered."""

    def __init__(
        self, home: Home, scalable_variants: ScalableVariants, deregister_variants: DeregisterVariants
    ) -> None:
        self._home = home
        self._scalable_variants = scalable_variants
        self._deregister_variants = deregister_variants
        self._deleting: set[asyncio.Task[None]] = set()

    def operations(self) -> dict[str, Operation]:
        return {
            "CreateModel": self.create_model,
            "DescribeModel": self.describe_model,
            "ListModels": self.list_models,
            "DeleteModel": self.delete_model,
            "CreateEndpointConfig": self.create_endpoint_config,
            "DescribeEndpointConfig": self.describe_endpoint_config,
            "ListEndpointConfigs": self.list_endpoint_configs,
            "DeleteEndpointConfig": self.delete_endpoint_config,
            "CreateEndpoint": self.create_endpoint,
            "DescribeEndpoint": self.describe_endpoint,
            "ListEndpoints": self.list_endpoints,
            "UpdateEndpoint": self.update_endpoint,
            "UpdateEndpointWeightsAndCapacities": self.update_weights_and_capacities,
            "DeleteEndpoint": self.delete_endpoint,
            "AddTags": self.add_tags,
            "ListTags": self.list_tags,
            "DeleteTags": self.delete_tags,
        }

    # Models

    def create_model(self, request: Json) -> Json:
        scope, found = current()
        name = request["ModelName"]
        arn = scope.arn("model", name)
        refuse_existing(found.models, name, "model", arn)
        if bool(request.get("PrimaryContainer")) == bool(request.get("Containers")):
            raise validation_error("Exactly one of PrimaryContainer and Containers must be given.")
        model = Model(name, arn, request, resources.now())
        for container in model.containers:
            _check_container(container)
        if "ExecutionRoleArn" in request:
            _check_role(scope, request["ExecutionRoleArn"])
        found.models[name.lower()] = model
        tag(found, arn, request.get("Tags"))
        return {"ModelArn": arn}

    def describe_model(self, request: Json) -> Json:
        scope, found = current()
        model = found.model(scope, request["ModelName"])
        described = {key: value for key, value in model.request.items() if key != "Tags"}
        return {
            "EnableNetworkIsolation": False,
            **described,
            "ModelArn": model.arn,
            "CreationTime": model.created,
        }

    def list_models(self, request: Json) -> Json:
        _, found = current()
        return page(request, "Models", found.models.values(), _summary("Model"))

    def delete_model(self, request: Json) -> Json:
        scope, found = current()
        model = found.model(scope, request["ModelName"])
        del found.models[model.name.lower()]
        found.tags.pop(model.arn, None)
        return {}

    # Endpoint configurations

    def create_endpoint_config(self, request: Json) -> Json:
        scope, found = current()
        name = request["EndpointConfigName"]
        arn = scope.arn("endpoint-config", name)
        refuse_existing(found.configs, name, "endpoint configuration", arn)
        for option in (
            "AsyncInferenceConfig",
            "ExplainerConfig",
            "ShadowProductionVariants",
        ):
            if request.get(option):
                raise validation_error(f"The embedded AWS does not serve endpoints with {option}.")
        names = [variant["VariantName"] for variant in request["ProductionVariants"]]
        if len(set(names)) != len(names):
            raise validation_error("Each production variant must have a name of its own.")
        for variant in request["ProductionVariants"]:
            if variant.get("ServerlessConfig"):
                raise validation_error(
                    f"The embedded AWS serves production variants with an InstanceType; "
                    f"{variant['VariantName']} is not one."
                )
            if not variant.get("InstanceType") or not variant.get("InitialInstanceCount"):
                raise validation_error(
                    f"InstanceType and InitialInstanceCount must be specified for production variant "
                    f"{variant['VariantName']}."
                )
            if variant.get("ModelName"):
                found.model(scope, variant["ModelName"])
        _check_hosting(scope, request)
        found.configs[name.lower()] = EndpointConfig(name, arn, _with_defaults(request), resources.now())
        tag(found, arn, request.get("Tags"))
        return {"EndpointConfigArn": arn}

    def describe_endpoint_config(self, request: Json) -> Json:
        scope, found = current()
        config = found.config(scope, request["EndpointConfigName"])
        described = {key: value for key, value in config.request.items() if key != "Tags"}
        return {
            "EnableNetworkIsolation": False,
            **described,
            "EndpointConfigArn": config.arn,
            "CreationTime": config.created,
        }

    def list_endpoint_configs(self, request: Json) -> Json:
        _, found = current()
        return page(request, "EndpointConfigs", found.configs.values(), _summary("EndpointConfig"))

    def delete_endpoint_config(self, request: Json) -> Json:
        scope, found = current()
        config = found.config(scope, request["EndpointConfigName"])
        del found.configs[config.name.lower()]
        found.tags.pop(config.arn, None)
        return {}

    # Endpoints

    def create_endpoint(self, request: Json) -> Json:
        scope, found = current()
        name = request["EndpointName"]
        arn = scope.arn("endpoint", name)
        refuse_existing(found.endpoints, name, "endpoint", arn)
        config = found.config(scope, request["EndpointConfigName"])
        _check_deployment(request.get("DeploymentConfig"))
        created = resources.now()
        endpoint = Endpoint(scope, name, arn, created, created, config)
        endpoint.deployment = request.get("DeploymentConfig")
        endpoint.variants = _variants(config)
        found.endpoints[name.lower()] = endpoint
        tag(found, arn, request.get("Tags"))
        deployment.run(self._home, endpoint, config, endpoint.variants)
        return {"EndpointArn": arn}

    def describe_endpoint(self, request: Json) -> Json:
        scope, found = current()
        return describe(found.endpoint(scope, request["EndpointName"]))

    def list_endpoints(self, request: Json) -> Json:
        _, found = current()
        status = request.get("StatusEquals")
        chosen = [one for one in found.endpoints.values() if status in (None, one.status)]

        def summary(endpoint: Endpoint) -> Json:
            return {
                "EndpointName": endpoint.name,
                "EndpointArn": endpoint.arn,
                "CreationTime": endpoint.created,
                "LastModifiedTime": endpoint.modified,
                "EndpointStatus": endpoint.status,
            }

        return page(request, "Endpoints", chosen, summary)

    def update_endpoint(self, request: Json) -> Json:
        scope, found = current()
        endpoint = found.endpoint(scope, request["EndpointName"])
        _refuse_in_progress(endpoint)
        config = found.config(scope, request["EndpointConfigName"])
        _check_deployment(request.get("DeploymentConfig"))
        if config.hosts_components != endpoint.config.hosts_components:
            raise validation_error(
                f'Cannot update endpoint "{endpoint.arn}": an endpoint serves either models or inference '
                "components, for as long as it exists."
            )
        self._refuse_moving_scaled_variants(endpoint, config)
        if not request.get("RetainDeploymentConfig"):
            endpoint.deployment = request.get("DeploymentConfig")
        variants = _variants(config)
        if request.get("RetainAllVariantProperties"):
            excluded = request.get("ExcludeRetainedVariantProperties") or []
            _retain(endpoint, variants, {one["VariantPropertyType"] for one in excluded})
        endpoint.become("Updating")
        deployment.run(self._home, endpoint, config, variants)
        return {"EndpointArn": endpoint.arn}

    def update_weights_and_capacities(self, request: Json) -> Json:
        scope, found = current()
        endpoint = found.endpoint(scope, request["EndpointName"])
        _refuse_in_progress(endpoint)
        for desired in request["DesiredWeightsAndCapacities"]:
            variant = endpoint.variants.get(desired["VariantName"])
            if variant is None:
                raise validation_error(
                    f"Variant {desired['VariantName']} not found for endpoint {endpoint.name}."
                )
            variant.desired_weight = float(desired.get("DesiredWeight", variant.desired_weight))
            variant.desired_instances = int(desired.get("DesiredInstanceCount", variant.desired_instances))
        endpoint.become("Updating")
        endpoint.deploying = asyncio.ensure_future(_apply_weights_and_capacities(endpoint))
        return {"EndpointArn": endpoint.arn}

    def delete_endpoint(self, request: Json) -> Json:
        scope, found = current()
        endpoint = found.endpoint(scope, request["EndpointName"])
        if endpoint.status != "Deleting":
            endpoint.become("Deleting")
            self._deregister_variants(scope.account, scope.region, endpoint.name)
            task = asyncio.ensure_future(_delete(found, endpoint))
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)
        return {}

    def _refuse_moving_scaled_variants(self, endpoint: Endpoint, config: EndpointConfig) -> None:
        scaled = self._scalable_variants(endpoint.scope.account, endpoint.scope.region, endpoint.name)
        before = {variant["VariantName"]: variant.get("InstanceType") for variant in endpoint.config.variants}
        after = {variant["VariantName"]: variant.get("InstanceType") for variant in config.variants}
        moved = [name for name in before if name in scaled and before[name] != after.get(name)]
        if moved:
            raise validation_error(
                f'The variant(s) "[{", ".join(moved)}]" must be deregistered as scalable targets with AWS '
                "Auto Scaling before they can be removed or have their instance type updated."
            )

    # Tags

    def add_tags(self, request: Json) -> Json:
        _, found = current()
        tag(_tagged(found, request["ResourceArn"]), request["ResourceArn"], request["Tags"])
        return {"Tags": _tag_list(found, request["ResourceArn"])}

    def list_tags(self, request: Json) -> Json:
        _, found = current()
        return {"Tags": _tag_list(_tagged(found, request["ResourceArn"]), request["ResourceArn"])}

    def delete_tags(self, request: Json) -> Json:
        _, found = current()
        tags = _tagged(found, request["ResourceArn"]).tags.get(request["ResourceArn"], {})
        for key in request["TagKeys"]:
            tags.pop(key, None)
        return {}


def describe(endpoint: Endpoint) -> Json:
    """DescribeEndpoint's answer."""
    answer: Json = {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": endpoint.config.name,
        "EndpointStatus": endpoint.status,
        "CreationTime": endpoint.created,
        "LastModifiedTime": endpoint.modified,
    }
    if endpoint.fleet is not None:
        answer["ProductionVariants"] = [
            _describe_variant(endpoint, one) for one in endpoint.variants.values()
        ]
    if endpoint.failure:
        answer["FailureReason"] = endpoint.failure
    if endpoint.deployment:
        answer["LastDeploymentConfig"] = endpoint.deployment
    capture = endpoint.config.request.get("DataCaptureConfig")
    if capture:
        answer["DataCaptureConfig"] = {
            "EnableCapture": bool(capture.get("EnableCapture")),
            "CaptureStatus": "Stopped",
            "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
            "DestinationS3Uri": capture["DestinationS3Uri"],
            "KmsKeyId": capture.get("KmsKeyId", ""),
        }
    return answer


def _describe_variant(endpoint: Endpoint, variant: Variant) -> Json:
    described: Json = {
        "VariantName": variant.name,
        "DeployedImages": variant.images,
        "CurrentWeight": variant.weight,
        "DesiredWeight": variant.desired_weight,
        "CurrentInstanceCount": variant.instances,
        "DesiredInstanceCount": variant.desired_instances,
    }
    configured = next(one for one in endpoint.config.variants if one["VariantName"] == variant.name)
    managed = configured.get("ManagedInstanceScaling") or {}
    if managed.get("Status") == "ENABLED":
        # SageMaker packs copies on as few instances as hold them; here each has one of its own.
        hosted = resources.of(endpoint.scope).hosted_by(endpoint.name)
        copies = sum(one.copies for one in hosted if one.variant == variant.name)
        least, most = managed.get("MinInstanceCount", 0), managed.get("MaxInstanceCount", copies)
        count = max(least, min(copies, most))
        described |= {
            "CurrentInstanceCount": count,
            "DesiredInstanceCount": count,
            "ManagedInstanceScaling": managed,
        }
    return described


async def _apply_weights_and_capacities(endpoint: Endpoint) -> None:
    failure = None
    for variant in endpoint.variants.values():
        try:
            if endpoint.fleet is not None:
                await endpoint.fleet.resize(variant.name, variant.desired_instances)
        except Exception as error:
            failure = str(error)[:1024]
            variant.desired_weight, variant.desired_instances = variant.weight, variant.instances
        variant.weight, variant.instances = variant.desired_weight, variant.desired_instances
    endpoint.become("InService", failure)


async def _delete(found: Resources, endpoint: Endpoint) -> None:
    await deployment.end(endpoint)
    # Its components stay, as on AWS, and keep their names; nothing runs them any more.
    await asyncio.gather(*(deployment.end(one) for one in found.hosted_by(endpoint.name)))
    del found.endpoints[endpoint.name.lower()]
    found.tags.pop(endpoint.arn, None)


def current() -> tuple[Scope, Resources]:
    scope = Scope.current()
    return scope, resources.of(scope)


def refuse_existing(found: dict[str, Any], name: str, kind: str, arn: str) -> None:
    if name.lower() in found:
        raise validation_error(f'Cannot create already existing {kind} "{arn}".')


def _refuse_in_progress(endpoint: Endpoint) -> None:
    if endpoint.status not in ("InService", "Failed"):
        raise validation_error(f'Cannot update in-progress endpoint "{endpoint.arn}".')
    if endpoint.fleet is None:
        raise validation_error(
            f'Cannot update endpoint "{endpoint.arn}": it has failed and must be deleted and created again.'
        )


def _check_role(scope: Scope, arn: str) -> None:
    try:
        roles.check_trust(scope.account, arn, PRINCIPAL)
    except roles.NotAssumable as error:
        raise validation_error(
            f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
            f"'{PRINCIPAL}' to assume the role."
        ) from error


def _check_container(container: Json) -> None:
    for option in ("MultiModelConfig", "ModelPackageName", "AdditionalModelDataSources", "ImageConfig"):
        if container.get(option):
            raise validation_error(f"The embedded AWS does not run containers with {option}.")
    if container.get("Mode") == "MultiModel":
        raise validation_error("The embedded AWS does not run multi-model containers.")
    if not container.get("Image"):
        raise validation_error("A container must name its Image.")
    source = (container.get("ModelDataSource") or {}).get("S3DataSource")
    if source and source["S3DataType"] == "S3Prefix" and not source["S3Uri"].endswith("/"):
        raise validation_error(
            "ModelDataSource.S3DataSource.S3Uri must end with a slash when S3DataType is S3Prefix."
        )


def _check_hosting(scope: Scope, request: Json) -> None:
    """What an endpoint configuration needs for inference components, and must not have without them."""
    models = [bool(variant.get("ModelName")) for variant in request["ProductionVariants"]]
    if any(models) and not all(models):
        raise validation_error("Either every production variant has a ModelName or none has.")
    if all(models):
        for option in ("ExecutionRoleArn", "VpcConfig"):
            if request.get(option):
                raise validation_error(
                    f"{option} is for endpoints of inference components: models have their own."
                )
        return
    if not request.get("ExecutionRoleArn"):
        raise validation_error("ExecutionRoleArn is required where production variants have no ModelName.")
    _check_role(scope, request["ExecutionRoleArn"])


def _check_deployment(config: Json | None) -> None:
    if config and config.get("RollingUpdatePolicy"):
        raise validation_error("The embedded AWS deploys blue/green; it does not do RollingUpdatePolicy.")
    routing = ((config or {}).get("BlueGreenUpdatePolicy") or {}).get("TrafficRoutingConfiguration") or {}
    size = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}.get(routing.get("Type", ""))
    if size and size not in routing:
        raise validation_error(
            f"{size} must be given when TrafficRoutingConfiguration.Type is {routing['Type']}."
        )


def _with_defaults(request: Json) -> Json:
    variants = [
        {**variant, "InitialVariantWeight": float(variant.get("InitialVariantWeight", DEFAULT_WEIGHT))}
        for variant in request["ProductionVariants"]
    ]
    return {**request, "ProductionVariants": variants}


def _variants(config: EndpointConfig) -> dict[str, Variant]:
    """The variants as the configuration wants them, none of them running yet."""
    return {
        variant["VariantName"]: Variant(
            name=variant["VariantName"],
            weight=0.0,
            desired_weight=variant["InitialVariantWeight"],
            instances=0,
            desired_instances=variant["InitialInstanceCount"],
        )
        for variant in config.variants
    }


def _retain(endpoint: Endpoint, variants: dict[str, Variant], excluded: set[str]) -> None:
    """Keep what autoscaling or an operator has set since the endpoint was made."""
    for name in variants.keys() & endpoint.variants.keys():
        kept = endpoint.variants[name]
        if "DesiredInstanceCount" not in excluded:
            variants[name] = dataclasses.replace(variants[name], desired_instances=kept.desired_instances)
        if "DesiredWeight" not in excluded:
            variants[name] = dataclasses.replace(variants[name], desired_weight=kept.desired_weight)


def tag(found: Resources, arn: str, tags: Iterable[Json] | None) -> None:
    found.tags.setdefault(arn, {}).update({tag["Key"]: tag["Value"] for tag in tags or []})


def _tag_list(found: Resources, arn: str) -> list[Json]:
    return [{"Key": key, "Value": value} for key, value in sorted(found.tags.get(arn, {}).items())]


def _tagged(found: Resources, arn: str) -> Resources:
    if arn not in found.arns():
        raise validation_error(f'Could not find resource "{arn}".')
    return found


def _summary(kind: str) -> Callable[[Any], Json]:
    def summary(resource: Any) -> Json:
        return {f"{kind}Name": resource.name, f"{kind}Arn": resource.arn, "CreationTime": resource.created}

    return summary


def page(request: Json, member: str, every: Iterable[Any], summary: Callable[[Any], Json]) -> Json:
    """One page of a List operation, filtered and sorted as asked; its token is a position."""
    chosen = [one for one in every if request.get("NameContains", "").lower() in one.name.lower()]
    for name, field, keep_later in (
        ("CreationTimeAfter", "created", True),
        ("CreationTimeBefore", "created", False),
        ("LastModifiedTimeAfter", "modified", True),
        ("LastModifiedTimeBefore", "modified", False),
    ):
        if name in request:
            bound = float(request[name])
            chosen = [one for one in chosen if (getattr(one, field).timestamp() > bound) == keep_later]
    by_name = request.get("SortBy") == "Name"
    chosen.sort(
        key=lambda one: one.name if by_name else one.created, reverse=request.get("SortOrder") != "Ascending"
    )
    start, size = _position(request.get("NextToken")), int(request.get("MaxResults", DEFAULT_PAGE))
    page: Json = {member: [summary(one) for one in chosen[start : start + size]]}
    if start + size < len(chosen):
        page["NextToken"] = base64.b64encode(str(start + size).encode()).decode()
    return page


def _position(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(base64.b64decode(token, validate=True))
    except ValueError as error:
        raise ServiceError("ValidationException", "NextToken is not one that this service gave.") from error
