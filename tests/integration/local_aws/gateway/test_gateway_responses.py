"""What reaches the client of SageMaker's answer (AWS_FACTS §1: error mapping, overrides, binary)."""

import base64
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stacks.constructs.sagemaker_integration import UNWRAP_MODEL_ERROR
from tests.integration.local_aws.gateway.client import Cloud, sagemaker

OK = {"statusCode": "200", "selectionPattern": r"2\d{2}"}


@pytest.mark.parametrize(
    ("backend", "client"),
    [(200, 200), (201, 200), (424, 400), (400, 400), (500, 502), (503, 502), (530, 502), (302, 500)],
)
def test_selection_patterns_match_the_whole_http_status(
    cloud: Cloud, role: str, backend: int, client: int
) -> None:
    api = cloud.api(
        sagemaker(
            "/m",
            "script",
            role,
            OK,
            {"statusCode": "400", "selectionPattern": r"4\d{2}"},
            {"statusCode": "502", "selectionPattern": r"5\d{2}"},
            {"statusCode": "504", "selectionPattern": "3"},
        )
    )
    assert api.post("/m", json={"status": backend}).status_code == client


def test_a_response_without_a_pattern_is_a_catch_all_that_turns_errors_into_200(
    cloud: Cloud, role: str
) -> None:
    """The default of CDK's SagemakerIntegration: the trap that the API's stack must avoid."""
    api = cloud.api(sagemaker("/m", "script", role))
    response = api.post("/m", json=model_error(400, "no"))
    assert (response.status_code, "000000000000" in response.text) == (200, True)


def test_no_matching_response_and_no_default_is_500(cloud: Cloud, role: str) -> None:
    api = cloud.api(sagemaker("/m", "script", role, OK))
    response = api.post("/m", json={"status": 503})
    assert (response.status_code, response.json()) == (500, {"message": "Internal server error"})
    assert "No match for output mapping" in cloud.log()


def test_a_second_response_with_the_same_pattern_is_refused_when_it_is_put(cloud: Cloud, role: str) -> None:
    with pytest.raises(ClientError, match="selection pattern default already exists"):
        cloud.api(sagemaker("/m", "script", role, {"statusCode": "200"}, {"statusCode": "500"}))


def test_a_missing_method_response_is_500(cloud: Cloud, role: str) -> None:
    method = sagemaker("/m", "script", role, OK)
    method.declared.clear()
    response = cloud.api(method).post("/m", json={})
    assert (response.status_code, response.json()) == (500, {"message": "Internal server error"})
    assert "Output mapping refers to an invalid method response: 200" in cloud.log()


def test_content_type_is_json_unless_it_is_mapped(cloud: Cloud, role: str) -> None:
    mapped = {
        "responseParameters": {
            "method.response.header.Content-Type": "integration.response.header.Content-Type"
        }
    }
    for extra, expected in (({}, "application/json"), (mapped, "text/csv")):
        api = cloud.api(sagemaker("/m", "script", role, {**OK, **extra}))
        response = api.post("/m", json={"body": "a,b", "headers": {"Content-Type": "text/csv"}})
        assert (response.headers["content-type"], response.text) == (expected, "a,b")


def test_headers_of_the_backend_pass_only_where_mapped(cloud: Cloud, role: str) -> None:
    parameters = {
        "method.response.header.X-Variant": "integration.response.header.x-amzn-invoked-production-variant",
        "method.response.header.X-Request-Id": "context.requestId",
        "method.response.header.Retry-After": "'5'",
        "method.response.header.X-Model": "integration.response.body.model_name",
        "method.response.header.X-Absent": "integration.response.header.X-Nothing",
    }
    api = cloud.api(sagemaker("/m", "script", role, {**OK, "responseParameters": parameters}))
    answer = {
        "body": '{"model_name":"a"}',
        "headers": {
            "x-Amzn-Invoked-Production-Variant": "main",
            "X-Secret": "arn:aws:iam::000000000000:role/x",
        },
    }
    headers = api.post("/m", json=answer).headers
    assert headers["x-variant"] == "main"
    assert headers["x-request-id"] == headers["x-amzn-requestid"]
    assert (headers["retry-after"], headers["x-model"]) == ("5", "a")
    assert not {"x-secret", "x-absent"} & set(headers)


def test_a_mapping_to_an_undeclared_response_header_is_refused_when_it_is_put(
    cloud: Cloud, role: str
) -> None:
    method = sagemaker(
        "/m", "script", role, {**OK, "responseParameters": {"method.response.header.X": "'1'"}}
    )
    method.declared["200"] = {}
    with pytest.raises(ClientError, match=r"Invalid mapping expression.*method\.response\.header\.X"):
        cloud.api(method)


PROBLEM = '{"type":"urn:inference-platform:problem:'


def model_error(status: int, message: str) -> dict[str, Any]:
    wrapped = {
        "ErrorCode": "CLIENT_ERROR_FROM_MODEL",
        "Message": f"Received client error ({status}) from primary",
        "OriginalStatusCode": status,
        "OriginalMessage": message,
        "LogStreamArn": "arn:aws:logs:us-east-1:000000000000:log-group:x",
    }
    return {"status": 424, "body": json.dumps(wrapped)}


def test_a_template_turns_model_error_424_into_the_containers_own_answer(cloud: Cloud, role: str) -> None:
    unwrap = {
        "statusCode": "500",
        "selectionPattern": "424",
        "responseTemplates": {"application/json": UNWRAP_MODEL_ERROR},
    }
    api = cloud.api(sagemaker("/m", "script", role, OK, unwrap))
    document = PROBLEM + 'invalid-shape","status":400}'
    response = api.post("/m", json=model_error(400, document))
    assert (response.status_code, response.text.strip()) == (400, document)
    assert "retry-after" not in response.headers

    document = PROBLEM + 'throttled","status":429,"retry_after":3}'
    busy = api.post("/m", json=model_error(429, document))
    assert (busy.status_code, busy.text.strip(), busy.headers["retry-after"]) == (429, document, "3")

    foreign = api.post("/m", json=model_error(418, "Traceback: /opt/ml/secret.py"))
    assert (foreign.status_code, foreign.json()["request_id"]) == (500, foreign.headers["x-amzn-requestid"])
    assert "opt/ml" not in foreign.text


def test_a_template_turns_400_no_capacity_into_503_with_retry_after(cloud: Cloud, role: str) -> None:
    """A model scaled to zero answers like a client error: only the body says which it is."""
    template = """\
#if($input.path('$.Message').contains("has no capacity"))
#set($context.responseOverride.status = 503)
#set($context.responseOverride.header.Retry-After = "30")
{"slug":"model-unavailable"}
#else
{"slug":"invalid-request"}
#end"""
    responses = (
        OK,
        {"statusCode": "400", "selectionPattern": "400", "responseTemplates": {"application/json": template}},
    )
    api = cloud.api(sagemaker("/m", "script", role, *responses))
    asleep = api.post(
        "/m", json={"status": 400, "body": '{"Message":"Inference Component has no capacity to"}'}
    )
    assert (asleep.status_code, asleep.headers["retry-after"]) == (503, "30")
    assert asleep.json() == {"slug": "model-unavailable"}
    wrong = api.post("/m", json={"status": 400, "body": '{"Message":"other"}'})
    assert (wrong.status_code, wrong.json()) == (400, {"slug": "invalid-request"})


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "#set($context.responseOverride.status = 503)#set($context.responseOverride.status = 503)",
            "second time",
        ),
        ("$input.path('$.nothing').size()", "size"),
        ("$nothing", "$nothing is not set in the template"),
        ("$input.json('$')", "Could not parse the integration's response"),
        ("#if($context.requestId)x#end", "not a boolean"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_500_with_the_reason_in_the_log(
    cloud: Cloud, role: str, template: str, reason: str
) -> None:
    api = cloud.api(
        sagemaker("/m", "script", role, {**OK, "responseTemplates": {"application/json": template}})
    )
    response = api.post("/m", json={"body": "not json" if "json" in template else "{}"})
    assert (response.status_code, response.json()) == (500, {"message": "Internal server error"})
    logged = next(line for line in cloud.log().splitlines() if response.headers["x-amzn-requestid"] in line)
    assert reason in logged


def test_binary_answers_need_a_binary_first_accept(cloud: Cloud, role: str) -> None:
    mapped = {
        "responseParameters": {
            "method.response.header.Content-Type": "integration.response.header.Content-Type"
        }
    }
    api = cloud.api(sagemaker("/m", "script", role, {**OK, **mapped}), binary=("application/octet-stream",))
    tensor = bytes(range(256))
    encoded = base64.b64encode(tensor)
    answer = {"base64": encoded.decode(), "headers": {"Content-Type": "application/octet-stream"}}
    for accept, expected in (
        ("application/octet-stream", tensor),
        ("application/octet-stream;q=0.9, application/json", tensor),
        ("application/octet-stream, application/json", tensor),
        ("application/json, application/octet-stream", encoded),
        ("*/*", encoded),
    ):
        assert api.post("/m", json=answer, headers={"Accept": accept}).content == expected, accept


def test_text_for_a_client_that_accepts_binary_is_decoded_as_base64_and_fails_otherwise(
    cloud: Cloud, role: str
) -> None:
    api = cloud.api(sagemaker("/m", "script", role, OK), binary=("application/octet-stream",))
    accept = {"Accept": "application/octet-stream"}
    assert api.post("/m", json={"body": "aGVsbG8="}, headers=accept).content == b"hello"
    assert api.post("/m", json={"body": '{"error":1}'}, headers=accept).status_code == 500


def test_response_content_handling_can_keep_text_for_such_a_client(cloud: Cloud, role: str) -> None:
    response = {**OK, "contentHandling": "CONVERT_TO_TEXT"}
    api = cloud.api(sagemaker("/m", "script", role, response), binary=("application/octet-stream",))
    answer = api.post("/m", json={"body": '{"error":1}'}, headers={"Accept": "application/octet-stream"})
    assert (answer.status_code, answer.text) == (200, '{"error":1}')
