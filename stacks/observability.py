"""What on-call looks at first: where alarms go, the platform's dashboard, the alarm on the API itself."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from catalog.environment import Environment
from catalog.model import ModelSpec
from stacks.base import PlatformStack
from stacks.constructs import metrics
from stacks.constructs.account_alarms import WATCHED
from stacks.constructs.acknowledge import acknowledge
from stacks.constructs.alarms import PlatformAlarm
from stacks.constructs.dashboards import add_platform_dashboard
from stacks.constructs.saved_queries import save_platform_queries
from stacks.constructs.schedule import DEAD_LETTERS, DeadLetters

API_ERRORS = "api-server-errors"
THROTTLED = "api-throttled"
LOST_SOON = "dead-letters-age"


class ObservabilityStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment, models: Sequence[ModelSpec]) -> None:
        super().__init__(
            scope, "observability", environment, description="Alarms and dashboard of the inference platform"
        )
        topic = sns.Topic(
            self,
            "Alarms",
            topic_name=self.names.resource("alarms"),
            master_key=self.key("alarms"),
            enforce_ssl=True,
        )
        # A topic with a policy of its own, as `enforce_ssl` gives it, admits only whom the policy names.
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudWatchAlarms",
                principals=[self.account_principal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
            )
        )
        if environment.alarms.email:
            subscription = topic.add_subscription(subscriptions.EmailSubscription(environment.alarms.email))
            acknowledge(
                subscription,
                {
                    "SNSRedrivePolicy": "SNS tries for hours; what it then gives up is old news, and the "
                    "alarm's own history has it."
                },
            )
        DeadLetters(self, "DeadLetters")
        access_logs = self.log_group("AccessLogs", self.names.log_group("api-access"))
        save_platform_queries(self)

        errors = metrics.api("5XXError", self.names.prefix, environment.name, statistic="Sum")
        PlatformAlarm(
            self,
            API_ERRORS,
            errors,
            description="Page: the API answered 5xx at least five times in a minute, three minutes running.",
            runbook=API_ERRORS,
            threshold=5,
            periods=3,
            notify=True,
        )
        self._watch_throttling(access_logs)
        PlatformAlarm(
            self,
            DEAD_LETTERS,
            metrics.waiting(self.names.resource(DEAD_LETTERS)),
            description="Ticket: a function that nobody waits for failed every attempt, or was not reached.",
            runbook=DEAD_LETTERS,
            threshold=1,
            notify=True,
        )

        PlatformAlarm(
            self,
            LOST_SOON,
            metrics.oldest(self.names.resource(DEAD_LETTERS)),
            description="Ticket: a dead letter has waited ten days; SQS deletes it after fourteen.",
            runbook=LOST_SOON,
            threshold=cdk.Duration.days(10).to_seconds(),
            notify=True,
        )

        own = [API_ERRORS, THROTTLED, DEAD_LETTERS, LOST_SOON]
        if environment.audit.trail and environment.audit.alarms:
            own += WATCHED
        add_platform_dashboard(self, models, own)

    def _watch_throttling(self, access_logs: logs.LogGroup) -> None:
        """API Gateway counts a 429 among all 4XX: only the access log tells them apart."""
        logs.MetricFilter(
            self,
            "Throttled",
            log_group=access_logs,
            filter_pattern=logs.FilterPattern.string_value("$.status", "=", "429"),
            metric_namespace=self.names.metrics_namespace,
            metric_name=metrics.THROTTLED,
            metric_value="1",
        )
        PlatformAlarm(
            self,
            THROTTLED,
            metrics.throttled(self.names),
            description="Ticket: the API refused a hundred requests in five minutes: too many came.",
            runbook=THROTTLED,
            threshold=100,
            notify=True,
        )
