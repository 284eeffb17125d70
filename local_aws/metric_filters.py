"""Metric filters: log lines counted as metrics, which MiniStack remembers and never evaluates.

docs.aws.amazon.com/AmazonCloudWatch/latest/logs/MonitoringLogData.html. A filter's `defaultValue` counts with
the lines that do not match, not with minutes in which there are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ministack.core.responses import error_response_json
from ministack.services import cloudwatch, cloudwatch_logs

from local_aws import filter_patterns
from local_aws.wire import Json, Response


def install() -> None:
    """Count log lines as they are written, and understand patterns wherever CloudWatch Logs takes one."""
    known_append, known_put = cloudwatch_logs._append_log_events, cloudwatch_logs._put_metric_filter

    def append_log_events(stream: Json, events: list[Json]) -> None:
        known_append(stream, events)
        for metric_filter in _filters_of(stream):
            matches = filter_patterns.matcher(metric_filter["filterPattern"])
            for event in events:
                _count(metric_filter, event, matches(event["message"]))

    def put_metric_filter(request: Json) -> Response:
        try:
            filter_patterns.matcher(request.get("filterPattern", ""))
        except filter_patterns.InvalidPattern as error:
            refused: Response = error_response_json("InvalidParameterException", str(error), 400)
            return refused
        answer: Response = known_put(request)
        return answer

    cloudwatch_logs._append_log_events = append_log_events
    cloudwatch_logs._put_metric_filter = put_metric_filter
    cloudwatch_logs._compile_filter_pattern = filter_patterns.matcher


def _filters_of(stream: Json) -> Iterator[Json]:
    for metric_filter in list(cloudwatch_logs._metric_filters.values()):
        group = cloudwatch_logs._log_groups.get(metric_filter["logGroupName"]) or {"streams": {}}
        if any(one is stream for one in group["streams"].values()):
            yield metric_filter


def _count(metric_filter: Json, event: Json, matched: bool) -> None:
    for transformation in metric_filter["metricTransformations"]:
        value = _number(transformation.get("metricValue", "1"), event) if matched else None
        if not matched and transformation.get("defaultValue") is not None:
            value = float(transformation["defaultValue"])
        if value is None:
            continue
        dimensions = {
            name: str(filter_patterns.value_of(event["message"], selector))
            for name, selector in (transformation.get("dimensions") or {}).items()
        }
        cloudwatch._store_datum(
            transformation["metricNamespace"],
            transformation["metricName"],
            dimensions,
            event["timestamp"] / 1000,
            transformation.get("unit", "None"),
            value,
            None,
            None,
            None,
        )


def _number(value: str, event: Json) -> float | None:
    """What a matching line counts: a number, or that of one of its fields."""
    found: Any = filter_patterns.value_of(event["message"], value) if value.startswith("$") else value
    try:
        return float(found)
    except (TypeError, ValueError):
        return None
