"""The API's OpenAPI document, made from a catalog without CDK."""

import json
from typing import Any

import pytest

from catalog.model import CpuModel, GpuModel, ModelSpec, Scaling
from catalog.names import Names
from inference_runtime.errors import Problem
from local_aws import vtl
from stacks.constructs.problems import WAKING_SECONDS
from stacks.constructs.routes import Backends, document, resources
from stacks.constructs.sagemaker_integration import TELL_ASLEEP, UNWRAP_MODEL_ERROR

BACKENDS = Backends(
    service="arn:aws:apigateway:eu-west-1",
    user_pool="arn:aws:cognito-idp:eu-west-1:111122223333:userpool/eu-west-1_x",
    caller="arn:aws:iam::111122223333:role/caller",
    catalog="arn:aws:lambda:eu-west-1:111122223333:function:catalog",
    functions={"one-model": "arn:aws:lambda:eu-west-1:111122223333:function:inference-dev-one-model:live"},
)
COMMON = {"name": "one-model", "description": "One.", "owner": "ml", "version": "1.0.0"}
CPU = CpuModel.model_validate({**COMMON, "target": "cpu"})
GPU = GpuModel.model_validate({**COMMON, "target": "gpu", "gpu": {"instance_type": "ml.g5.xlarge"}})
SLEEPER = GPU.model_copy(update={"scaling": Scaling(min=0)})


def routes(*models: ModelSpec) -> dict[str, Any]:
    """`VERB /path` -> where it goes."""
    return {
        f"{verb.upper()} {path}": operation["x-amazon-apigateway-integration"].get("uri", "")
        for path, item in document(models, Names("dev"), BACKENDS)["paths"].items()
        for verb, operation in item.items()
    }


def test_a_model_has_the_same_routes_on_either_target() -> None:
    assert (
        routes(CPU).keys()
        == routes(GPU).keys()
        == routes(SLEEPER).keys()
        == routes().keys()
        | {
            "GET /v2/models/one-model",
            "GET /v2/models/one-model/ready",
            "POST /v2/models/one-model/infer",
        }
    )


def test_a_cpu_model_is_its_alias_and_a_gpu_model_its_endpoint() -> None:
    lambda_ = "arn:aws:apigateway:eu-west-1:lambda:path/2015-03-31/functions"
    infer = "POST /v2/models/one-model/infer"
    assert routes(CPU)[infer] == f"{lambda_}/{BACKENDS.functions['one-model']}/invocations"
    assert routes(GPU)[infer] == (
        "arn:aws:apigateway:eu-west-1:runtime.sagemaker:path/endpoints/inference-dev-one-model/invocations"
    )
    # Asking the endpoint's state wakes nothing.
    assert routes(GPU)["GET /v2/models/one-model/ready"] == f"{lambda_}/{BACKENDS.catalog}/invocations"


def test_nothing_but_inference_reaches_a_model_that_sleeps() -> None:
    catalog = f"arn:aws:apigateway:eu-west-1:lambda:path/2015-03-31/functions/{BACKENDS.catalog}/invocations"
    assert routes(SLEEPER)["GET /v2/models/one-model"] == catalog
    assert routes(SLEEPER)["GET /v2/models/one-model/ready"] == catalog
    [infer] = [
        operation["x-amazon-apigateway-integration"]
        for item in document([SLEEPER], Names("dev"), BACKENDS)["paths"].values()
        for verb, operation in item.items()
        if verb == "post"
    ]
    # Another endpoint than it had while it always ran: SageMaker turns none into the other.
    assert infer["uri"].endswith(":runtime.sagemaker:path/endpoints/inference-dev-0-one-model/invocations")
    header = "integration.request.header.X-Amzn-SageMaker-Inference-Component"
    assert infer["requestParameters"][header] == "'inference-dev-0-one-model'"


NO_CAPACITY = "Inference Component has no capacity to process this request. ApplicationAutoScaling may be …"


@pytest.mark.parametrize(
    ("said", "asleep"),
    [
        ({"Message": NO_CAPACITY, "ErrorCode": "VALIDATION_ERROR"}, True),
        ({"Message": f"Inference Component inference-dev-0-one-model of {NO_CAPACITY} not found."}, False),
        ({"Message": "Value at 'body' failed to satisfy constraint"}, False),
        ({"message": "Service Unavailable"}, False),
        ({}, False),
    ],
)
def test_only_a_message_that_begins_so_says_that_a_model_sleeps(said: dict[str, str], asleep: bool) -> None:
    text, overrides = vtl.render(
        TELL_ASLEEP, vtl.Input(json.dumps(said), {}, {}, {}), {"requestId": "r-1"}, {}, "responseOverride"
    )
    answer = json.loads(text)
    assert (answer["status"], answer["request_id"]) == (503, "r-1")
    assert answer["type"] == "urn:inference-platform:problem:model-unavailable"
    assert ("sleeps" in answer["detail"]) == asleep
    # Minutes, as it takes; the mapping's own few seconds where it does not sleep.
    assert dict(overrides.header) == ({"Retry-After": str(WAKING_SECONDS)} if asleep else {})
    assert overrides.status is None


@pytest.mark.parametrize(
    ("problem", "pause"),
    [
        (Problem("throttled", "9 wait", {"retry-after": "3"}), {"Retry-After": "3"}),
        (Problem("overloaded", "too late", {"retry-after": "12"}), {"Retry-After": "12"}),
        (Problem("model-unavailable", "still loading"), {}),
        (Problem("invalid-data", 'it says "retry_after":7'), {}),
    ],
    ids=lambda value: value.slug if isinstance(value, Problem) else "",
)
def test_a_containers_problem_is_unwrapped_with_its_status_and_when_to_try_again(
    problem: Problem, pause: dict[str, str]
) -> None:
    document = problem.document("r-1").decode()
    said = {"OriginalStatusCode": problem.status, "OriginalMessage": document, "LogStreamArn": "arn:x"}
    text, overrides = vtl.render(
        UNWRAP_MODEL_ERROR, vtl.Input(json.dumps(said), {}, {}, {}), {}, {}, "responseOverride"
    )
    assert text.strip() == document
    assert (overrides.status, dict(overrides.header)) == (problem.status, pause)


def test_resources_are_counted_as_api_gateway_makes_them() -> None:
    # The root, /v2, /v2/health with live and ready, /v2/models; and three for each model.
    assert resources(document([], Names("dev"), BACKENDS)["paths"]) == 6
    assert resources(document([CPU], Names("dev"), BACKENDS)["paths"]) == 9
