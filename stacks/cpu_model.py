"""A CPU model: one Lambda function in the private network, behind the alias `live`."""

import aws_cdk as cdk
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from catalog.environment import Environment
from catalog.model import CpuModel
from catalog.names import ALIAS
from stacks.constructs import metrics
from stacks.constructs.alarms import PlatformAlarm
from stacks.constructs.function import PlatformFunction
from stacks.constructs.metrics import VARIANT
from stacks.constructs.private_network import PrivateNetwork
from stacks.model import ARTIFACT_FOLDERS, CAPTURE_FILES, ModelStack


class CpuModelStack(ModelStack):
    def __init__(self, scope: Construct, environment: Environment, spec: CpuModel) -> None:
        super().__init__(scope, environment, spec)
        inference = PlatformFunction(
            self,
            "Inference",
            source="inference",
            function_name=self.resource_name,
            log_group_name=self.names.model_log_group(spec.name, spec.home),
            description=spec.description,
            environment={
                **self.runtime_environment,
                **self._capture(spec),
                "MODEL_URI": self.artifact_uri,
                "METRICS_NAMESPACE": self.names.metrics_namespace,
                **({"PHASE_METRICS": "1"} if environment.functions.phase_metrics else {}),
            },
            memory_mb=spec.cpu.memory_mb,
            timeout_seconds=spec.cpu.timeout_seconds,
            ephemeral_storage_mb=spec.cpu.ephemeral_storage_mb,
            reserved_concurrency=spec.cpu.reserved_concurrency,
            snapshot=True,
            statements=[*self.read_artifacts(), *self.write_captures()],
            wildcards={self.artifact_folders: ARTIFACT_FOLDERS, self.capture_folder: CAPTURE_FILES},
            network=PrivateNetwork.of(self),
        )
        version = inference.function.current_version
        # The release may return to it; it prunes what is old.
        version.apply_removal_policy(cdk.RemovalPolicy.RETAIN)
        lambda_.Alias(self, "Live", alias_name=ALIAS, version=version)
        self.watch([*self.alarm_on_errors(), *self._saturation(spec)])

    def _saturation(self, spec: CpuModel) -> list[PlatformAlarm]:
        alarms = [
            self.cause(
                "cold-starts",
                metrics.cold_start_percent(spec, self.names),
                "a fifth of the requests of an hour waited for a new instance.",
                threshold=20,
            )
        ]
        reserved = spec.cpu.reserved_concurrency
        if reserved is not None:
            alarms.append(
                self.cause(
                    "full-scale",
                    metrics.concurrency(spec, self.names),
                    f"all of cpu.reserved_concurrency ({reserved}) was in use in ten minutes of fifteen.",
                    threshold=reserved,
                    periods=15,
                    of_them=10,
                )
            )
        return alarms

    def _capture(self, spec: CpuModel) -> dict[str, str]:
        if not spec.capture.percent:
            return {}
        return {
            "CAPTURE_URI": f"{self.captures}/{self.resource_name}/{VARIANT}/",
            "CAPTURE_SHARE": str(spec.capture.percent / 100),
            "CAPTURE_KEEP": spec.capture.keep,
            "CAPTURE_REDACT": ",".join(spec.capture.redact),
        }
