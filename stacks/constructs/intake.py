"""How versions get in: what starts releases, and what stores the versions that their validator lets pass.

Uploads and approvals are events, which the function `intake` turns into executions of the state machine; what
it cannot is a dead letter.
"""

import json
from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam

from catalog.model import ModelSpec
from catalog.names import INCOMING, UPLOADS
from stacks.base import PlatformStack
from stacks.constructs.function import PlatformFunction
from stacks.constructs.schedule import Trigger

MANIFEST = "manifest.json"

OUTCOMES = ["Release succeeded", "Release refused", "Release rolled back", "Release failed"]
"""Detail-types of the events that packages are told of."""

STORE_SECONDS = 900

ANY_VERSION = "A version is a folder; publishing adds new ones, of models that may leave the catalog."


class Intake(PlatformFunction):
    """The function `intake` and its rule.

    Args:
        machine: ARN of the state machine that it starts.
    """

    def __init__(self, stack: PlatformStack, models: Sequence[ModelSpec], machine: str) -> None:
        groups = {spec.registry: spec.name for spec in models if spec.registry}
        prefix = stack.names.model_group("")
        bucket = stack.bucket_arn("models")
        manifests = [f"{bucket}/{folder}/*/{MANIFEST}" for folder in UPLOADS]
        live = stack.regional_arn("ssm", f"parameter{stack.names.live_parameter('*')}")
        executions = machine.replace(":stateMachine:", ":execution:") + ":*"
        packages = [
            stack.regional_arn("sagemaker", f"model-package/{group}/*")
            for group in (f"{prefix}*", *sorted(group.lower() for group in groups))
        ]
        super().__init__(
            stack,
            "Intake",
            source="intake",
            description="Starts releases: of uploads when their manifest comes, of packages when approved",
            environment={
                "ENVIRONMENT": stack.names.environment,
                "MACHINE": machine,
                "MODELS_BUCKET": stack.bucket_name("models"),
                "LIVE_PARAMETER": stack.names.live_parameter("{model}"),
                "GROUP_PREFIX": prefix,
                "GROUPS": json.dumps(groups, sort_keys=True),
            },
            memory_mb=256,
            timeout_seconds=60,
            log_group_name=stack.names.log_group("intake"),
            statements=[
                iam.PolicyStatement(sid="ReadManifests", actions=["s3:GetObject"], resources=manifests),
                iam.PolicyStatement(
                    # Without it a missing file answers 403 instead of 404: a withdrawn upload is no failure.
                    sid="FindManifests",
                    actions=["s3:ListBucket"],
                    resources=[bucket],
                ),
                iam.PolicyStatement(
                    sid="DecryptManifests",
                    actions=["kms:Decrypt"],
                    resources=[stack.key("models").key_arn],
                ),
                iam.PolicyStatement(
                    sid="StartReleases", actions=["states:StartExecution"], resources=[machine]
                ),
                iam.PolicyStatement(
                    sid="SeeReleases", actions=["states:DescribeExecution"], resources=[executions]
                ),
                iam.PolicyStatement(sid="SeeWhatIsLive", actions=["ssm:GetParameter"], resources=[live]),
                iam.PolicyStatement(
                    sid="ReadAndMarkPackages",
                    actions=["sagemaker:DescribeModelPackage", "sagemaker:UpdateModelPackage"],
                    resources=packages,
                ),
            ],
            wildcards={
                **dict.fromkeys(manifests, ANY_VERSION),
                **dict.fromkeys(packages, "A package's number is given when it is registered."),
                live: "One parameter per model, also of those that left the catalog.",
                executions: "An execution is named by what it releases.",
            },
        )
        Trigger(
            stack,
            "PublishedOrApproved",
            self,
            description="A manifest was uploaded, a package approved, or the release of a package is over",
            pattern=events.EventPattern(
                source=["aws.s3", "aws.sagemaker", "inference.platform"],
                detail_type=["Object Created", "SageMaker Model Package State Change", *OUTCOMES],
                detail={
                    "$or": [
                        {
                            "bucket": {"name": [stack.bucket_name("models")]},
                            "object": {"key": [{"wildcard": f"{INCOMING}/*/{MANIFEST}"}]},
                        },
                        {
                            "ModelPackageGroupName": [{"prefix": prefix}, *sorted(groups)],
                            "ModelApprovalStatus": ["Approved"],
                        },
                        {"environment": [stack.names.environment], "source": ["registry"]},
                    ]
                },
            ),
            max_age=cdk.Duration.hours(6),
        )


class Store(PlatformFunction):
    """The function that stores what was validated.

    Args:
        table: the history of releases, which knows the bytes of each version.
        table_key: ARN of the table's key.
    """

    def __init__(self, stack: PlatformStack, table: dynamodb.ITable, table_key: str) -> None:
        bucket = stack.bucket_arn("models")
        everything = f"{bucket}/*"
        super().__init__(
            stack,
            "Store",
            source="intake",
            module="store",
            description="Copies validated uploads to where artifacts are kept, and claims their versions",
            environment={"MODELS_BUCKET": stack.bucket_name("models"), "TABLE": stack.names.releases},
            # Files of gigabytes are copied inside S3, several parts at once.
            memory_mb=512,
            timeout_seconds=STORE_SECONDS,
            log_group_name=stack.names.log_group("store"),
            statements=[
                iam.PolicyStatement(
                    sid="CopyArtifacts", actions=["s3:GetObject", "s3:PutObject"], resources=[everything]
                ),
                iam.PolicyStatement(sid="FindArtifacts", actions=["s3:ListBucket"], resources=[bucket]),
                iam.PolicyStatement(
                    sid="EncryptArtifacts",
                    actions=["kms:GenerateDataKey", "kms:Decrypt"],
                    resources=[stack.key("models").key_arn],
                ),
                iam.PolicyStatement(
                    sid="ClaimVersions",
                    actions=["dynamodb:PutItem", "dynamodb:GetItem"],
                    resources=[table.table_arn],
                ),
                iam.PolicyStatement(
                    sid="DecryptHistory",
                    actions=["kms:Decrypt"],
                    resources=[table_key],
                    conditions={
                        "StringEquals": {"kms:ViaService": f"dynamodb.{stack.region}.{stack.url_suffix}"}
                    },
                ),
            ],
            wildcards={everything: ANY_VERSION},
        )
