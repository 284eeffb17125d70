"""What scaling policies do: what of Application Auto Scaling acts, on copies of inference components.

A step policy acts when an alarm that names it goes into ALARM, and each minute that it stays there. Target
tracking follows the metric as the alarms that AWS makes for it do: out after three periods of ten seconds
above the target, in after fifteen minutes below nine tenths of it.
docs.aws.amazon.com/autoscaling/application/userguide: application-auto-scaling-{step,target-tracking}-…
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from ministack.core import responses
from ministack.core.responses import AccountRegionScopedDict
from ministack.services import cloudwatch

from local_aws.sagemaker import components, resources
from local_aws.sagemaker.resources import Component, Scope
from local_aws.wire import Json, JsonService, ServiceError, validation_error

MINUTE_VARIABLE = "LOCAL_AWS_SCALING_MINUTE"
"""Seconds that a minute of periods and cooldowns lasts; 60 unless tests are in a hurry."""

NAMESPACE = "sagemaker"
DIMENSION = "sagemaker:inference-component:DesiredCopyCount"
PREFIX = "inference-component/"
METRIC = "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"

Key = tuple[str, str, str]  # service namespace, resource id, scalable dimension

DEFAULT_COOLDOWN = 300.0  # seconds, of target tracking where it says none
OUT_PERIODS, OUT_PERIOD = 3, 1 / 6  # minutes
IN_MINUTES = 15
IN_SHARE = 0.9  # of the target, below which there is too much

logger = logging.getLogger("autoscaling")


@dataclass
class Target:
    """A scalable target, as DescribeScalableTargets lists it, its policies by name, and what was done."""

    described: Json
    policies: dict[str, Json] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    activities: list[Json] = field(default_factory=list)
    called: dict[str, str] = field(
        default_factory=dict
    )  # step policy -> the alarm that calls, not answered yet
    acted: dict[str, float] = field(default_factory=dict)  # policy, and direction -> when, by time.time()


targets = AccountRegionScopedDict()  # Key -> Target


def acts_on(key: Key) -> bool:
    """Whether policies of this target do something here."""
    return (key[0], key[2]) == (NAMESPACE, DIMENSION)


def component(key: Key) -> Component:
    """What a target scales, in the current scope; raises ServiceError if it is not there."""
    name = key[1].removeprefix(PREFIX)
    found = resources.of(Scope.current()).components.get(name.lower())
    if not key[1].startswith(PREFIX) or found is None or found.name != name:
        raise validation_error(f"No scalable resource found for resource ID: {key[1]}")
    return found


def check_policy(policy: Json) -> None:
    """Raises ServiceError for a policy that would not act here as it does on AWS."""
    tracking = policy.get("TargetTrackingScalingPolicyConfiguration")
    if tracking:
        metric = (tracking.get("PredefinedMetricSpecification") or {}).get("PredefinedMetricType")
        if metric != METRIC:
            raise validation_error(f"The embedded AWS scales inference components by {METRIC} only.")
        return
    step = policy.get("StepScalingPolicyConfiguration") or {}
    steps = step.get("StepAdjustments") or []
    plain = len(steps) == 1 and not steps[0].get("MetricIntervalLowerBound") and "Upper" not in str(steps[0])
    if step.get("AdjustmentType") != "ChangeInCapacity" or not plain:
        raise validation_error(
            "The embedded AWS knows step policies of one step from 0 upwards, of type ChangeInCapacity."
        )


_sagemaker: JsonService | None = None


def install(sagemaker: JsonService) -> None:
    """Let alarms call the policies that they name."""
    global _sagemaker
    _sagemaker = sagemaker
    known = cloudwatch._dispatch_alarm_actions

    def dispatch(alarm: Json, before: str, after: str, reason: str) -> None:
        known(alarm, before, after, reason)
        if after == "ALARM" and alarm.get("ActionsEnabled", True):
            _call(alarm)

    cloudwatch._dispatch_alarm_actions = dispatch


async def run() -> None:
    """Look at every target, again and again."""
    minute = float(os.environ.get(MINUTE_VARIABLE, "60"))
    while True:
        await asyncio.sleep(max(0.1, minute / 12))
        for account, region, key in list(targets._data):
            with responses.request_scope(account, region):
                target: Target | None = targets.get(key)
                if target is not None and acts_on(key):
                    try:
                        _look(key, target, minute)
                    except ServiceError as error:
                        logger.debug("%s is not scaled now: %s", key[1], error.message)


def _call(alarm: Json) -> None:
    for target in targets.values():
        for policy in target.policies.values():
            if policy["PolicyARN"] in (alarm.get("AlarmActions") or []):
                target.called[policy["PolicyName"]] = alarm["AlarmName"]


def _look(key: Key, target: Target, minute: float) -> None:
    scaled = component(key)
    if scaled.status != "InService":
        return
    for name, policy in target.policies.items():
        found = _stepped(target, name, policy, scaled, minute) or _tracked(
            target, name, policy, scaled, minute
        )
        if found is None:
            continue
        wanted, cause = found
        least, most = target.described["MinCapacity"], target.described["MaxCapacity"]
        wanted = max(least, min(wanted, most))
        if wanted != scaled.desired:
            _set(key, target, scaled, wanted, cause)
            target.acted[f"{name} {'out' if wanted > scaled.copies else 'in'}"] = time.time()
            return


def _stepped(
    target: Target, name: str, policy: Json, scaled: Component, minute: float
) -> tuple[int, str] | None:
    """The copies that a step policy asks for, and why; None if no alarm calls it, or its cooldown lasts."""
    step = policy.get("StepScalingPolicyConfiguration")
    for alarm in _ringing(policy) if step else ():
        # CloudWatch goes on calling while the alarm lasts.
        if time.time() - max(target.acted.get(f"{name} out", 0), alarm["StateUpdatedTimestamp"]) > 60:
            target.called[name] = alarm["AlarmName"]
    if step is None or name not in target.called:
        return None
    if not _cooled(target, f"{name} out", step.get("Cooldown", 0), minute):
        return None
    alarm_name = target.called.pop(name)
    change = int(step["StepAdjustments"][0]["ScalingAdjustment"])
    return scaled.desired + change, f"monitor alarm {alarm_name} in state ALARM triggered policy {name}"


def _ringing(policy: Json) -> Iterator[Json]:
    for alarm in cloudwatch._alarms.values():
        if alarm["StateValue"] == "ALARM" and policy["PolicyARN"] in (alarm.get("AlarmActions") or []):
            yield alarm


def _tracked(
    target: Target, name: str, policy: Json, scaled: Component, minute: float
) -> tuple[int, str] | None:
    """The copies that target tracking asks for, and why; None where it leaves them alone.

    It cannot leave zero: a metric per copy has no data there.
    """
    tracking = policy.get("TargetTrackingScalingPolicyConfiguration")
    if tracking is None or scaled.desired == 0:
        return None
    goal, cause = float(tracking["TargetValue"]), f"target tracking of policy {name}"
    recent = [
        _most(scaled, OUT_PERIOD * minute * (n + 1), OUT_PERIOD * minute * n) for n in range(OUT_PERIODS)
    ]
    cooldown = tracking.get("ScaleOutCooldown", DEFAULT_COOLDOWN)
    if min(recent) > goal and _cooled(target, f"{name} out", cooldown, minute):
        return math.ceil(scaled.desired * recent[0] / goal), cause
    if tracking.get("DisableScaleIn"):
        return None
    long = _most(scaled, IN_MINUTES * minute, 0)
    rested = time.time() - scaled.modified.timestamp() >= IN_MINUTES * minute
    cooldown = tracking.get("ScaleInCooldown", DEFAULT_COOLDOWN)
    if rested and long < IN_SHARE * goal and _cooled(target, f"{name} in", cooldown, minute):
        return math.ceil(scaled.desired * long / goal), cause
    return None


def _most(scaled: Component, since: float, until: float) -> float:
    """The most requests at once in a copy, between so many seconds ago."""
    now = time.time()
    dimensions = cloudwatch._dims_key({"InferenceComponentName": scaled.name})
    points = cloudwatch._metrics.get(("AWS/SageMaker", "ConcurrentRequestsPerCopy", dimensions)) or []
    values = [point["Value"] for point in points if until <= now - point["Timestamp"] <= since]
    return float(max([*values, components.in_flight(scaled) if until == 0 else 0], default=0))


def _cooled(target: Target, acted: str, cooldown: float, minute: float) -> bool:
    return time.time() - target.acted.get(acted, 0) >= float(cooldown) * minute / 60


def _set(key: Key, target: Target, scaled: Component, wanted: int, cause: str) -> None:
    assert _sagemaker is not None
    request = {"InferenceComponentName": scaled.name, "DesiredRuntimeConfig": {"CopyCount": wanted}}
    _sagemaker.call("UpdateInferenceComponentRuntimeConfig", request)
    now = datetime.datetime.now(datetime.UTC)
    target.activities.insert(
        0,
        {
            "ActivityId": str(uuid.uuid4()),
            **dict(zip(("ServiceNamespace", "ResourceId", "ScalableDimension"), key, strict=True)),
            "Description": f"Setting desired copy count to {wanted}.",
            "Cause": cause,
            "StartTime": now,
            "StatusCode": "Successful",
            "StatusMessage": f"Successfully set desired copy count to {wanted}.",
        },
    )
