"""The API as one OpenAPI document: the Open Inference Protocol's routes, with the same answers whether a
model runs on CPU or GPU.

The document is made from the catalog alone, without CDK, and replaces the deployed API as a whole
(docs/decisions/0010). Every operation asks for a token with a scope.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalog.model import ModelSpec
from catalog.names import ADMIN, INVOKE, RESOURCE_SERVER, Names, own_scope
from catalog.scopes import models_with_own_scope
from stacks.constructs import sagemaker_integration as sagemaker
from stacks.constructs.problems import gateway_responses

Json = dict[str, Any]

BINARY_MEDIA_TYPES = (
    "application/octet-stream",
    "application/x-npy",
    "application/vnd.sagemaker-triton.binary+json",
)
"""What the models' codecs read and write that is no text."""

COMPRESSED_FROM_BYTES = 2048
"""Answers from this size on are compressed for who accepts it; smaller ones gain nothing."""

AUTHORIZER = "Cognito"
"""Name of the security scheme: the user pool's authorizer."""


@dataclass(frozen=True)
class Backends:
    """What the routes reach. Values may be tokens: they are only ever joined to texts.

    Args:
        service: what an integration's address begins with, `arn:<partition>:apigateway:<region>`.
        user_pool: ARN of the user pool whose tokens count.
        caller: ARN of the role in whose name API Gateway calls.
        catalog: ARN of the function that knows what is live and ready.
        functions: name of a CPU model -> ARN of the alias that serves it.
    """

    service: str
    user_pool: str
    caller: str
    catalog: str
    functions: Mapping[str, str]


def document(models: Sequence[ModelSpec], names: Names, backends: Backends) -> Json:
    """The OpenAPI 3.0 document of an environment's API, with API Gateway's extensions."""
    paths = _server(models, names, backends)
    for model in models:
        paths |= _model(model, names, backends)
    return {
        "openapi": "3.0.1",
        "info": {"title": names.prefix, "description": "Open Inference Protocol v2", "version": "2"},
        "paths": paths,
        "components": {
            "securitySchemes": {
                AUTHORIZER: {
                    "type": "apiKey",
                    "name": "Authorization",
                    "in": "header",
                    "x-amazon-apigateway-authtype": "cognito_user_pools",
                    "x-amazon-apigateway-authorizer": {
                        "type": "cognito_user_pools",
                        "providerARNs": [backends.user_pool],
                    },
                }
            }
        },
        "x-amazon-apigateway-gateway-responses": gateway_responses(),
        # Bodies of these types are bytes in both directions; the way back asks `Accept`, its first type only.
        "x-amazon-apigateway-binary-media-types": list(BINARY_MEDIA_TYPES),
        "x-amazon-apigateway-minimum-compression-size": COMPRESSED_FROM_BYTES,
    }


def resources(paths: Mapping[str, object]) -> int:
    """How many resources API Gateway makes of these paths: the root, and one for every segment below it."""
    found = {"/"}
    for path in paths:
        parts = path.strip("/").split("/")
        found |= {"/".join(parts[: end + 1]) for end in range(len(parts))}
    return len(found)


# --- Routes -------------------------------------------------------------------------------------------------


def _server(models: Sequence[ModelSpec], names: Names, backends: Backends) -> Json:
    """`/v2`, `/v2/health/…` and `/v2/models`: about the platform, not about one model."""
    # Whoever may do anything may look.
    read = _scopes(ADMIN, INVOKE, *map(own_scope, models_with_own_scope(models)))
    asked = _function(backends.catalog, backends)
    metadata = {"name": names.prefix, "version": "2", "extensions": ["binary_tensor_data"]}
    return {
        "/v2": {"get": _operation(_static(metadata), read, _STATIC_ANSWERS)},
        # It answers because API Gateway does: that is what "live" means here.
        "/v2/health/live": {"get": _operation(_static({"live": True}), read, _STATIC_ANSWERS)},
        "/v2/health/ready": {"get": _operation(asked, read)},
        "/v2/models": {"get": _operation(asked, read)},
    }


def _model(model: ModelSpec, names: Names, backends: Backends) -> Json:
    """`/v2/models/<name>`, `…/ready` and `…/infer` of one model."""
    root = f"/v2/models/{model.name}"
    right = own_scope(model.name) if model.access.scope == "own" else INVOKE
    read, invoke = _scopes(ADMIN, right), _scopes(right)
    if model.target == "cpu":
        answer = _function(backends.functions[model.name], backends)
        return {
            root: {"get": _operation(answer, read)},
            f"{root}/ready": {"get": _operation(answer, read)},
            f"{root}/infer": {"post": _operation(answer, invoke)},
        }
    endpoint = names.model(model.name, model.home)
    catalog = _function(backends.catalog, backends)
    component = endpoint if model.sleeps else None
    infer = sagemaker.invoke_endpoint(endpoint, backends.service, backends.caller, component=component)
    answers = sagemaker.ANSWERS
    if model.sleeps:
        # From what is stored: the model itself would have to wake for it.
        metadata = _operation(catalog, read)
    else:
        asked = sagemaker.invoke_endpoint(endpoint, backends.service, backends.caller, operation="metadata")
        metadata = _operation(asked, read, answers)
    return {
        root: {"get": metadata},
        # The endpoint's state says whether it is ready, and asking for it wakes nothing.
        f"{root}/ready": {"get": _operation(catalog, read)},
        f"{root}/infer": {"post": _operation(infer, invoke, answers, headers=["Content-Type", "Accept"])},
    }


def _scopes(*rights: str) -> list[str]:
    """As tokens hold them. A token needs one of an operation's."""
    return [f"{RESOURCE_SERVER}/{right}" for right in rights]


# --- Operations ---------------------------------------------------------------------------------------------

Answers = Mapping[str, Sequence[str]]
"""Status -> headers of an operation's answers. API Gateway turns any that is not declared into a bare 500."""

_PROXIED: Answers = {"200": ()}  # A proxy integration sets status and headers itself.
_STATIC_ANSWERS: Answers = {"200": (sagemaker.REQUEST_ID,)}

_TEXT = {"schema": {"type": "string"}}


def _operation(
    integration: Json, scopes: list[str], answers: Answers = _PROXIED, *, headers: Sequence[str] = ()
) -> Json:
    """One method of one path; `headers` are those of the request that the integration reads."""
    parameters = [{"name": name, "in": "header", "required": False, **_TEXT} for name in headers]
    return {
        **({"parameters": parameters} if parameters else {}),
        "responses": {
            status: {
                "description": status,
                **({"headers": dict.fromkeys(names, _TEXT)} if names else {}),
            }
            for status, names in answers.items()
        },
        "security": [{AUTHORIZER: scopes}],
        "x-amazon-apigateway-integration": integration,
    }


def _function(function_arn: str, backends: Backends) -> Json:
    """The proxy integration of a function that need not be in this stack."""
    return {
        "type": "aws_proxy",
        "httpMethod": "POST",
        "uri": f"{backends.service}:lambda:path/2015-03-31/functions/{function_arn}/invocations",
        "credentials": backends.caller,
    }


def _static(answer: Mapping[str, object]) -> Json:
    """An answer that is known when the API is deployed: it costs nothing and calls nobody."""
    return {
        "type": "mock",
        # A media type without a template is 415 then, not a failed integration.
        "passthroughBehavior": "never",
        "requestTemplates": {"application/json": '{"statusCode": 200}'},
        "responses": {
            "default": {
                "statusCode": "200",
                "contentHandling": sagemaker.TEXT,
                "responseParameters": {f"method.response.header.{sagemaker.REQUEST_ID}": "context.requestId"},
                "responseTemplates": {"application/json": json.dumps(answer, separators=(",", ":"))},
            }
        },
    }
