"""The API's contract at the gateway: who may call what, and that no backend error can pass as a success."""

import json
from typing import Any

import pytest

from inference_runtime.errors import PROBLEMS
from stacks.constructs.problems import GATEWAY_RESPONSES, MODEL_ERROR, Problem
from tests.template.conftest import Assembly

API = "inference-prod-api"


def methods(assembly: Assembly) -> list[dict[str, Any]]:
    return [m.properties for m in assembly.resources("AWS::ApiGateway::Method")]


def test_every_method_needs_a_token_with_a_scope(prod: Assembly) -> None:
    for method in methods(prod):
        assert method["AuthorizationType"] == "COGNITO_USER_POOLS"
        allowed = (
            {"inference/invoke"}
            if method["HttpMethod"] == "POST"
            else {"inference/invoke", "inference/admin"}
        )
        assert set(method["AuthorizationScopes"]) == allowed


def test_sagemaker_integrations_default_to_an_error(prod: Assembly) -> None:
    direct = [m for m in methods(prod) if "runtime.sagemaker" in json.dumps(m["Integration"].get("Uri", ""))]
    assert len(direct) == 2
    for method in direct:
        answers = method["Integration"]["IntegrationResponses"]
        [catch_all] = [answer for answer in answers if "SelectionPattern" not in answer]
        assert catch_all["StatusCode"] == "500"
        # API Gateway keeps one response per status: a second one silently replaces the first.
        assert len({answer["StatusCode"] for answer in answers}) == len(answers)
        declared = {response["StatusCode"] for response in method["MethodResponses"]}
        assert {answer["StatusCode"] for answer in answers} <= declared


def test_gpu_models_are_called_without_a_function_in_between(prod: Assembly) -> None:
    [infer] = [
        m
        for m in methods(prod)
        if m["HttpMethod"] == "POST" and "sagemaker" in json.dumps(m["Integration"]["Uri"])
    ]
    assert infer["Integration"]["Type"] == "AWS"
    assert "endpoints/inference-prod-text-embedding/invocations" in json.dumps(infer["Integration"]["Uri"])
    mapped = infer["Integration"]["RequestParameters"]
    assert mapped["integration.request.header.X-Amzn-SageMaker-Inference-Id"] == "context.requestId"


@pytest.mark.parametrize("problem", [*GATEWAY_RESPONSES.values(), MODEL_ERROR], ids=lambda p: p.slug)
def test_gateway_and_runtime_describe_a_problem_alike(problem: Problem) -> None:
    assert PROBLEMS[problem.slug] == (problem.status, problem.title)
    document = json.loads(problem.document())
    assert list(document) == ["type", "title", "status", "detail", "request_id"]


def test_every_gateway_response_is_a_problem_document(prod: Assembly) -> None:
    responses = {
        r.properties["ResponseType"]: r.properties for r in prod.resources("AWS::ApiGateway::GatewayResponse")
    }
    assert {"DEFAULT_4XX", "DEFAULT_5XX", "UNAUTHORIZED", "MISSING_AUTHENTICATION_TOKEN"} <= responses.keys()
    for response in responses.values():
        document = json.loads(response["ResponseTemplates"]["application/json"])
        assert response["StatusCode"] == str(document["status"])
        assert (
            response["ResponseParameters"]["gatewayresponse.header.Content-Type"]
            == "'application/problem+json'"
        )


def test_access_log_names_the_caller_and_never_the_payload(prod: Assembly) -> None:
    stage = prod.one("AWS::ApiGateway::Stage", API).properties
    fields = json.loads(stage["AccessLogSetting"]["Format"])
    assert {"request_id", "client_id", "route", "status"} <= fields.keys()
    assert not [v for v in fields.values() if "body" in v.lower() or "authorization" in v.lower()]
    [settings] = stage["MethodSettings"]
    assert settings["DataTraceEnabled"] is False
    assert settings["LoggingLevel"] == "OFF"
