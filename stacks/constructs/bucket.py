"""A bucket as every one of the platform is: private, versioned, TLS only, encrypted, its access logged."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3

from stacks.base import PlatformStack
from stacks.constructs.acknowledge import acknowledge

ACCESS_LOGS = "access-logs"


class PlatformBucket(s3.Bucket):
    """The bucket `inference-<env>-<purpose>-<account>-<region>`.

    Args:
        purpose: what it holds; also the prefix of its own access logs in the bucket for those.
        key: purpose of the KMS key it is encrypted with; None for S3's own keys, which the access logs need.
        written_by: the AWS services that deliver to it, such as `cloudtrail`: nobody else may write then.
            Empty: whoever IAM lets, with the bucket's key and no other.
        announces: tell EventBridge of objects that come and go.
        locked: each version from its delivery on, for a time that starts anew with every version.
    """

    def __init__(
        self,
        stack: PlatformStack,
        construct_id: str,
        *,
        purpose: str,
        key: str | None,
        lifecycle_rules: Sequence[s3.LifecycleRule],
        written_by: Sequence[str] = (),
        announces: bool = False,
        locked: s3.ObjectLockRetention | None = None,
    ) -> None:
        super().__init__(
            stack,
            construct_id,
            bucket_name=stack.bucket_name(purpose),
            encryption=s3.BucketEncryption.KMS if key else s3.BucketEncryption.S3_MANAGED,
            encryption_key=stack.key(key) if key else None,
            bucket_key_enabled=True if key else None,
            # A key that only the uploader has is no key of ours.
            blocked_encryption_types=[s3.BlockedEncryptionType.SSE_C],
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            object_lock_default_retention=locked,
            lifecycle_rules=[*lifecycle_rules, *self._leftovers(stack)],
            # S3's default, said aloud: a transition costs more than a small object ever saves.
            transition_default_minimum_object_size=s3.TransitionDefaultMinimumObjectSize.ALL_STORAGE_CLASSES_128_K,
            removal_policy=stack.removal_policy,
        )
        acknowledge(
            self,
            {
                "S3BucketReplicationEnabled": "S3 keeps three zones' copies and old versions here; a copy in "
                "a second region is a second environment there."
            },
        )
        # Through the L1s, here and below: the L2 of notifications brings a custom resource, and the storage
        # stack owns the policy of the log bucket, and lets every purpose in.
        resource = self.node.default_child
        assert isinstance(resource, s3.CfnBucket)
        if announces:
            resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
                event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(
                    event_bridge_enabled=True
                )
            )
        if purpose != ACCESS_LOGS:
            resource.logging_configuration = s3.CfnBucket.LoggingConfigurationProperty(
                destination_bucket_name=stack.bucket_name(ACCESS_LOGS), log_file_prefix=f"{purpose}/"
            )
        if written_by:
            self._refuse_writers_but(written_by)
        else:
            self._refuse_keys_but_its_own()

    @staticmethod
    def _leftovers(stack: PlatformStack) -> list[s3.LifecycleRule]:
        """What remains of deleted and overwritten objects, and of uploads that broke off."""
        days = cdk.Duration.days(stack.environment_config.retention.deleted_days)
        return [
            s3.LifecycleRule(
                id="deleted", noncurrent_version_expiration=days, expired_object_delete_marker=True
            ),
            s3.LifecycleRule(
                id="abandoned-uploads", abort_incomplete_multipart_upload_after=cdk.Duration.days(7)
            ),
        ]

    def _refuse_keys_but_its_own(self) -> None:
        """An upload names no encryption, and gets the bucket's, or names the bucket's key.

        Without a key's id, `aws:kms` means the account's default key, not the bucket's; `AES256` has none.
        Both lack the id, and a negated condition holds for a key that is absent.
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
        """
        assert self.encryption_key
        self.add_to_resource_policy(
            iam.PolicyStatement(
                sid="RefuseOtherKeys",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[self.arn_for_objects("*")],
                conditions={
                    "Null": {"s3:x-amz-server-side-encryption": "false"},
                    "StringNotEquals": {
                        "s3:x-amz-server-side-encryption-aws-kms-key-id": self.encryption_key.key_arn
                    },
                },
            )
        )

    def _refuse_writers_but(self, services: Sequence[str]) -> None:
        """Nobody but these services adds a record or replaces one, whatever IAM says."""
        self.add_to_resource_policy(
            iam.PolicyStatement(
                sid="RefuseOtherWriters",
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=["s3:PutObject"],
                resources=[self.arn_for_objects("*")],
                conditions={
                    "StringNotEquals": {
                        "aws:PrincipalServiceName": [f"{service}.amazonaws.com" for service in services]
                    }
                },
            )
        )
