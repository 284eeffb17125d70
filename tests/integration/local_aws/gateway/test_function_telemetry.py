"""What Lambda itself says of a function: metrics of every invocation, and lines in the format it asks for."""

import datetime
import json
from typing import Any

from tests.integration.local_aws.gateway.client import Cloud, function

HANDLER = """\
def handler(event, context):
    print('{"level": "INFO", "message": "mine"}')
    if event.get("httpMethod") == "DELETE":
        raise ValueError("broken")
    return {"statusCode": 200, "body": ""}
"""


def invoked(cloud: Cloud, **settings: Any) -> str:
    """The name of a function that API Gateway invoked twice, once in vain, and Lambda's own API once."""
    arn = cloud.function(HANDLER, **settings)
    iam, own_role = cloud.client("iam"), cloud.client("lambda").get_function_configuration(FunctionName=arn)
    rights = {"Effect": "Allow", "Action": "logs:*", "Resource": "*"}
    iam.put_role_policy(
        RoleName=own_role["Role"].rpartition("/")[2],
        PolicyName="logs",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [rights]}),
    )
    role = cloud.role({"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn})
    api = cloud.api(function("/m", arn, role), function("/m", arn, role, verb="DELETE"))
    assert api.post("/m").status_code == 200
    assert api.call("/m", "DELETE").status_code == 502
    cloud.client("lambda").invoke(FunctionName=arn, Payload=b"{}")
    return arn.rpartition(":")[2]


def lines(cloud: Cloud, name: str) -> list[str]:
    events = cloud.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    return [event["message"] for event in events]


def test_every_invocation_is_counted_once_whoever_invokes(cloud: Cloud) -> None:
    name, now = invoked(cloud), datetime.datetime.now(datetime.UTC)

    def statistics(metric: str) -> tuple[float, float]:
        [point] = cloud.client("cloudwatch").get_metric_statistics(
            Namespace="AWS/Lambda",
            MetricName=metric,
            Dimensions=[{"Name": "FunctionName", "Value": name}],
            StartTime=now - datetime.timedelta(hours=1),
            EndTime=now + datetime.timedelta(hours=1),
            Period=86400,
            Statistics=["Sum", "SampleCount"],
        )["Datapoints"]
        return point["Sum"], point["SampleCount"]

    assert statistics("Invocations") == (3, 3)
    assert statistics("Errors") == (1, 3)
    assert statistics("Throttles") == (0, 3)
    assert statistics("ConcurrentExecutions") == (3, 3)
    assert statistics("Duration")[1] == 3


def test_a_function_that_asks_for_json_has_lambdas_lines_in_json(cloud: Cloud) -> None:
    name = invoked(cloud, LoggingConfig={"LogFormat": "JSON"})
    records = [json.loads(line) for line in lines(cloud, name) if line.startswith("{")]
    assert not [line for line in lines(cloud, name) if line.startswith(("START", "END", "REPORT"))]
    reports = [each["record"] for each in records if each.get("type") == "platform.report"]
    starts = {each["record"]["requestId"] for each in records if each.get("type") == "platform.start"}
    assert {report["requestId"] for report in reports} == starts
    assert sorted(report["status"] for report in reports) == ["error", "success", "success"]
    # The second broke its process, so the third started another.
    assert ["initDurationMs" in report["metrics"] for report in reports].count(True) == 2
    assert all(r["metrics"]["billedDurationMs"] >= r["metrics"]["durationMs"] for r in reports)
    assert {"level": "INFO", "message": "mine"} in records


def test_any_other_has_them_as_text(cloud: Cloud) -> None:
    found = lines(cloud, invoked(cloud))
    for start in ("START RequestId: ", "END RequestId: ", "REPORT RequestId: "):
        assert len([line for line in found if line.startswith(start)]) == 3
