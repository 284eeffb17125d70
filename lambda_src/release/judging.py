"""Whether a new version does worse than it may, on live traffic beside the old one.

Errors and latency are counted from the line that function and container log for each request, which names the
version: both fleets of an endpoint share their metrics. Predictions are compared by a function that may see
them.
"""

import json
import math
import os
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
from outcomes import NotYet
from settings import Settings

REQUESTS = (
    'filter message = "request" and method = "POST" '
    "| stats count(*) as requests, sum(status >= 500) as errors, pct(latency_ms, 99) as p99 by version"
)
CRASHES = 'filter type = "platform.report" and record.status != "success" | stats count(*) as crashes'
BASELINE_SECONDS = 3600
"""How far back requests to the old version count."""

FEWEST_ERRORS = 3
SLOWER = 1.25
"""A version that misses the objective, as the old one did, must be slower than that by this factor."""

CONFIDENCE = 1.96
"""Standard deviations: an error rate counts at the lower end of what the sample allows, with 95 %."""

QUERY_SECONDS = 20


@dataclass(frozen=True)
class Side:
    """What one version, or all others, did."""

    requests: int = 0
    errors: int = 0
    p99_ms: float = 0.0

    def with_row(self, row: dict[str, str]) -> "Side":
        """This, and what a row of the query counts."""
        return Side(
            self.requests + int(float(row["requests"])),
            self.errors + int(float(row["errors"])),
            max(self.p99_ms, float(row.get("p99") or 0)),
        )


def judge(settings: Settings, release: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What was measured, for the history, and why the version is rejected; empty if it is not."""
    new, old = _sides(settings, release["version"], release["shifted"])
    measured: dict[str, Any] = {
        "requests": {"new": new.requests, "old": old.requests},
        "errors": {"new": new.errors, "old": old.errors},
        "p99_ms": {"new": new.p99_ms, "old": old.p99_ms},
    }
    reason = _alarming(settings) or too_many_errors(settings, new, old) or too_slow(settings, new, old)
    if not reason and settings.captures and settings.prediction_shift is not None:
        measured["predictions"] = predictions = _compare(settings, release)
        reason = shifted(settings, predictions)
    return measured, reason


def too_many_errors(settings: Settings, new: Side, old: Side) -> str:
    """Why its errors are too many: more than the objective allows, and than twice the old version's."""
    if new.errors < FEWEST_ERRORS:
        return ""
    allowed = 1 - settings.availability_percent / 100
    if old.requests:
        allowed = max(allowed, 2 * old.errors / old.requests)
    if at_least(new.errors, new.requests) <= allowed:
        return ""
    return f"{new.errors} of its {new.requests} requests failed; {old.errors} of {old.requests} did before"


def too_slow(settings: Settings, new: Side, old: Side) -> str:
    """Why it is too slow: beyond the objective, and slower than the old version."""
    if min(new.requests, old.requests or new.requests) < settings.minimum_requests:
        return ""
    if new.p99_ms <= settings.p99_ms or (old.requests and new.p99_ms <= SLOWER * old.p99_ms):
        return ""
    return (
        f"99 of 100 requests took up to {new.p99_ms:.0f} ms, {settings.p99_ms} are promised; before it were "
        f"{old.p99_ms:.0f}"
    )


def shifted(settings: Settings, predictions: dict[str, Any]) -> str:
    """Why its predictions are too far from the old version's."""
    if not predictions["shifted"]:
        return ""
    outputs = predictions["outputs"]
    named = ", ".join(f"{name} by a PSI of {outputs[name]['psi']}" for name in sorted(predictions["shifted"]))
    return f"its predictions shifted: {named}; {settings.prediction_shift} is allowed"


def at_least(errors: int, requests: int) -> float:
    """The lower end of Wilson's interval: the least error rate with which so many errors are likely."""
    n, z, share = requests, CONFIDENCE, errors / requests
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - spread) / (1 + z * z / n)


def _sides(settings: Settings, version: str, since: str) -> tuple[Side, Side]:
    """What the new version has done since it got requests, and what all others have, before and since."""
    began, now = datetime.fromisoformat(since).timestamp(), time.time()
    new, old = Side(), Side()
    for row in _query(settings.log_group, REQUESTS, began, now):
        # One that could not load its artifact does not know its version.
        if row.get("version") in (version, None, ""):
            new = new.with_row(row)
        else:
            old = old.with_row(row)
    for row in _query(settings.log_group, REQUESTS, began - BASELINE_SECONDS, began - 1):
        old = old.with_row(row)
    if settings.home == "cpu":
        # A function that ended without an answer has logged no request.
        [crashed] = _query(settings.log_group, CRASHES, began, now) or [{}]
        crashes = int(float(crashed.get("crashes", 0)))
        new = Side(new.requests + crashes, new.errors + crashes, new.p99_ms)
    return new, old


def _query(log_group: str, query: str, since: float, until: float) -> list[dict[str, str]]:
    logs = boto3.client("logs")
    started = logs.start_query(
        logGroupName=log_group, startTime=int(since), endTime=int(until) + 1, queryString=query
    )
    deadline = time.monotonic() + QUERY_SECONDS
    while True:
        found = logs.get_query_results(queryId=started["queryId"])
        if found["status"] == "Complete":
            return [{field["field"]: field["value"] for field in row} for row in found["results"]]
        if found["status"] not in ("Scheduled", "Running") or time.monotonic() > deadline:
            raise NotYet(f"the log was not searched: {found['status']}")
        time.sleep(0.5)


def _alarming(settings: Settings) -> str:
    found = boto3.client("cloudwatch").describe_alarms(AlarmNames=settings.alarms, StateValue="ALARM")
    names = [alarm["AlarmName"] for alarm in found["MetricAlarms"]]
    return f"the alarm {names[0]} rings" if names else ""


def _compare(settings: Settings, release: dict[str, Any]) -> dict[str, Any]:
    answer = boto3.client("lambda").invoke(
        FunctionName=os.environ["COMPARE"],
        Payload=json.dumps(
            {
                "prefix": settings.captures,
                "model": settings.model,
                "old": release["previous"],
                "new": release["sha256"],
                "since": release["shifted"],
                "minimum": settings.minimum_requests,
                "psi": settings.prediction_shift,
            }
        ).encode(),
    )
    document: dict[str, Any] = json.load(answer["Payload"])
    if answer.get("FunctionError"):
        raise RuntimeError(f"Predictions could not be compared: {document.get('errorMessage')}")
    return document
