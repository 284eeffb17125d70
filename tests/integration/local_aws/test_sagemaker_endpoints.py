"""Endpoints as running processes: how they come up, answer, survive, change over and fail."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any

import botocore.exceptions
import pytest

from tests.integration.local_aws.embedded import Embedded, unique, until
from tests.integration.local_aws.shapes import violations


def model_error(aws: Embedded, endpoint: str, wish: dict[str, Any]) -> dict[str, Any]:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        aws.ask(endpoint, wish)
    response: dict[str, Any] = caught.value.response
    return response


# Invoking


def test_an_invocation_reaches_the_container_with_the_headers_of_the_api_only(
    aws: Embedded, endpoint: str
) -> None:
    runtime = aws.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(
        EndpointName=endpoint,
        Body=b"{}",
        ContentType="application/json",
        Accept="application/json",
        CustomAttributes="op=metadata",
        InferenceId="request-1",
    )
    seen = aws.ask(
        endpoint, InferenceId="request-1", CustomAttributes="op=metadata", Accept="application/json"
    )

    assert violations("sagemaker-runtime", "InvokeEndpoint", {**answer, "Body": b""}) == []
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("application/json", "AllTraffic")
    assert answer["CustomAttributes"] == "answered"
    assert "x-internal" not in answer["ResponseMetadata"]["HTTPHeaders"]
    assert seen["headers"].keys() <= {
        "host",
        "content-length",
        "content-type",
        "accept",
        "x-amzn-sagemaker-custom-attributes",
        "x-amzn-sagemaker-inference-id",
    }
    assert seen["headers"]["x-amzn-sagemaker-inference-id"] == "request-1"


def test_the_container_sees_its_model_and_nothing_of_the_server(aws: Embedded, endpoint: str) -> None:
    seen = aws.ask(endpoint)
    assert seen["files"] == ["manifest.json", "model.onnx"]
    assert seen["writable"] is False
    assert {"SAGEMAKER_BIND_TO_PORT", "MODEL_DIR", "VERSION"} <= set(seen["environment"])
    assert not [name for name in seen["environment"] if name.startswith("AWS_") and name != "AWS_REGION"]


@pytest.mark.parametrize(
    ("status", "code"), [(400, "CLIENT_ERROR_FROM_MODEL"), (500, "INTERNAL_FAILURE_FROM_MODEL")]
)
def test_an_error_of_the_container_is_a_model_error_with_its_status_and_text(
    aws: Embedded, endpoint: str, status: int, code: str
) -> None:
    response = model_error(aws, endpoint, {"status": status, "text": "the tensor x"})
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["Error"]["Code"] == "ModelError"
    assert response["OriginalStatusCode"] == status
    assert response["OriginalMessage"] == "the tensor x"
    assert response["LogStreamArn"].endswith(f":log-group:/aws/sagemaker/Endpoints/{endpoint}")
    assert f"error ({status}) from primary" in response["Error"]["Message"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"EndpointName": "nowhere"}, "Endpoint nowhere of account 000000000000 not found."),
        ({"TargetVariant": "Other"}, "Variant Other not found for endpoint {endpoint}."),
        ({"TargetModel": "other.tar.gz"}, "X-Amzn-SageMaker-Target-Model"),
        ({"InferenceComponentName": "part"}, "X-Amzn-SageMaker-Inference-Component"),
        ({"InferenceId": "i" * 65}, "X-Amzn-SageMaker-Inference-Id must have at most 64 characters"),
        ({"Body": b"x" * 6_291_457}, "less than or equal to 6291456"),
    ],
)
def test_requests_that_no_container_gets(
    aws: Embedded, endpoint: str, parameters: dict[str, Any], message: str
) -> None:
    runtime = aws.client("sagemaker-runtime")
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        runtime.invoke_endpoint(**{"EndpointName": endpoint, "Body": b"{}", **parameters})
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert message.format(endpoint=endpoint) in caught.value.response["Error"]["Message"]


def test_six_megabytes_pass(aws: Embedded, endpoint: str) -> None:
    answer = aws.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, Body=b"x" * 6_291_456, ContentType="application/octet-stream"
    )
    assert b'"bytes": 6291456' in answer["Body"].read()


def test_invocations_are_counted_and_the_container_is_logged(aws: Embedded, endpoint: str) -> None:
    aws.ask(endpoint)
    model_error(aws, endpoint, {"status": 404})
    cloudwatch, logs = aws.client("cloudwatch"), aws.client("logs")
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"}]
    listed = cloudwatch.list_metrics(Namespace="AWS/SageMaker", Dimensions=dimensions)["Metrics"]
    assert {metric["MetricName"] for metric in listed} >= {
        "Invocations",
        "ModelLatency",
        "Invocation4XXErrors",
        "Invocation5XXErrors",
        "ConcurrentRequestsPerModel",
    }
    group = f"/aws/sagemaker/Endpoints/{endpoint}"
    stream = logs.describe_log_streams(logGroupName=group)["logStreams"][0]["logStreamName"]
    assert stream.startswith("AllTraffic/i-")
    events = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)["events"]
    assert events[0]["message"] == "starting with nothing special"


# Coming up


@pytest.mark.parametrize(
    ("environment", "timeout", "reason"),
    [
        ({"BEHAVIOUR": "exit"}, 60, "the model cannot be loaded: no such tensor"),
        ({"BEHAVIOUR": "exit"}, 60, "did not pass the ping health check"),
    ],
)
def test_a_container_that_does_not_come_up_fails_the_endpoint_with_its_last_words(
    aws: Embedded, role: str, environment: dict[str, str], timeout: int, reason: str
) -> None:
    endpoint = aws.endpoint(aws.config(aws.model(role, **environment), timeout=timeout))
    described = aws.settled(endpoint)
    assert described["EndpointStatus"] == "Failed"
    assert reason in described["FailureReason"]
    assert violations("sagemaker", "DescribeEndpoint", described) == []
    with pytest.raises(botocore.exceptions.ClientError, match="not found"):
        aws.ask(endpoint)


def test_an_image_that_cannot_be_run_fails_the_endpoint_by_name(aws: Embedded, role: str) -> None:
    image = "000000000000.dkr.ecr.us-east-1.amazonaws.com/other:1"
    described = aws.settled(aws.endpoint(aws.config(aws.model(role, image=image))))
    assert described["EndpointStatus"] == "Failed"
    assert f"The image {image} cannot be run" in described["FailureReason"]


def test_an_endpoint_can_be_deleted_while_it_comes_up(aws: Embedded, role: str) -> None:
    sagemaker = aws.client("sagemaker")
    endpoint = aws.endpoint(aws.config(aws.model(role, START_SECONDS="60")))
    assert sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "Creating"
    sagemaker.delete_endpoint(EndpointName=endpoint)
    until(lambda: not sagemaker.list_endpoints(NameContains=endpoint)["Endpoints"], timeout=15)


# Surviving


def test_a_container_that_is_killed_is_replaced(aws: Embedded, role: str) -> None:
    endpoint = aws.endpoint(aws.config(aws.model(role)))
    aws.settled(endpoint)
    first, runtime = aws.ask(endpoint)["pid"], aws.client("sagemaker-runtime")

    os.kill(first, signal.SIGKILL)

    def answers() -> Any:
        # While it is being replaced there is none to answer.
        with contextlib.suppress(runtime.exceptions.ServiceUnavailable, runtime.exceptions.ModelError):
            return aws.ask(endpoint)["pid"]
        return None

    assert until(answers, timeout=20) != first
    assert aws.settled(endpoint)["EndpointStatus"] == "InService"


def test_a_container_that_dies_of_a_request_is_a_model_error_without_status(aws: Embedded, role: str) -> None:
    endpoint = aws.endpoint(aws.config(aws.model(role)))
    aws.settled(endpoint)
    response = model_error(aws, endpoint, {"die": True})
    assert (response["Error"]["Code"], response["OriginalStatusCode"]) == ("ModelError", 0)


# Changing over


def test_an_update_serves_from_the_old_container_until_the_new_one_is_healthy(
    aws: Embedded, role: str
) -> None:
    sagemaker = aws.client("sagemaker")
    endpoint = aws.endpoint(aws.config(aws.model(role, VERSION="1")))
    aws.settled(endpoint)
    old = aws.ask(endpoint)
    config = aws.config(aws.model(role, VERSION="2", START_SECONDS="1.5"))

    sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)

    during: list[str] = []
    while sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "Updating":
        during.append(aws.ask(endpoint)["version"])
    assert during[0] == "1"
    assert during == sorted(during)
    described = aws.settled(endpoint)
    assert described["EndpointConfigName"] == config
    assert "FailureReason" not in described
    assert aws.ask(endpoint)["version"] == "2"
    with pytest.raises(ProcessLookupError):
        os.kill(old["pid"], 0)


def test_an_update_does_not_cut_off_what_is_being_answered(aws: Embedded, role: str) -> None:
    endpoint = aws.endpoint(aws.config(aws.model(role, VERSION="1")))
    aws.settled(endpoint)
    config = aws.config(aws.model(role, VERSION="2"))
    answered: list[str] = []
    slow = threading.Thread(target=lambda: answered.append(aws.ask(endpoint, {"sleep": 3})["version"]))
    slow.start()
    until(lambda: _in_flight(aws, endpoint))

    aws.client("sagemaker").update_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    until(lambda: aws.ask(endpoint)["version"] == "2")
    slow.join()

    assert answered == ["1"]


def _in_flight(aws: Embedded, endpoint: str) -> bool:
    """Whether an invocation has begun: its concurrency is recorded when it does."""
    listed = aws.client("cloudwatch").list_metrics(
        Namespace="AWS/SageMaker",
        MetricName="ConcurrentRequestsPerModel",
        Dimensions=[{"Name": "EndpointName", "Value": endpoint}],
    )
    return bool(listed["Metrics"])


def test_an_update_that_never_gets_healthy_leaves_the_old_one_serving(aws: Embedded, role: str) -> None:
    sagemaker = aws.client("sagemaker")
    first = aws.config(aws.model(role, VERSION="1"))
    endpoint = aws.endpoint(first)
    aws.settled(endpoint)

    config = aws.config(aws.model(role, BEHAVIOUR="exit"))
    sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)

    described = aws.settled(endpoint)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", first)
    assert "did not pass the ping health check" in described["FailureReason"]
    assert aws.ask(endpoint)["version"] == "1"


def test_an_update_under_way_refuses_another(aws: Embedded, role: str) -> None:
    sagemaker = aws.client("sagemaker")
    endpoint = aws.endpoint(aws.config(aws.model(role)))
    aws.settled(endpoint)
    config = aws.config(aws.model(role, START_SECONDS="1"))
    sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    with pytest.raises(botocore.exceptions.ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    aws.settled(endpoint)


def test_an_alarm_during_the_update_brings_the_old_version_back(aws: Embedded, role: str) -> None:
    sagemaker, cloudwatch = aws.client("sagemaker"), aws.client("cloudwatch")
    alarm = unique("alarm")
    cloudwatch.put_metric_alarm(
        AlarmName=alarm,
        Namespace="Test",
        MetricName=alarm,
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
    )
    first = aws.config(aws.model(role, VERSION="1"))
    endpoint = aws.endpoint(first)
    aws.settled(endpoint)
    cloudwatch.put_metric_data(Namespace="Test", MetricData=[{"MetricName": alarm, "Value": 5}])
    until(lambda: cloudwatch.describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]["StateValue"] == "ALARM")

    canary = {
        "Type": "CANARY",
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10},
        "WaitIntervalInSeconds": 600,
    }
    sagemaker.update_endpoint(
        EndpointName=endpoint,
        EndpointConfigName=aws.config(aws.model(role, VERSION="2")),
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": canary},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": alarm}]},
        },
    )

    described = aws.settled(endpoint)
    assert described["EndpointConfigName"] == first
    assert f"alarm {alarm} was in ALARM" in described["FailureReason"]
    assert aws.ask(endpoint)["version"] == "1"


def test_a_canary_gets_its_share_before_the_rest(aws: Embedded, role: str) -> None:
    endpoint = aws.endpoint(aws.config(aws.model(role, VERSION="1")))
    aws.settled(endpoint)
    canary = {
        "Type": "CANARY",
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
        "WaitIntervalInSeconds": 600,
    }
    aws.client("sagemaker").update_endpoint(
        EndpointName=endpoint,
        EndpointConfigName=aws.config(aws.model(role, VERSION="2")),
        DeploymentConfig={"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": canary}},
    )
    until(lambda: aws.ask(endpoint)["version"] == "2")
    during = {aws.ask(endpoint)["version"] for _ in range(20)}
    aws.settled(endpoint)
    assert during == {"1", "2"}
    assert {aws.ask(endpoint)["version"] for _ in range(10)} == {"2"}


def test_weights_and_counts_change_in_place(aws: Embedded, role: str) -> None:
    sagemaker = aws.client("sagemaker")
    endpoint = aws.endpoint(aws.config(aws.model(role)))
    aws.settled(endpoint)
    process = aws.ask(endpoint)["pid"]
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=endpoint,
        DesiredWeightsAndCapacities=[
            {"VariantName": "AllTraffic", "DesiredWeight": 2, "DesiredInstanceCount": 3}
        ],
    )
    (variant,) = aws.settled(endpoint)["ProductionVariants"]
    assert (variant["CurrentWeight"], variant["CurrentInstanceCount"]) == (2.0, 3)
    # One process stands for them all: LOCAL_AWS_MAX_INSTANCES is 1.
    assert aws.ask(endpoint)["pid"] == process

    config = aws.config(aws.model(role, VERSION="2"))
    sagemaker.update_endpoint(
        EndpointName=endpoint, EndpointConfigName=config, RetainAllVariantProperties=True
    )
    (variant,) = aws.settled(endpoint)["ProductionVariants"]
    assert (variant["CurrentWeight"], variant["CurrentInstanceCount"]) == (2.0, 3)
