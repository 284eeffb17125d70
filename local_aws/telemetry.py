"""Log lines and metrics of our services, written to the embedded CloudWatch."""

from __future__ import annotations

import time

from ministack.core import responses
from ministack.services import cloudwatch, cloudwatch_logs


def make_log(account: str, region: str, group: str, stream: str | None = None) -> None:
    """Make a log group, and a stream in it, where they are missing."""
    with responses.request_scope(account, region):
        if group not in cloudwatch_logs._log_groups:
            cloudwatch_logs._create_log_group({"logGroupName": group})
        if stream and stream not in cloudwatch_logs._log_groups[group]["streams"]:
            cloudwatch_logs._create_log_stream({"logGroupName": group, "logStreamName": stream})


def log(account: str, region: str, group: str, stream: str, message: str) -> None:
    """Append one event, making the group and the stream on first use."""
    with responses.request_scope(account, region):
        make_log(account, region, group, stream)
        event = {"timestamp": int(time.time() * 1000), "message": message}
        cloudwatch_logs._put_log_events(
            {"logGroupName": group, "logStreamName": stream, "logEvents": [event]}
        )


def metric(
    account: str, region: str, namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str]
) -> None:
    """Record one data point, now. Equal ones of a second are one with a count: load makes millions."""
    with responses.request_scope(account, region):
        points = cloudwatch._metric_bucket((namespace, name, cloudwatch._dims_key(dimensions)))
        last = points[-1] if points else None
        if last and last["Value"] == value and time.time() - last["Timestamp"] < 1:
            last["Count"] = last.get("Count", 1.0) + 1.0
        else:
            cloudwatch.record_metric(namespace, name, value, unit, dimensions)
