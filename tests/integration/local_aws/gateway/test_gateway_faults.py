"""The answers that API Gateway gives itself, and how gateway responses shape them."""

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.local_aws.gateway.client import Api, Cloud, function, mock, sagemaker

PROBLEM = json.dumps(
    {
        "detail": "$context.error.message",
        "quoted": "QUOTED",
        "slug": "$context.error.responseType",
        "request_id": "$context.requestId",
        "path": "$context.path",
    }
).replace('"QUOTED"', "$context.error.messageString")


def customize(api: Api, response_type: str, **response: Any) -> None:
    at = {"restApiId": api.id, "responseType": response_type}
    api.cloud.gateway.put_gateway_response(
        **at,
        responseTemplates={"application/json": PROBLEM},
        responseParameters={
            "gatewayresponse.header.Content-Type": "'application/problem+json'",
            "gatewayresponse.header.X-Request-Id": "context.requestId",
        },
        **response,
    )


def test_an_unknown_route_is_403_missing_authentication_token(cloud: Cloud) -> None:
    api = cloud.api(mock("/v2/models"))
    for path, verb in (("/v2/nothing", "GET"), ("/v2/models", "DELETE"), ("/", "GET"), ("/v2", "GET")):
        response = api.call(path, verb)
        assert (response.status_code, response.json()) == (403, {"message": "Missing Authentication Token"})
        assert response.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"


def test_an_unknown_stage_is_403_forbidden(cloud: Cloud) -> None:
    api = cloud.api(mock("/m"))
    response = cloud.http.get(f"{cloud.state.endpoint}/_aws/execute-api/{api.id}/nope/m")
    assert (response.status_code, response.json()) == (403, {"message": "Forbidden"})


def test_a_gateway_response_sets_status_headers_and_body_and_substitutes_context(cloud: Cloud) -> None:
    api = cloud.api(mock("/m"))
    customize(api, "MISSING_AUTHENTICATION_TOKEN", statusCode="404")
    api.deploy()
    response = api.call("/nope")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == response.headers["x-amzn-requestid"]
    assert response.json() == {
        "detail": "Missing Authentication Token",
        "quoted": "Missing Authentication Token",
        "slug": "MISSING_AUTHENTICATION_TOKEN",
        "request_id": response.headers["x-amzn-requestid"],
        "path": "/test/nope",
    }


def test_a_gateway_response_is_substitution_and_not_velocity(cloud: Cloud) -> None:
    api = cloud.api(mock("/m"))
    cloud.gateway.put_gateway_response(
        restApiId=api.id,
        responseType="MISSING_AUTHENTICATION_TOKEN",
        responseTemplates={"application/json": "#if(true)$context.stage#end $unknown $context.none"},
    )
    api.deploy()
    assert api.call("/nope").text == "#if(true)test#end $unknown $context.none"


def test_default_4xx_and_5xx_answer_for_types_that_are_not_customized(cloud: Cloud, role: str) -> None:
    api = cloud.api(sagemaker("/m", "script", role, {"statusCode": "200", "selectionPattern": "200"}))
    customize(api, "DEFAULT_4XX")
    customize(api, "DEFAULT_5XX")
    api.deploy()
    unknown, broken = api.call("/nope"), api.post("/m", json={"status": 503})
    assert (unknown.status_code, unknown.json()["slug"]) == (403, "MISSING_AUTHENTICATION_TOKEN")
    assert (broken.status_code, broken.json()["slug"]) == (500, "API_CONFIGURATION_ERROR")
    assert broken.headers["content-type"] == "application/problem+json"


def test_a_status_set_on_default_4xx_changes_that_of_every_other_type(cloud: Cloud) -> None:
    api = cloud.api(mock("/m"))
    customize(api, "DEFAULT_4XX", statusCode="400")
    api.deploy()
    assert api.call("/nope").status_code == 400


def test_a_body_above_10_mb_is_413_request_too_large(cloud: Cloud, role: str) -> None:
    api = cloud.api(sagemaker("/m", "echo", role))
    limit = 10 * 1024 * 1024
    assert api.post("/m", content=b"x" * limit).status_code == 200
    response = api.post("/m", content=b"x" * (limit + 1))
    assert (response.status_code, response.json()) == (413, {"message": "Request Too Long"})


def test_a_backend_slower_than_the_integrations_timeout_is_504(cloud: Cloud, role: str) -> None:
    api = cloud.api(sagemaker("/m", "script", role, timeoutInMillis=200))
    started = time.monotonic()
    response = api.post("/m", json={"sleep": 3})
    assert (response.status_code, response.json()) == (504, {"message": "Endpoint request timed out"})
    assert time.monotonic() - started < 2
    assert api.post("/m", json={"sleep": 0.05}).status_code == 200


def test_a_slow_function_is_504_too(cloud: Cloud) -> None:
    arn = cloud.function("import time\ndef handler(event, context):\n    time.sleep(2)\n")
    role = cloud.role({"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn})
    api = cloud.api(function("/m", arn, role, timeoutInMillis=300))
    started = time.monotonic()
    assert api.post("/m").status_code == 504
    assert time.monotonic() - started < 1.5


FICKLE = """\
import json
def handler(event, context):
    answer = json.loads(event["body"])
    if answer == "raise":
        raise ValueError("secret of the model")
    return answer
"""


def test_a_function_that_fails_or_answers_malformed_is_502_without_its_message(cloud: Cloud) -> None:
    arn = cloud.function(FICKLE)
    role = cloud.role({"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn})
    api = cloud.api(function("/m", arn, role))
    assert api.post("/m", json={"statusCode": 201, "body": "fine"}).status_code == 201
    for answer in (
        "raise",
        "text",
        {"body": "no status"},
        {"statusCode": 200, "body": {}},
        {"statusCode": 99},
    ):
        response = api.post("/m", json=answer)
        assert (response.status_code, response.json()) == (502, {"message": "Internal server error"}), answer


def test_an_http_backend_that_cannot_be_reached_is_504_integration_failure(cloud: Cloud) -> None:
    method = mock("/m")
    method.integration = {"type": "HTTP_PROXY", "integrationHttpMethod": "GET", "uri": "http://127.0.0.1:9/"}
    method.responses = ()
    response = cloud.api(method).call("/m")
    assert (response.status_code, response.json()) == (
        504,
        {"message": "Network error communicating with endpoint"},
    )


@pytest.mark.parametrize("timeout", [49, 29_001])
def test_a_timeout_beyond_the_default_quota_is_refused_when_it_is_put(
    cloud: Cloud, role: str, timeout: int
) -> None:
    """AWS_FACTS §1: a deployment before the quota is raised fails."""
    with pytest.raises(ClientError, match="Timeout should be between 50 ms and 29000 ms"):
        cloud.api(sagemaker("/m", "echo", role, timeoutInMillis=timeout))


def test_a_throttled_method_is_429(cloud: Cloud) -> None:
    api = cloud.api(mock("/m"))
    settings = [
        {"op": "replace", "path": "/*/*/throttling/rateLimit", "value": "0"},
        {"op": "replace", "path": "/*/*/throttling/burstLimit", "value": "0"},
    ]
    cloud.gateway.update_stage(restApiId=api.id, stageName="test", patchOperations=settings)
    response = api.call("/m")
    assert (response.status_code, response.json()) == (429, {"message": "Too Many Requests"})


def test_a_gateway_response_takes_effect_with_the_next_deployment(cloud: Cloud) -> None:
    api = cloud.api(mock("/m"))
    customize(api, "MISSING_AUTHENTICATION_TOKEN", statusCode="404")
    assert api.call("/nope").status_code == 403
    api.deploy()
    assert api.call("/nope").status_code == 404
