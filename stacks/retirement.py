"""Old model versions: a function that marks what the last releases left behind, for S3 to delete.

A lifecycle rule cannot know what is live, so a function says it by a tag, and the rule in the storage stack
deletes by that tag alone. The function itself can delete nothing.
"""

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from constructs import Construct

from catalog.environment import Environment
from stacks.base import PlatformStack
from stacks.constructs.function import PlatformFunction
from stacks.constructs.schedule import Trigger

ANY_MODEL = "*"


class RetirementStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(
            scope,
            "retirement",
            environment,
            description="Retires old model versions of the inference platform",
        )
        bucket = self.bucket_arn("models")
        objects = f"{bucket}/*"
        live = self.regional_arn("ssm", f"parameter{self.names.live_parameter(ANY_MODEL)}")
        retire = PlatformFunction(
            self,
            "Retire",
            source="retire_artifacts",
            description="Tags model artifacts that the last releases left behind, so that S3 deletes them",
            environment={
                "MODELS_BUCKET": self.bucket_name("models"),
                "LIVE_PARAMETER": self.names.live_parameter("{model}"),
                "RELEASES": str(environment.retention.releases),
                "RETIRED_DAYS": str(environment.retention.retired_days),
            },
            memory_mb=256,
            # Two calls for each object of each version that is kept, one after the other.
            timeout_seconds=900,
            log_group_name=self.names.log_group("retire-artifacts"),
            statements=[
                iam.PolicyStatement(sid="FindArtifacts", actions=["s3:ListBucket"], resources=[bucket]),
                iam.PolicyStatement(
                    sid="MarkArtifacts",
                    actions=["s3:GetObjectTagging", "s3:PutObjectTagging", "s3:DeleteObjectTagging"],
                    resources=[objects],
                ),
                iam.PolicyStatement(
                    sid="ReadReleases", actions=["ssm:GetParameterHistory"], resources=[live]
                ),
            ],
            wildcards={
                objects: "It looks after every artifact of every model, also of those that left the catalog.",
                live: "One parameter per model, also of those that left the catalog.",
            },
        )
        Trigger(
            self,
            "DailyAndAtReleases",
            retire,
            description="Once a day, and when another version of a model becomes live",
            schedule=events.Schedule.rate(cdk.Duration.days(1)),
            pattern=events.EventPattern(
                source=["aws.ssm"],
                detail_type=["Parameter Store Change"],
                detail={
                    "name": [{"wildcard": self.names.live_parameter(ANY_MODEL)}],
                    "operation": ["Create", "Update"],
                },
            ),
        )
