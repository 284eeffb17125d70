"""Alarms on what the trail records: events that somebody should hear of the same day.

The CIS AWS Foundations Benchmark's list of them (docs.aws.amazon.com/securityhub/latest/userguide/
cloudwatch-controls.html, CloudWatch.1 to 14), with two differences: a change that CloudFormation makes is a
deployment, which has been reviewed, so it does not ring; and any other change of IAM, of a bucket or of a
network rings, whatever the call is named.
"""

from dataclasses import dataclass

from aws_cdk import aws_logs as logs

from stacks.base import PlatformStack
from stacks.constructs import metrics
from stacks.constructs.alarms import PlatformAlarm

_BY_HAND = '($.readOnly IS FALSE) && ($.sourceIPAddress != "cloudformation.amazonaws.com")'


@dataclass(frozen=True)
class Watched:
    """Events of the trail that ring.

    Attributes:
        pattern: the filter pattern that finds them, 1,024 characters at most (PutMetricFilter).
        threshold: how many in five minutes.
    """

    pattern: str
    description: str
    threshold: int = 1


def _by_hand(service: str, names: tuple[str, ...] = ()) -> str:
    """Changes that nobody deployed, of a service, or of what these names contain."""
    named = " || ".join(f'($.eventName = "*{name}*")' for name in names)
    only = f" && ({named})" if named else ""
    return f'{{ ($.eventSource = "{service}.amazonaws.com") && {_BY_HAND}{only} }}'


WATCHED = {
    "root-use": Watched(
        '{ ($.userIdentity.type = "Root") && ($.userIdentity.invokedBy NOT EXISTS) '
        '&& ($.eventType != "AwsServiceEvent") }',
        "Page: somebody acts as the account's root user.",
    ),
    "refused-calls": Watched(
        '{ ($.errorCode = "*UnauthorizedOperation") || ($.errorCode = "AccessDenied*") }',
        "Ticket: AWS refused twenty calls in five minutes.",
        threshold=20,
    ),
    "sign-in-without-mfa": Watched(
        '{ ($.eventName = "ConsoleLogin") && ($.additionalEventData.MFAUsed = "No") '
        '&& ($.userIdentity.type = "IAMUser") && ($.responseElements.ConsoleLogin = "Success") }',
        "Ticket: an IAM user signed in to the console without a second factor.",
    ),
    "failed-sign-ins": Watched(
        '{ ($.eventName = "ConsoleLogin") && ($.errorMessage = "Failed authentication") }',
        "Ticket: five sign-ins to the console failed in five minutes.",
        threshold=5,
    ),
    "key-deletion": Watched(
        '{ ($.eventSource = "kms.amazonaws.com") '
        '&& (($.eventName = "DisableKey") || ($.eventName = "ScheduleKeyDeletion")) }',
        "Page: a KMS key was disabled or is about to be deleted; what it encrypts will be lost.",
    ),
    "trail-changes": Watched(
        '{ ($.eventSource = "cloudtrail.amazonaws.com") && ($.readOnly IS FALSE) }',
        "Page: a trail was stopped, changed, made or deleted.",
    ),
    "recorder-changes": Watched(
        _by_hand("config", ("ConfigurationRecorder", "DeliveryChannel")),
        "Ticket: AWS Config's recorder was stopped or changed by hand.",
    ),
    "iam-changes": Watched(_by_hand("iam"), "Ticket: IAM was changed by hand."),
    "bucket-changes": Watched(
        _by_hand("s3", ("Bucket", "PublicAccessBlock")),
        "Ticket: a bucket, or its settings, was changed by hand.",
    ),
    "network-changes": Watched(
        _by_hand("ec2", ("SecurityGroup", "NetworkAcl", "Gateway", "Route", "Vpc")),
        "Ticket: a network, its routes or its guards were changed by hand.",
    ),
}
"""Name of the alarm -> what rings. All are of the whole account and of every region that the trail covers."""


def watch_account(stack: PlatformStack, trail_events: logs.ILogGroup) -> None:
    """An alarm on each kind of event that is `WATCHED`, counted where the trail delivers its events.

    The custom metrics cost nothing while nothing happens; an alarm is billed by the month.
    """
    for name, watched in WATCHED.items():
        metric_name = "".join(part.capitalize() for part in name.split("-"))
        logs.MetricFilter(
            stack,
            f"Filter-{name}",
            log_group=trail_events,
            filter_pattern=logs.FilterPattern.literal(watched.pattern),
            metric_namespace=stack.names.metrics_namespace,
            metric_name=metric_name,
            metric_value="1",
        )
        PlatformAlarm(
            stack,
            name,
            metrics.counted(stack.names, metric_name),
            description=watched.description,
            runbook=name,
            threshold=watched.threshold,
            notify=True,
        )
