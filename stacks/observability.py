"""What on-call looks at first: where alarms go, the platform's dashboard, the alarm on the API itself."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from catalog.environment import Environment
from catalog.model import ModelSpec
from stacks.base import PlatformStack
from stacks.constructs import metrics
from stacks.constructs.acknowledge import acknowledge
from stacks.constructs.alarms import PlatformAlarm
from stacks.constructs.saved_queries import save_platform_queries
from stacks.constructs.schedule import DEAD_LETTERS, DeadLetters

API_ERRORS = "api-server-errors"
THROTTLED = "api-throttled"


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

        api = self.names.prefix
        errors = metrics.api("5XXError", api, environment.name, statistic="Sum")
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

        dashboard = cloudwatch.Dashboard(
            self, "Dashboard", dashboard_name=self.names.prefix, default_interval=cdk.Duration.hours(3)
        )
        requests = metrics.api("Count", api, environment.name, statistic="Sum")
        rejected = metrics.api("4XXError", api, environment.name, statistic="Sum")
        latency = [
            metrics.api("Latency", api, environment.name, statistic=quantile) for quantile in ("p50", "p99")
        ]
        dashboard.add_widgets(
            cloudwatch.GraphWidget(title="API requests", left=[requests, rejected, errors], width=12),
            cloudwatch.GraphWidget(title="API latency (ms)", left=latency, width=12),
        )
        for model in models:
            health = metrics.model(model, self.names)
            dashboard.add_widgets(
                cloudwatch.TextWidget(markdown=f"## {model.name}\n{model.description}", width=24, height=2),
                cloudwatch.GraphWidget(
                    title="Invocations and errors",
                    left=[health.invocations, *health.errors.values()],
                    width=12,
                ),
                cloudwatch.GraphWidget(
                    title=f"Latency ({health.latency_unit})", left=health.latency, width=12
                ),
            )

    def _watch_throttling(self, access_logs: logs.LogGroup) -> None:
        """API Gateway counts a 429 among all 4XX: only the access log tells them apart."""
        logs.MetricFilter(
            self,
            "Throttled",
            log_group=access_logs,
            filter_pattern=logs.FilterPattern.string_value("$.status", "=", "429"),
            metric_namespace=self.names.metrics_namespace,
            metric_name="Throttled",
            metric_value="1",
        )
        PlatformAlarm(
            self,
            THROTTLED,
            cloudwatch.Metric(
                namespace=self.names.metrics_namespace,
                metric_name="Throttled",
                statistic="Sum",
                period=cdk.Duration.minutes(5),
            ),
            description="Ticket: the API refused a hundred requests in five minutes: too many came.",
            runbook=THROTTLED,
            threshold=100,
            notify=True,
        )
