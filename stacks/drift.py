"""Drift: what models are asked and answer now, beside what it was when their versions were new.

Two functions share the work. `drift` reads payloads, so it runs in the private network and can call S3 and
nothing else; `drift_watch`, which a rule of each model starts, says which version is live and tells others.
"""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from constructs import Construct

from catalog.environment import Environment
from catalog.model import ModelSpec
from stacks.base import PlatformStack
from stacks.constructs.capture_tables import CaptureTables
from stacks.constructs.function import PlatformFunction
from stacks.constructs.metrics import VARIANT
from stacks.constructs.private_network import PrivateNetwork
from stacks.constructs.schedule import Trigger

COMPARE, WATCH = "drift", "drift-watch"

EVENT_SOURCE = "inference.platform"

ANY_MODEL = "*"


class DriftStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment, models: Sequence[ModelSpec]) -> None:
        super().__init__(scope, "drift", environment, description="Drift of the inference platform's models")
        CaptureTables(self, models, self._capturing(models))
        watched = [model for model in models if model.watched]
        if watched:
            self._compare()
            watch = self._watch()
            for model in watched:
                self._schedule(watch, model)

    @classmethod
    def has_work(cls, models: Sequence[ModelSpec]) -> bool:
        """Whether any model captures anything."""
        return bool(cls._capturing(models))

    @staticmethod
    def _capturing(models: Sequence[ModelSpec]) -> list[ModelSpec]:
        return [model for model in models if model.capture.percent]

    def _compare(self) -> None:
        data, models = self.bucket_arn("data"), self.bucket_arn("models")
        read = [f"{data}/{folder}/*" for folder in ("captures", "ground-truth", "baselines")]
        own = [f"{models}/*/{file}" for file in ("manifest.json", "baseline.jsonl")]
        written = [f"{data}/{folder}/*" for folder in ("baselines", "drift")]
        PlatformFunction(
            self,
            "Compare",
            source="drift",
            function_name=self.names.resource(COMPARE),
            description="Compares a model's captures with its baseline",
            environment={
                "DATA_BUCKET": self.bucket_name("data"),
                "MODELS_BUCKET": self.bucket_name("models"),
                "METRICS_NAMESPACE": self.names.metrics_namespace,
            },
            memory_mb=3072,
            timeout_seconds=900,
            log_group_name=self.names.log_group(COMPARE),
            network=PrivateNetwork.of(self),
            statements=[
                iam.PolicyStatement(
                    sid="FindCaptures",
                    actions=["s3:ListBucket"],
                    resources=[data],
                    conditions={"StringLike": {"s3:prefix": ["captures/*", "ground-truth/*", "baselines/*"]}},
                ),
                iam.PolicyStatement(sid="ReadCaptures", actions=["s3:GetObject"], resources=[*read, *own]),
                iam.PolicyStatement(
                    sid="Decrypt",
                    actions=["kms:Decrypt"],
                    resources=[self.key("data").key_arn, self.key("models").key_arn],
                ),
                iam.PolicyStatement(sid="WriteReports", actions=["s3:PutObject"], resources=written),
                iam.PolicyStatement(
                    sid="EncryptReports",
                    actions=["kms:GenerateDataKey"],
                    resources=[self.key("data").key_arn],
                ),
            ],
            wildcards={
                **dict.fromkeys(read, "Captures, truths and baselines are files named by time or hash."),
                **dict.fromkeys(own, "One file of each artifact, whose folder is named by its hash."),
                **dict.fromkeys(written, "A report is a file named by its time."),
            },
        )

    def _watch(self) -> PlatformFunction:
        live = self.regional_arn("ssm", f"parameter{self.names.live_parameter(ANY_MODEL)}")
        # By name, not by reference: where control functions run inside, the network stack's policies say so
        # too, and stacks share no ids of CloudFormation's.
        compare = self.regional_arn("lambda", f"function:{self.names.resource(COMPARE)}")
        return PlatformFunction(
            self,
            "Watch",
            source="drift_watch",
            function_name=self.names.resource(WATCH),
            description="Has a model's captures compared with its baseline, and tells what was found",
            environment={
                "FUNCTION": self.names.resource(COMPARE),
                "LIVE_PARAMETER": self.names.live_parameter("{model}"),
                "VARIANT": VARIANT,
            },
            memory_mb=256,
            timeout_seconds=900,
            log_group_name=self.names.log_group(WATCH),
            statements=[
                iam.PolicyStatement(sid="ReadLive", actions=["ssm:GetParameter"], resources=[live]),
                iam.PolicyStatement(sid="Compare", actions=["lambda:InvokeFunction"], resources=[compare]),
                iam.PolicyStatement(
                    sid="TellOthers",
                    actions=["events:PutEvents"],
                    resources=[self.regional_arn("events", "event-bus/default")],
                    conditions={"StringEquals": {"events:source": EVENT_SOURCE}},
                ),
            ],
            wildcards={live: "One parameter per model."},
        )

    def _schedule(self, watch: PlatformFunction, model: ModelSpec) -> None:
        settings = model.drift.model_dump(mode="json", exclude={"enabled", "every_hours"}, exclude_none=True)
        Trigger(
            self,
            f"Schedule-{model.name}",
            watch,
            description=f"Looks for drift of the model {model.name}",
            schedule=events.Schedule.rate(cdk.Duration.hours(model.drift.every_hours)),
            message={
                "model": model.name,
                "endpoint": self.names.model(model.name, model.home),
                "hours": model.drift.every_hours,
                "settings": settings,
            },
        )
