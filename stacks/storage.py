"""Buckets: model artifacts, data (inputs, outputs, captures), and the access logs of every bucket."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from catalog.environment import Environment
from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge
from stacks.constructs.bucket import ACCESS_LOGS, PlatformBucket

LOGGED = ("models", "data", "audit")
"""The purposes whose buckets log who reads and writes them."""


class StorageStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(scope, "storage", environment, description="Buckets of the inference platform")
        access_logs = PlatformBucket(
            self,
            "AccessLogs",
            purpose=ACCESS_LOGS,
            # S3 delivers access logs only to buckets that use its own keys.
            key=None,
            lifecycle_rules=[s3.LifecycleRule(id="expire", expiration=cdk.Duration.days(400))],
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
                # Artifacts are immutable folders named by their hash: a noncurrent version is an accident.
                s3.LifecycleRule(id="noncurrent", noncurrent_version_expiration=cdk.Duration.days(90))
            ],
        )
        data = PlatformBucket(
            self,
            "Data",
            purpose="data",
            key="data",
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="cool-down",
                    transitions=[
                        s3.Transition(
                            storage_class=s3.StorageClass.INFREQUENT_ACCESS,
                            transition_after=cdk.Duration.days(30),
                        ),
                        s3.Transition(
                            storage_class=s3.StorageClass.GLACIER_INSTANT_RETRIEVAL,
                            transition_after=cdk.Duration.days(90),
                        ),
                    ],
                    noncurrent_version_expiration=cdk.Duration.days(30),
                )
            ],
        )
        for bucket in (models, data):
            # S3 checks the log bucket's policy when logging is switched on.
            bucket.node.add_dependency(access_logs)
