"""First versions: unpacks each model's artifact into the models bucket and makes it live if nothing is live
yet.

What is live is state, not code: this stack creates the parameter only when it is absent, and nothing here
ever writes it again, so that no deploy can undo a release.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Source:
    """What the publisher is told about an artifact, and the ARN of the objects that it reads for it."""

    properties: dict[str, str]
    objects: str


class ArtifactsStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment, models: Sequence[ModelSpec]) -> None:
        super().__init__(
            scope, "artifacts", environment, description="First model versions of the inference platform"
        )
        bucket = self.bucket_name("models")
        sources = {model.name: self._source(model) for model in models}
        artifacts = f"{self.bucket_arn('models')}/*"
        live = self.regional_arn("ssm", f"parameter{self.names.live_parameter('*')}")
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
            wildcards={
                artifacts: "The bucket holds artifacts only: folders named by model and hash.",
                live: "Of every model of the environment: an inline policy has no room for a list.",
            }
            | {
                source.objects: "config names the folder, its manifest the files."
                for source in sources.values()
                if source.objects.endswith("*")
            },
            statements=[
                # One each and without names, so that CDK can spread them over several policies: the
                # 10,240 characters of the role's own end at about sixty models.
                *(
                    iam.PolicyStatement(actions=["s3:GetObject"], resources=[source.objects])
                    for source in sources.values()
                ),
                iam.PolicyStatement(
                    sid="PublishArtifacts",
                    actions=["s3:PutObject", "s3:GetObject"],
                    resources=[artifacts],
                ),
                iam.PolicyStatement(
                    # Without it a missing object answers 403 instead of 404, and "not there yet" looks like
                    # "refused".
                    sid="FindArtifacts",
                    actions=["s3:ListBucket"],
                    resources=[self.bucket_arn("models")],
                ),
                iam.PolicyStatement(
                    sid="EncryptArtifacts",
                    actions=["kms:GenerateDataKey", "kms:Decrypt"],
                    resources=[self.key("models").key_arn],
                ),
                iam.PolicyStatement(
                    sid="MakeLiveIfNothingIs",
                    actions=["ssm:PutParameter"],
                    resources=[live],
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
                    **sources[model.name].properties,
                    "ModelsBucket": bucket,
                    "LiveParameter": self.names.live_parameter(model.name),
                },
            )
            # The function may be ready before its policy is attached.
            resource.node.add_dependency(publisher.role)

    def _source(self, model: ModelSpec) -> "Source":
        """Where the publisher finds the artifact: in a zip that the deployment uploads, or already in S3."""
        if model.artifact.source == "local":
            bundle = assets.Asset(self, f"Artifact-{model.name}", path=str(artifact_zip(model.name)))
            return Source(
                {
                    "Sha256": artifact_sha256(model.name),
                    "AssetBucket": bundle.s3_bucket_name,
                    "AssetKey": bundle.s3_object_key,
                },
                f"arn:{self.partition}:s3:::{bundle.s3_bucket_name}/{bundle.s3_object_key}",
            )
        assert model.artifact.sha256 is not None  # the catalog requires it with an s3:// source
        folder = model.artifact.source.removeprefix("s3://")
        return Source(
            {"Sha256": model.artifact.sha256, "SourceUri": model.artifact.source},
            f"arn:{self.partition}:s3:::{folder}*",
        )
