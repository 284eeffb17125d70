"""Counts what Trusted Advisor found, once a day. Environment: METRICS_NAMESPACE.

Writes one log line per finding, and per kind of finding and status a metric `TrustedAdvisorFindings` with the
dimensions `Pillar` and `Status`, and one with `Status` alone, zero included: an alarm needs a value that ends
it. The API answers accounts with a support plan, Business or higher; others get AccessDenied, and this fails.
"""

import json
import logging
from collections import Counter
from typing import Any

import boto3
import embedded_metrics

REGION = "us-east-1"
"""Trusted Advisor looks at the whole account; its API is in a few regions only."""

STATUSES = ("warning", "error")

logger = logging.getLogger()
logger.setLevel(logging.INFO)


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """Report every finding; how many there are by status."""
    client = boto3.client("trustedadvisor", region_name=REGION)
    found = [
        finding
        for status in STATUSES
        for page in client.get_paginator("list_recommendations").paginate(status=status)
        for finding in page["recommendationSummaries"]
    ]
    for finding in found:
        resources = finding.get("resourcesAggregates", {})
        logger.info(
            json.dumps(
                {
                    "finding": finding["name"],
                    "status": finding["status"],
                    "pillars": finding["pillars"],
                    "resources": {
                        name: resources[name] for name in ("errorCount", "warningCount") if name in resources
                    },
                    "arn": finding["arn"],
                }
            )
        )
    by_status = {status: sum(f["status"] == status for f in found) for status in STATUSES}
    for status, count in by_status.items():
        _count(count, Status=status)
    by_pillar = Counter((pillar, finding["status"]) for finding in found for pillar in finding["pillars"])
    for (pillar, status), count in sorted(by_pillar.items()):
        _count(count, Pillar=pillar, Status=status)
    return by_status


def _count(count: int, **dimensions: str) -> None:
    embedded_metrics.publish({"TrustedAdvisorFindings": (count, "Count")}, **dimensions)
