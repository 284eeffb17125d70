"""What the platform serves, and whether it is ready: `GET /v2/models`, `…/{model}/ready`, `GET
/v2/health/ready`, and `GET /v2/models/{model}` of a model that sleeps while nobody calls it.

Outside the private network and without any right to invoke: it reads the live versions (SSM), the state of
functions, endpoints and inference components, and manifests (S3), so that asking wakes no model.

Environment: RESOURCE_PREFIX (`inference-dev`), LIVE_PATH (`/inference/dev/models`), ARTIFACTS_BUCKET, MODELS
(names of models by their home: `{"cpu": […], "gpu": […], "gpu0": […]}`; those of `gpu0` scale to zero).
"""

import json
import os
from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

import boto3
from botocore.exceptions import ClientError

from inference_runtime import manifest
from inference_runtime.errors import CONTENT_TYPE, Problem

State = Literal["ready", "asleep", "waiting"]

PREFIX = os.environ["RESOURCE_PREFIX"]
LIVE_PATH = os.environ["LIVE_PATH"]
HOMES: dict[str, str] = {
    name: home for home, names in json.loads(os.environ["MODELS"]).items() for name in names
}
SLEEPS = "gpu0"


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer an API Gateway proxy event; failures are problem documents without anything internal."""
    request_id = event["requestContext"]["requestId"]
    try:
        document = _answer(event["resource"])
    except Problem as problem:
        headers = {"Content-Type": CONTENT_TYPE, "X-Request-Id": request_id}
        body = problem.document(request_id).decode()
        return {"statusCode": problem.status, "headers": headers, "body": body}
    headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
    return {"statusCode": 200, "headers": headers, "body": json.dumps(document)}


def _answer(route: str) -> dict[str, object]:
    if route == "/v2/models":
        live = _live(HOMES)
        return {
            "models": [
                {"name": name, "target": home[:3], "artifact_sha256": live.get(name)}
                for name, home in sorted(HOMES.items())
            ]
        }
    if route == "/v2/health/ready":
        # A model that sleeps is as it should be: the platform is ready to wake it.
        waiting = [name for name in sorted(HOMES) if _state(name) == "waiting"]
        if waiting:
            raise Problem("model-unavailable", f"Not ready: {', '.join(waiting)}. Retry after a pause.")
        return {"ready": True}
    name, asks_ready = route.removeprefix("/v2/models/").removesuffix("/ready"), route.endswith("/ready")
    if name not in HOMES:
        # A model that is leaving: a deployment changes this function before the API.
        raise Problem("not-found", f"There is no model {name!r}.")
    if not asks_ready:
        return _metadata(name)
    state = _state(name)
    if state == "asleep":
        raise Problem(
            "model-unavailable", f"Model {name!r} sleeps. An inference request wakes it, in minutes."
        )
    if state == "waiting":
        raise Problem("model-unavailable", f"Model {name!r} is not ready. Retry after a pause.")
    return {"name": name, "ready": True}


def _metadata(model: str) -> dict[str, object]:
    """What the model would say of itself, from the manifest of the artifact that is live."""
    live = _live([model]).get(model)
    if HOMES[model] != SLEEPS or live is None:
        # It stops sleeping, and its route leads elsewhere in a moment; or it was never deployed.
        raise Problem("model-unavailable", f"Model {model!r} is being deployed. Retry after a pause.")
    key = f"{model}/{live}/{manifest.FILE_NAME}"
    stored = _client("s3").get_object(Bucket=os.environ["ARTIFACTS_BUCKET"], Key=key)
    return manifest.parse(stored["Body"].read(), live).metadata()


def _live(models: Iterable[str]) -> dict[str, str]:
    """Model name -> SHA-256 of the artifact that is live."""
    paths = {f"{LIVE_PATH}/{name}/live": name for name in models}
    live = {}
    names = list(paths)
    # GetParameters takes ten names a call.
    for start in range(0, len(names), 10):
        answer = _client("ssm").get_parameters(Names=names[start : start + 10])
        live.update({paths[parameter["Name"]]: parameter["Value"] for parameter in answer["Parameters"]})
    return live


def _state(model: str) -> State:
    """Whether the model's alias, endpoint or inference component exists and takes requests."""
    home = HOMES[model]
    try:
        if home == "cpu":
            function = _client("lambda").get_function_configuration(
                FunctionName=f"{PREFIX}-{model}", Qualifier="live"
            )
            # Inactive is a function that idled for weeks: the first request brings it back.
            return "ready" if function.get("State", "Active") in ("Active", "Inactive") else "waiting"
        if home == SLEEPS:
            # Called as by catalog/names.py.
            found = _client("sagemaker").describe_inference_component(
                InferenceComponentName=f"{PREFIX}-0-{model}"
            )
            if found.get("RuntimeConfig", {}).get("CurrentCopyCount"):
                return "ready"
            # Updating without a copy is waking up.
            return "asleep" if found["InferenceComponentStatus"] in ("InService", "Updating") else "waiting"
        status = _client("sagemaker").describe_endpoint(EndpointName=f"{PREFIX}-{model}")["EndpointStatus"]
    except ClientError as error:
        # SageMaker answers ValidationException for what does not exist.
        if error.response["Error"]["Code"] in ("ResourceNotFoundException", "ValidationException"):
            return "waiting"
        raise
    # During an update the old fleet goes on serving.
    return "ready" if status in ("InService", "Updating", "SystemUpdating", "RollingBack") else "waiting"


@cache
def _client(service: str) -> Any:
    return boto3.client(service)
