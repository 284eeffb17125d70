"""Alarms as CloudWatch evaluates them: dimensions, M of N, missing data, metric math, composites."""

from __future__ import annotations

import datetime
import json
import time
from typing import Any

import botocore.exceptions
import pytest

from tests.integration.local_aws.embedded import Embedded, unique

METRIC = {
    "Statistic": "Sum",
    "Period": 60,
    "Threshold": 1,
    "ComparisonOperator": "GreaterThanOrEqualToThreshold",
}


def put(aws: Embedded, namespace: str, name: str, value: float, age: float = 0, **dimensions: str) -> None:
    """A data point of `age` seconds ago."""
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age)
    listed = [{"Name": key, "Value": one} for key, one in dimensions.items()]
    data = {"MetricName": name, "Value": value, "Timestamp": at, "Dimensions": listed}
    aws.client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=[data])


def test_metrics_in_log_lines_are_metrics(aws: Embedded) -> None:
    logs, namespace = aws.client("logs"), unique("n")
    logs.create_log_group(logGroupName=namespace)
    logs.create_log_stream(logGroupName=namespace, logStreamName="one")
    now = int(time.time() * 1000)
    definition = {"Namespace": namespace, "Dimensions": [["model"], []], "Metrics": [{"Name": "Tensors"}]}
    lines = [
        json.dumps(
            {"_aws": {"Timestamp": now, "CloudWatchMetrics": [definition]}, "model": "m", "Tensors": [2, 3]}
        ),
        '{"_aws": "not in the format"}',
        "plain text",
    ]
    events = [{"timestamp": now, "message": line} for line in lines]
    logs.put_log_events(logGroupName=namespace, logStreamName="one", logEvents=events)

    cloudwatch, dimensions = aws.client("cloudwatch"), [{"Name": "model", "Value": "m"}]
    listed = cloudwatch.list_metrics(Namespace=namespace)["Metrics"]
    assert sorted(len(metric["Dimensions"]) for metric in listed) == [0, 1]
    statistics = cloudwatch.get_metric_statistics(
        Namespace=namespace,
        MetricName="Tensors",
        Dimensions=dimensions,
        StartTime=time.time() - 300,
        EndTime=time.time() + 60,
        Period=300,
        Statistics=["Sum"],
    )
    assert sum(point["Sum"] for point in statistics["Datapoints"]) == 5


def state(aws: Embedded, **alarm: Any) -> str:
    """The state that an alarm of these settings is in at once."""
    cloudwatch, name = aws.client("cloudwatch"), unique("alarm")
    cloudwatch.put_metric_alarm(AlarmName=name, **alarm)
    (described,) = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    found: str = described["StateValue"]
    return found


def test_only_the_metric_with_exactly_these_dimensions_counts(aws: Embedded) -> None:
    namespace = unique("n")
    put(aws, namespace, "errors", 9, EndpointName="other")
    dimensions = [{"Name": "EndpointName", "Value": "mine"}]
    alarm = {**METRIC, "Namespace": namespace, "MetricName": "errors", "EvaluationPeriods": 1}
    assert state(aws, **alarm, Dimensions=dimensions) == "INSUFFICIENT_DATA"
    put(aws, namespace, "errors", 9, EndpointName="mine")
    assert state(aws, **alarm, Dimensions=dimensions) == "ALARM"


@pytest.mark.parametrize(("ages", "expected"), [([0, 60, 120], "ALARM"), ([0, 60], "OK")])
def test_so_many_data_points_must_breach(aws: Embedded, ages: list[float], expected: str) -> None:
    namespace = unique("n")
    for age in (0, 60, 120, 180, 240):
        put(aws, namespace, "errors", 1 if age in ages else 0, age=age + 5)
    alarm = {**METRIC, "Namespace": namespace, "MetricName": "errors"}
    assert state(aws, **alarm, EvaluationPeriods=5, DatapointsToAlarm=3) == expected


@pytest.mark.parametrize(
    ("treatment", "expected"),
    [
        ("missing", "INSUFFICIENT_DATA"),
        ("notBreaching", "OK"),
        ("breaching", "ALARM"),
        ("ignore", "INSUFFICIENT_DATA"),
    ],
)
def test_missing_data_is_what_the_alarm_takes_it_for(aws: Embedded, treatment: str, expected: str) -> None:
    alarm = {**METRIC, "Namespace": unique("n"), "MetricName": "errors", "EvaluationPeriods": 2}
    assert state(aws, **alarm, TreatMissingData=treatment) == expected


def math(namespace: str, expression: str) -> list[dict[str, Any]]:
    def of(name: str) -> dict[str, Any]:
        stat = {"Metric": {"Namespace": namespace, "MetricName": name}, "Period": 60, "Stat": "Sum"}
        return {"Id": name, "MetricStat": stat, "ReturnData": False}

    return [{"Id": "rate", "Expression": expression, "ReturnData": True}, of("errors"), of("requests")]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("100*errors/requests", "ALARM"),
        ("errors/requests", "OK"),
        ("IF(requests > 100, 100*errors/requests, 0)", "OK"),
        ("SUM(METRICS())", "ALARM"),
        ("SUM([errors, -requests]) + 18", "ALARM"),
        ("errors/(requests - requests)", "INSUFFICIENT_DATA"),
    ],
)
def test_metric_math_is_evaluated(aws: Embedded, expression: str, expected: str) -> None:
    namespace = unique("n")
    put(aws, namespace, "errors", 2)
    put(aws, namespace, "requests", 10)
    alarm = {"Threshold": 10, "ComparisonOperator": "GreaterThanOrEqualToThreshold", "EvaluationPeriods": 1}
    assert state(aws, **alarm, Metrics=math(namespace, expression)) == expected


@pytest.mark.parametrize(
    "expression", ["RATE(errors)", "errors +", "unknown * 2", "ANOMALY_DETECTION_BAND(errors)"]
)
def test_an_expression_that_cannot_be_evaluated_is_refused_by_name(aws: Embedded, expression: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        state(
            aws,
            Threshold=1,
            ComparisonOperator="GreaterThanThreshold",
            EvaluationPeriods=1,
            Metrics=math("n", expression),
        )
    assert expression in caught.value.response["Error"]["Message"]
