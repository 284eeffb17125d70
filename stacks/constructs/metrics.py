"""The metrics that alarms and dashboards are made of, named as the services publish them."""

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from catalog.model import CpuModel, GpuModel, ModelSpec
from catalog.names import Names

PERIOD = cdk.Duration.minutes(1)

THROTTLED = "Throttled"
"""What the access log's metric filter counts answers of 429 as."""

INSTANCES, COPIES = "/aws/sagemaker/Endpoints", "/aws/sagemaker/InferenceComponents"
"""Namespaces of what an endpoint's instances, and a component's copies, measure about themselves."""

VARIANT = "AllTraffic"
"""The one production variant of every endpoint: blue/green deployment requires its name to stay."""


@dataclass(frozen=True)
class ModelMetrics:
    """A model's vital signs; the same four questions of a Lambda function and of a SageMaker endpoint.

    `errors` are by the name that their alarm ends in.
    """

    invocations: cloudwatch.Metric
    errors: dict[str, cloudwatch.Metric | cloudwatch.MathExpression]
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


def route(
    name: str, names: Names, spec: ModelSpec, *, statistic: str, period: cdk.Duration = PERIOD
) -> cloudwatch.Metric:
    """A metric of a model's inference route, as its clients see it; the stage publishes them per method."""
    return cloudwatch.Metric(
        namespace="AWS/ApiGateway",
        metric_name=name,
        dimensions_map={
            "ApiName": names.prefix,
            "Stage": names.environment,
            "Resource": f"/v2/models/{spec.name}/infer",
            "Method": "POST",
        },
        statistic=statistic,
        period=period,
    )


def throttled(names: Names) -> cloudwatch.Metric:
    """Requests answered 429, counted in the access log: API Gateway counts them among all 4XX."""
    return counted(names, THROTTLED)


def counted(names: Names, name: str) -> cloudwatch.Metric:
    """What a metric filter counts in log lines, in five minutes."""
    return cloudwatch.Metric(
        namespace=names.metrics_namespace,
        metric_name=name,
        statistic="Sum",
        period=cdk.Duration.minutes(5),
    )


def rejected(spec: ModelSpec, names: Names) -> cloudwatch.Metric:
    """Whether a release rejects the version that SageMaker is deploying."""
    return cloudwatch.Metric(
        namespace=names.metrics_namespace,
        metric_name="ReleaseRejected",
        dimensions_map={"Model": spec.name},
        statistic="Sum",
        period=PERIOD,
    )


def waiting(queue_name: str) -> cloudwatch.Metric:
    """Messages that lie in a queue, at most, in a minute."""
    return _of_queue("ApproximateNumberOfMessagesVisible", queue_name)


def oldest(queue_name: str) -> cloudwatch.Metric:
    """For how long the oldest message of a queue has lain there, in seconds."""
    return _of_queue("ApproximateAgeOfOldestMessage", queue_name)


def _of_queue(name: str, queue_name: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/SQS",
        metric_name=name,
        dimensions_map={"QueueName": queue_name},
        statistic="Maximum",
        period=PERIOD,
    )


def probe(name: str, names: Names, period: cdk.Duration) -> cloudwatch.Metric:
    """The probe's `Failures`, the steps of a run that failed, or `LatencyMs`: of the worst in a period."""
    return cloudwatch.Metric(
        namespace=names.metrics_namespace,
        metric_name=f"Probe{name}",
        statistic="Maximum",
        period=period,
    )


def drift(name: str, spec: ModelSpec, names: Names) -> cloudwatch.Metric:
    """What comparisons of a model's captures with its baseline found: `Drifted`, how much has drifted;
    `DriftLargestPsi`; `DriftRows`; `DriftMisfits` and `Accuracy`, in percent. One value each comparison.
    """
    return cloudwatch.Metric(
        namespace=names.metrics_namespace,
        metric_name=name,
        dimensions_map={"Model": spec.name},
        statistic="Maximum",
        period=cdk.Duration.hours(1),
    )


def model(spec: ModelSpec, names: Names) -> ModelMetrics:
    """Metrics of a model's own target: AWS/Lambda (milliseconds) or AWS/SageMaker (microseconds).

    Errors are the platform's, never the client's: a function counts its 5xx answers itself, since for
    Lambda an answer is a success; SageMaker's InvocationModelErrors counts all but 2xx, also answers that
    never came, so the client's 4xx are taken off it.
    """

    def metric(namespace: str, dimensions: dict[str, str], name: str, statistic: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=namespace,
            metric_name=name,
            dimensions_map=dimensions,
            statistic=statistic,
            period=PERIOD,
        )

    errors: dict[str, cloudwatch.Metric | cloudwatch.MathExpression]
    if spec.target == "cpu":
        namespace, dimensions = "AWS/Lambda", {"FunctionName": names.model(spec.name, spec.home)}
        errors = {
            "crashes": metric(namespace, dimensions, "Errors", "Sum"),
            "throttles": metric(namespace, dimensions, "Throttles", "Sum"),
            "server-errors": metric(names.metrics_namespace, {"Model": spec.name}, "Errors", "Sum"),
        }
        latency, unit = "Duration", "ms"
    else:
        namespace, dimensions = "AWS/SageMaker", _server(spec, names)
        errors = {
            "server-errors": metric(namespace, dimensions, "Invocation5XXErrors", "Sum"),
            "model-errors": cloudwatch.MathExpression(
                expression="failed - FILL(clients, 0)",
                using_metrics={
                    "failed": metric(namespace, dimensions, "InvocationModelErrors", "Sum"),
                    "clients": metric(namespace, dimensions, "Invocation4XXErrors", "Sum"),
                },
                period=PERIOD,
                label="Model errors without the clients'",
            ),
        }
        latency, unit = "ModelLatency", "µs"
    return ModelMetrics(
        invocations=metric(namespace, dimensions, "Invocations", "Sum"),
        errors=errors,
        latency=[metric(namespace, dimensions, latency, quantile) for quantile in ("p50", "p99")],
        latency_unit=unit,
    )


def cold_start_percent(spec: CpuModel, names: Names) -> cloudwatch.MathExpression:
    """How many requests of a hundred waited for a new instance, in an hour of a hundred requests or more."""
    hour = cdk.Duration.hours(1)

    def counted(name: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=names.metrics_namespace,
            metric_name=name,
            dimensions_map={"Model": spec.name},
            statistic="Sum",
            period=hour,
        )

    return cloudwatch.MathExpression(
        expression="IF(requests >= 100, 100 * cold / requests, 0)",
        using_metrics={"cold": counted("ColdStart"), "requests": counted("Invocations")},
        period=hour,
        label="Cold starts (%)",
    )


def concurrency(spec: CpuModel, names: Names) -> cloudwatch.Metric:
    """Requests that the function serves at once."""
    return cloudwatch.Metric(
        namespace="AWS/Lambda",
        metric_name="ConcurrentExecutions",
        dimensions_map={"FunctionName": names.model(spec.name, spec.home)},
        statistic="Maximum",
        period=PERIOD,
    )


def instances(spec: GpuModel, names: Names, name: str) -> cloudwatch.Metric:
    """What an endpoint's instances say of themselves, in percent: `GPUUtilization`, `GPUMemoryUtilization`,
    `MemoryUtilization`, `DiskUtilization`. The fullest instance counts. Those of GPUs are sums over an
    instance's GPUs.
    """
    return cloudwatch.Metric(
        namespace=INSTANCES,
        metric_name=name,
        dimensions_map=_variant(spec, names),
        statistic="Maximum",
        period=PERIOD,
    )


def running_instances(spec: GpuModel, names: Names) -> cloudwatch.Metric:
    """Instances of an endpoint: each reports its CPU once a minute; SageMaker publishes no other count."""
    return instances(spec, names, "CPUUtilization").with_(statistic="SampleCount")


def running_copies(spec: GpuModel, names: Names) -> cloudwatch.Metric:
    """Copies of a model that sleeps: each reports its CPU once a minute; there is no other count."""
    return cloudwatch.Metric(
        namespace=COPIES,
        metric_name="CPUUtilizationNormalized",
        dimensions_map=_server(spec, names),
        statistic="SampleCount",
        period=PERIOD,
    )


def in_flight(spec: GpuModel, names: Names) -> cloudwatch.Metric:
    """Requests that an endpoint's model, or a copy, has at once, waiting ones included."""
    name = "ConcurrentRequestsPerCopy" if spec.sleeps else "ConcurrentRequestsPerModel"
    return _served(name, "Maximum", PERIOD, spec, names)


def asleep(spec: ModelSpec, names: Names, period: cdk.Duration = PERIOD) -> cloudwatch.Metric:
    """Requests to a model that sleeps which found no copy of it. Each is answered 503, and wakes it."""
    return _served("NoCapacityInvocationFailures", "Sum", period, spec, names)


def failed(
    spec: ModelSpec, names: Names, period: cdk.Duration = PERIOD
) -> cloudwatch.Metric | cloudwatch.MathExpression:
    """Requests that were answered 5xx, but for those that found a model asleep: whoever lets it sleep has
    chosen that answer.
    """
    answered = route("5XXError", names, spec, statistic="Sum", period=period)
    if not spec.sleeps:
        return answered
    return cloudwatch.MathExpression(
        expression="answered - FILL(asleep, 0)",
        using_metrics={"answered": answered, "asleep": asleep(spec, names, period)},
        period=period,
    )


def at_full_scale(spec: GpuModel, names: Names) -> cloudwatch.MathExpression:
    """1 while all instances that scaling allows run and each is asked more than scaling aims for."""
    limits = spec.scaling
    return cloudwatch.MathExpression(
        expression=f"IF(running >= {limits.max} AND asked > {limits.target_concurrency}, 1, 0)",
        using_metrics={
            "running": running_copies(spec, names) if spec.sleeps else running_instances(spec, names),
            "asked": in_flight(spec, names),
        },
        period=PERIOD,
        label="At full scale",
    )


def unserved(spec: GpuModel, names: Names) -> cloudwatch.MathExpression:
    """Requests that failed before a container answered: no capacity, throttled or refused by SageMaker, or
    out of time. SageMaker publishes no metric of them; they are what the route has more than the model.
    """
    period = cdk.Duration.minutes(5)
    return cloudwatch.MathExpression(
        expression="failed - FILL(models, 0)",
        using_metrics={
            "failed": failed(spec, names, period),
            "models": _served("Invocation5XXErrors", "Sum", period, spec, names),
        },
        period=period,
        label="Failed before the model",
    )


def _served(
    name: str, statistic: str, period: cdk.Duration, spec: ModelSpec, names: Names
) -> cloudwatch.Metric:
    """What SageMaker says of the requests to an endpoint."""
    return cloudwatch.Metric(
        namespace="AWS/SageMaker",
        metric_name=name,
        dimensions_map=_server(spec, names),
        statistic=statistic,
        period=period,
    )


def _server(spec: ModelSpec, names: Names) -> dict[str, str]:
    """What SageMaker says of requests is by component, or by variant of an endpoint without."""
    if spec.sleeps:
        return {"InferenceComponentName": names.model(spec.name, spec.home)}
    return _variant(spec, names)


def _variant(spec: ModelSpec, names: Names) -> dict[str, str]:
    return {"EndpointName": names.model(spec.name, spec.home), "VariantName": VARIANT}
