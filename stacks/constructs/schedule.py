"""What starts a control function by itself, a schedule or an event, and where its failures go.

Nobody waits for such a function, so nobody would notice that it failed. Whatever could not be delivered, or
failed every attempt, becomes a message in the environment's one dead-letter queue, which has an alarm.
"""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs

from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge
from stacks.constructs.function import PlatformFunction

DEAD_LETTERS = "dead-letters"

DEAD_LETTERS_KEY = "alarms"
"""Purpose of the key: what lies in the queue is news of failures, as what the alarm topic carries."""


class DeadLetters(sqs.Queue):
    """The queue `inference-<env>-dead-letters`, made once; messages stay for the 14 days that SQS allows."""

    def __init__(self, stack: PlatformStack, construct_id: str) -> None:
        super().__init__(
            stack,
            construct_id,
            queue_name=stack.names.resource(DEAD_LETTERS),
            encryption=sqs.QueueEncryption.KMS,
            encryption_master_key=stack.key(DEAD_LETTERS_KEY),
            enforce_ssl=True,
            retention_period=cdk.Duration.days(14),
        )
        self.add_to_resource_policy(
            iam.PolicyStatement(
                sid="UndeliveredEvents",
                principals=[stack.account_principal("events.amazonaws.com")],
                actions=["sqs:SendMessage"],
                resources=[self.queue_arn],
                # Rules of later stacks, whose names CloudFormation makes from their stack's.
                conditions={
                    "ArnLike": {"aws:SourceArn": stack.regional_arn("events", f"rule/{stack.names.prefix}-*")}
                },
            )
        )
        itself = "It is the dead-letter queue."
        acknowledge(self, {"SQS3": itself, "SQSRedrivePolicy": itself})


class Trigger(events.Rule):
    """Runs `function` on a schedule, on events, or on both.

    Deploy the stack after `observability`, whose queue takes what fails.

    Args:
        schedule: when, such as `events.Schedule.rate(cdk.Duration.days(1))`.
        pattern: the events of the account's default bus that start it.
        retries: further attempts, 0 to 2, after the function has failed.
        max_age: how long after the event an attempt still makes sense, a minute to six hours. Of a function
            with several triggers, the first says this and `retries` for all.
        message: what the function is given in place of the event.
    """

    def __init__(
        self,
        stack: PlatformStack,
        construct_id: str,
        function: PlatformFunction,
        *,
        description: str,
        schedule: events.Schedule | None = None,
        pattern: events.EventPattern | None = None,
        retries: int = 2,
        max_age: cdk.Duration | None = None,
        message: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(
            stack, construct_id, description=description, schedule=schedule, event_pattern=pattern
        )
        age = max_age or cdk.Duration.hours(1)
        arn = stack.regional_arn("sqs", stack.names.resource(DEAD_LETTERS))
        self.add_target(
            targets.LambdaFunction(
                function.function,
                dead_letter_queue=sqs.Queue.from_queue_arn(self, "DeadLetters", arn),
                max_event_age=age,
                event=events.RuleTargetInput.from_object(message) if message is not None else None,
            )
        )
        # Through the L1: the function is made without knowing what will start it.
        resource = function.function.node.default_child
        assert isinstance(resource, lambda_.CfnFunction)
        if resource.dead_letter_config is None:
            self._report_failures(stack, function, resource, arn, age, retries)

    def _report_failures(
        self,
        stack: PlatformStack,
        function: PlatformFunction,
        resource: lambda_.CfnFunction,
        arn: str,
        age: cdk.Duration,
        retries: int,
    ) -> None:
        """Send what failed every attempt to the dead-letter queue."""
        function.function.configure_async_invoke(max_event_age=age, retry_attempts=retries)
        acknowledge(
            function.function,
            {"LambdaAsyncFailureDestination": "The dead-letter queue takes what failed every attempt."},
        )
        resource.dead_letter_config = lambda_.CfnFunction.DeadLetterConfigProperty(target_arn=arn)
        for statement in (
            iam.PolicyStatement(sid="ReportFailures", actions=["sqs:SendMessage"], resources=[arn]),
            iam.PolicyStatement(
                sid="EncryptFailures",
                actions=["kms:GenerateDataKey", "kms:Decrypt"],
                resources=[stack.key(DEAD_LETTERS_KEY).key_arn],
            ),
        ):
            function.role.add_to_policy(statement)
        # Lambda checks these rights when the function is made.
        resource.node.add_dependency(function.role)
