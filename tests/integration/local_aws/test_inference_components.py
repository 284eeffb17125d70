"""Inference components: copies that come and go, are replaced in batches, and sleep at zero."""

from __future__ import annotations

import json
import re
from typing import Any

import botocore.exceptions
import pytest

from tests.integration.local_aws.embedded import OPERATE, Embedded, unique, until
from tests.integration.local_aws.shapes import violations

ROLLING = {
    "RollingUpdatePolicy": {
        "MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1},
        "WaitIntervalInSeconds": 600,
    }
}


def specification(model: str) -> dict[str, Any]:
    needs = {"MinMemoryRequiredInMb": 1024, "NumberOfAcceleratorDevicesRequired": 1}
    return {"ModelName": model, "ComputeResourceRequirements": needs}


def variant(**more: Any) -> dict[str, Any]:
    scaling = {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2}
    return {
        "VariantName": "AllTraffic",
        "InstanceType": "ml.g5.xlarge",
        "InitialInstanceCount": 1,
        "ManagedInstanceScaling": scaling,
        **more,
    }


@pytest.fixture(scope="module")
def host(aws: Embedded, role: str) -> str:
    """An endpoint without a model of its own."""
    name = unique("host")
    aws.client("sagemaker").create_endpoint_config(
        EndpointConfigName=name, ExecutionRoleArn=role, ProductionVariants=[variant()]
    )
    aws.client("sagemaker").create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert aws.settled(name)["EndpointStatus"] == "InService"
    return name


def make(aws: Embedded, host: str, model: str, copies: int = 1) -> str:
    """The name of a new component, not waited for."""
    name = unique("part")
    aws.client("sagemaker").create_inference_component(
        InferenceComponentName=name,
        EndpointName=host,
        Specification=specification(model),
        RuntimeConfig={"CopyCount": copies},
    )
    return name


def settled(aws: Embedded, component: str) -> dict[str, Any]:
    def done() -> Any:
        found = aws.client("sagemaker").describe_inference_component(InferenceComponentName=component)
        return found if found["InferenceComponentStatus"] in ("InService", "Failed") else None

    found: dict[str, Any] = until(done)
    return found


def delete(aws: Embedded, component: str) -> None:
    sagemaker = aws.client("sagemaker")
    sagemaker.delete_inference_component(InferenceComponentName=component)
    until(lambda: not sagemaker.list_inference_components(NameContains=component)["InferenceComponents"])


def refusal(call: Any, **parameters: Any) -> str:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**parameters)
    return str(caught.value)


def test_a_component_is_made_asked_replaced_in_batches_and_deleted(
    aws: Embedded, role: str, host: str
) -> None:
    sagemaker = aws.client("sagemaker")
    component = make(aws, host, aws.model(role, VERSION="1"), copies=2)
    described = settled(aws, component)
    assert described["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
    assert aws.ask(host, InferenceComponentName=component)["version"] == "1"
    (hosting,) = sagemaker.describe_endpoint(EndpointName=host)["ProductionVariants"]
    assert hosting["CurrentInstanceCount"] == 2

    sagemaker.update_inference_component(
        InferenceComponentName=component,
        Specification=specification(aws.model(role, VERSION="2")),
        DeploymentConfig=ROLLING,
    )
    assert "in-progress" in refusal(
        sagemaker.update_inference_component_runtime_config,
        InferenceComponentName=component,
        DesiredRuntimeConfig={"CopyCount": 1},
    )
    assert "while it is in state Updating" in refusal(
        sagemaker.delete_inference_component, InferenceComponentName=component
    )
    until(lambda: aws.ask(host, InferenceComponentName=component)["version"] == "2")
    during = {aws.ask(host, InferenceComponentName=component)["version"] for _ in range(20)}
    described = settled(aws, component)
    assert during == {"1", "2"}
    assert {aws.ask(host, InferenceComponentName=component)["version"] for _ in range(5)} == {"2"}

    answers = {
        "DescribeInferenceComponent": described,
        "ListInferenceComponents": sagemaker.list_inference_components(EndpointNameEquals=host),
        "DescribeEndpoint": sagemaker.describe_endpoint(EndpointName=host),
    }
    assert [
        fault for name, answer in answers.items() for fault in violations("sagemaker", name, answer)
    ] == []
    dimension = [{"Name": "InferenceComponentName", "Value": component}]
    cloudwatch, logs = aws.client("cloudwatch"), aws.client("logs")
    listed = {one["MetricName"] for one in cloudwatch.list_metrics(Dimensions=dimension)["Metrics"]}
    assert {"Invocations", "InvocationsPerCopy", "ConcurrentRequestsPerCopy", "ModelLatency"} <= listed
    assert logs.describe_log_streams(logGroupName=f"/aws/sagemaker/InferenceComponents/{component}")

    delete(aws, component)
    assert "not found" in refusal(aws.ask, endpoint=host, InferenceComponentName=component)


def test_a_rolling_update_is_rolled_back_by_an_alarm_and_by_a_model_that_does_not_start(
    aws: Embedded, role: str, host: str
) -> None:
    sagemaker, alarm = aws.client("sagemaker"), unique("alarm")
    component = make(aws, host, aws.model(role, VERSION="1"))
    settled(aws, component)
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName=alarm,
        Namespace="Test",
        MetricName=alarm,
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="ignore",
    )
    aws.client("cloudwatch").set_alarm_state(AlarmName=alarm, StateValue="ALARM", StateReason="test")

    def update(model: str) -> str:
        sagemaker.update_inference_component(
            InferenceComponentName=component,
            Specification=specification(model),
            DeploymentConfig={**ROLLING, "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]}},
        )
        reason: str = settled(aws, component)["FailureReason"]
        assert aws.ask(host, InferenceComponentName=component)["version"] == "1"
        return reason

    assert f"alarm {alarm} was in ALARM" in update(aws.model(role, VERSION="2"))
    assert "no such tensor" in update(aws.model(role, VERSION="3", BEHAVIOUR="exit"))
    delete(aws, component)


def test_a_component_that_sleeps_is_woken_by_the_failure_of_a_request_and_falls_asleep_again(
    aws: Embedded, role: str, host: str
) -> None:
    scaling, cloudwatch, sagemaker = map(aws.client, ("application-autoscaling", "cloudwatch", "sagemaker"))
    component = make(aws, host, aws.model(role), copies=0)
    assert settled(aws, component)["RuntimeConfig"]["CurrentCopyCount"] == 0
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"inference-component/{component}",
        "ScalableDimension": "sagemaker:inference-component:DesiredCopyCount",
    }
    scaling.register_scalable_target(**target, MinCapacity=0, MaxCapacity=2)
    scaling.put_scaling_policy(
        **target,
        PolicyName="follow",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 4.0,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
            },
        },
    )
    wake = scaling.put_scaling_policy(
        **target,
        PolicyName="wake",
        PolicyType="StepScaling",
        StepScalingPolicyConfiguration={
            "AdjustmentType": "ChangeInCapacity",
            "Cooldown": 600,
            "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
        },
    )
    cloudwatch.put_metric_alarm(
        AlarmName=unique("alarm"),
        AlarmActions=[wake["PolicyARN"]],
        Namespace="AWS/SageMaker",
        MetricName="NoCapacityInvocationFailures",
        Dimensions=[{"Name": "InferenceComponentName", "Value": component}],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
    )

    with pytest.raises(botocore.exceptions.ClientError) as caught:
        aws.ask(host, InferenceComponentName=component)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert caught.value.response["Error"]["Message"].startswith("Inference Component has no capacity")

    def copies() -> int:
        found = sagemaker.describe_inference_component(InferenceComponentName=component)
        return int(found["RuntimeConfig"]["CurrentCopyCount"])

    until(lambda: copies() == 1)
    assert aws.ask(host, InferenceComponentName=component)
    until(lambda: copies() == 0)
    activities = scaling.describe_scaling_activities(
        ServiceNamespace="sagemaker", ResourceId=target["ResourceId"]
    )
    assert violations("application-autoscaling", "DescribeScalingActivities", activities) == []
    assert [one["Description"] for one in activities["ScalingActivities"]] == [
        "Setting desired copy count to 0.",
        "Setting desired copy count to 1.",
    ]
    settled(aws, component)
    delete(aws, component)


def test_endpoints_of_components_and_of_models_are_not_mixed_up(
    aws: Embedded, role: str, host: str, endpoint: str
) -> None:
    sagemaker, model = aws.client("sagemaker"), aws.model(role)
    assert "Inference Component Name header is required" in refusal(aws.ask, endpoint=host)
    assert "Inference Components are not supported in this Endpoint" in refusal(
        sagemaker.create_inference_component,
        InferenceComponentName=unique("part"),
        EndpointName=endpoint,
        Specification=specification(model),
    )
    assert "either models or inference components" in refusal(
        sagemaker.update_endpoint, EndpointName=host, EndpointConfigName=aws.config(model)
    )
    assert "ExecutionRoleArn is required" in refusal(
        sagemaker.create_endpoint_config, EndpointConfigName=unique("c"), ProductionVariants=[variant()]
    )


def test_a_component_needs_its_endpoints_role_and_its_caller_a_right_on_it(
    aws: Embedded, role: str, host: str
) -> None:
    sagemaker, name = aws.client("sagemaker"), unique("poor")
    # Everything but the right to read the model data.
    poor = aws.role(*OPERATE)
    sagemaker.create_endpoint_config(
        EndpointConfigName=name, ExecutionRoleArn=poor, ProductionVariants=[variant()]
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    aws.settled(name)
    # The model's own role may read them, but acts for nothing here.
    failed = settled(aws, make(aws, name, aws.model(role)))
    assert failed["InferenceComponentStatus"] == "Failed"
    assert "Failed to download model data" in failed["FailureReason"]
    delete(aws, failed["InferenceComponentName"])

    component = make(aws, host, aws.model(role))
    settled(aws, component)
    on_endpoint = {
        "Effect": "Allow",
        "Action": "sagemaker:InvokeEndpoint",
        "Resource": f"arn:aws:sagemaker:us-east-1:000000000000:endpoint/{host}",
    }
    on_component = {
        **on_endpoint,
        "Resource": re.sub("endpoint/.*", f"inference-component/{component}", on_endpoint["Resource"]),
    }
    request = {"EndpointName": host, "InferenceComponentName": component, "Body": json.dumps({})}
    few, both = aws.user(on_endpoint), aws.user(on_endpoint, on_component)
    assert f"inference-component/{component}" in refusal(
        aws.client("sagemaker-runtime", few).invoke_endpoint, **request
    )
    assert aws.client("sagemaker-runtime", both).invoke_endpoint(**request)["Body"].read()
    delete(aws, component)


def test_a_stack_deletes_the_component_before_its_endpoint(aws: Embedded, role: str) -> None:
    stack = unique("stack")

    def template(version: str) -> dict[str, Any]:
        model = aws.model(role, VERSION=version)
        return {
            "Resources": {
                "Config": {
                    "Type": "AWS::SageMaker::EndpointConfig",
                    "Properties": {"ExecutionRoleArn": role, "ProductionVariants": [variant()]},
                },
                "Endpoint": {
                    "Type": "AWS::SageMaker::Endpoint",
                    "Properties": {
                        "EndpointName": stack,
                        "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                    },
                },
                "Component": {
                    "Type": "AWS::SageMaker::InferenceComponent",
                    "Properties": {
                        "InferenceComponentName": stack,
                        "EndpointName": {"Fn::GetAtt": ["Endpoint", "EndpointName"]},
                        "VariantName": "AllTraffic",
                        "Specification": specification(model),
                        "RuntimeConfig": {"CopyCount": "1"},
                        "DeploymentConfig": ROLLING,
                    },
                },
            }
        }

    assert aws.deploy(stack, template("1"))["StackStatus"] == "CREATE_COMPLETE", aws.failures(stack)
    assert aws.ask(stack, InferenceComponentName=stack)["version"] == "1"
    assert aws.deploy(stack, template("2"))["StackStatus"] == "UPDATE_COMPLETE", aws.failures(stack)
    assert aws.ask(stack, InferenceComponentName=stack)["version"] == "2"
    aws.delete(stack)
    sagemaker = aws.client("sagemaker")
    assert sagemaker.list_inference_components(NameContains=stack)["InferenceComponents"] == []
    assert sagemaker.list_endpoints(NameContains=stack)["Endpoints"] == []
