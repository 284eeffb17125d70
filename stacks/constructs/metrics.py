"""The metrics that alarms and dashboards are made of, named as the services publish them."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from catalog.model import ModelSpec
from catalog.names import Names

PERIOD = cdk.Duration.minutes(1)

VARIANT = "AllTraffic"
"""The one production variant of every endpoint: blue/green deployment requires its name to stay."""


@dataclass(frozen=True)
class ModelMetrics:
    """A model's vital signs; the same four questions of a Lambda function and of a SageMaker endpoint."""

    invocations: cloudwatch.Metric
    errors: dict[str, cloudwatch.Metric]
    latency: list[cloudwatch.Metric]
    latency_unit: str


def api(name: str, api_name: str, stage: str, *, statistic: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/ApiGateway",
        metric_name=name,
        dimensions_map={"ApiName": api_name, "Stage": stage},
        statistic=statistic,
        period=PERIOD,
    )


def model(spec: ModelSpec, names: Names) -> ModelMetrics:
    """Metrics of a model's own target: AWS/Lambda (milliseconds) or AWS/SageMaker (microseconds).

    Errors are the platform's, never the client's: a function counts its 5xx answers itself, since for
    Lambda an answer is a success, and SageMaker's InvocationModelErrors would count a client's 400 too.
    """

    def metric(namespace: str, dimensions: dict[str, str], name: str, statistic: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=namespace,
            metric_name=name,
            dimensions_map=dimensions,
            statistic=statistic,
            period=PERIOD,
        )

    if spec.target == "cpu":
        namespace, dimensions = "AWS/Lambda", {"FunctionName": names.model(spec.name)}
        errors = {
            "Crashes": metric(namespace, dimensions, "Errors", "Sum"),
            "Throttles": metric(namespace, dimensions, "Throttles", "Sum"),
            "ServerErrors": metric(names.metrics_namespace, {"Model": spec.name}, "Errors", "Sum"),
        }
        latency, unit = "Duration", "ms"
    else:
        namespace, dimensions = (
            "AWS/SageMaker",
            {"EndpointName": names.model(spec.name), "VariantName": VARIANT},
        )
        errors = {"ServerErrors": metric(namespace, dimensions, "Invocation5XXErrors", "Sum")}
        latency, unit = "ModelLatency", "µs"
    return ModelMetrics(
        invocations=metric(namespace, dimensions, "Invocations", "Sum"),
        errors=errors,
        latency=[metric(namespace, dimensions, latency, quantile) for quantile in ("p50", "p99")],
        latency_unit=unit,
    )
