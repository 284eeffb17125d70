"""What the stacks of a CPU and of a GPU model share: the live artifact, the right to read it, alarms to the
topic.
"""

from aws_cdk import Tags
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sns as sns
from constructs import Construct

from catalog.environment import Environment
from catalog.model import ModelSpec
from stacks.base import PlatformStack
from stacks.constructs import metrics
from stacks.constructs.saved_queries import save_model_queries

ARTIFACT_FOLDERS = "An artifact is a folder named by its hash; the release adds new ones."
CAPTURE_FILES = "A capture is a file named by its time."


class ModelStack(PlatformStack):
    """The stack of one model on one target; what is live is read from its parameter at deploy time.

    A model that moves to the other target has both stacks until the API has followed and the old one is
    pruned (docs/decisions/0011). So names in a stack, but for the function's and the endpoint's, begin with
    the stack's own.
    """

    def __init__(self, scope: Construct, environment: Environment, spec: ModelSpec) -> None:
        super().__init__(
            scope,
            f"model-{spec.name}-{spec.target}",
            environment,
            description=f"Model {spec.name}: {spec.description}",
        )
        self.spec = spec
        self.resource_name = self.names.model(spec.name)
        self.health = metrics.model(spec, self.names)
        self.live_sha256 = self.shared(f"models/{spec.name}/live")
        self.artifact_uri = f"s3://{self.bucket_name('models')}/{spec.name}/{self.live_sha256}/"
        save_model_queries(self, spec)
        Tags.of(self).add("inference:model", spec.name)
        Tags.of(self).add("inference:owner", spec.owner)

    @property
    def runtime_environment(self) -> dict[str, str]:
        """What `inference_runtime` needs to know, the same in a function and in a container."""
        return {
            "MODEL_NAME": self.spec.name,
            "MODEL_SHA256": self.live_sha256,
            "MAX_BODY_BYTES": str(self.spec.limits.inline_bytes),
        }

    @property
    def artifact_folders(self) -> str:
        """The ARN of every object of every artifact of this model."""
        return f"{self.bucket_arn('models')}/{self.spec.name}/*"

    def read_artifacts(self) -> list[iam.PolicyStatement]:
        """Read this model's artifacts, and no other's."""
        return [
            iam.PolicyStatement(
                sid="ReadArtifacts",
                actions=["s3:GetObject"],
                resources=[self.artifact_folders],
            ),
            iam.PolicyStatement(
                sid="DecryptArtifacts",
                actions=["kms:Decrypt"],
                resources=[self.key("models").key_arn],
            ),
        ]

    @property
    def captures(self) -> str:
        """Where captures go, below which SageMaker adds endpoint, variant and hour."""
        return f"s3://{self.bucket_name('data')}/captures"

    @property
    def capture_folder(self) -> str:
        """The ARN of every capture of this model."""
        return f"{self.bucket_arn('data')}/captures/{self.resource_name}/*"

    def write_captures(self) -> list[iam.PolicyStatement]:
        """Add captures of this model, if it makes any; never read or change one."""
        if not self.spec.capture.percent:
            return []
        return [
            iam.PolicyStatement(
                sid="WriteCaptures", actions=["s3:PutObject"], resources=[self.capture_folder]
            ),
            iam.PolicyStatement(
                sid="EncryptCaptures",
                actions=["kms:GenerateDataKey"],
                resources=[self.key("data").key_arn],
            ),
        ]

    def alarm_on_errors(self) -> list[cloudwatch.Alarm]:
        """One alarm per error metric. They live beside what they guard: a release rolls back by them."""
        topic = sns.Topic.from_topic_arn(
            self, "Topic", self.regional_arn("sns", self.names.resource("alarms"))
        )
        alarms = []
        for name, metric in self.health.errors.items():
            alarm = metric.create_alarm(
                self,
                f"Alarm-{name}",
                alarm_name=f"{self.stack_name}-{name}",
                alarm_description=f"Model {self.spec.name}: {name}, three minutes out of five.",
                threshold=1,
                comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
                evaluation_periods=5,
                datapoints_to_alarm=3,
                treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
            )
            alarm.add_alarm_action(actions.SnsAction(topic))
            alarms.append(alarm)
        return alarms
