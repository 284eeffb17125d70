"""Alarms lead to their runbook, notify once, and stay within what CloudWatch takes."""

import json
import re
from collections.abc import Callable, Iterator

import aws_cdk as cdk
from aws_cdk.assertions import Template

from app import ROOT
from catalog.data import Audit
from catalog.loader import load_platform
from catalog.model import CpuModel, ModelSpec
from stacks.account import AccountStack
from stacks.constructs.account_alarms import WATCHED
from stacks.constructs.alarms import MAX_CHILDREN
from stacks.health import HealthStack
from tests.assembly import Assembly, Resource
from tests.conftest import ENVIRONMENTS

RUNBOOKS = ROOT / "docs" / "runbooks.md"
NOTIFY = re.compile(
    r"inference-\w+-(model-.+-(page|ticket)|api-server-errors|api-throttled|dead-letters(-age)?|releases-failed|"
    r"probe-failures|" + "|".join(WATCHED) + ")"
)


def alarms(assembly: Assembly) -> Iterator[Resource]:
    yield from assembly.resources("AWS::CloudWatch::Alarm")
    yield from assembly.resources("AWS::CloudWatch::CompositeAlarm")


def sections() -> set[str]:
    return set(re.findall(r"^## (.+)$", RUNBOOKS.read_text(), re.MULTILINE))


def test_every_alarm_links_to_a_section_and_every_section_to_an_alarm(
    synthesize: Callable[[str], Assembly],
) -> None:
    every = [alarm.properties for name in ENVIRONMENTS for alarm in alarms(synthesize(name))]
    # Off in every environment of the repository.
    prod = load_platform(ROOT, "prod").environment
    advised = prod.model_copy(update={"audit": Audit(trusted_advisor=True)})
    template = Template.from_stack(AccountStack(cdk.App(), advised))
    every += [alarm["Properties"] for alarm in template.find_resources("AWS::CloudWatch::Alarm").values()]
    linked = set()
    for alarm in every:
        link = re.search(r" Runbook: (\S+)#([a-z0-9-]+)$", alarm["AlarmDescription"])
        assert link, alarm["AlarmName"]
        linked.add(link[2])
    assert linked == sections()


def test_a_failure_is_one_message(assembly: Assembly) -> None:
    for alarm in alarms(assembly):
        name = alarm.properties["AlarmName"]
        notifies = bool(NOTIFY.fullmatch(name))
        assert bool(alarm.properties.get("AlarmActions")) == notifies, name
        assert alarm.properties.get("OKActions") == alarm.properties.get("AlarmActions"), name
        if notifies:
            assert re.match(r"(Page|Ticket): ", alarm.properties["AlarmDescription"]), name


def test_what_an_alarm_looks_back_on_is_within_the_limits_of_cloudwatch(assembly: Assembly) -> None:
    for alarm in assembly.resources("AWS::CloudWatch::Alarm"):
        queries = alarm.properties.get("Metrics", [])
        periods = [query["MetricStat"]["Period"] for query in queries if "MetricStat" in query]
        for period in periods or [alarm.properties["Period"]]:
            # PutMetricAlarm: a day; longer ones are evaluated only once an hour.
            assert period % 60 == 0
            assert period * alarm.properties["EvaluationPeriods"] <= 86_400, alarm.logical_id


def test_the_platforms_alarm_names_every_models_page(assembly: Assembly) -> None:
    pages = [
        alarm.properties["AlarmName"]
        for alarm in assembly.resources("AWS::CloudWatch::CompositeAlarm")
        if alarm.properties["AlarmName"].endswith("-page")
    ]
    [platform] = [
        alarm.properties["AlarmRule"]
        for alarm in assembly.resources("AWS::CloudWatch::CompositeAlarm")
        if alarm.properties["AlarmName"] == f"inference-{assembly.environment}-platform"
    ]
    # Its own stack's are references, those of other stacks names.
    named = "".join(part for part in platform["Fn::Join"][1] if isinstance(part, str))
    assert len(pages) == len(load_platform(ROOT, assembly.environment).models)
    for name in [*pages, f"inference-{assembly.environment}-api-server-errors"]:
        assert f'ALARM("{name}")' in named


def test_no_rule_outgrows_cloudwatch_with_many_models() -> None:
    environment = load_platform(ROOT, "prod").environment
    models = [model(number) for number in range(250)]
    template = Template.from_stack(HealthStack(cdk.App(), environment, models))
    rules = {
        alarm["Properties"]["AlarmName"]: json.dumps(alarm["Properties"]["AlarmRule"])
        for alarm in template.find_resources("AWS::CloudWatch::CompositeAlarm").values()
    }
    assert len(rules) == 4
    for name, rule in rules.items():
        assert rule.count("ALARM(") <= MAX_CHILDREN, name
        assert len(rule) <= 10_240, name
    named = {number for rule in rules.values() for number in re.findall(r"-model-(a\d+)", rule)}
    assert len(named) == 250


def model(number: int) -> ModelSpec:
    return CpuModel.model_validate(
        {
            # The longest name that the catalog takes.
            "name": f"a{number:031d}",
            "description": "An example.",
            "owner": "ml",
            "version": "1.0.0",
            "target": "cpu",
        }
    )
