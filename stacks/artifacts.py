"""First versions: unpacks each model's artifact into the models bucket and makes it live if nothing is live
yet.

What is live is state, not code: this stack creates the parameter only when it is absent, and nothing here
ever writes it again, so that no deploy can undo a release.
"""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from catalog.environment import Environment
from catalog.model import ModelSpec
from stacks.base import PlatformStack
from stacks.bundling import artifact_sha256, artifact_zip
from stacks.constructs.function import PlatformFunction

PUBLISH_SECONDS = 300


class ArtifactsStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment, models: Sequence[ModelSpec]) -> None:
        super().__init__(
            scope, "artifacts", environment, description="First model versions of the inference platform"
        )
        bucket = self.bucket_name("models")
        bundles = {
            model.name: assets.Asset(self, f"Artifact-{model.name}", path=str(artifact_zip(model.name)))
            for model in models
        }
        folders = {
            f"arn:{self.partition}:s3:::{bucket}/{model.name}/*": "An artifact is a folder named by its hash."
            for model in models
        }
        publisher = PlatformFunction(
            self,
            "Publisher",
            source="publish_artifact",
            description="Unpacks a model artifact into the models bucket (CloudFormation custom resource)",
            environment={},
            memory_mb=1024,
            timeout_seconds=PUBLISH_SECONDS,
            ephemeral_storage_mb=4096,
            log_group_name=self.names.log_group("publish-artifact"),
            wildcards=folders,
            statements=[
                iam.PolicyStatement(
                    sid="ReadBundles",
                    actions=["s3:GetObject"],
                    resources=[
                        f"arn:{self.partition}:s3:::{bundle.s3_bucket_name}/{bundle.s3_object_key}"
                        for bundle in bundles.values()
                    ],
                ),
                iam.PolicyStatement(
                    sid="PublishArtifacts",
                    actions=["s3:PutObject", "s3:GetObject"],
                    resources=list(folders),
                ),
                iam.PolicyStatement(
                    # Without it a missing object answers 403 instead of 404, and "not there yet" looks like
                    # "refused".
                    sid="FindArtifacts",
                    actions=["s3:ListBucket"],
                    resources=[f"arn:{self.partition}:s3:::{bucket}"],
                ),
                iam.PolicyStatement(
                    sid="EncryptArtifacts",
                    actions=["kms:GenerateDataKey", "kms:Decrypt"],
                    resources=[self.key("models").key_arn],
                ),
                iam.PolicyStatement(
                    sid="MakeLiveIfNothingIs",
                    actions=["ssm:PutParameter"],
                    resources=[
                        self.regional_arn("ssm", f"parameter{self.names.live_parameter(model.name)}")
                        for model in models
                    ],
                ),
            ],
        )
        for model in models:
            resource = cdk.CustomResource(
                self,
                f"Publish-{model.name}",
                resource_type="Custom::ModelArtifact",
                service_token=publisher.function.function_arn,
                # Should the function die without an answer, CloudFormation waits this long, not an hour.
                service_timeout=cdk.Duration.seconds(PUBLISH_SECONDS + 30),
                properties={
                    "Model": model.name,
                    "Sha256": artifact_sha256(model.name),
                    "AssetBucket": bundles[model.name].s3_bucket_name,
                    "AssetKey": bundles[model.name].s3_object_key,
                    "ModelsBucket": bucket,
                    "LiveParameter": self.names.live_parameter(model.name),
                },
            )
            # The function may be ready before its policy is attached.
            resource.node.add_dependency(publisher.role)
