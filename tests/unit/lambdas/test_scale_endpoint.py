"""Scaling an endpoint's instances: what each of CloudFormation's requests leaves registered."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.applicationautoscaling.exceptions import AWSValidationException
from moto.applicationautoscaling.models import ApplicationAutoscalingBackend

from tests.unit.lambdas.function import imported
from tests.unit.mocked_aws import mocked_aws

SCALE = imported("scale_endpoint")
SCALING = {"Min": "2", "Max": "4", "Target": "8", "In": "600", "Out": "300"}
OLD = {"Endpoint": "e", "Variant": "v", "InstanceType": "ml.g5.xlarge", **SCALING}
NEW = OLD | {"InstanceType": "ml.g6.xlarge", "Max": "9"}


def needs_bounds(known: Any) -> Any:
    """What AWS has and moto has not: bounds are required when a target is new."""

    def register(
        self: Any,
        namespace: str,
        r_id: str,
        dimension: str,
        min_capacity: int | None,
        *more: Any,
        **others: Any,
    ) -> Any:
        if min_capacity is None and r_id not in self.targets.get(dimension, {}):
            raise AWSValidationException("MinCapacity and MaxCapacity are required")
        return known(self, namespace, r_id, dimension, min_capacity, *more, **others)

    return register


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known = ApplicationAutoscalingBackend.register_scalable_target
    monkeypatch.setattr(ApplicationAutoscalingBackend, "register_scalable_target", needs_bounds(known))
    with mocked_aws(monkeypatch):
        role = "arn:aws:iam::123456789012:role/any"
        sagemaker = boto3.client("sagemaker")
        sagemaker.create_model(ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": "i"})
        variant = {
            "VariantName": "v", "ModelName": "m", "InitialInstanceCount": 2, "InstanceType": "ml.g4dn.xlarge",
        }  # fmt: skip
        sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
        yield


def asked(
    step: str, kind: str, wanted: dict[str, str], *, old: dict[str, str] | None = None, known: str = ""
) -> str:
    """The physical id after a request of CloudFormation's."""
    event: dict[str, Any] = {"RequestType": kind, "ResourceProperties": wanted | {"Step": step}}
    if kind != "Create":
        event["PhysicalResourceId"] = known
    if old is not None:
        event["OldResourceProperties"] = old | {"Step": step}
    return str(SCALE._done(event))


def registered() -> list[tuple[int, int]]:
    found = boto3.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    return [(one["MinCapacity"], one["MaxCapacity"]) for one in found["ScalableTargets"]]


def policies() -> list[dict[str, Any]]:
    scaling = boto3.client("application-autoscaling")
    found = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    return [one["TargetTrackingScalingPolicyConfiguration"] for one in found]


@pytest.fixture
def before() -> str:
    """The stack as it is first deployed; the physical id of the resource before the endpoint."""
    known = asked("before", "Create", OLD)
    assert registered() == []
    asked("after", "Create", OLD)
    return known


def test_a_new_endpoint_is_scaled_by_the_requests_in_flight(before: str) -> None:
    assert registered() == [(2, 4)]
    [policy] = policies()
    assert policy["PredefinedMetricSpecification"]["PredefinedMetricType"] == (
        "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    )
    assert (policy["TargetValue"], policy["ScaleInCooldown"], policy["ScaleOutCooldown"]) == (8, 600, 300)


def test_other_bounds_change_them_and_nothing_else(before: str) -> None:
    wanted = OLD | {"Max": "9"}
    assert asked("before", "Update", wanted, old=OLD, known=before) == before
    assert registered() == [(2, 4)]
    asked("after", "Update", wanted, old=OLD, known="e scaled")
    assert (registered(), len(policies())) == ([(2, 9)], 1)


def test_another_instance_type_finds_no_scalable_target_and_leaves_the_new_one(before: str) -> None:
    known = asked("before", "Update", NEW, old=OLD, known=before)
    assert known != before
    assert registered() == []
    asked("after", "Update", NEW, old=OLD, known="e scaled")
    asked("before", "Delete", OLD, known=before)  # replaced
    assert (registered(), len(policies())) == ([(2, 9)], 1)


def test_a_deployment_that_fails_leaves_what_was_registered(before: str) -> None:
    known = asked("before", "Update", NEW, old=OLD, known=before)
    asked("before", "Delete", NEW, known=known)
    assert (registered(), len(policies())) == ([(2, 4)], 1)


def test_so_does_one_that_fails_after_an_earlier_change(before: str) -> None:
    first = asked("before", "Update", NEW, old=OLD, known=before)
    asked("after", "Update", NEW, old=OLD, known="e scaled")
    asked("before", "Delete", OLD, known=before)
    second = asked("before", "Update", OLD, old=NEW, known=first)
    assert second != first
    asked("before", "Delete", OLD, known=second)
    assert registered() == [(2, 9)]


def test_what_is_deleted_with_its_endpoint_stays_gone(before: str) -> None:
    known = asked("before", "Update", NEW, old=OLD, known=before)
    asked("after", "Delete", NEW, known="e scaled")
    boto3.client("sagemaker").delete_endpoint(EndpointName="e")
    asked("before", "Delete", NEW, known=known)
    assert registered() == []


def test_an_id_is_no_longer_than_cloudformation_takes(before: str) -> None:
    longest = dict.fromkeys(SCALING, "9" * 10)
    known = asked("before", "Update", NEW | longest, old=OLD | longest, known=before)
    assert len(known.encode()) < 1024
    assert json.loads(known)["before"] == longest
