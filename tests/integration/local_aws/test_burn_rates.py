"""The alarms on objectives, as the stacks make them, held against a day of traffic of each kind."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from catalog.environment import Environment
from catalog.model import CpuModel
from stacks.base import PlatformStack
from stacks.constructs.alarms import CompositeAlarm
from stacks.constructs.slo import PAGES, TICKETS, burning
from tests.integration.local_aws.embedded import Embedded, until

HOUR = 3600.0
DAY = 24 * HOUR
MILLISECONDS = 300  # the objective; a slow answer takes twice that, any other half


@dataclass(frozen=True)
class Traffic:
    """From `since` until `till` seconds ago, `rate` requests a second, of which shares fail or are slow."""

    since: float
    till: float = 0
    failing: float = 0.0
    slow: float = 0.0
    rate: float = 1.0


@dataclass(frozen=True)
class Case:
    """A day of traffic, and which alarms must ring at its end."""

    traffic: tuple[Traffic, ...]
    rings: frozenset[str]
    availability_percent: float = 99.9


QUIET, TICKET, PAGE = frozenset[str](), frozenset({"ticket"}), frozenset({"page"})

CASES = {
    # A fifth of the budget, all day.
    "healthy": Case((Traffic(DAY, failing=0.0002),), QUIET),
    # 120 requests of 3600 are 3.3 %, above 1.44 %; of the day they are nothing.
    "outage-of-two-minutes": Case((Traffic(DAY, 120), Traffic(120, failing=1)), PAGE),
    # 0.8 % of the hour.
    "blip-of-half-a-minute": Case((Traffic(DAY, 30), Traffic(30, failing=1)), QUIET),
    # The hour is spent, but nothing fails any more; what it cost is a ticket.
    "outage-that-is-over": Case((Traffic(DAY, 3000), Traffic(3000, 2400, failing=1), Traffic(2400)), TICKET),
    # Four times the budget: too slow to wake anybody.
    "slow-burn": Case((Traffic(DAY, failing=0.004),), TICKET),
    # Eight times the budget: below 14.4, above 6.
    "steady-burn": Case((Traffic(DAY, failing=0.008),), PAGE | TICKET),
    # One failure among three requests is a third of them.
    "failure-at-night": Case((Traffic(HOUR, rate=3 / HOUR, failing=1 / 3),), QUIET),
    # 20 % above 14.4 %, for an hour.
    "slow-answers": Case((Traffic(DAY, HOUR), Traffic(HOUR, slow=0.2)), PAGE),
    # A budget of 10 % cannot burn 14.4 times too fast.
    "loose-outage": Case((Traffic(DAY, HOUR), Traffic(HOUR, failing=1)), PAGE, availability_percent=90),
    "no-traffic": Case((), QUIET),
}


def data(model: str, case: Case) -> list[dict[str, Any]]:
    """What API Gateway would have published."""
    now = datetime.datetime.now(datetime.UTC)
    dimensions = {
        "ApiName": "inference-dev",
        "Stage": "dev",
        "Resource": f"/v2/models/{model}/infer",
        "Method": "POST",
    }
    listed = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    points = []
    for part in case.traffic:
        for age, seconds in blocks(part):
            requests = part.rate * seconds
            failed, slow = requests * part.failing, requests * part.slow
            at = now - datetime.timedelta(seconds=age)
            for name, counted in (
                ("Count", {1.0: requests}),
                ("5XXError", {1.0: failed, 0.0: requests - failed}),
                ("Latency", {2.0 * MILLISECONDS: slow, 0.5 * MILLISECONDS: requests - slow}),
            ):
                seen = {value: count for value, count in counted.items() if count > 0}
                points.append(
                    {
                        "MetricName": name,
                        "Dimensions": listed,
                        "Timestamp": at,
                        "Values": list(seen),
                        "Counts": list(seen.values()),
                    }
                )
    return points


def blocks(part: Traffic) -> Iterator[tuple[float, float]]:
    """The traffic cut into (middle's age, length) in seconds, finer towards now."""
    age = part.since
    while age > part.till:
        length = min(age - part.till, 1800 if age > 6 * HOUR else 300 if age > HOUR else 60)
        yield age - length / 2, length
        age -= length


def templates() -> list[dict[str, Any]]:
    """The alarms of each case's model: one stack's are too many for a template that is sent inline."""
    environment = Environment.model_validate(
        {
            "name": "dev",
            "account": "000000000000",
            "region": "us-east-1",
            "availability_zones": ["us-east-1a", "us-east-1b"],
            "network": {"cidr": "10.0.0.0/16"},
        }
    )
    stack = PlatformStack(cdk.App(), "objectives", environment, description="Alarms on objectives")
    for name, case in CASES.items():
        spec = CpuModel.model_validate(
            {
                "name": name,
                "description": "An example.",
                "owner": "ml",
                "version": "1.0.0",
                "target": "cpu",
                "slo": {"availability_percent": case.availability_percent, "p99_ms": MILLISECONDS},
            }
        )
        for kind, burns in (("page", PAGES), ("ticket", TICKETS)):
            rule = burning(stack, spec, burns)
            CompositeAlarm(stack, f"{name}-{kind}", rule, description="", runbook=kind, notify=False)
    resources = Template.from_stack(stack).to_json()["Resources"].items()
    return [
        {"Resources": {key: one for key, one in resources if name in one["Properties"]["AlarmName"]}}
        for name in CASES
    ]


@pytest.fixture(scope="session")
def rings(aws: Embedded) -> dict[str, frozenset[str]]:
    """What rings, by case, once CloudWatch has looked at every alarm."""
    cloudwatch = aws.client("cloudwatch")
    points = [point for name, case in CASES.items() for point in data(name, case)]
    for start in range(0, len(points), 1000):
        cloudwatch.put_metric_data(Namespace="AWS/ApiGateway", MetricData=points[start : start + 1000])
    for number, template in enumerate(templates()):
        assert aws.deploy(f"objectives-{number}", template)["StackStatus"] == "CREATE_COMPLETE"
    names = [f"inference-dev-{case}-{kind}" for case in CASES for kind in ("page", "ticket")]

    def states(kind: str) -> dict[str, str]:
        pages = cloudwatch.get_paginator("describe_alarms").paginate(
            AlarmNamePrefix="inference-dev-", AlarmTypes=[f"{kind}Alarm"]
        )
        return {alarm["AlarmName"]: alarm["StateValue"] for page in pages for alarm in page[f"{kind}Alarms"]}

    # An alarm on a window with no data is OK too: the objective's missing data does not breach.
    until(lambda: "INSUFFICIENT_DATA" not in states("Metric").values())
    found = states("Composite")
    ringing = {name for name in names if found[name] == "ALARM"}
    return {
        case: frozenset(kind for kind in ("page", "ticket") if f"inference-dev-{case}-{kind}" in ringing)
        for case in CASES
    }


@pytest.mark.parametrize("case", CASES)
def test_an_objective_rings_by_how_fast_its_budget_burns(rings: dict[str, frozenset[str]], case: str) -> None:
    assert rings[case] == CASES[case].rings
