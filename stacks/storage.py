"""Buckets: model artifacts, data (inputs, outputs, captures), and the access logs of both."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from catalog.environment import Environment
from stacks.base import PlatformStack


class StorageStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(scope, "storage", environment, description="Buckets of the inference platform")
        self._access_logs = self._bucket(
            "access-logs",
            # S3 delivers access logs only to buckets that use its own keys.
            encryption=s3.BucketEncryption.S3_MANAGED,
            lifecycle=[s3.LifecycleRule(id="expire", expiration=cdk.Duration.days(400))],
        )
        self._access_logs.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AuditBucketLogs",
                principals=[self.account_principal("logging.s3.amazonaws.com")],
                actions=["s3:PutObject"],
                resources=[self._access_logs.arn_for_objects("audit/*")],
                conditions={
                    "ArnLike": {"aws:SourceArn": f"arn:{self.partition}:s3:::{self.bucket_name('audit')}"}
                },
            )
        )
        self._bucket(
            "models",
            key="models",
            lifecycle=[
                # Artifacts are immutable folders named by their hash: a noncurrent version is an accident,
                # kept a while.
                s3.LifecycleRule(id="noncurrent", noncurrent_version_expiration=cdk.Duration.days(90))
            ],
        )
        self._bucket(
            "data",
            key="data",
            lifecycle=[
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

    def _bucket(
        self,
        purpose: str,
        *,
        lifecycle: list[s3.LifecycleRule],
        key: str | None = None,
        encryption: s3.BucketEncryption = s3.BucketEncryption.KMS,
    ) -> s3.Bucket:
        logged = key is not None
        return s3.Bucket(
            self,
            "".join(word.capitalize() for word in purpose.split("-")),
            bucket_name=self.bucket_name(purpose),
            encryption=encryption,
            encryption_key=self.key(key) if key else None,
            bucket_key_enabled=True if key else None,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            server_access_logs_bucket=self._access_logs if logged else None,
            server_access_logs_prefix=f"{purpose}/" if logged else None,
            lifecycle_rules=[
                *lifecycle,
                s3.LifecycleRule(
                    id="abandoned-uploads", abort_incomplete_multipart_upload_after=cdk.Duration.days(7)
                ),
            ],
            removal_policy=self.removal_policy,
        )
