"""Alarms on a model's objectives: how fast its error budget burns, not how many errors there were.

An objective of 99.9 % leaves a budget of 0.1 % of the requests that may fail. A burn rate of 1 spends exactly
that in the objective's 30 days, a rate of 14.4 spends 2 % of it in an hour. Two windows are joined: the long
one says that it matters, the short one, a twelfth of it, that it still goes on, so that the alarm ends when
the trouble does. Windows and rates are those of Google's Site Reliability Workbook, chapter "Alerting on
SLOs", section 6 (https://sre.google/workbook/alerting-on-slos/), with one change: the ticket looks back one
day at a rate of 3, and not three days at 1, which is as much of the budget. CloudWatch evaluates what looks
back further than a day only once an hour.

Both objectives are measured where the client is answered, on the model's route in API Gateway: the same for a
function and an endpoint, with everything in front of them counted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch

from catalog.model import ModelSpec
from stacks.base import PlatformStack
from stacks.constructs import metrics
from stacks.constructs.alarms import PlatformAlarm, any_of, both, of_model

FEWEST_FAILURES = 5
"""Fewer in a window are not looked at: of three requests in an hour, one would be a burn rate of 333."""

LARGEST_SHARE = 0.9
"""A loose objective's budget cannot burn 14.4 times too fast; a total outage must page all the same."""

SLOW_BUDGET = 0.01
"""The budget of `slo.p99_ms`: one request in a hundred may take longer."""


@dataclass(frozen=True)
class Burn:
    """A rate of spending the budget, seen over a long and a short window."""

    rate: float
    long: cdk.Duration
    short: cdk.Duration


PAGES = (
    Burn(14.4, cdk.Duration.hours(1), cdk.Duration.minutes(5)),
    Burn(6, cdk.Duration.hours(6), cdk.Duration.minutes(30)),
)
"""2 % of a month's budget in an hour, or 5 % in six."""

TICKETS = (Burn(3, cdk.Duration.hours(24), cdk.Duration.hours(2)),)
"""10 % of a month's budget in a day."""


@dataclass(frozen=True)
class Objective:
    """A promise: at most the share `budget` of all requests is bad; `bad` counts those of a window."""

    name: str
    bad_request: str
    budget: float
    bad: Callable[[cdk.Duration], cloudwatch.IMetric]

    def threshold(self, burn: Burn) -> float:
        """The share of bad requests at which the budget burns at the rate."""
        return round(min(burn.rate * self.budget, LARGEST_SHARE), 9)


def objectives(spec: ModelSpec, stack: PlatformStack) -> tuple[Objective, Objective]:
    """What `slo:` of model.yaml promises: of 5xx answers, and of answers in time."""

    def failed(window: cdk.Duration) -> cloudwatch.IMetric:
        return metrics.failed(spec, stack.names, window)

    def slow(window: cdk.Duration) -> cloudwatch.IMetric:
        # The percentile rank: how many requests of a hundred took no longer.
        rank = f"PR(:{spec.slo.p99_ms})"
        return cloudwatch.MathExpression(
            expression="requests * (100 - intime) / 100",
            using_metrics={
                "requests": metrics.route("Count", stack.names, spec, statistic="Sum", period=window),
                "intime": metrics.route("Latency", stack.names, spec, statistic=rank, period=window),
            },
            period=window,
        )

    return (
        Objective("availability", "answered 5xx", (100 - spec.slo.availability_percent) / 100, failed),
        Objective("latency", f"slower than {spec.slo.p99_ms} ms", SLOW_BUDGET, slow),
    )


def burning(stack: PlatformStack, spec: ModelSpec, burns: tuple[Burn, ...]) -> str:
    """The rule that is true while an objective of the model burns at one of the rates; makes its alarms."""
    return any_of(
        [
            both(*(_alarm(stack, spec, objective, burn, window) for window in (burn.long, burn.short)))
            for objective in objectives(spec, stack)
            for burn in burns
        ]
    )


def _alarm(
    stack: PlatformStack, spec: ModelSpec, objective: Objective, burn: Burn, window: cdk.Duration
) -> PlatformAlarm:
    """On the share of bad requests in one period as long as the window, which moves on by the minute.

    A window without requests has no data, and does not ring.
    """
    share = cloudwatch.MathExpression(
        expression=f"IF(bad >= {FEWEST_FAILURES}, bad / requests, 0)",
        using_metrics={
            "bad": objective.bad(window),
            "requests": metrics.route("Count", stack.names, spec, statistic="Sum", period=window),
        },
        period=window,
        label=f"Share of requests {objective.bad_request}",
    )
    minutes = int(window.to_minutes())
    span = f"{minutes}m" if minutes % 60 else f"{minutes // 60}h"
    threshold = objective.threshold(burn)
    return PlatformAlarm(
        stack,
        of_model(spec, f"{objective.name}-{span}"),
        share,
        threshold=threshold,
        description=f"Model {spec.name}: {100 * threshold:g} % of the requests of {span} were "
        f"{objective.bad_request}. The budget is {100 * round(objective.budget, 9):g} %, and burns "
        f"{burn.rate:g} times too fast.",
        runbook=objective.name,
    )
