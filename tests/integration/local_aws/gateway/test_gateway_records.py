"""What a request leaves behind: one request id everywhere, a line in the access log, metrics."""

import datetime
import json
import uuid
from typing import Any

import pytest

from tests.integration.local_aws.gateway.client import ALLOW_LOGS, Api, Cloud, function, mock, sagemaker

FORMAT = json.dumps(
    {
        name: f"$context.{name}"
        for name in (
            "requestId",
            "httpMethod",
            "resourcePath",
            "path",
            "status",
            "responseLength",
            "responseLatency",
            "integration.status",
            "integration.latency",
            "integration.error",
            "error.responseType",
            "authorizer.claims.client_id",
            "identity.sourceIp",
        )
    }
)


HANDLER = """\
import json
def handler(event, context):
    headers = {"x-amzn-RequestId": "mine"}
    return {"statusCode": 200, "headers": headers, "body": json.dumps(event["requestContext"])}
"""


def write_logs_as(cloud: Cloud, role: str) -> None:
    """Make it the account's one role for API Gateway's logs."""
    patch = {"op": "replace", "path": "/cloudwatchRoleArn", "value": role}
    cloud.gateway.update_account(patchOperations=[patch])


@pytest.fixture
def group(cloud: Cloud) -> str:
    """The name of a log group that the account's role may write to."""
    write_logs_as(cloud, cloud.role(ALLOW_LOGS))
    name = f"/inference/{uuid.uuid4().hex[:8]}"
    cloud.client("logs").create_log_group(logGroupName=name)
    return name


def logged(api: Api, group: str) -> list[dict[str, Any]]:
    events = api.cloud.client("logs").filter_log_events(logGroupName=group)["events"]
    return [json.loads(event["message"]) for event in events]


def access_log(group: str) -> dict[str, str]:
    return {"destinationArn": f"arn:aws:logs:us-east-1:000000000000:log-group:{group}", "format": FORMAT}


def test_every_request_writes_one_line_with_its_outcome(cloud: Cloud, role: str, group: str) -> None:
    responses = ({"statusCode": "200", "selectionPattern": "2.."}, {"statusCode": "502"})
    api = cloud.api(sagemaker("/m/{name}", "script", role, *responses), **access_log(group))
    answered = [
        api.post("/m/a", json={"body": "hello"}),
        api.post("/m/a", json={"status": 503}),
        api.post("/nope"),
        api.post("/m/a", json={"sleep": 0.1}),
    ]
    lines = {line["requestId"]: line for line in logged(api, group)}
    assert set(lines) == {response.headers["x-amzn-requestid"] for response in answered}
    first, failed, unknown, slow = (lines[response.headers["x-amzn-requestid"]] for response in answered)
    assert {
        name: first[name] for name in ("httpMethod", "resourcePath", "path", "status", "responseLength")
    } == {
        "httpMethod": "POST",
        "resourcePath": "/m/{name}",
        "path": "/test/m/a",
        "status": "200",
        "responseLength": "5",
    }
    assert (first["integration.status"], first["integration.error"], first["error.responseType"]) == (
        "200",
        "-",
        "-",
    )
    assert (failed["integration.status"], failed["status"]) == ("503", "502")
    assert (unknown["status"], unknown["error.responseType"]) == ("403", "MISSING_AUTHENTICATION_TOKEN")
    assert (unknown["integration.latency"], unknown["authorizer.claims.client_id"]) == ("-", "-")
    assert 100 <= int(slow["integration.latency"]) <= int(slow["responseLatency"]) + 1


def test_an_access_log_is_written_as_the_accounts_role(cloud: Cloud, group: str) -> None:
    api = cloud.api(mock("/m", verb="POST"), **access_log(group))
    for role, lines in ((cloud.role(), 0), (cloud.role(ALLOW_LOGS), 1)):
        write_logs_as(cloud, role)
        assert api.post("/m", json={}).status_code == 200
        assert len(logged(api, group)) == lines


def test_the_line_of_a_misconfigured_integration_says_why(cloud: Cloud, group: str) -> None:
    arn = cloud.function("def handler(event, context):\n    return {'statusCode': 200}\n")
    role = cloud.role(service="ec2.amazonaws.com")
    api = cloud.api(function("/m", arn, role), **access_log(group))
    assert api.post("/m").status_code == 500
    (line,) = logged(api, group)
    assert line["error.responseType"] == "API_CONFIGURATION_ERROR"
    assert "does not have permission to assume the provided role" in line["integration.error"]


def test_one_request_id_in_header_body_event_gateway_response_and_log(cloud: Cloud, group: str) -> None:
    arn = cloud.function(HANDLER)
    role = cloud.role({"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn})
    api = cloud.api(function("/f", arn, role), mock("/m", '{"id":"$context.requestId"}'), **access_log(group))
    cloud.gateway.put_gateway_response(
        restApiId=api.id,
        responseType="MISSING_AUTHENTICATION_TOKEN",
        responseTemplates={"application/json": '{"id":"$context.requestId"}'},
    )
    api.deploy()
    from_function, from_template, from_fault = api.post("/f"), api.call("/m"), api.call("/nope")
    ids = [response.headers["x-amzn-requestid"] for response in (from_function, from_template, from_fault)]
    assert [from_function.json()["requestId"], from_template.json()["id"], from_fault.json()["id"]] == ids
    assert {line["requestId"] for line in logged(api, group)} == set(ids)


def test_a_clients_request_id_is_not_taken_over(cloud: Cloud) -> None:
    api = cloud.api(mock("/m", '{"id":"$context.requestId"}'))
    response = api.call("/m", headers={"x-amzn-requestid": "forged", "x-request-id": "forged"})
    assert "forged" not in response.text + str(response.headers)


def test_a_missing_log_group_is_said_in_the_servers_log_and_does_not_touch_the_answer(cloud: Cloud) -> None:
    api = cloud.api(mock("/m"), **access_log("/none"))
    assert api.call("/m").status_code == 200
    assert f"access log of {api.id}: there is no log group /none" in cloud.log()


def test_metrics_count_requests_errors_and_latency_by_api_and_stage(cloud: Cloud, role: str) -> None:
    responses = ({"statusCode": "200", "selectionPattern": "2.."}, {"statusCode": "502"})
    api = cloud.api(sagemaker("/m", "script", role, *responses))
    api.post("/m", json={})
    api.post("/m", json={"status": 500})
    api.post("/nope")

    def statistics(metric: str) -> dict[str, float]:
        now = datetime.datetime.now(datetime.UTC)
        points = cloud.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/ApiGateway",
            MetricName=metric,
            Dimensions=[{"Name": "ApiName", "Value": api.name}, {"Name": "Stage", "Value": "test"}],
            StartTime=now - datetime.timedelta(minutes=5),
            EndTime=now + datetime.timedelta(minutes=5),
            Period=3600,
            Statistics=["Sum", "SampleCount"],
        )["Datapoints"]
        return {name: sum(point[name] for point in points) for name in ("Sum", "SampleCount")}

    assert statistics("Count") == {"Sum": 3, "SampleCount": 3}
    assert statistics("4XXError") == {"Sum": 1, "SampleCount": 3}
    assert statistics("5XXError") == {"Sum": 1, "SampleCount": 3}
    assert statistics("Latency")["SampleCount"] == 3
    assert statistics("IntegrationLatency")["SampleCount"] == 2
