"""What reaches SageMaker of a client's request (AWS_FACTS §1: headers, binary, passthrough)."""

import base64
import gzip
import json
import zlib
from collections.abc import Callable

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.integration.local_aws.gateway.client import Cloud, Method, mock, sagemaker


def seen(response: httpx.Response) -> dict[str, object]:
    """What the `echo` endpoint got: headers, and the body decoded."""
    assert response.status_code == 200, response.text
    got = response.json()
    return {"headers": got["headers"], "body": base64.b64decode(got["body"])}


def test_headers_without_a_mapping_do_not_reach_the_endpoint(cloud: Cloud, role: str) -> None:
    api = cloud.api(sagemaker("/m", "echo", role))
    got = seen(
        api.post("/m", json={}, headers={"X-Secret": "s", "Authorization": "Bearer t", "Accept": "a/b"})
    )
    assert got["headers"] == {"Content-Type": "application/json"}


def test_mapped_headers_come_from_the_request_the_context_and_static_values(cloud: Cloud, role: str) -> None:
    api = cloud.api(
        sagemaker(
            "/m/{name}",
            "echo",
            role,
            request={
                "method.request.header.Content-Type": False,
                "method.request.querystring.q": False,
                "method.request.path.name": True,
            },
            requestParameters={
                "integration.request.header.Content-Type": "method.request.header.Content-Type",
                "integration.request.header.X-Amzn-SageMaker-Inference-Id": "context.requestId",
                "integration.request.header.X-Amzn-SageMaker-Custom-Attributes": "'op=metadata'",
                "integration.request.header.X-Query": "method.request.querystring.q",
                "integration.request.header.X-Path": "method.request.path.name",
                "integration.request.header.X-Body": "method.request.body.parameters.id",
            },
        )
    )
    response = api.post(
        "/m/file-type?q=one", content=b'{"parameters":{"id":7}}', headers={"Content-Type": "text/plain"}
    )
    assert seen(response)["headers"] == {
        "Content-Type": "text/plain",
        "X-Amzn-SageMaker-Inference-Id": response.headers["x-amzn-requestid"],
        "X-Amzn-SageMaker-Custom-Attributes": "op=metadata",
        "X-Query": "one",
        "X-Path": "file-type",
        "X-Body": "7",
    }


def test_a_mapping_whose_source_is_absent_is_left_out(cloud: Cloud, role: str) -> None:
    api = cloud.api(
        sagemaker(
            "/m",
            "echo",
            role,
            request={"method.request.header.X-Absent": False},
            requestParameters={"integration.request.header.X-There": "method.request.header.X-Absent"},
        )
    )
    assert "X-There" not in seen(api.post("/m", json={}))["headers"]  # type: ignore[operator]


def test_a_mapping_from_an_undeclared_parameter_is_refused_and_changes_nothing(
    cloud: Cloud, role: str
) -> None:
    api = cloud.api(sagemaker("/m", "echo", role))
    mapping = {"integration.request.header.X": "method.request.header.X"}
    put = sagemaker("/m", "echo", role, requestParameters=mapping).integration
    at = {"restApiId": api.id, "resourceId": api._resource("/m"), "httpMethod": "POST"}
    with pytest.raises(ClientError, match=r"Invalid mapping expression.*method\.request\.header\.X"):
        cloud.gateway.put_integration(**at, **put)
    assert cloud.gateway.get_integration(**at)["requestParameters"] == {}


@pytest.mark.parametrize("source", ["context.nothing", "method.request.cookie.x", "nothing"])
def test_a_mapping_from_an_unknown_source_is_an_error_and_not_an_absent_header(
    cloud: Cloud, role: str, source: str
) -> None:
    api = cloud.api(sagemaker("/m", "echo", role, requestParameters={"integration.request.header.X": source}))
    assert api.post("/m", json={}).status_code == 500
    assert f"Invalid mapping expression parameter specified: {source}" in cloud.log()


def test_the_path_of_the_backend_can_be_mapped(cloud: Cloud, role: str) -> None:
    method = sagemaker(
        "/m/{name}",
        "{endpoint}",
        role,
        request={"method.request.path.name": True},
        requestParameters={"integration.request.path.endpoint": "method.request.path.name"},
    )
    api = cloud.api(method)
    assert seen(api.post("/m/echo", json={"a": 1}))["body"] == b'{"a":1}'
    assert json.loads(api.post("/m/other", json={}).text) == {"Message": "Endpoint not found"}


def test_text_that_is_not_utf8_is_damaged_unless_its_type_is_declared_binary(cloud: Cloud, role: str) -> None:
    """Binary is decided by Content-Type against binaryMediaTypes."""
    api = cloud.api(sagemaker("/m", "echo", role), binary=("application/octet-stream",))
    tensor = bytes(range(256))
    for content_type, intact in (("application/octet-stream", True), ("application/json", False)):
        got = seen(api.post("/m", content=tensor, headers={"Content-Type": content_type}))["body"]
        assert (got == tensor) is intact, content_type


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies_reach_the_backend_inflated(
    cloud: Cloud, role: str, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    api = cloud.api(sagemaker("/m", "echo", role), binary=("application/octet-stream",))
    for content_type, body in (("application/json", b'{"a":1}'), ("application/octet-stream", b"\xff\x00")):
        headers = {"Content-Type": content_type, "Content-Encoding": encoding}
        assert seen(api.post("/m", content=compress(body), headers=headers))["body"] == body


def test_compressed_bodies_that_are_bombs_damaged_or_unknown_are_refused(cloud: Cloud, role: str) -> None:
    api = cloud.api(sagemaker("/m", "echo", role))
    for encoding, body, status in (
        ("gzip", gzip.compress(bytes(11 << 20)), 413),
        ("gzip", b"{}", 400),
        ("br", b"{}", 415),
    ):
        answer = api.post("/m", content=body, headers={"Content-Encoding": encoding})
        assert answer.status_code == status, answer.text


def test_answers_are_compressed_from_the_apis_size_on_for_who_accepts_it(cloud: Cloud, role: str) -> None:
    api = cloud.api(sagemaker("/m", "script", role), compressed_from=100)
    large, small = "a" * 100, "a" * 99
    for text, accepted, encoding in (
        (large, "gzip", "gzip"),
        (large, "deflate, br", "deflate"),
        (large, "identity", None),
        (small, "gzip", None),
    ):
        answer = api.post("/m", json={"body": text}, headers={"Accept-Encoding": accepted})
        assert (answer.headers.get("content-encoding"), answer.text) == (encoding, text)
    api = cloud.api(sagemaker("/m", "script", role))
    answer = api.post("/m", json={"body": large}, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers


def test_a_missing_content_type_is_taken_for_json(cloud: Cloud, role: str) -> None:
    api = cloud.api(
        sagemaker("/m", "echo", role, requestTemplates={"application/json": '{"id":"$context.requestId"}'})
    )
    request = cloud.http.build_request("POST", f"{cloud.state.endpoint}/_aws/execute-api/{api.id}/test/m")
    response = cloud.http.send(request)
    assert "content-type" not in request.headers
    assert seen(response)["body"] == b'{"id":"%s"}' % response.headers["x-amzn-requestid"].encode()


@pytest.mark.parametrize(
    ("behaviour", "templates", "content_type", "status"),
    [
        ("WHEN_NO_MATCH", {"application/json": "{}"}, "text/plain", 200),
        ("WHEN_NO_TEMPLATES", {"application/json": "{}"}, "text/plain", 415),
        ("WHEN_NO_TEMPLATES", {}, "text/plain", 200),
        ("NEVER", {"application/json": "{}"}, "text/plain", 415),
        ("NEVER", {}, "application/json", 415),
        ("NEVER", {"application/json": "{}"}, "application/json; charset=utf-8", 200),
    ],
)
def test_passthrough_behaviour_decides_about_bodies_without_a_template(
    cloud: Cloud, role: str, behaviour: str, templates: dict[str, str], content_type: str, status: int
) -> None:
    api = cloud.api(sagemaker("/m", "echo", role, passthroughBehavior=behaviour, requestTemplates=templates))
    response = api.post("/m", content=b"hello", headers={"Content-Type": content_type})
    assert response.status_code == status
    if status == 415:
        assert response.json() == {"message": "Unsupported Media Type"}


@pytest.mark.parametrize(
    ("handling", "content_type", "sent", "got"),
    [
        ("CONVERT_TO_BINARY", "text/plain", b"aGVsbG8=", b"hello"),
        ("CONVERT_TO_TEXT", "application/octet-stream", b"hello", b"aGVsbG8="),
        ("CONVERT_TO_BINARY", "application/octet-stream", b"hello", b"hello"),
        ("CONVERT_TO_TEXT", "text/plain", b"hello", b"hello"),
    ],
)
def test_content_handling_converts_between_base64_and_bytes(
    cloud: Cloud, role: str, handling: str, content_type: str, sent: bytes, got: bytes
) -> None:
    api = cloud.api(
        sagemaker("/m", "echo", role, contentHandling=handling), binary=("application/octet-stream",)
    )
    assert seen(api.post("/m", content=sent, headers={"Content-Type": content_type}))["body"] == got


def test_a_template_sees_binary_media_as_base64(cloud: Cloud, role: str) -> None:
    api = cloud.api(
        sagemaker(
            "/m", "echo", role, requestTemplates={"application/octet-stream": '{"data":"$input.body"}'}
        ),
        binary=("application/octet-stream",),
    )
    got = seen(api.post("/m", content=b"\xff\x00", headers={"Content-Type": "application/octet-stream"}))
    assert got["body"] == b'{"data":"/wA="}'


def test_a_request_template_can_override_a_header(cloud: Cloud, role: str) -> None:
    template = "#set($context.requestOverride.header.X-Model = $input.path('$.model'))$input.json('$')"
    api = cloud.api(sagemaker("/m", "echo", role, requestTemplates={"application/json": template}))
    got = seen(api.post("/m", json={"model": "a"}))
    assert got == {
        "headers": {"X-Model": "a", "Content-Type": "application/json"},
        "body": b'{"model":"a"}',
    }


def test_a_body_that_is_not_json_is_the_clients_mistake_where_a_template_reads_it(
    cloud: Cloud, role: str
) -> None:
    api = cloud.api(sagemaker("/m", "echo", role, requestTemplates={"application/json": "$input.json('$')"}))
    response = api.post("/m", content=b"{oops", headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json() == {"message": "Invalid request body"}


def test_a_mock_is_static_and_calls_nobody(cloud: Cloud) -> None:
    api = cloud.api(mock("/v2/health/live", '{"live":true}'))
    response = api.call("/v2/health/live")
    assert (response.status_code, response.json()) == (200, {"live": True})


def test_a_mock_selects_its_response_by_the_status_of_its_request_template(cloud: Cloud) -> None:
    template = "#if($input.params('q') == 'x'){ statusCode: 404 }#else{\"statusCode\": 200}#end"
    method = Method(
        "/m",
        "GET",
        {"type": "MOCK", "requestTemplates": {"application/json": template}},
        (
            {"statusCode": "200", "responseTemplates": {"application/json": "found"}},
            {
                "statusCode": "404",
                "selectionPattern": "404",
                "responseTemplates": {"application/json": "none"},
            },
        ),
        {"200": {}, "404": {}},
    )
    api = cloud.api(method)
    assert [api.call(path).text for path in ("/m", "/m?q=x")] == ["found", "none"]


def test_describe_endpoint_is_called_with_the_mapped_body(cloud: Cloud) -> None:
    role = cloud.role({"Effect": "Allow", "Action": "sagemaker:DescribeEndpoint", "Resource": "*"})
    method = Method(
        "/ready",
        "GET",
        {
            "type": "AWS",
            "integrationHttpMethod": "POST",
            "uri": "arn:aws:apigateway:us-east-1:sagemaker:action/DescribeEndpoint",
            "credentials": role,
            "requestTemplates": {"application/json": '{"EndpointName":"embedder"}'},
        },
        (
            {
                "statusCode": "200",
                "responseTemplates": {
                    "application/json": "#if($input.path('$.EndpointStatus') == 'InService')"
                    '{"name":"$input.path(\'$.EndpointName\')","ready":true}#end'
                },
            },
        ),
        {"200": {}},
    )
    assert cloud.api(method).call("/ready").json() == {"name": "embedder", "ready": True}


def test_a_non_proxy_function_gets_the_template_and_its_error_message_selects(cloud: Cloud) -> None:
    source = """def handler(event, context):
    if event["n"] < 0:
        raise ValueError("negative: no")
    return {"double": event["n"] * 2}
"""
    arn = cloud.function(source)
    role = cloud.role({"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn})
    method = sagemaker(
        "/m",
        "",
        role,
        {"statusCode": "200"},
        {
            "statusCode": "422",
            "selectionPattern": "negative.*",
            "responseTemplates": {"application/json": "$input.path('$.errorMessage')"},
        },
        uri=f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{arn}/invocations",
        requestTemplates={"application/json": "{\"n\": $input.path('$.value')}"},
    )
    api = cloud.api(method)
    good, bad = api.post("/m", json={"value": 4}), api.post("/m", json={"value": -4})
    assert (good.status_code, good.json()) == (200, {"double": 8})
    assert (bad.status_code, bad.text) == (422, "negative: no")


def test_an_integration_that_calls_a_service_with_get_is_misconfigured(cloud: Cloud, role: str) -> None:
    method = sagemaker("/m", "echo", role, integrationHttpMethod="GET")
    assert cloud.api(method).post("/m", json={}).status_code == 500


@pytest.mark.parametrize("target", ["sqs:path/000000000000/queue", "sagemaker:action/DeleteEndpoint"])
def test_a_target_that_is_not_modelled_fails_and_is_named_in_the_log(
    cloud: Cloud, role: str, target: str
) -> None:
    method = sagemaker("/m", "echo", role)
    method.integration["uri"] = f"arn:aws:apigateway:us-east-1:{target}"
    response = cloud.api(method).post("/m", json={})
    assert (response.status_code, response.json()) == (500, {"message": "Internal server error"})
    assert f"does not model integrations with {target}" in cloud.log()
