"""A release on SageMaker: a model and, for an endpoint of its own, an endpoint configuration, which differ
from those that serve in their artifact only, and an update under SageMaker's own guardrails.

Their names follow from what they are, so that the same thing is never made twice. The service shifts the
traffic itself, and no call ends an update: what rolls it back is an alarm of its deployment configuration.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import boto3
import history
from botocore.exceptions import ClientError
from outcomes import NotYet, Rejected
from settings import Settings

ARTIFACT = "MODEL_SHA256"
TAG = "inference:release"
"""On what releases made; its value is the endpoint's or the component's name."""

MODEL = ("PrimaryContainer", "ExecutionRoleArn", "VpcConfig", "EnableNetworkIsolation")
CONFIG = (
    "ProductionVariants", "DataCaptureConfig", "KmsKeyId", "ExecutionRoleArn", "VpcConfig",
    "EnableNetworkIsolation",
)  # fmt: skip
"""What is taken over from the model and the configuration that serve."""

BUSY = ("Creating", "Updating", "RollingBack", "SystemUpdating")


class _Fleet:
    """What an endpoint and an inference component have in common."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._sagemaker: Any = boto3.client("sagemaker")

    def shift(self, staged: dict[str, Any], percent: int) -> None:
        """Begin the update, once; SageMaker gives the new fleet its share."""
        if history.remembered(self.settings.model).get("updating") == staged["model"]:
            return
        self._require_quiet()
        history.remember(self.settings.model, updating=staged["model"])
        self._update(staged, guarded=True, percent=percent)

    def settled(self, staged: dict[str, Any]) -> bool:
        """Whether the update is over. Raises Rejected if SageMaker took it back."""
        if self._busy():
            return False
        if self._serves() != staged["model"]:
            reason = self._described().get("FailureReason") or "SageMaker gives no reason"
            raise Rejected(f"the update was rolled back: {reason}")
        return True

    def promote(self, staged: dict[str, Any]) -> None:
        """Nothing: it has all requests once the update is over."""

    def restore(self, sha256: str, uri: str) -> None:
        """Let what is live serve: by SageMaker's own rollback, or by another update."""
        self._require_quiet()
        if self._artifact_of(self._serves()) != sha256:
            self._update(self.stage(sha256, uri), guarded=False, percent=0)
            raise NotYet("what is live is being brought back")

    def finish(self, sha256: str, uri: str, kept: Sequence[str]) -> None:
        """Forget what releases made and no rollback needs: models and configurations cost nothing, but an
        account's number of them is limited.
        """
        serving = self._serves()
        for model in self._made("models", "ModelName"):
            if model != serving and self._artifact_of(model) not in kept:
                self._sagemaker.delete_model(ModelName=model)

    # Models

    def _model_like(self, serving: str, sha256: str, uri: str) -> str:
        """A model that differs from `serving` in its artifact."""
        found = self._sagemaker.describe_model(ModelName=serving)
        document = {name: found[name] for name in MODEL if name in found}
        container = document["PrimaryContainer"]
        source = container["ModelDataSource"]["S3DataSource"]
        document["PrimaryContainer"] = {
            **container,
            "Environment": {**container.get("Environment", {}), ARTIFACT: sha256},
            "ModelDataSource": {"S3DataSource": {**source, "S3Uri": uri}},
        }
        name = self._named(document)
        self._make("model", ModelName=name, **document)
        return name

    def _artifact_of(self, model: str) -> str:
        found = self._sagemaker.describe_model(ModelName=model)
        return str(found["PrimaryContainer"]["Environment"][ARTIFACT])

    def _named(self, document: dict[str, Any]) -> str:
        digest = hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()
        return f"{self.settings.name[:46]}-{digest[:16]}"

    def _make(self, kind: str, **request: Any) -> None:
        """Make it, unless it is there: its name says what it is."""
        make = getattr(self._sagemaker, f"create_{kind}")
        try:
            make(**request, Tags=[{"Key": TAG, "Value": self.settings.name}])
        except ClientError as error:
            if "already existing" not in error.response["Error"]["Message"]:
                raise

    def _made(self, kind: str, name: str) -> list[str]:
        """The names of what releases of this model have made."""
        members = {"models": "Models", "endpoint_configs": "EndpointConfigs"}
        prefix = f"{self.settings.name[:46]}-"
        pages = self._sagemaker.get_paginator(f"list_{kind}").paginate(NameContains=prefix)
        found = [one[name] for page in pages for one in page[members[kind]]]
        # Another model's name may begin with this one's.
        return [one for one in found if one.startswith(prefix) and len(one) == len(prefix) + 16]

    def _rollback(self, guarded: bool) -> dict[str, Any]:
        if not guarded:
            return {}
        alarms = [{"AlarmName": name} for name in self.settings.alarms]
        return {"AutoRollbackConfiguration": {"Alarms": alarms}}

    # What the two differ in

    def stage(self, sha256: str, uri: str) -> dict[str, Any]:
        raise NotImplementedError

    def _described(self) -> dict[str, Any]:
        raise NotImplementedError

    def _serves(self) -> str:
        """The name of the model that serves."""
        raise NotImplementedError

    def _busy(self) -> bool:
        raise NotImplementedError

    def _update(self, staged: dict[str, Any], *, guarded: bool, percent: int) -> None:
        raise NotImplementedError

    def _require_quiet(self) -> None:
        if self._busy():
            raise NotYet(f"{self.settings.name} is being updated")


class OnEndpoint(_Fleet):
    """A GPU model's own endpoint: blue/green."""

    def stage(self, sha256: str, uri: str) -> dict[str, Any]:
        """A model and a configuration that run the artifact."""
        config = self._config()
        [variant] = config["ProductionVariants"]
        model = self._model_like(variant["ModelName"], sha256, uri)
        document = {name: config[name] for name in CONFIG if config.get(name)}
        document["ProductionVariants"] = [{**variant, "ModelName": model}]
        name = self._named(document)
        self._make("endpoint_config", EndpointConfigName=name, **document)
        return {"model": model, "config": name}

    def finish(self, sha256: str, uri: str, kept: Sequence[str]) -> None:
        serving = self._described()["EndpointConfigName"]
        for config in self._made("endpoint_configs", "EndpointConfigName"):
            found = self._sagemaker.describe_endpoint_config(EndpointConfigName=config)
            model = found["ProductionVariants"][0]["ModelName"]
            if config != serving and self._artifact_of(model) not in kept:
                self._sagemaker.delete_endpoint_config(EndpointConfigName=config)
        super().finish(sha256, uri, kept)

    def capacity(self) -> int:
        """Enough answers to have met every instance: each is asked by chance."""
        instances = self._described()["ProductionVariants"][0].get("CurrentInstanceCount", 1)
        return 4 * max(int(instances), 1)

    def _described(self) -> dict[str, Any]:
        found: dict[str, Any] = self._sagemaker.describe_endpoint(EndpointName=self.settings.name)
        return found

    def _config(self) -> dict[str, Any]:
        name = self._described()["EndpointConfigName"]
        found: dict[str, Any] = self._sagemaker.describe_endpoint_config(EndpointConfigName=name)
        return found

    def _serves(self) -> str:
        return str(self._config()["ProductionVariants"][0]["ModelName"])

    def _busy(self) -> bool:
        return self._described()["EndpointStatus"] in BUSY

    def _update(self, staged: dict[str, Any], *, guarded: bool, percent: int) -> None:
        bake = self.settings.bake_seconds if guarded else 0
        canary = {"CanarySize": {"Type": "CAPACITY_PERCENT", "Value": percent}} if percent else {}
        self._sagemaker.update_endpoint(
            EndpointName=self.settings.name,
            EndpointConfigName=staged["config"],
            # The number of instances is autoscaling's.
            RetainAllVariantProperties=True,
            DeploymentConfig={
                "BlueGreenUpdatePolicy": {
                    "TrafficRoutingConfiguration": {
                        "Type": "CANARY" if canary else "ALL_AT_ONCE",
                        "WaitIntervalInSeconds": bake,
                        **canary,
                    },
                    "TerminationWaitInSeconds": self.settings.drain_seconds,
                    "MaximumExecutionTimeoutInSeconds": self.settings.update_seconds,
                },
                **self._rollback(guarded),
            },
        )


@dataclass(frozen=True)
class _Copies:
    """Of a component: how many run, and how many should."""

    running: int
    wanted: int


class OnComponent(_Fleet):
    """A GPU model that sleeps: an inference component, whose copies are replaced one by one."""

    def stage(self, sha256: str, uri: str) -> dict[str, Any]:
        """A model that runs the artifact."""
        return {"model": self._model_like(self._serves(), sha256, uri)}

    def capacity(self) -> int:
        """As of an endpoint; none of a model that is asleep, which runs what it is told when it wakes."""
        return 4 * self._copies().running

    def _copies(self) -> _Copies:
        runtime = self._described().get("RuntimeConfig", {})
        return _Copies(runtime.get("CurrentCopyCount", 0), runtime.get("DesiredCopyCount", 0))

    def _described(self) -> dict[str, Any]:
        found: dict[str, Any] = self._sagemaker.describe_inference_component(
            InferenceComponentName=self.settings.name
        )
        return found

    def _serves(self) -> str:
        return str(self._described()["Specification"]["ModelName"])

    def _busy(self) -> bool:
        return self._described()["InferenceComponentStatus"] in BUSY

    def _update(self, staged: dict[str, Any], *, guarded: bool, percent: int) -> None:
        found = self._described()
        kept = ("ComputeResourceRequirements", "StartupParameters")
        specification = {
            name: found["Specification"][name] for name in kept if name in found["Specification"]
        }
        bake = self.settings.bake_seconds if guarded else 0
        self._sagemaker.update_inference_component(
            InferenceComponentName=self.settings.name,
            Specification={**specification, "ModelName": staged["model"]},
            # One copy at least, awake: a release proves that the version starts.
            RuntimeConfig={"CopyCount": max(1, self._copies().wanted)},
            DeploymentConfig={
                "RollingUpdatePolicy": {
                    "MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1},
                    "WaitIntervalInSeconds": bake,
                    "MaximumExecutionTimeoutInSeconds": self.settings.update_seconds,
                },
                **self._rollback(guarded),
            },
        )
