"""The API's contract at the gateway: who may call what, and that no backend error can pass as a success."""

import json
from collections.abc import Sequence
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk.assertions import Template

from app import ROOT
from catalog.loader import load_platform
from catalog.model import ModelSpec
from inference_runtime.codecs import BINARY_MEDIA_TYPES
from inference_runtime.errors import PROBLEMS
from inference_runtime.errors import Problem as RuntimeProblem
from stacks.api import ApiStack
from stacks.constructs.problems import GATEWAY_RESPONSES, MODEL_ASLEEP, MODEL_ERROR, Problem
from tests.assembly import Assembly


def body(assembly: Assembly) -> dict[str, Any]:
    """The OpenAPI document that is the API."""
    found: dict[str, Any] = assembly.one("AWS::ApiGateway::RestApi").properties["Body"]
    return found


def operations(assembly: Assembly) -> dict[str, dict[str, Any]]:
    """`VERB /path` -> operation."""
    return {
        f"{verb.upper()} {path}": operation
        for path, item in body(assembly)["paths"].items()
        for verb, operation in item.items()
    }


def integration(operation: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = operation["x-amazon-apigateway-integration"]
    return found


def test_every_operation_needs_a_token_with_a_scope(assembly: Assembly) -> None:
    [(name, scheme)] = body(assembly)["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "Authorization")
    assert scheme["x-amazon-apigateway-authtype"] == "cognito_user_pools"
    authorizer = scheme["x-amazon-apigateway-authorizer"]
    assert authorizer["type"] == "cognito_user_pools"
    assert len(authorizer["providerARNs"]) == 1
    assert operations(assembly)
    for route, operation in operations(assembly).items():
        [security] = operation["security"]
        allowed = {"inference/invoke"} | ({"inference/admin"} if route.startswith("GET ") else set())
        assert security.keys() == {name}, route
        assert set(security[name]) == allowed, route


def test_the_api_is_nothing_but_its_document(assembly: Assembly) -> None:
    """A route of its own would be served until after the deployment that should have ended it."""
    parts = {resource.type for resource in assembly.resources() if "ApiGateway" in resource.type}
    assert parts == {f"AWS::ApiGateway::{part}" for part in ("RestApi", "Deployment", "Stage", "Account")}
    api = assembly.one("AWS::ApiGateway::RestApi").properties
    assert api["FailOnWarnings"] is True
    assert api.get("Mode", "overwrite") == "overwrite"


def test_every_operation_calls_in_the_name_of_the_one_role_which_is_ready_first(assembly: Assembly) -> None:
    api = assembly.one("AWS::ApiGateway::RestApi")
    called = [i for i in map(integration, operations(assembly).values()) if i["type"] != "mock"]
    [role] = {i["credentials"]["Fn::GetAtt"][0] for i in called}
    policies = {
        policy.logical_id
        for policy in assembly.resources("AWS::IAM::Policy")
        if policy.properties["Roles"] == [{"Ref": role}]
    }
    assert policies
    assert policies <= set(api.raw["DependsOn"])


def test_no_integration_takes_a_failure_for_a_success(assembly: Assembly) -> None:
    direct = {
        route: integration(operation)
        for route, operation in operations(assembly).items()
        if integration(operation)["type"] not in ("mock", "aws_proxy")
    }
    assert len(direct) == 2
    for route, called in direct.items():
        answers = called["responses"]
        assert answers["default"]["statusCode"] == "500", route
        # API Gateway keeps one response per status: a second one silently replaces the first.
        statuses = [answer["statusCode"] for answer in answers.values()]
        assert len(set(statuses)) == len(statuses)
        assert set(statuses) <= operations(assembly)[route]["responses"].keys()


def test_gpu_models_are_called_without_a_function_in_between(prod: Assembly) -> None:
    infer = integration(operations(prod)["POST /v2/models/text-embedding/infer"])
    assert infer["type"] == "aws"
    assert "endpoints/inference-prod-text-embedding/invocations" in json.dumps(infer["uri"])
    mapped = infer["requestParameters"]
    assert mapped["integration.request.header.X-Amzn-SageMaker-Inference-Id"] == "context.requestId"


def test_bytes_are_what_the_codecs_write_and_all_else_stays_text(assembly: Assembly) -> None:
    """A client that accepts bytes would otherwise have its documents decoded as base64."""
    assert set(body(assembly)["x-amazon-apigateway-binary-media-types"]) == set(BINARY_MEDIA_TYPES)
    for route, operation in operations(assembly).items():
        for pattern, answer in integration(operation).get("responses", {}).items():
            may_be_bytes = route.endswith("/infer") and answer["statusCode"] == "200"
            assert ("contentHandling" not in answer) == may_be_bytes, (route, pattern)


def test_the_deployment_follows_every_change_of_the_document_and_nothing_else() -> None:
    platform = load_platform(ROOT, "dev")

    def deployment(models: Sequence[ModelSpec]) -> str:
        template = Template.from_stack(ApiStack(cdk.App(), platform.environment, models))
        [logical_id] = template.find_resources("AWS::ApiGateway::Deployment")
        return str(logical_id)

    all_models = deployment(platform.models)
    assert deployment(platform.models) == all_models
    assert deployment(platform.models[1:]) != all_models


@pytest.mark.parametrize(
    "problem", [*GATEWAY_RESPONSES.values(), MODEL_ERROR, MODEL_ASLEEP], ids=lambda p: p.slug
)
def test_gateway_and_runtime_describe_a_problem_alike(problem: Problem) -> None:
    assert PROBLEMS[problem.slug] == (problem.status, problem.title)
    asked = {} if problem.retry_after is None else {"retry-after": str(problem.retry_after)}
    same = RuntimeProblem(problem.slug, problem.detail, asked).document("$context.requestId")
    assert json.loads(problem.document()) == json.loads(same)


def test_every_gateway_response_is_a_problem_document(prod: Assembly) -> None:
    responses = body(prod)["x-amazon-apigateway-gateway-responses"]
    assert {"DEFAULT_4XX", "DEFAULT_5XX", "UNAUTHORIZED", "MISSING_AUTHENTICATION_TOKEN"} <= responses.keys()
    for response in responses.values():
        document = json.loads(response["responseTemplates"]["application/json"])
        headers = response["responseParameters"]
        assert response["statusCode"] == str(document["status"])
        assert headers["gatewayresponse.header.Content-Type"] == "'application/problem+json'"
        retry_after = headers.get("gatewayresponse.header.Retry-After", "").strip("'")
        assert retry_after == str(document.get("retry_after", ""))
        assert bool(retry_after) == (document["status"] in (429, 503))


def test_every_request_is_throttled_and_logged_but_never_its_payload(assembly: Assembly) -> None:
    stage = assembly.one("AWS::ApiGateway::Stage").properties
    fields = json.loads(stage["AccessLogSetting"]["Format"])
    assert {"request_id", "client_id", "route", "status"} <= fields.keys()
    assert not [v for v in fields.values() if "body" in v.lower() or "authorization" in v.lower()]
    [settings] = stage["MethodSettings"]
    assert settings["DataTraceEnabled"] is False
    assert settings["LoggingLevel"] == "OFF"
    assert settings["ThrottlingRateLimit"] > 0
    assert settings["ThrottlingBurstLimit"] > 0
    assert (settings["HttpMethod"], settings["ResourcePath"]) == ("*", "/*")
