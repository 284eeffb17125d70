"""What the stacks of a CPU and of a GPU model share: the live artifact, the right to read it, its
alarms.
"""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import Tags
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from constructs import Construct

from catalog.environment import Environment
from catalog.model import ModelSpec
from catalog.names import on_target
from stacks.base import PlatformStack
from stacks.constructs import metrics
from stacks.constructs.alarms import (
    NOT_BREACHING,
    PAGE,
    TICKET,
    CompositeAlarm,
    PlatformAlarm,
    any_of,
    of_model,
)
from stacks.constructs.dashboards import add_model_dashboard
from stacks.constructs.saved_queries import save_model_queries
from stacks.constructs.slo import PAGES, TICKETS, burning
from stacks.constructs.validator import Validator

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
            on_target(spec.name, spec.home),
            environment,
            description=f"Model {spec.name}: {spec.description}",
        )
        self.spec = spec
        self.resource_name = self.names.model(spec.name, spec.home)
        self.health = metrics.model(spec, self.names)
        # A dynamic reference, not a parameter of the stack: a release changes the value, and a deployment
        # that changes nothing else must not take that for a change.
        self.live_sha256 = cdk.CfnDynamicReference(
            cdk.CfnDynamicReferenceService.SSM, self.names.live_parameter(spec.name)
        ).to_string()
        self.artifact_uri = f"s3://{self.bucket_name('models')}/{spec.name}/{self.live_sha256}/"
        save_model_queries(self, spec)
        Validator(self, spec)
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

    def alarm_on_errors(self) -> list[PlatformAlarm]:
        """One alarm per error metric. They live beside what they guard, few and quick: a release rolls back
        by them.
        """
        return [
            self.cause(kind, metric, f"{kind}, three minutes out of five.", threshold=1, periods=5, of_them=3)
            for kind, metric in self.health.errors.items()
        ]

    def cause(
        self,
        kind: str,
        metric: cloudwatch.IMetric,
        what: str,
        *,
        threshold: float,
        periods: int = 1,
        of_them: int | None = None,
        missing: cloudwatch.TreatMissingData = NOT_BREACHING,
        runbook: str = "",
    ) -> PlatformAlarm:
        """An alarm on what may come to hurt the model's callers; `kind` is its runbook's section too, unless
        another is given.
        """
        return PlatformAlarm(
            self,
            of_model(self.spec, kind),
            metric,
            description=f"Model {self.spec.name}: {what}",
            runbook=runbook or kind,
            threshold=threshold,
            periods=periods,
            of_them=of_them,
            missing=missing,
        )

    def _drift(self) -> list[PlatformAlarm]:
        """An alarm on what the stack `drift` finds, if it looks at this model."""
        if not self.spec.watched:
            return []
        return [
            self.cause(
                "drift",
                metrics.drift("Drifted", self.spec, self.names),
                "what it is asked, or what it answers, is no longer as it was when its version was new.",
                threshold=1,
                # Between two comparisons there is no data: the last one holds.
                missing=cloudwatch.TreatMissingData.IGNORE,
            )
        ]

    def watch(self, causes: Sequence[PlatformAlarm]) -> None:
        """The two alarms of this model that somebody hears of, its callers are hurt or soon might be, and the
        dashboard that shows why.
        """
        causes = [*causes, *self._drift()]
        page = CompositeAlarm(
            self,
            of_model(self.spec, PAGE),
            burning(self, self.spec, PAGES),
            description=f"Page: model {self.spec.name} fails its callers or is slow, and spends its error "
            "budget within days.",
            runbook=PAGE,
        )
        ticket = CompositeAlarm(
            self,
            of_model(self.spec, TICKET),
            any_of([burning(self, self.spec, TICKETS), *causes]),
            description=f"Ticket: model {self.spec.name} spends its error budget too fast, or something that "
            "it runs on is near its limit. Its children say which.",
            runbook=TICKET,
        )
        add_model_dashboard(self, self.spec, [page, ticket, *causes])
