"""What a release must know of a model: the parameter `models/<model>/release`, which its deployment wrote."""

import json
import os
from dataclasses import dataclass
from typing import Any

import boto3
from outcomes import Refused


@dataclass(frozen=True)
class Settings:
    """One model.

    Attributes:
        model: its name in the catalog.
        home: `cpu`: a function; `gpu`: an endpoint; `gpu0`: an inference component.
        name: of that function, endpoint or component.
        validator: the function that tries its versions.
        stack: the CloudFormation stack that made it.
        log_group: where it writes a line for each request.
        canary_percent: of the requests that the new version gets first; 0: all at once.
        bake_seconds: for which it is watched then, and again once it has all.
        drain_seconds: for which SageMaker keeps the old instances once the new ones have all requests.
        update_seconds: after which it gives an update up.
        alarms: names of the alarms that end a release.
        public: whether the releases' client may ask it through the API.
        availability_percent, p99_ms: the model's objectives.
        minimum_requests: fewer of either version are not judged.
        prediction_shift: the largest PSI between the outputs of both versions; None: not looked at.
        captures: prefix in the data bucket below which it keeps requests and answers; None: it keeps none.
    """

    model: str
    home: str
    name: str
    validator: str
    stack: str
    log_group: str
    canary_percent: int
    bake_seconds: int
    drain_seconds: int
    update_seconds: int
    alarms: list[str]
    public: bool
    availability_percent: float
    p99_ms: int
    minimum_requests: int
    prediction_shift: float | None
    captures: str | None

    @classmethod
    def of(cls, model: str) -> "Settings":
        """Read them. Raises Refused for a model that is not deployed."""
        ssm = boto3.client("ssm")
        try:
            found = ssm.get_parameter(Name=parameter(model, "release"))
        except ssm.exceptions.ParameterNotFound:
            raise Refused(f"There is no model {model!r} in this environment: deploy it first") from None
        document: dict[str, Any] = json.loads(found["Parameter"]["Value"])
        return cls(model=model, **document)


def parameter(model: str, name: str) -> str:
    """The path of a model's parameter: `live` or `release`."""
    return f"{os.environ['MODELS_PATH']}/{model}/{name}"


def live_sha256(model: str) -> str | None:
    """The artifact that is live; None before a model's first."""
    ssm = boto3.client("ssm")
    try:
        return str(ssm.get_parameter(Name=parameter(model, "live"))["Parameter"]["Value"])
    except ssm.exceptions.ParameterNotFound:
        return None


def make_live(model: str, sha256: str) -> None:
    """Say that an artifact is live; the parameter's history are the releases, so nothing is said twice."""
    if live_sha256(model) != sha256:
        boto3.client("ssm").put_parameter(
            Name=parameter(model, "live"), Value=sha256, Type="String", Overwrite=True
        )
