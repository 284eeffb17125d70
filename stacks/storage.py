"""Buckets: model artifacts, data (inputs, outputs, captures), and the access logs of every bucket."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from catalog.data import Payloads
from catalog.environment import Environment
from catalog.names import EXPIRING, INCOMING, RETIRED_TAG
from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge
from stacks.constructs.bucket import ACCESS_LOGS, PlatformBucket
from stacks.constructs.capture_tables import RESULTS

LOGGED = ("models", "data", "audit")
"""The purposes whose buckets log who reads and writes them."""

UPLOAD_DAYS = 7
"""For which an upload can still be looked at, and tried again, after it came."""

RESULT_DAYS = 7
"""For which what Athena answered can be fetched again."""


class StorageStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(scope, "storage", environment, description="Buckets of the inference platform")
        retention = environment.retention
        access_logs = PlatformBucket(
            self,
            "AccessLogs",
            purpose=ACCESS_LOGS,
            # S3 delivers access logs only to buckets that use its own keys.
            key=None,
            lifecycle_rules=[
                s3.LifecycleRule(id="expire", expiration=cdk.Duration.days(retention.access_logs_days))
            ],
            written_by=["logging.s3"],
        )
        itself = "It holds the access logs: logging access to itself would feed it."
        acknowledge(
            access_logs,
            {
                "S1": itself,
                "S3BucketLoggingEnabled": itself,
                "S3DefaultEncryptionKMS": "S3 delivers access logs only to buckets that use its own keys.",
            },
        )
        access_logs.add_to_resource_policy(
            iam.PolicyStatement(
                sid="DeliverAccessLogs",
                principals=[self.account_principal("logging.s3.amazonaws.com")],
                actions=["s3:PutObject"],
                resources=[access_logs.arn_for_objects(f"{purpose}/*") for purpose in LOGGED],
                conditions={"ArnLike": {"aws:SourceArn": [self.bucket_arn(purpose) for purpose in LOGGED]}},
            )
        )
        models = PlatformBucket(
            self,
            "Models",
            purpose="models",
            key="models",
            lifecycle_rules=[
                # S3 counts from an object's creation, which is long ago: the tag is what decides. The
                # function retire_artifacts sets it.
                s3.LifecycleRule(
                    id="retired", tag_filters={RETIRED_TAG: EXPIRING}, expiration=cdk.Duration.days(1)
                ),
                # What was released is stored elsewhere; what was not, or broke off, is of no use for long.
                s3.LifecycleRule(
                    id=INCOMING, prefix=f"{INCOMING}/", expiration=cdk.Duration.days(UPLOAD_DAYS)
                ),
            ],
            announces=True,
        )
        data = PlatformBucket(
            self,
            "Data",
            purpose="data",
            key="data",
            lifecycle_rules=payload_rules(retention.payloads),
            announces=True,
        )
        for bucket in (models, data):
            # S3 checks the log bucket's policy when logging is switched on.
            bucket.node.add_dependency(access_logs)


def payload_rules(payloads: Payloads) -> list[s3.LifecycleRule]:
    """What becomes of inputs, outputs and captures, each below its own prefix, and of what is learnt of them.

    Inputs are read once, soon after they came: they only end, if configuration says when. What a query
    answered can be asked again. Baselines stay: a version is compared with its own for as long as it is live.
    """
    ends = cdk.Duration.days(payloads.delete_days) if payloads.delete_days else None
    cooled = [
        s3.Transition(
            storage_class=s3.StorageClass.INFREQUENT_ACCESS,
            transition_after=cdk.Duration.days(payloads.infrequent_access_days),
        ),
        s3.Transition(
            storage_class=s3.StorageClass.GLACIER_INSTANT_RETRIEVAL,
            transition_after=cdk.Duration.days(payloads.archive_days),
        ),
    ]
    rules = [
        s3.LifecycleRule(id=prefix, prefix=f"{prefix}/", transitions=cooled, expiration=ends)
        for prefix in ("outputs", "captures", "ground-truth", "drift")
    ]
    rules.append(
        s3.LifecycleRule(id=RESULTS, prefix=f"{RESULTS}/", expiration=cdk.Duration.days(RESULT_DAYS))
    )
    if ends:
        rules.append(s3.LifecycleRule(id="inputs", prefix="inputs/", expiration=ends))
    return rules
