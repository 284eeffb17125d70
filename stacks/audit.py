"""Who did what: a validated, encrypted CloudTrail trail over the account, with reads and writes of model
artifacts.
"""

import aws_cdk as cdk
from aws_cdk import aws_cloudtrail as cloudtrail
from aws_cdk import aws_s3 as s3
from constructs import Construct

from catalog.environment import Environment
from stacks.base import PlatformStack


class AuditStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(scope, "audit", environment, description="Audit trail of the inference platform")
        bucket = s3.Bucket(
            self,
            "Bucket",
            bucket_name=self.bucket_name("audit"),
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key("audit"),
            bucket_key_enabled=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="archive",
                    transitions=[
                        s3.Transition(
                            storage_class=s3.StorageClass.GLACIER_INSTANT_RETRIEVAL,
                            transition_after=cdk.Duration.days(90),
                        )
                    ],
                )
            ],
            removal_policy=self.removal_policy,
        )
        # Through the L1: the storage stack owns the log bucket's policy, and has already let this bucket in.
        resource = bucket.node.default_child
        assert isinstance(resource, s3.CfnBucket)
        resource.logging_configuration = s3.CfnBucket.LoggingConfigurationProperty(
            destination_bucket_name=self.bucket_name("access-logs"), log_file_prefix="audit/"
        )
        trail = cloudtrail.Trail(
            self,
            "Trail",
            trail_name=self.names.resource("audit"),
            bucket=bucket,
            encryption_key=self.key("audit"),
            is_multi_region_trail=True,
            include_global_service_events=True,
            enable_file_validation=True,
        )
        trail.add_s3_event_selector(
            [
                cloudtrail.S3EventSelector(
                    bucket=s3.Bucket.from_bucket_name(self, "Models", self.bucket_name("models"))
                )
            ],
            include_management_events=True,
        )
