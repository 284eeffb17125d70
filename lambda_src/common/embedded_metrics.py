"""Metrics as lines of a function's own output: CloudWatch makes metrics of them, without a right to do so.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import json
import os
import time
from collections.abc import Mapping


def publish(values: Mapping[str, tuple[float, str]], **dimensions: str) -> None:
    """One line with metrics of the namespace METRICS_NAMESPACE.

    Args:
        values: name of a metric -> its value and unit.
    """
    directive = {
        "Namespace": os.environ["METRICS_NAMESPACE"],
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": unit} for name, (_, unit) in values.items()],
    }
    about = {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}}
    print(json.dumps(about | dimensions | {name: value for name, (value, _) in values.items()}))
