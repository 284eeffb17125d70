"""Alarms as every one of the platform is: named, with a link to its runbook, silent where no data came.

Few alarms notify. A page says that users are hurt, a ticket that they would be if nobody looked: it is the
word that the description begins with. The alarms that these are made of change colour and tell nobody, so
that one failure is one message.
"""

from collections.abc import Sequence

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns

from catalog.model import ModelSpec
from catalog.names import on_target
from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge

TOPIC = "alarms"

PAGE = "page"
"""The alarm of a model that stands for it in the platform's."""

TICKET = "ticket"
"""The alarm of a model that can wait until morning."""

PLATFORM = "platform"
"""The one alarm of the whole platform."""

REJECTED = "release-rejected"
"""The alarm by which a release makes SageMaker take an update back: no call does."""

MAX_CHILDREN = 100
"""Alarms that one composite may name; docs: PutCompositeAlarm."""

AT_LEAST = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
NOT_BREACHING = cloudwatch.TreatMissingData.NOT_BREACHING


class PlatformAlarm(cloudwatch.Alarm):
    """The alarm `inference-<env>-<name>` on one metric or expression; it rings at `threshold` and above.

    Args:
        runbook: the section of docs/runbooks.md that says what to do.
        periods: how many periods of the metric are looked at, and `of_them` how many of those must breach;
            all of them unless given.
        notify: whether the topic hears of it by itself, not only through a composite.
        calls: what it sets off instead: it is no bad news then, and nobody hears of it.
    """

    def __init__(
        self,
        stack: PlatformStack,
        name: str,
        metric: cloudwatch.IMetric,
        *,
        description: str,
        runbook: str,
        threshold: float,
        periods: int = 1,
        of_them: int | None = None,
        missing: cloudwatch.TreatMissingData = NOT_BREACHING,
        notify: bool = False,
        calls: cloudwatch.IAlarmAction | None = None,
    ) -> None:
        super().__init__(
            stack,
            f"Alarm-{name}",
            metric=metric,
            alarm_name=stack.names.resource(name),
            alarm_description=_described(stack, description, runbook),
            threshold=threshold,
            comparison_operator=AT_LEAST,
            evaluation_periods=periods,
            datapoints_to_alarm=of_them or periods,
            treat_missing_data=missing,
        )
        if calls:
            self.add_alarm_action(calls)
        elif notify:
            _notify(stack, self)
        else:
            reason = "A composite alarm that it is part of notifies: one failure is one message."
            acknowledge(self, {"CloudWatchAlarmAction": reason})


class CompositeAlarm(cloudwatch.CompositeAlarm):
    """The composite `inference-<env>-<name>`: in alarm while `rule` is true."""

    def __init__(
        self,
        stack: PlatformStack,
        name: str,
        rule: str,
        *,
        description: str,
        runbook: str,
        notify: bool = True,
    ) -> None:
        super().__init__(
            stack,
            f"Alarm-{name}",
            composite_alarm_name=stack.names.resource(name),
            alarm_description=_described(stack, description, runbook),
            alarm_rule=cloudwatch.AlarmRule.from_string(rule),
        )
        if notify:
            _notify(stack, self)


def of_model(spec: ModelSpec, kind: str) -> str:
    """The name of a model's alarm."""
    return f"{on_target(spec.name, spec.home)}-{kind}"


def both(first: cloudwatch.IAlarm, second: cloudwatch.IAlarm) -> str:
    """The rule that is true while two alarms ring."""
    return f"({rings(first.alarm_name)} AND {rings(second.alarm_name)})"


def any_of(rules: Sequence[str | cloudwatch.IAlarm]) -> str:
    """The rule that is true while one of `rules`, or of alarms, is."""
    return " OR ".join(rule if isinstance(rule, str) else rings(rule.alarm_name) for rule in rules)


def rings(alarm_name: str) -> str:
    # By name, not by ARN: a hundred ARNs would be longer than the 10,240 characters of a rule.
    return f'ALARM("{alarm_name}")'


def _described(stack: PlatformStack, description: str, runbook: str) -> str:
    return f"{description} Runbook: {stack.environment_config.alarms.runbooks}#{runbook}"


def _notify(stack: PlatformStack, alarm: cloudwatch.AlarmBase) -> None:
    arn = stack.regional_arn("sns", stack.names.resource(TOPIC))
    topic = actions.SnsAction(sns.Topic.from_topic_arn(alarm, "Topic", arn))
    alarm.add_alarm_action(topic)
    alarm.add_ok_action(topic)
