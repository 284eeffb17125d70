"""The dashboards: what they show exists, is what alarms look at, and stays under CloudWatch's limits."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from app import ROOT
from catalog.loader import load_catalog, load_platform
from catalog.model import CpuModel, ModelSpec
from local_aws.insights import language
from stacks.observability import ObservabilityStack
from tests.assembly import Assembly, Resource

Widget = dict[str, Any]

MODELS = load_catalog(ROOT / "models")


def body(dashboard: Resource) -> dict[str, Any]:
    """The dashboard as CloudWatch gets it, references in angle brackets."""
    value = dashboard.properties["DashboardBody"]
    parts = value["Fn::Join"][1] if isinstance(value, dict) else [value]
    return json.loads(
        "".join(part if isinstance(part, str) else f"<{next(iter(part.values()))}>" for part in parts)
    )


def dashboards(assembly: Assembly) -> dict[str, list[Widget]]:
    found = list(assembly.resources("AWS::CloudWatch::Dashboard"))
    return {each.properties["DashboardName"]: body(each)["widgets"] for each in found}


def titled(widgets: list[Widget], title: str) -> Widget:
    [widget] = [w for w in widgets if w["properties"].get("title", "").startswith(title)]
    return widget


def measured(widgets: list[Widget]) -> Iterator[tuple[str, ...]]:
    """Namespace, name and dimensions of every metric that is read by name."""
    for widget in widgets:
        for entry in widget["properties"].get("metrics", []):
            if isinstance(entry[0], str):
                namespace, name, *rest = (part for part in entry if isinstance(part, str))
                yield _named(namespace, name, zip(rest[::2], rest[1::2], strict=True))


def test_there_is_one_of_the_platform_and_one_per_model(assembly: Assembly) -> None:
    prefix = f"inference-{assembly.environment}"
    assert dashboards(assembly).keys() == {prefix, *(f"{prefix}-model-{m.name}-{m.target}" for m in MODELS)}


def test_a_models_shows_what_was_promised_beside_what_was_kept(dev: Assembly) -> None:
    widgets = dashboards(dev)["inference-dev-model-text-embedding-gpu"]
    latency = titled(widgets, "Latency")["properties"]
    [promise] = [line["value"] for line in latency["annotations"]["horizontal"]]
    assert f"within {promise} ms" in widgets[0]["properties"]["markdown"]
    assert [entry[-1]["stat"] for entry in latency["metrics"]] == ["p50", "p90", "p99"]
    for title in ("Without a 5xx", "Error budget left", f"Within {promise} ms"):
        widget = titled(widgets, title)["properties"]
        assert (widget["start"], widget["setPeriodToTimeRange"]) == ("-P30D", True), title
    expression = titled(widgets, "Error budget left")["properties"]["metrics"][0][0]["expression"]
    # 99.9 % leaves 0.1 %: half of that spent leaves half of the budget.
    failed, requests = 5, 10_000
    assert eval(expression, {}, {"failed": failed, "requests": requests}) == pytest.approx(50)  # noqa: S307


def test_a_models_looks_at_the_metrics_that_its_alarms_look_at(assembly: Assembly) -> None:
    for model in ("file-type-cpu", "text-embedding-gpu"):
        stack = f"inference-{assembly.environment}-model-{model}"
        shown = set(measured(dashboards(assembly)[stack]))
        watched = set()
        for alarm in assembly.resources("AWS::CloudWatch::Alarm"):
            if alarm.stack != stack:
                continue
            for query in alarm.properties.get("Metrics", []):
                stat = query.get("MetricStat")
                if stat:
                    watched.add(_flat(stat["Metric"]))
            if "MetricName" in alarm.properties:
                watched.add(_flat(alarm.properties))
        assert watched
        assert watched <= shown, watched - shown


def _flat(metric: dict[str, Any]) -> tuple[str, ...]:
    dimensions = ((each["Name"], each["Value"]) for each in metric.get("Dimensions", []))
    return _named(metric["Namespace"], metric["MetricName"], dimensions)


def _named(namespace: str, name: str, dimensions: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return (namespace, name, *(part for pair in sorted(dimensions) for part in pair))


def test_each_shows_alarms_that_exist_and_those_that_notify_first(assembly: Assembly) -> None:
    alarms = {
        name
        for type_, key in (("Alarm", "AlarmName"), ("CompositeAlarm", "AlarmName"))
        for name in (r.properties[key] for r in assembly.resources(f"AWS::CloudWatch::{type_}"))
    }
    for name, widgets in dashboards(assembly).items():
        shown = [arn for w in widgets if w["type"] == "alarm" for arn in w["properties"]["alarms"]]
        assert shown, name
        named = [arn.rpartition(":alarm:")[2] for arn in shown if ":alarm:" in arn]
        assert set(named) <= alarms, set(named) - alarms
    platform = [
        arn.rpartition(":")[2].removeprefix(f"inference-{assembly.environment}-")
        for arn in titled(dashboards(assembly)[f"inference-{assembly.environment}"], "Alarms")["properties"][
            "alarms"
        ]
    ]
    assert platform[0] == "platform"
    assert sum(name.endswith(("-page", "-ticket")) for name in platform) == 2 * len(MODELS)


def test_log_widgets_are_queries_that_run_on_the_models_own_log(assembly: Assembly) -> None:
    groups = {r.properties.get("LogGroupName") for r in assembly.resources("AWS::Logs::LogGroup")}
    queries = [
        w["properties"]["query"] for ws in dashboards(assembly).values() for w in ws if w["type"] == "log"
    ]
    assert len(queries) == 2 * len(MODELS)
    for query in queries:
        source, _, text = query.partition(" | ")
        assert re.fullmatch(r"SOURCE '(.*)'", source)[1] in groups  # type: ignore[index]
        assert language.parse(text)


def test_links_lead_to_dashboards_that_exist(assembly: Assembly) -> None:
    found = dashboards(assembly)
    linked = set(re.findall(r"#dashboards/dashboard/([\w-]+)", json.dumps(found)))
    assert linked == found.keys()


def test_a_hundred_models_stay_under_cloudwatchs_limits() -> None:
    environment = load_platform(ROOT, "dev").environment
    models: list[ModelSpec] = [
        CpuModel.model_validate(
            {"name": f"model-{n}", "description": "One.", "owner": "ml", "version": "1.0.0", "target": "cpu"}
        )
        for n in range(100)
    ]
    template = Template.from_stack(ObservabilityStack(cdk.App(), environment, models)).to_json()
    [dashboard] = [r for r in template["Resources"].values() if r["Type"] == "AWS::CloudWatch::Dashboard"]
    widgets = body(Resource("", "", "", dashboard["Properties"], dashboard))["widgets"]
    assert len(widgets) < 500
    assert sum(len(w["properties"].get("metrics", [])) for w in widgets) < 100
    alarms = [w["properties"]["alarms"] for w in widgets if w["type"] == "alarm"]
    assert max(map(len, alarms)) <= 100
    assert sum(map(len, alarms)) > 200
    assert all(f"model-{n}" in widgets[0]["properties"]["markdown"] for n in range(100))
    assert len(json.dumps(template)) < 200_000
