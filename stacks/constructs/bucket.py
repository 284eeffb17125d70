"""A bucket as every one of the platform is: private, versioned, TLS only, encrypted, its access logged."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3

from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge

ACCESS_LOGS = "access-logs"


class PlatformBucket(s3.Bucket):
    """The bucket `inference-<env>-<purpose>-<account>-<region>`.

    Args:
        purpose: what it holds; also the prefix of its own access logs in the bucket for those.
        key: purpose of the KMS key it is encrypted with; None for S3's own keys, which the access logs need.
    """

    def __init__(
        self,
        stack: PlatformStack,
        construct_id: str,
        *,
        purpose: str,
        key: str | None,
        lifecycle_rules: Sequence[s3.LifecycleRule],
    ) -> None:
        super().__init__(
            stack,
            construct_id,
            bucket_name=stack.bucket_name(purpose),
            encryption=s3.BucketEncryption.KMS if key else s3.BucketEncryption.S3_MANAGED,
            encryption_key=stack.key(key) if key else None,
            bucket_key_enabled=True if key else None,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            lifecycle_rules=[
                *lifecycle_rules,
                s3.LifecycleRule(
                    id="abandoned-uploads", abort_incomplete_multipart_upload_after=cdk.Duration.days(7)
                ),
            ],
            removal_policy=stack.removal_policy,
        )
        acknowledge(
            self,
            {
                "S3BucketReplicationEnabled": "S3 keeps three zones' copies and old versions here; a copy in "
                "a second region is a second environment there."
            },
        )
        if purpose != ACCESS_LOGS:
            # Through the L1: the storage stack owns the policy of the log bucket, and lets every purpose in.
            resource = self.node.default_child
            assert isinstance(resource, s3.CfnBucket)
            resource.logging_configuration = s3.CfnBucket.LoggingConfigurationProperty(
                destination_bucket_name=stack.bucket_name(ACCESS_LOGS), log_file_prefix=f"{purpose}/"
            )
