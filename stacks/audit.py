"""Who did what: a validated, encrypted CloudTrail trail, with reads and writes of artifacts and payloads,
and alarms on what in it cannot wait.
"""

import aws_cdk as cdk
from aws_cdk import aws_cloudtrail as cloudtrail
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from catalog.data import Audit
from catalog.environment import Environment
from stacks.base import PlatformStack
from stacks.constructs.account_alarms import watch_account
from stacks.constructs.bucket import PlatformBucket

LOCKS = {"governance": s3.ObjectLockRetention.governance, "compliance": s3.ObjectLockRetention.compliance}


class AuditStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(scope, "audit", environment, description="Audit trail of the inference platform")
        audit = environment.audit
        bucket = self._bucket(audit)
        if audit.config_rules:
            self._receive_from_config(bucket)
        events = self.log_group("Logs", self.names.log_group("audit"))
        trail = cloudtrail.Trail(
            self,
            "Trail",
            trail_name=self.names.resource("audit"),
            bucket=bucket,
            encryption_key=self.key("audit"),
            is_multi_region_trail=True,
            include_global_service_events=True,
            enable_file_validation=True,
            # Searchable within minutes; the bucket's copy is the one that counts.
            send_to_cloud_watch_logs=True,
            cloud_watch_log_group=events,
        )
        if audit.alarms:
            watch_account(self, events)
        # Through the L1: the L2 has the older form of selectors, which takes functions only one by one.
        resource = trail.node.default_child
        assert isinstance(resource, cloudtrail.CfnTrail)
        resource.event_selectors = None
        resource.advanced_event_selectors = self._selectors(audit)

    def _bucket(self, audit: Audit) -> PlatformBucket:
        """Where records are delivered. CloudTrail encrypts its digests with S3's keys: no key is demanded."""
        ends = cdk.Duration.days(audit.delete_days) if audit.delete_days else None
        lock = audit.object_lock
        return PlatformBucket(
            self,
            "Bucket",
            purpose="audit",
            key="audit",
            written_by=["cloudtrail", "config"] if audit.config_rules else ["cloudtrail"],
            locked=LOCKS[lock.mode](cdk.Duration.days(lock.days)) if lock else None,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="archive",
                    transitions=[
                        s3.Transition(
                            storage_class=s3.StorageClass.GLACIER_INSTANT_RETRIEVAL,
                            transition_after=cdk.Duration.days(audit.archive_days),
                        )
                    ],
                    expiration=ends,
                )
            ],
        )

    def _selectors(self, audit: Audit) -> "list[cdk.IResolvable | Selector]":
        """Every management event, and the data events that configuration asks for."""
        selectors: list[cdk.IResolvable | Selector] = [MANAGEMENT]
        if buckets := [name for name in audit.data_events if name != "functions"]:
            objects = [f"{self.bucket_arn(purpose)}/" for purpose in buckets]
            selectors.append(_data("Objects", "AWS::S3::Object", objects))
        if "functions" in audit.data_events:
            # A prefix, so that models which come later are covered.
            functions = [self.regional_arn("lambda", f"function:{self.names.prefix}-")]
            selectors.append(_data("Functions", "AWS::Lambda::Function", functions))
        return selectors

    def _receive_from_config(self, bucket: PlatformBucket) -> None:
        """AWS Config delivers what its recorder saw.

        https://docs.aws.amazon.com/config/latest/developerguide/s3-bucket-policy.html
        """
        service = self.account_principal("config.amazonaws.com")
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="ConfigFindsTheBucket",
                principals=[service],
                actions=["s3:GetBucketAcl", "s3:ListBucket"],
                resources=[bucket.bucket_arn],
            )
        )
        bucket.add_to_resource_policy(
            iam.PolicyStatement(
                sid="ConfigDelivers",
                principals=[service],
                actions=["s3:PutObject"],
                resources=[bucket.arn_for_objects(f"AWSLogs/{self.account}/Config/*")],
                conditions={"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}},
            )
        )


FieldSelector = cloudtrail.CfnTrail.AdvancedFieldSelectorProperty
Selector = cloudtrail.CfnTrail.AdvancedEventSelectorProperty

MANAGEMENT = Selector(
    name="Management", field_selectors=[FieldSelector(field="eventCategory", equal_to=["Management"])]
)


def _data(name: str, type_: str, arns: list[str]) -> Selector:
    """The data events of resources of a type whose ARN begins with one of `arns`."""
    return Selector(
        name=name,
        field_selectors=[
            FieldSelector(field="eventCategory", equal_to=["Data"]),
            FieldSelector(field="resources.type", equal_to=[type_]),
            FieldSelector(field="resources.ARN", starts_with=arns),
        ],
    )
