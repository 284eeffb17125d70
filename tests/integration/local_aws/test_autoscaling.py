"""Application Auto Scaling: what is registered is checked, described, and keeps its instance type."""

from __future__ import annotations

import botocore.exceptions
import pytest

from tests.integration.local_aws.embedded import Embedded
from tests.integration.local_aws.shapes import violations


def target(endpoint: str, variant: str = "AllTraffic") -> dict[str, str]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{variant}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }


def test_a_registered_variant_keeps_its_instance_type(aws: Embedded, role: str) -> None:
    scaling, sagemaker = aws.client("application-autoscaling"), aws.client("sagemaker")
    model = aws.model(role)
    endpoint = aws.endpoint(aws.config(model))
    aws.settled(endpoint)
    larger = aws.config(model, InstanceType="ml.g5.2xlarge")
    scaling.register_scalable_target(**target(endpoint), MinCapacity=1, MaxCapacity=4)

    with pytest.raises(
        botocore.exceptions.ClientError, match=r"AllTraffic.*must be deregistered as scalable targets"
    ):
        sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=larger)

    scaling.deregister_scalable_target(**target(endpoint))
    sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=larger)
    assert aws.settled(endpoint)["EndpointConfigName"] == larger


def test_targets_and_policies_are_described_as_they_were_put(aws: Embedded, endpoint: str) -> None:
    scaling = aws.client("application-autoscaling")
    tracking = {
        "TargetValue": 4.0,
        "PredefinedMetricSpecification": {
            "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"
        },
        "ScaleInCooldown": 300,
    }
    answers = {
        "RegisterScalableTarget": scaling.register_scalable_target(
            **target(endpoint), MinCapacity=1, MaxCapacity=4
        ),
        "PutScalingPolicy": scaling.put_scaling_policy(
            **target(endpoint),
            PolicyName="track",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration=tracking,
        ),
        "DescribeScalableTargets": scaling.describe_scalable_targets(
            ServiceNamespace="sagemaker", ResourceIds=[target(endpoint)["ResourceId"]]
        ),
        "DescribeScalingPolicies": scaling.describe_scaling_policies(**target(endpoint)),
    }
    service = "application-autoscaling"
    assert [fault for name, answer in answers.items() for fault in violations(service, name, answer)] == []
    (described,) = answers["DescribeScalableTargets"]["ScalableTargets"]
    assert (described["MinCapacity"], described["MaxCapacity"]) == (1, 4)
    assert "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint" in described["RoleARN"]
    (policy,) = answers["DescribeScalingPolicies"]["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"] == tracking

    scaling.deregister_scalable_target(**target(endpoint))
    assert scaling.describe_scaling_policies(**target(endpoint))["ScalingPolicies"] == []
    with pytest.raises(botocore.exceptions.ClientError, match="ObjectNotFoundException"):
        scaling.delete_scaling_policy(**target(endpoint), PolicyName="track")


def test_a_variant_that_is_not_there_is_not_registered(aws: Embedded, endpoint: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="No scalable resource found"):
        aws.client("application-autoscaling").register_scalable_target(
            **target(endpoint, "Other"), MinCapacity=1, MaxCapacity=2
        )
