"""Dashboards: one of the platform, one per model, from CDK's own CloudWatch constructs (decision 0017).

A model's lives in its stack, so that deleting the model deletes it. The platform's does not grow with the
number of models: what it says of each is found by search when somebody looks. CloudWatch allows a dashboard
500 widgets and 2500 metrics, and a widget 500 metrics; a search finds up to 500.
"""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from catalog.instances import gpus
from catalog.model import CpuModel, GpuModel, ModelSpec
from catalog.names import on_target
from stacks.base import PlatformStack
from stacks.constructs import metrics
from stacks.constructs.alarms import PAGE, PLATFORM, TICKET, of_model
from stacks.constructs.saved_queries import MODEL_QUERIES, PLATFORM_QUERIES
from stacks.constructs.schedule import DEAD_LETTERS

WIDTH = 24
HEIGHT = 6

BUDGET_DAYS = 30
"""The time that an error budget is for, the same as for the alarms on how fast it burns."""

MAX_ALARMS = 100
"""Alarms that one alarm status widget may show."""

SEARCH_PERIOD = 300

_ZERO = cloudwatch.YAxisProps(min=0, show_units=False)
_PERCENT = cloudwatch.YAxisProps(min=0, max=100, show_units=False)


def add_model_dashboard(
    stack: PlatformStack, spec: ModelSpec, alarms: Sequence[cloudwatch.IAlarm]
) -> cloudwatch.Dashboard:
    """The dashboard that is called as the model's stack: a model that moves has two for a while.

    Args:
        alarms: the model's alarms, those that notify first.
    """
    dashboard = _dashboard(stack, stack.stack_name)
    dashboard.add_widgets(_about(stack, spec))
    dashboard.add_widgets(
        *_objectives(stack, spec),
        cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(alarms[:MAX_ALARMS]), width=12, height=4),
    )
    dashboard.add_widgets(_answers(stack, spec), _latency(stack, spec))
    health = metrics.model(spec, stack.names)
    by_kind = [_labelled(m, kind) for kind, m in health.errors.items()]
    if not isinstance(spec, CpuModel):
        by_kind.append(_labelled(metrics.rejected(spec, stack.names), "a release rejects"))
    dashboard.add_widgets(
        _graph("Errors by kind", by_kind),
        *(_function(stack, spec) if isinstance(spec, CpuModel) else _endpoint(stack, spec)),
    )
    if spec.watched:
        dashboard.add_widgets(*_drift(stack, spec))
    group = stack.names.model_log_group(spec.name, spec.home)
    dashboard.add_widgets(
        _log(
            "Versions that answered (the last is live)",
            group,
            "filter ispresent(model) and ispresent(version)",
            "stats count(*) as requests, max(@timestamp) as last by version",
            "sort last desc",
        ),
        _log(
            "What the model's log says went wrong",
            group,
            'filter level = "ERROR" or (status >= 500 and path != "/ping")',
            "fields @timestamp, request_id, message, reason, status",
            "sort @timestamp desc",
            "limit 20",
        ),
    )
    return dashboard


def add_platform_dashboard(
    stack: PlatformStack, models: Sequence[ModelSpec], alarms: Sequence[str]
) -> cloudwatch.Dashboard:
    """The dashboard `inference-<env>`.

    Args:
        alarms: names of the platform's own alarms; those of the models that notify are shown too. None of
            them need exist yet.
    """
    names, stage = stack.names, stack.names.environment
    dashboard = _dashboard(stack, names.prefix)
    dashboard.add_widgets(_about_platform(stack, models))
    dashboard.add_widgets(*_all_alarms(stack, models, alarms))

    def api(name: str, statistic: str) -> cloudwatch.Metric:
        return metrics.api(name, names.prefix, stage, statistic=statistic)

    dashboard.add_widgets(
        _by_status("Traffic", api("Count", "Sum"), api("4XXError", "Sum"), api("5XXError", "Sum"), 8),
        _graph(
            "Latency (ms)",
            [_labelled(api("Latency", quantile), quantile) for quantile in ("p50", "p90", "p99")],
        ),
        _graph(
            "Refused: too many requests",
            [_labelled(metrics.throttled(names), "429 in five minutes")],
        ),
    )
    dashboard.add_widgets(
        *(
            cloudwatch.TableWidget(
                title=title,
                metrics=[_per_model(stack, name, statistic)],
                width=8,
                height=2 + max(4, min(len(models), 12)),
                set_period_to_time_range=True,
                layout=cloudwatch.TableLayout.VERTICAL,
                summary=cloudwatch.TableSummaryProps(columns=[column], hide_non_summary_columns=True),
            )
            for title, name, statistic, column in (
                ("Requests by model", "Count", "Sum", cloudwatch.TableSummaryColumn.SUM),
                ("Server errors by model", "5XXError", "Sum", cloudwatch.TableSummaryColumn.SUM),
                ("p99 by model (ms)", "Latency", "p99", cloudwatch.TableSummaryColumn.MAXIMUM),
            )
        )
    )
    operations = [
        _graph("Dead letters", [_labelled(metrics.waiting(names.resource(DEAD_LETTERS)), "messages")])
    ]
    probe = stack.environment_config.probe
    if probe is not None:
        every = cdk.Duration.minutes(probe.minutes)
        operations.append(
            _graph(
                "Probe",
                [_labelled(metrics.probe("Failures", names, every), "failures")],
                right=[_labelled(metrics.probe("LatencyMs", names, every), "slowest (ms)")],
            )
        )
    dashboard.add_widgets(*operations, *_usage(stack, api("Count", "Sum")))
    return dashboard


def _all_alarms(
    stack: PlatformStack, models: Sequence[ModelSpec], own: Sequence[str]
) -> list[cloudwatch.IWidget]:
    of_models = [of_model(model, kind) for kind in (PAGE, TICKET) for model in models]
    listed = [
        cloudwatch.Alarm.from_alarm_arn(
            stack, f"Shown-{name}", stack.regional_arn("cloudwatch", f"alarm:{stack.names.resource(name)}")
        )
        for name in (PLATFORM, *own, *of_models)
    ]
    parts = [listed[first : first + MAX_ALARMS] for first in range(0, len(listed), MAX_ALARMS)]
    return [
        cloudwatch.AlarmStatusWidget(title="Alarms", alarms=part, width=WIDTH, height=2 + len(part) // 6)
        for part in parts
    ]


def _dashboard(stack: PlatformStack, name: str) -> cloudwatch.Dashboard:
    return cloudwatch.Dashboard(
        stack,
        "Dashboard",
        dashboard_name=name,
        default_interval=cdk.Duration.hours(3),
        # Each widget's period follows the time that is shown.
        period_override=cloudwatch.PeriodOverride.AUTO,
    )


def _about(stack: PlatformStack, spec: ModelSpec) -> cloudwatch.TextWidget:
    names = stack.names
    runs = "Lambda" if isinstance(spec, CpuModel) else f"SageMaker, {spec.gpu.instance_type}"
    queries = [query.name for query in MODEL_QUERIES if spec.target in query.targets]
    return _text(
        f"# {spec.name}",
        f"{spec.description} Runs on {runs}; {spec.owner} answers for it. "
        f"Promised: {spec.slo.availability_percent:g} % of requests without a 5xx, 99 % within "
        f"{spec.slo.p99_ms} ms." + (" Sleeps while nobody calls it." if spec.sleeps else ""),
        f"[The platform]({_link(names.prefix)}) · {_runbooks(stack)} · {_saved(stack, queries, spec.name)}",
    )


def _about_platform(stack: PlatformStack, models: Sequence[ModelSpec]) -> cloudwatch.TextWidget:
    listed = " · ".join(f"[{model.name}]({_link(_stack_of(stack, model))})" for model in models)
    queries = [query.name for query in PLATFORM_QUERIES]
    return _text(
        f"# {stack.names.prefix}", listed, f"{_runbooks(stack)} · {_saved(stack, queries)}",
        height=3 + len(models) // 12,
    )  # fmt: skip


def _stack_of(stack: PlatformStack, model: ModelSpec) -> str:
    return stack.names.resource(on_target(model.name, model.home))


def _runbooks(stack: PlatformStack) -> str:
    address = stack.environment_config.alarms.runbooks
    return f"[Runbooks]({address})" if "://" in address else f"Runbooks: {address}"


def _saved(stack: PlatformStack, queries: Sequence[str], model: str | None = None) -> str:
    """Links to Logs Insights know no saved query by name: the folder to open there, and what is in it."""
    folder = stack.names.query("", model)
    return f"[Saved queries](#logsV2:logs-insights) in {folder}: {', '.join(queries)}"


def _link(dashboard_name: str) -> str:
    """To another dashboard, from within CloudWatch's console, whatever the region."""
    return f"#dashboards/dashboard/{dashboard_name}"


def _text(*paragraphs: str, height: int = 3) -> cloudwatch.TextWidget:
    return cloudwatch.TextWidget(markdown="\n\n".join(paragraphs), width=WIDTH, height=height)


def _graph(
    title: str,
    left: Sequence[cloudwatch.IMetric],
    *,
    width: int = 8,
    right: Sequence[cloudwatch.IMetric] = (),
    lines: Sequence[cloudwatch.HorizontalAnnotation] = (),
    axis: cloudwatch.YAxisProps = _ZERO,
    stacked: bool = False,
) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(
        title=title,
        left=list(left),
        right=list(right),
        left_annotations=list(lines),
        left_y_axis=axis,
        right_y_axis=_ZERO if right else None,
        stacked=stacked,
        width=width,
        height=HEIGHT,
    )


def _labelled(metric: cloudwatch.IMetric, label: str) -> cloudwatch.IMetric:
    assert isinstance(metric, cloudwatch.Metric | cloudwatch.MathExpression)
    return metric.with_(label=label)


def _math(expression: str, label: str, **using: cloudwatch.IMetric) -> cloudwatch.MathExpression:
    return cloudwatch.MathExpression(
        expression=expression, label=label, using_metrics=using, period=metrics.PERIOD
    )


def _line(value: float, label: str) -> cloudwatch.HorizontalAnnotation:
    return cloudwatch.HorizontalAnnotation(value=value, label=label, color=cloudwatch.Color.RED)


def _objectives(stack: PlatformStack, spec: ModelSpec) -> list[cloudwatch.IWidget]:
    """What was promised, and what was kept in the last 30 days, whatever time the dashboard shows."""

    def route(name: str, statistic: str) -> cloudwatch.Metric:
        return metrics.route(name, stack.names, spec, statistic=statistic)

    requests, failed = route("Count", "Sum"), metrics.failed(spec, stack.names)
    in_time = route("Latency", f"PR(:{spec.slo.p99_ms})")
    budget = round(100 - spec.slo.availability_percent, 9)
    values = (
        (
            "Without a 5xx (%)",
            _math("100 - 100 * failed / requests", "available", failed=failed, requests=requests),
        ),
        (
            "Error budget left (%)",
            _math(f"100 - 10000 * failed / requests / {budget:g}", "left", failed=failed, requests=requests),
        ),
        (f"Within {spec.slo.p99_ms} ms (%)", _labelled(in_time, "in time")),
    )
    return [
        cloudwatch.SingleValueWidget(
            title=f"{title}, {BUDGET_DAYS} days",
            metrics=[value],
            width=4,
            height=4,
            start=f"-P{BUDGET_DAYS}D",
            end="P0D",
            set_period_to_time_range=True,
        )
        for title, value in values
    ]


def _by_status(
    title: str,
    requests: cloudwatch.Metric,
    client: cloudwatch.Metric,
    server: cloudwatch.Metric,
    width: int,
) -> cloudwatch.GraphWidget:
    client = client.with_(label="4xx", color=cloudwatch.Color.ORANGE)
    server = server.with_(label="5xx", color=cloudwatch.Color.RED)
    answered = _math(
        "requests - client - server", "answered", requests=requests, client=client, server=server
    )
    return _graph(
        f"{title} by status, per minute",
        # The same objects as in the expression: a metric that is used twice keeps one label.
        [server, client, answered.with_(color=cloudwatch.Color.GREEN)],
        width=width,
        stacked=True,
    )


def _answers(stack: PlatformStack, spec: ModelSpec) -> cloudwatch.GraphWidget:
    requests, client, server = (
        metrics.route(name, stack.names, spec, statistic="Sum") for name in ("Count", "4XXError", "5XXError")
    )
    return _by_status("Requests", requests, client, server, 12)


def _latency(stack: PlatformStack, spec: ModelSpec) -> cloudwatch.GraphWidget:
    return _graph(
        "Latency as clients see it (ms)",
        [
            metrics.route("Latency", stack.names, spec, statistic=quantile).with_(label=quantile)
            for quantile in ("p50", "p90", "p99")
        ],
        lines=[_line(spec.slo.p99_ms, f"p99 is promised within {spec.slo.p99_ms} ms")],
        width=12,
    )


def _function(stack: PlatformStack, spec: CpuModel) -> list[cloudwatch.IWidget]:
    reserved = spec.cpu.reserved_concurrency
    return [
        _graph(
            "Requests at once",
            [metrics.concurrency(spec, stack.names).with_(label="in the function")],
            right=[_labelled(metrics.model(spec, stack.names).errors["throttles"], "throttled")],
            lines=[_line(reserved, "reserved")] if reserved else [],
        ),
        _graph("Cold starts (% of an hour's requests)", [metrics.cold_start_percent(spec, stack.names)]),
    ]


def _endpoint(stack: PlatformStack, spec: GpuModel) -> list[cloudwatch.IWidget]:
    cards = gpus(spec.gpu.instance_type)
    # The metrics of GPUs are sums over an instance's GPUs.
    used = [
        _math(f"{key} / {cards}", label, **{key: metrics.instances(spec, stack.names, name)})
        for key, name, label in (
            ("busy", "GPUUtilization", "GPU"),
            ("filled", "GPUMemoryUtilization", "GPU memory"),
        )
    ]
    rest = [
        metrics.instances(spec, stack.names, name).with_(label=label)
        for name, label in (("MemoryUtilization", "memory"), ("DiskUtilization", "disk"))
    ]
    limits, instances = spec.scaling, metrics.running_instances(spec, stack.names).with_(label="instances")
    requests = metrics.in_flight(spec, stack.names).with_(label="requests at once")
    lines = [_line(limits.max, f"scaling.max {limits.max}")]
    usage = _graph("In use on the fullest instance (%)", [*used, *rest], axis=_PERCENT)
    if not spec.sleeps:
        return [usage, _graph("Instances, and requests at once", [instances], right=[requests], lines=lines)]
    copies = metrics.running_copies(spec, stack.names).with_(label="copies")
    sleeping = metrics.asleep(spec, stack.names).with_(label="found it asleep")
    return [
        usage,
        _graph(
            "Copies and instances, requests per copy at once, and those that found none",
            [copies, instances],
            right=[requests, sleeping],
            lines=lines,
        ),
    ]


def _drift(stack: PlatformStack, spec: ModelSpec) -> list[cloudwatch.IWidget]:
    """What comparisons of captures with the baseline found."""

    def found(name: str, label: str) -> cloudwatch.IMetric:
        return _labelled(metrics.drift(name, spec, stack.names), label)

    return [
        _graph("Drift: how much has drifted", [found("Drifted", "features")], lines=[_line(1, "alarm")]),
        _graph(
            "Drift: the largest shift (PSI)",
            [found("DriftLargestPsi", "PSI")],
            lines=[_line(spec.drift.psi, "drift.psi")],
        ),
        _graph(
            "Rows compared, and how many were right (%)",
            [found("DriftRows", "rows")],
            right=[found("Accuracy", "accuracy"), found("DriftMisfits", "misfits")],
        ),
    ]


def _log(title: str, group: str, *lines: str) -> cloudwatch.LogQueryWidget:
    return cloudwatch.LogQueryWidget(
        title=title,
        log_group_names=[group],
        query_lines=list(lines),
        view=cloudwatch.LogQueryVisualizationType.TABLE,
        width=12,
        height=HEIGHT,
    )


def _search(
    label: str, condition: str, statistic: str, period: int = SEARCH_PERIOD
) -> cloudwatch.MathExpression:
    return cloudwatch.MathExpression(
        expression=f"SEARCH('{condition}', '{statistic}', {period})",
        label=label,
        using_metrics={},
        period=cdk.Duration.seconds(period),
    )


def _per_model(stack: PlatformStack, name: str, statistic: str) -> cloudwatch.MathExpression:
    """A metric of every model's inference route, each under its route."""
    return _search(
        "${PROP('Dim.Resource')}",
        "{AWS/ApiGateway,ApiName,Method,Resource,Stage} "
        f'MetricName="{name}" ApiName="{stack.names.prefix}" Stage="{stack.names.environment}" Method="POST"',
        statistic,
    )


def _usage(stack: PlatformStack, requests: cloudwatch.Metric) -> list[cloudwatch.IWidget]:
    """What is paid by use. A search knows words, not beginnings: an environment called as this one and more
    is counted too.
    """
    prefix = stack.names.prefix

    def total(label: str, condition: str, statistic: str, factor: str = "") -> cloudwatch.MathExpression:
        return _math(f"SUM(SEARCH('{condition}', '{statistic}', {SEARCH_PERIOD})){factor}", label)

    return [
        _graph(
            "Use that is paid for: models",
            [
                total(
                    "seconds of functions",
                    f'{{AWS/Lambda,FunctionName}} MetricName="Duration" FunctionName={prefix}',
                    "Sum",
                    " / 1000",
                )
            ],
            right=[
                total(
                    "instances of endpoints",
                    "{/aws/sagemaker/Endpoints,EndpointName,VariantName} "
                    f'MetricName="CPUUtilization" EndpointName={prefix}',
                    "SampleCount",
                    f" / {SEARCH_PERIOD // 60}",
                )
            ],
        ),
        _graph(
            "Use that is paid for: requests and logs",
            [_labelled(requests, "requests")],
            right=[
                total(
                    "bytes into logs",
                    f'{{AWS/Logs,LogGroupName}} MetricName="IncomingBytes" LogGroupName={prefix}',
                    "Sum",
                )
            ],
        ),
    ]
