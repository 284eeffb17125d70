"""CloudFormation custom resource: Application Auto Scaling of an endpoint's instances.

SageMaker changes the instance type of a variant only while that is no scalable target, and CloudFormation's
own scalable target cannot step aside: what a template no longer wants is deleted last, after all updates. So
a stack has two resources of this one, which differ in `Step`:

    before   The endpoint depends on it. Deregisters the variant when the instance type changes.
    after    Depends on the endpoint. Registers the variant, and sets its policy.

Should the deployment fail between the two, `after` was not changed, and is not rolled back. But a `before`
that was changed has another physical id, and the last thing that CloudFormation does, forwards or backwards,
is to delete the one that it needs no longer. A variant that is not registered by then is registered as it was
before the change: its id says how. Deleting an endpoint deregisters its variants.

ResourceProperties:
    Step           before or after
    Endpoint, Variant, InstanceType
    Min, Max       instances
    Target         requests in flight of each instance
    In, Out        cooldowns in seconds
"""

import json
import logging
from typing import Any

import boto3
from custom_resource import respond

POLICY = "concurrency"
METRIC = "SageMakerVariantConcurrentRequestsPerModelHighResolution"
"""Ten-second data: it sees a burst a minute before the invocation count does."""

SCALING = ("Min", "Max", "Target", "In", "Out")

logger = logging.getLogger()
logger.setLevel(logging.INFO)


def handler(event: dict[str, Any], context: Any) -> None:
    respond(event, _done)


def _done(event: dict[str, Any]) -> str:
    kind, wanted = event["RequestType"], event["ResourceProperties"]
    if wanted["Step"] == "after":
        if kind != "Delete":
            register(wanted)
        return f"{wanted['Endpoint']} scaled"
    if kind == "Create":
        return f"{wanted['Endpoint']} not changed yet"
    known: str = event["PhysicalResourceId"]
    if kind == "Delete":
        _restore(wanted, known)
        return known
    before = event["OldResourceProperties"]
    if before["InstanceType"] == wanted["InstanceType"]:
        return known
    deregister(wanted)
    return json.dumps({"now": wanted["InstanceType"], "before": {name: before[name] for name in SCALING}})


def register(wanted: dict[str, str]) -> None:
    """Scale the variant between its bounds by the requests in flight."""
    scaling, target = boto3.client("application-autoscaling"), _target(wanted)
    scaling.register_scalable_target(**target, MinCapacity=int(wanted["Min"]), MaxCapacity=int(wanted["Max"]))
    scaling.put_scaling_policy(
        **target,
        PolicyName=POLICY,
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": float(wanted["Target"]),
            "PredefinedMetricSpecification": {"PredefinedMetricType": METRIC},
            "ScaleInCooldown": int(wanted["In"]),
            "ScaleOutCooldown": int(wanted["Out"]),
        },
    )
    logger.info("%s is scaled", wanted["Endpoint"])


def deregister(wanted: dict[str, str]) -> None:
    """Leave the variant's instances as many as they are; its policies go too."""
    scaling = boto3.client("application-autoscaling")
    try:
        scaling.deregister_scalable_target(**_target(wanted))
    except scaling.exceptions.ObjectNotFoundException:
        return
    logger.info("%s is not scaled until it has instances of %s", wanted["Endpoint"], wanted["InstanceType"])


def _restore(wanted: dict[str, str], known: str) -> None:
    """Register what a deployment that failed has left unregistered."""
    if not known.startswith("{") or _is_registered(wanted) or not _exists(wanted["Endpoint"]):
        return
    register(wanted | json.loads(known)["before"])


def _target(wanted: dict[str, str]) -> dict[str, str]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{wanted['Endpoint']}/variant/{wanted['Variant']}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def _is_registered(wanted: dict[str, str]) -> bool:
    """Asked by registering without bounds: it changes nothing of what is registered, and else is refused."""
    scaling = boto3.client("application-autoscaling")
    try:
        scaling.register_scalable_target(**_target(wanted))
    except scaling.exceptions.ValidationException:
        return False
    return True


def _exists(endpoint: str) -> bool:
    sagemaker = boto3.client("sagemaker")
    try:
        status = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"]
    except sagemaker.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        return False
    return bool(status != "Deleting")
