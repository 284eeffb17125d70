"""What the platform serves, and whether it is ready: `GET /v2/models`, `…/{model}/ready`, `GET
/v2/health/ready`.

Outside the private network and without any right to invoke: it reads the live versions (SSM) and the state
of functions and endpoints, so that asking wakes no model.

Environment: RESOURCE_PREFIX (`inference-dev`), LIVE_PATH (`/inference/dev/models`), MODELS
(`{"cpu": [names], "gpu": [names]}`).
"""

import json
import os
from functools import cache
from typing import Any

import boto3
from botocore.exceptions import ClientError

from inference_runtime.errors import CONTENT_TYPE, Problem

PREFIX = os.environ["RESOURCE_PREFIX"]
LIVE_PATH = os.environ["LIVE_PATH"]
TARGETS: dict[str, str] = {
    name: target for target, names in json.loads(os.environ["MODELS"]).items() for name in names
}


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
        live = _live()
        return {
            "models": [
                {"name": name, "target": target, "artifact_sha256": live.get(name)}
                for name, target in sorted(TARGETS.items())
            ]
        }
    if route == "/v2/health/ready":
        waiting = [name for name in sorted(TARGETS) if not _is_ready(name)]
        if waiting:
            raise Problem("model-unavailable", f"Not ready: {', '.join(waiting)}. Retry after a pause.")
        return {"ready": True}
    name = route.removeprefix("/v2/models/").removesuffix("/ready")
    if name not in TARGETS:
        # A model that is leaving: a deployment changes this function before the API.
        raise Problem("not-found", f"There is no model {name!r}.")
    if not _is_ready(name):
        raise Problem("model-unavailable", f"Model {name!r} is not ready. Retry after a pause.")
    return {"name": name, "ready": True}


def _live() -> dict[str, str]:
    """Model name -> SHA-256 of the artifact that is live."""
    paths = {f"{LIVE_PATH}/{name}/live": name for name in TARGETS}
    live = {}
    names = list(paths)
    # GetParameters takes ten names a call.
    for start in range(0, len(names), 10):
        answer = _client("ssm").get_parameters(Names=names[start : start + 10])
        live.update({paths[parameter["Name"]]: parameter["Value"] for parameter in answer["Parameters"]})
    return live


def _is_ready(model: str) -> bool:
    """Whether the model's alias or endpoint exists and takes requests."""
    name = f"{PREFIX}-{model}"
    try:
        if TARGETS[model] == "cpu":
            function = _client("lambda").get_function_configuration(FunctionName=name, Qualifier="live")
            # Inactive is a function that idled for weeks: the first request brings it back.
            return function.get("State", "Active") in ("Active", "Inactive")
        status = _client("sagemaker").describe_endpoint(EndpointName=name)["EndpointStatus"]
    except ClientError as error:
        # SageMaker answers ValidationException for an endpoint that does not exist.
        if error.response["Error"]["Code"] in ("ResourceNotFoundException", "ValidationException"):
            return False
        raise
    # During an update the old fleet goes on serving.
    return status in ("InService", "Updating", "SystemUpdating", "RollingBack")


@cache
def _client(service: str) -> Any:
    return boto3.client(service)
