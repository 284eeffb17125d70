"""What an environment runs: each model's target, live version, and the state of its function or endpoint."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import ClientError

from catalog import ModelSpec
from catalog.names import ALIAS, Names
from inferctl.environment import Aws

ABSENT = "NotDeployed"
IN_SERVICE = "InService"
ASLEEP = "Asleep"  # a model that scales to zero, and has: a request wakes it
# What Lambda and SageMaker call a thing that does not exist.
_MISSING = ("ResourceNotFoundException", "ValidationException")


@dataclass(frozen=True)
class ModelHealth:
    """One model of the catalog as it is deployed; `live` is its artifact's SHA-256, None before a deploy."""

    name: str
    target: str
    live: str | None
    status: str

    def document(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def models(aws: Aws, environment: str, catalog: Sequence[ModelSpec]) -> list[ModelHealth]:
    """The state of every model in the catalog: `Active` or `InService` is what serves, and what is
    `Asleep` a request wakes.
    """
    names = Names(environment)
    live = _live(aws, [names.live_parameter(spec.name) for spec in catalog])
    return [
        ModelHealth(
            spec.name,
            spec.target,
            live.get(names.live_parameter(spec.name)),
            _status(aws, spec, names.model(spec.name, spec.home)),
        )
        for spec in catalog
    ]


def _live(aws: Aws, parameters: list[str]) -> dict[str, str]:
    ssm = aws.client("ssm")
    found: dict[str, str] = {}
    for start in range(0, len(parameters), 10):  # what GetParameters takes at once
        answer = ssm.get_parameters(Names=parameters[start : start + 10])
        found |= {each["Name"]: each["Value"] for each in answer["Parameters"]}
    return found


def _status(aws: Aws, spec: ModelSpec, name: str) -> str:
    try:
        if spec.target == "cpu":
            function = aws.client("lambda").get_function_configuration(FunctionName=name, Qualifier=ALIAS)
            return str(function.get("State", "Active"))
        if spec.sleeps:
            found = aws.client("sagemaker").describe_inference_component(InferenceComponentName=name)
            awake = (
                found["RuntimeConfig"]["CurrentCopyCount"] or found["InferenceComponentStatus"] != IN_SERVICE
            )
            return str(found["InferenceComponentStatus"]) if awake else ASLEEP
        return str(aws.client("sagemaker").describe_endpoint(EndpointName=name)["EndpointStatus"])
    except ClientError as error:
        if error.response["Error"]["Code"] in _MISSING:
            return ABSENT
        raise
