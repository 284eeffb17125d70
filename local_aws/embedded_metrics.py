"""Metrics in log lines: CloudWatch's embedded metric format, ignored by MiniStack.

docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ministack.services import cloudwatch, cloudwatch_logs

from local_aws.wire import Json


@dataclass(frozen=True)
class Datum:
    """One data point; `timestamp` is in seconds since the epoch."""

    namespace: str
    name: str
    dimensions: dict[str, str]
    timestamp: float
    unit: str
    value: float


def install() -> None:
    """Record the metrics of every log event, whichever service writes it."""
    known = cloudwatch_logs._append_log_events

    def append_log_events(stream: Json, events: list[Json]) -> None:
        known(stream, events)
        for event in events:
            for one in data(event["message"]):
                about = (one.namespace, one.name, one.dimensions, one.timestamp, one.unit)
                cloudwatch._store_datum(*about, one.value, None, None, None)

    cloudwatch_logs._append_log_events = append_log_events


def data(message: str) -> Iterator[Datum]:
    """The data points that a log line carries; CloudWatch too ignores a line that is not in the format."""
    if '"_aws"' not in message:
        return
    try:
        record = json.loads(message)
        seconds = float(record["_aws"]["Timestamp"]) / 1000
        for directive in record["_aws"]["CloudWatchMetrics"]:
            # Without dimension sets, the metrics have no dimensions.
            for names in directive.get("Dimensions") or [[]]:
                dimensions = {name: str(record[name]) for name in names}
                for metric in directive["Metrics"]:
                    about = (directive["Namespace"], metric["Name"], dimensions, seconds)
                    for value in _numbers(record[metric["Name"]]):
                        yield Datum(*about, metric.get("Unit", "None"), value)
    except (ValueError, KeyError, TypeError):
        return


def _numbers(value: Any) -> list[float]:
    return [float(one) for one in (value if isinstance(value, list) else [value])]
