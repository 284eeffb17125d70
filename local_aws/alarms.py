"""CloudWatch alarms as CloudWatch evaluates them.

MiniStack's evaluator takes every dimension of a metric for one, ignores DatapointsToAlarm and
TreatMissingData, and runs only when data arrives; it refuses metric math. This one replaces it. Periods are
counted back from now rather than from the clock's full minutes, so that what just happened counts at once.
docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
from collections import defaultdict
from typing import Any

from ministack.core import responses
from ministack.services import cloudwatch
from ministack.services.cloudformation import provisioners

from local_aws import events
from local_aws.expressions import Expression, UnsupportedExpression
from local_aws.wire import Json

INTERVAL = 5.0  # seconds between evaluations of every alarm

_COMPARISONS = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}

# Statistics definitions: how many points of a hundred lie above the lower bound and not above the upper.
_PERCENTILE_RANK = re.compile(r"PR\((\d*\.?\d*):(\d*\.?\d*)\)")

logger = logging.getLogger("alarms")


def install() -> None:
    """Evaluate alarms here, and accept those of metric math through CloudFormation and the API."""
    cloudwatch._evaluate_alarm = evaluate
    _rank_percentiles()
    known_record, known_put = provisioners._cw_metric_alarm_record, cloudwatch._put_metric_alarm

    def record(name: str, properties: Json) -> Json:
        _check_comparison(str(properties.get("ComparisonOperator")))
        if not properties.get("Metrics"):
            made: Json = known_record(name, properties)
            return made
        plain = {key: value for key, value in properties.items() if key != "Metrics"}
        placeholder = {"MetricName": "-", "Namespace": "-"}
        return _of_metric_math(known_record(name, {**plain, **placeholder}), properties["Metrics"])

    def put(parameters: Json, decoded: Json, is_cbor: bool, is_json: bool = False) -> Any:
        queries = (decoded or {}).get("Metrics")
        if queries:
            try:
                _check_queries(queries)
            except ValueError as error:
                return cloudwatch._error(
                    "ValidationError", str(error), 400, use_json=is_json, use_cbor=is_cbor
                )
        answer = known_put(parameters, decoded, is_cbor, is_json)
        if queries and answer[0] == 200:
            evaluate(_of_metric_math(cloudwatch._alarms[decoded["AlarmName"]], queries))
        return answer

    provisioners._cw_metric_alarm_record = record
    cloudwatch._put_metric_alarm = put


async def run() -> None:
    """Evaluate every alarm of every account and region, again and again."""
    while True:
        await asyncio.sleep(INTERVAL)
        events.publish_queue_metrics()
        for account, region in {(account, region) for account, region, _ in list(cloudwatch._alarms._data)}:
            with responses.request_scope(account, region):
                cloudwatch._evaluate_all_alarms()


def evaluate(alarm: Json) -> None:
    """Bring the alarm's state up to date, and do what its actions say if it changes."""
    state, reason = _state(alarm, time.time())
    before = alarm["StateValue"]
    if state == before:
        return
    alarm.update(StateValue=state, StateReason=reason, StateUpdatedTimestamp=int(time.time()))
    cloudwatch._record_history(alarm["AlarmName"], before, state, reason)
    cloudwatch._dispatch_alarm_actions(alarm, before, state, reason)
    cloudwatch._evaluate_parent_alarms(alarm)


def _state(alarm: Json, now: float) -> tuple[str, str]:
    points = _data_points(alarm, now)
    missing, treatment = points.count(None), alarm.get("TreatMissingData") or "missing"
    if missing == len(points) and treatment == "ignore":
        return alarm["StateValue"], alarm["StateReason"]
    if missing == len(points) and treatment == "missing":
        return (
            "INSUFFICIENT_DATA",
            "Insufficient Data: no data points were received in the evaluated periods.",
        )
    threshold, comparison = float(alarm["Threshold"]), alarm["ComparisonOperator"]
    breaching = sum(1 for value in points if value is not None and _COMPARISONS[comparison](value, threshold))
    if treatment == "breaching":
        breaching += missing
    needed = int(alarm.get("DatapointsToAlarm") or len(points))
    if breaching >= needed:
        return (
            "ALARM",
            f"Threshold Crossed: {breaching} of {len(points)} data points were {comparison} {threshold}.",
        )
    return (
        "OK",
        f"Threshold not crossed: {breaching} of {len(points)} data points were {comparison} {threshold}.",
    )


def _data_points(alarm: Json, now: float) -> list[float | None]:
    """One value per evaluated period, the newest first; None where there is no data."""
    periods = int(alarm.get("EvaluationPeriods") or 1)
    queries = alarm.get("Metrics")
    if not queries:
        dimensions = alarm.get("Dimensions") or []
        statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"
        name, period = (alarm["Namespace"], alarm["MetricName"]), int(alarm.get("Period") or 60)
        return _series(*name, dimensions, statistic, period, periods, now)
    period = max(int(query["MetricStat"]["Period"]) for query in queries if query.get("MetricStat"))
    series = {
        query["Id"]: _series(
            query["MetricStat"]["Metric"]["Namespace"],
            query["MetricStat"]["Metric"]["MetricName"],
            query["MetricStat"]["Metric"].get("Dimensions") or [],
            query["MetricStat"]["Stat"],
            period,
            periods,
            now,
        )
        for query in queries
        if query.get("MetricStat")
    }
    result = next(query["Id"] for query in queries if query.get("ReturnData", True) not in (False, "false"))
    expressions = _expressions(queries)
    # Most of an hour's minutes are alike, empty above all: each kind of minute is computed once.
    known: dict[tuple[float | None, ...], float | None] = {}
    for row in set(zip(*series.values(), strict=True)):
        values: dict[str, float | None] = dict(zip(series, row, strict=True))
        for query, expression in expressions:
            values[query["Id"]] = expression(values)
        known[row] = values[result]
    return [known[row] for row in zip(*series.values(), strict=True)]


def _series(
    namespace: str, name: str, dimensions: list[Json], statistic: str, period: int, periods: int, now: float
) -> list[float | None]:
    key = (namespace, name, cloudwatch._dims_key(cloudwatch._dims_from_list(dimensions)))
    buckets: defaultdict[int, list[Json]] = defaultdict(list)
    for point in cloudwatch._metrics.get(key) or []:
        buckets[int((now - point["Timestamp"]) // period)].append(point)
    return [_statistic(statistic, buckets[i]) if i in buckets else None for i in range(periods)]


def _statistic(name: str, points: list[Json]) -> float | None:
    value: float | None = cloudwatch._stat_value(cloudwatch._calc_stats(points), name, points)
    return value


def _rank_percentiles() -> None:
    """Percentile ranks, such as `PR(:500)`, for alarms and for whoever asks for data: MiniStack has none."""
    known = cloudwatch._stat_value

    def stat_value(stats: Json, name: str, points: list[Json] | None = None) -> float | None:
        rank = _PERCENTILE_RANK.fullmatch(name)
        if rank is None:
            value: float | None = known(stats, name, points)
            return value
        samples = cloudwatch._percentile_samples(points or [])
        if not samples:
            return None
        low, high = (float(bound) if bound else None for bound in rank.groups())
        within = sum(
            count for one, count in samples if (low is None or one > low) and (high is None or one <= high)
        )
        return float(100 * within / sum(count for _, count in samples))

    cloudwatch._stat_value = stat_value


def _of_metric_math(alarm: Json, queries: list[Json]) -> Json:
    """`alarm` over `queries` instead of over one metric; raises ValueError for what cannot be evaluated."""
    _check_queries(queries)
    for name in ("MetricName", "Namespace", "Statistic", "ExtendedStatistic", "Period", "Unit", "Dimensions"):
        alarm.pop(name, None)
    alarm["Metrics"] = queries
    return alarm


def _check_queries(queries: list[Json]) -> None:
    for query in queries:
        if not query.get("Expression") and not query.get("MetricStat"):
            raise UnsupportedExpression(
                f"The query {query.get('Id')} has neither an Expression nor a MetricStat."
            )
    returned = [query["Id"] for query in queries if query.get("ReturnData", True) not in (False, "false")]
    if len(returned) != 1:
        raise UnsupportedExpression(
            f"Exactly one query of an alarm must have ReturnData true, not {returned}."
        )
    if not any(query.get("MetricStat") for query in queries):
        raise UnsupportedExpression("An alarm needs at least one query with a MetricStat.")
    _expressions(queries)


def _expressions(queries: list[Json]) -> list[tuple[Json, Expression]]:
    """The queries that are expressions, each after those it uses."""
    known = [query["Id"] for query in queries if query.get("MetricStat")]
    waiting = [query for query in queries if query.get("Expression")]
    ordered: list[tuple[Json, Expression]] = []
    while waiting:
        for query in waiting:
            try:
                expression = _parsed(query["Expression"], tuple(known))
            except UnsupportedExpression:
                continue
            ordered.append((query, expression))
            known.append(query["Id"])
            waiting.remove(query)
            break
        else:
            # None can be evaluated with what is known: say why of the first.
            Expression(waiting[0]["Expression"], known)
    return ordered


@functools.cache
def _parsed(text: str, ids: tuple[str, ...]) -> Expression:
    return Expression(text, ids)


def _check_comparison(comparison: str) -> None:
    if comparison not in _COMPARISONS:
        raise ValueError(
            f"The embedded AWS does not evaluate alarms with ComparisonOperator {comparison}; it does "
            f"{', '.join(_COMPARISONS)}."
        )
