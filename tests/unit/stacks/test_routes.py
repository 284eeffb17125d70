"""The API's OpenAPI document, made from a catalog without CDK."""

from typing import Any

from catalog.model import CpuModel, GpuModel, ModelSpec
from catalog.names import Names
from stacks.constructs.routes import Backends, document, resources

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


def test_resources_are_counted_as_api_gateway_makes_them() -> None:
    # The root, /v2, /v2/health with live and ready, /v2/models; and three for each model.
    assert resources(document([], Names("dev"), BACKENDS)["paths"]) == 6
    assert resources(document([CPU], Names("dev"), BACKENDS)["paths"]) == 9
