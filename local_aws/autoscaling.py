"""Application Auto Scaling: scalable targets and their policies.

Those of inference components are acted upon (`autoscaler`). Those of production variants are remembered and
checked: a variant must exist to be registered, and while it is, its instance type cannot be changed.
"""

from __future__ import annotations

import datetime
import re
import uuid

from ministack.core import responses

from local_aws import api, autoscaler
from local_aws.autoscaler import Key, Target, targets
from local_aws.cloudformation import Created, ResourceType, register
from local_aws.registry import Service
from local_aws.registry import register as register_service
from local_aws.sagemaker import resources
from local_aws.sagemaker.resources import Scope
from local_aws.wire import Json, JsonService, ServiceError, validation_error

SERVICE = "application-autoscaling"
_VARIANT = re.compile(r"endpoint/([^/]+)/variant/([^/]+)")


def install(sagemaker: JsonService) -> None:
    service = JsonService(
        SERVICE,
        {
            "RegisterScalableTarget": _register,
            "DescribeScalableTargets": _describe_targets,
            "DeregisterScalableTarget": _deregister,
            "PutScalingPolicy": _put_policy,
            "DescribeScalingPolicies": _describe_policies,
            "DeleteScalingPolicy": _delete_policy,
            "DescribeScheduledActions": lambda request: {"ScheduledActions": []},
            "DescribeScalingActivities": _describe_activities,
        },
    )
    register_service(
        Service(
            name=SERVICE,
            handler=service.handle,
            target_prefix="AnyScaleFrontendService.",
            host_patterns=(r"application-autoscaling\.", r"autoscaling\."),
            rest_models=(),
            resource_arn=_resource_arn,
        )
    )
    register(SCALABLE_TARGET)
    register(SCALING_POLICY)
    autoscaler.install(sagemaker)


def registered_variants(account: str, region: str, endpoint: str) -> set[str]:
    """The variants of an endpoint that are scalable targets now."""
    with responses.request_scope(account, region):
        return set(_of_endpoint(endpoint).values())


def deregister_variants(account: str, region: str, endpoint: str) -> None:
    """Forget the scalable targets of an endpoint that is deleted."""
    with responses.request_scope(account, region):
        for key in _of_endpoint(endpoint):
            del targets[key]


def _of_endpoint(endpoint: str) -> dict[Key, str]:
    """The scalable targets that are variants of an endpoint, and their names."""
    named = [(key, _VARIANT.fullmatch(key[1])) for key in targets if key[0] == "sagemaker"]
    return {key: match[2] for key, match in named if match and match[1].lower() == endpoint.lower()}


def _key(request: Json) -> Key:
    return request["ServiceNamespace"], request["ResourceId"], request["ScalableDimension"]


def _arn(key: Key) -> str:
    identifier = uuid.uuid5(uuid.NAMESPACE_URL, "|".join(key)).hex
    account, region = responses.get_account_id(), responses.get_region()
    return f"arn:aws:{SERVICE}:{region}:{account}:scalable-target/{identifier}"


def _find(request: Json) -> Target:
    target: Target | None = targets.get(_key(request))
    if target is None:
        raise ServiceError(
            "ObjectNotFoundException",
            f"No scalable target registered for service namespace: {request['ServiceNamespace']}, resource "
            f"ID: {request['ResourceId']}, scalable dimension: {request['ScalableDimension']}",
        )
    return target


def _register(request: Json) -> Json:
    key = _key(request)
    _check_resource(key)
    known: Target | None = targets.get(key)
    if known is None and not {"MinCapacity", "MaxCapacity"} <= request.keys():
        raise validation_error("MinCapacity and MaxCapacity are needed to register a scalable target.")
    before = known.described if known else {"CreationTime": datetime.datetime.now(datetime.UTC)}
    role = request.get("RoleARN") or _service_linked_role(key[0])
    names = (
        "ServiceNamespace",
        "ResourceId",
        "ScalableDimension",
        "MinCapacity",
        "MaxCapacity",
        "SuspendedState",
    )
    described = {
        "SuspendedState": {
            "DynamicScalingInSuspended": False,
            "DynamicScalingOutSuspended": False,
            "ScheduledScalingSuspended": False,
        },
        **before,
        **{name: request[name] for name in names if name in request},
        "RoleARN": role,
        "ScalableTargetARN": _arn(key),
    }
    if described["MinCapacity"] > described["MaxCapacity"]:
        raise validation_error("Maximum capacity cannot be less than minimum capacity.")
    target = known or Target(described)
    target.described = described
    target.tags.update(request.get("Tags") or {})
    targets[key] = target
    return {"ScalableTargetARN": described["ScalableTargetARN"]}


def _check_resource(key: Key) -> None:
    namespace, resource, dimension = key
    if namespace != "sagemaker":
        return
    if autoscaler.acts_on(key):
        autoscaler.component(key)
        return
    match = _VARIANT.fullmatch(resource)
    if dimension != "sagemaker:variant:DesiredInstanceCount" or match is None:
        raise validation_error(
            f"Only sagemaker:variant:DesiredInstanceCount of endpoint/<name>/variant/<name> and "
            f"{autoscaler.DIMENSION} of {autoscaler.PREFIX}<name> are known here, "
            f"not {dimension} of {resource}."
        )
    endpoint = resources.of(Scope.current()).endpoints.get(match[1].lower())
    if endpoint is None or match[2] not in endpoint.variants:
        raise validation_error(f"No scalable resource found for resource ID: {resource}")


def _service_linked_role(namespace: str) -> str:
    names = {"sagemaker": "SageMakerEndpoint", "ecs": "ECSService", "dynamodb": "DynamoDBTable"}
    suffix = names.get(namespace, namespace)
    return (
        f"arn:aws:iam::{responses.get_account_id()}:role/aws-service-role/{namespace}.{SERVICE}.amazonaws.com/"
        f"AWSServiceRoleForApplicationAutoScaling_{suffix}"
    )


def _describe_targets(request: Json) -> Json:
    wanted = request.get("ResourceIds")
    found = [
        target.described
        for key, target in targets.items()
        if key[0] == request["ServiceNamespace"]
        and (not wanted or key[1] in wanted)
        and request.get("ScalableDimension") in (None, key[2])
    ]
    return {"ScalableTargets": found}


def _deregister(request: Json) -> Json:
    _find(request)
    del targets[_key(request)]
    return {}


def _put_policy(request: Json) -> Json:
    target, name = _find(request), request["PolicyName"]
    before = target.policies.get(name, {})
    kind = request.get("PolicyType") or before.get("PolicyType", "StepScaling")
    configuration = f"{kind}PolicyConfiguration"
    if configuration not in request:
        raise validation_error(f"{configuration} must be given for a policy of type {kind}.")
    if autoscaler.acts_on(_key(request)):
        autoscaler.check_policy(request)
    arn = before.get("PolicyARN") or (
        f"arn:aws:autoscaling:{responses.get_region()}:{responses.get_account_id()}:scalingPolicy:{uuid.uuid4()}:"
        f"resource/{request['ServiceNamespace']}/{request['ResourceId']}:policyName/{name}"
    )
    target.policies[name] = {
        "PolicyARN": arn,
        "PolicyName": name,
        **dict(zip(("ServiceNamespace", "ResourceId", "ScalableDimension"), _key(request), strict=True)),
        "PolicyType": kind,
        configuration: request[configuration],
        "Alarms": [],
        "CreationTime": before.get("CreationTime") or datetime.datetime.now(datetime.UTC),
    }
    return {"PolicyARN": arn, "Alarms": []}


def _describe_policies(request: Json) -> Json:
    names = request.get("PolicyNames")
    found = [
        policy
        for key, target in targets.items()
        for policy in target.policies.values()
        if key[0] == request["ServiceNamespace"]
        and request.get("ResourceId") in (None, key[1])
        and request.get("ScalableDimension") in (None, key[2])
        and (not names or policy["PolicyName"] in names)
    ]
    return {"ScalingPolicies": found}


def _describe_activities(request: Json) -> Json:
    found = [
        activity
        for key, target in targets.items()
        for activity in target.activities
        if key[0] == request["ServiceNamespace"]
        and request.get("ResourceId") in (None, key[1])
        and request.get("ScalableDimension") in (None, key[2])
    ]
    return {"ScalingActivities": found}


def _delete_policy(request: Json) -> Json:
    if _find(request).policies.pop(request["PolicyName"], None) is None:
        raise ServiceError(
            "ObjectNotFoundException", f"No scaling policy found named {request['PolicyName']}."
        )
    return {}


def _resource_arn(operation: str, parameters: Json, path: str, region: str, account: str) -> str:
    names = ("ServiceNamespace", "ResourceId", "ScalableDimension")
    if not all(name in parameters for name in names):
        return "*"
    identifier = uuid.uuid5(uuid.NAMESPACE_URL, "|".join(str(parameters[name]) for name in names)).hex
    return f"arn:aws:{SERVICE}:{region}:{account}:scalable-target/{identifier}"


# CloudFormation


def _create_target(name: str, properties: Json) -> Created:
    if properties.get("ScheduledActions"):
        raise ValueError("The embedded AWS does not do scheduled scaling actions (ScheduledActions).")
    request = {key: value for key, value in properties.items() if key not in ("ScheduledActions", "Tags")}
    if properties.get("Tags"):
        request["Tags"] = {tag["Key"]: tag["Value"] for tag in properties["Tags"]}
    api.call(SERVICE, "RegisterScalableTarget", request)
    identifier = "|".join(
        (properties["ResourceId"], properties["ScalableDimension"], properties["ServiceNamespace"])
    )
    return identifier, {"Id": identifier}


def _parts(identifier: str) -> Json:
    """The three names that a scalable target's physical id is made of."""
    resource, dimension, namespace = identifier.split("|")
    return {"ServiceNamespace": namespace, "ResourceId": resource, "ScalableDimension": dimension}


def _delete_target(physical_id: str, properties: Json) -> None:
    try:
        api.call(SERVICE, "DeregisterScalableTarget", _parts(physical_id))
    except ServiceError as error:
        if error.code != "ObjectNotFoundException":
            raise


SCALABLE_TARGET = ResourceType(
    "AWS::ApplicationAutoScaling::ScalableTarget",
    create=_create_target,
    update=lambda physical_id, before, after: _create_target(physical_id, after),
    delete=_delete_target,
    properties=(
        "ServiceNamespace",
        "ResourceId",
        "ScalableDimension",
        "MinCapacity",
        "MaxCapacity",
        "RoleARN",
        "SuspendedState",
        "ScheduledActions",
        "Tags",
    ),
    replaced_by=("ServiceNamespace", "ResourceId", "ScalableDimension"),
)


def _policy_target(properties: Json) -> Json:
    if properties.get("ScalingTargetId"):
        return _parts(properties["ScalingTargetId"])
    return {name: properties[name] for name in ("ServiceNamespace", "ResourceId", "ScalableDimension")}


def _put_scaling_policy(properties: Json) -> Created:
    names = (
        "PolicyName",
        "PolicyType",
        "TargetTrackingScalingPolicyConfiguration",
        "StepScalingPolicyConfiguration",
    )
    request = {name: properties[name] for name in names if name in properties} | _policy_target(properties)
    arn = api.call(SERVICE, "PutScalingPolicy", request)["PolicyARN"]
    return arn, {"Arn": arn}


def _delete_scaling_policy(physical_id: str, properties: Json) -> None:
    try:
        request = {"PolicyName": properties["PolicyName"], **_policy_target(properties)}
        api.call(SERVICE, "DeleteScalingPolicy", request)
    except ServiceError as error:
        # Deregistering the target deleted it already.
        if error.code != "ObjectNotFoundException":
            raise


SCALING_POLICY = ResourceType(
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    create=lambda name, properties: _put_scaling_policy(properties),
    update=lambda physical_id, before, after: _put_scaling_policy(after),
    delete=_delete_scaling_policy,
    properties=(
        "PolicyName",
        "PolicyType",
        "ScalingTargetId",
        "ServiceNamespace",
        "ResourceId",
        "ScalableDimension",
        "TargetTrackingScalingPolicyConfiguration",
        "StepScalingPolicyConfiguration",
    ),
    replaced_by=("PolicyName", "ScalingTargetId", "ServiceNamespace", "ResourceId", "ScalableDimension"),
)
