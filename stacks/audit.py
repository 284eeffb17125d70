"""Who did what: a validated, encrypted CloudTrail trail, with reads and writes of model artifacts."""

import aws_cdk as cdk
from aws_cdk import aws_cloudtrail as cloudtrail
from aws_cdk import aws_s3 as s3
from constructs import Construct

from catalog.environment import Environment
from stacks.base import PlatformStack
from stacks.constructs.bucket import PlatformBucket


class AuditStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(scope, "audit", environment, description="Audit trail of the inference platform")
        trail = cloudtrail.Trail(
            self,
            "Trail",
            trail_name=self.names.resource("audit"),
            bucket=PlatformBucket(
                self,
                "Bucket",
                purpose="audit",
                key="audit",
                written_by=["cloudtrail"],
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
            ),
            encryption_key=self.key("audit"),
            is_multi_region_trail=True,
            include_global_service_events=True,
            enable_file_validation=True,
            # Searchable within minutes; the bucket's copy is the one that counts.
            send_to_cloud_watch_logs=True,
            cloud_watch_log_group=self.log_group("Logs", self.names.log_group("audit")),
        )
        models = s3.Bucket.from_bucket_name(self, "Models", self.bucket_name("models"))
        trail.add_s3_event_selector(
            [cloudtrail.S3EventSelector(bucket=models)], include_management_events=True
        )
