"""A stage serves its deployment, and CloudFormation's properties reach the requests."""

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.local_aws.gateway.client import ALLOW_ENDPOINTS, Api, Cloud, Method, mock

Json = dict[str, Any]


def test_a_change_is_served_from_the_next_deployment_on(cloud: Cloud) -> None:
    api = cloud.api(mock("/m", "one"))
    api.put(mock("/m", "two"))
    api.put(mock("/new", "new"))
    assert (api.call("/m").text, api.call("/new").status_code) == ("one", 403)
    api.deploy()
    assert (api.call("/m").text, api.call("/new").text) == ("two", "new")


def test_a_stage_can_go_back_to_an_earlier_deployment(cloud: Cloud) -> None:
    api = cloud.api(mock("/m", "one"))
    before = cloud.gateway.get_stage(restApiId=api.id, stageName="test")["deploymentId"]
    api.put(mock("/m", "two"))
    api.deploy()
    back = [{"op": "replace", "path": "/deploymentId", "value": before}]
    cloud.gateway.update_stage(restApiId=api.id, stageName="test", patchOperations=back)
    assert api.call("/m").text == "one"


def test_a_deployment_that_a_stage_serves_cannot_be_deleted(cloud: Cloud) -> None:
    api = cloud.api(mock("/m"))
    deployment = cloud.gateway.get_stage(restApiId=api.id, stageName="test")["deploymentId"]
    with pytest.raises(ClientError, match="Active stages"):
        cloud.gateway.delete_deployment(restApiId=api.id, deploymentId=deployment)


def test_a_method_without_an_integration_cannot_be_deployed(cloud: Cloud) -> None:
    api = cloud.api(mock("/m"))
    cloud.gateway.put_method(
        restApiId=api.id, resourceId=api._resource("/n"), httpMethod="GET", authorizationType="NONE"
    )
    with pytest.raises(ClientError, match="No integration defined for method"):
        api.deploy()


def test_a_literal_segment_wins_over_a_variable_and_that_over_a_greedy_one(cloud: Cloud) -> None:
    def named(path: str, verb: str = "GET") -> Method:
        return mock(path, f"{verb} {path} $!input.params('name')$!input.params('proxy')", verb)

    api = cloud.api(named("/{proxy+}"), named("/a/{name}"), named("/a/b"), named("/a/b", "POST"))
    assert [api.call(path).text for path in ("/a/b", "/a/c", "/a/c/d", "/x")] == [
        "GET /a/b ",
        "GET /a/{name} c",
        "GET /{proxy+} a/c/d",
        "GET /{proxy+} x",
    ]
    assert api.post("/a/b").text == "POST /a/b "
    assert api.post("/a/c").status_code == 403


# --- CloudFormation -----------------------------------------------------------------------------------------


def template(
    role: str,
    group: str,
    *,
    answer: str = "one",
    deployment: str = "D1",
    account: bool = True,
    log: str = "$context.requestId $context.status",
) -> Json:
    """A GPU model's route in the shape that CDK synthesizes."""
    header = "method.response.header"
    method = {
        "Type": "AWS::ApiGateway::Method",
        "Properties": {
            "RestApiId": {"Ref": "Api"},
            "ResourceId": {"Ref": "Route"},
            "HttpMethod": "POST",
            "AuthorizationType": "NONE",
            "RequestParameters": {"method.request.header.Content-Type": False},
            "MethodResponses": [
                {"StatusCode": "200", "ResponseParameters": {f"{header}.Content-Type": True}},
                {"StatusCode": "500", "ResponseParameters": {f"{header}.Retry-After": True}},
            ],
            "Integration": {
                "Type": "AWS",
                "IntegrationHttpMethod": "POST",
                "Uri": "arn:aws:apigateway:us-east-1:runtime.sagemaker:path/endpoints/script/invocations",
                "Credentials": role,
                "PassthroughBehavior": "NEVER",
                "ContentHandling": "CONVERT_TO_TEXT",
                "TimeoutInMillis": 1000,
                "RequestParameters": {
                    "integration.request.header.Content-Type": "method.request.header.Content-Type"
                },
                "RequestTemplates": {"application/json": "$input.json('$')", "a/binary": "$input.body"},
                "IntegrationResponses": [
                    {
                        "StatusCode": "200",
                        "SelectionPattern": "2..",
                        "ResponseParameters": {f"{header}.Content-Type": "'text/plain'"},
                        "ResponseTemplates": {"application/json": answer},
                    },
                    {
                        "StatusCode": "500",
                        "ResponseParameters": {f"{header}.Retry-After": "'5'"},
                        "ResponseTemplates": {
                            "application/json": "#set($context.responseOverride.status = 503)asleep"
                        },
                        "ContentHandling": "CONVERT_TO_TEXT",
                    },
                ],
            },
        },
    }
    resources: Json = {
        "Api": {
            "Type": "AWS::ApiGateway::RestApi",
            "Properties": {"Name": "cfn", "BinaryMediaTypes": ["a/binary"]},
        },
        "Route": {
            "Type": "AWS::ApiGateway::Resource",
            "Properties": {
                "RestApiId": {"Ref": "Api"},
                "ParentId": {"Fn::GetAtt": ["Api", "RootResourceId"]},
                "PathPart": "m",
            },
        },
        "Method": method,
        "NotFound": {
            "Type": "AWS::ApiGateway::GatewayResponse",
            "Properties": {
                "RestApiId": {"Ref": "Api"},
                "ResponseType": "MISSING_AUTHENTICATION_TOKEN",
                "StatusCode": "404",
                "ResponseParameters": {"gatewayresponse.header.X-Request-Id": "context.requestId"},
                "ResponseTemplates": {"application/json": '{"slug":"not-found"}'},
            },
        },
        deployment: {
            "Type": "AWS::ApiGateway::Deployment",
            "DependsOn": ["Method", "NotFound"],
            "Properties": {"RestApiId": {"Ref": "Api"}},
        },
        "Stage": {
            "Type": "AWS::ApiGateway::Stage",
            "Properties": {
                "RestApiId": {"Ref": "Api"},
                "DeploymentId": {"Ref": deployment},
                "StageName": "test",
                "AccessLogSetting": {
                    "DestinationArn": f"arn:aws:logs:us-east-1:000000000000:log-group:{group}",
                    "Format": log,
                },
            },
        },
    }
    if account:
        resources["Account"] = {"Type": "AWS::ApiGateway::Account", "Properties": {"CloudWatchRoleArn": role}}
        resources["Stage"]["DependsOn"] = ["Account"]
    return {"Resources": resources, "Outputs": {"Id": {"Value": {"Ref": "Api"}}}}


class Stack:
    def __init__(self, cloud: Cloud) -> None:
        self.client, self.cloud, self.name = (
            cloud.client("cloudformation"),
            cloud,
            f"s-{uuid.uuid4().hex[:8]}",
        )

    def create(self, body: Json) -> Api:
        self.client.create_stack(StackName=self.name, TemplateBody=json.dumps(body))
        self.client.get_waiter("stack_create_complete").wait(
            StackName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
        )
        (output,) = self.client.describe_stacks(StackName=self.name)["Stacks"][0]["Outputs"]
        return Api(self.cloud, output["OutputValue"], "cfn")

    def update(self, body: Json) -> None:
        self.client.update_stack(StackName=self.name, TemplateBody=json.dumps(body))
        self.client.get_waiter("stack_update_complete").wait(
            StackName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
        )

    def refusal(self, body: Json) -> str:
        """Why CloudFormation could not create the stack."""
        with pytest.raises(Exception, match="ROLLBACK"):
            self.create(body)
        events = self.client.describe_stack_events(StackName=self.name)["StackEvents"]
        return " ".join(event.get("ResourceStatusReason", "") for event in events)


@pytest.fixture
def group(cloud: Cloud) -> str:
    name = f"/inference/{uuid.uuid4().hex[:8]}"
    cloud.client("logs").create_log_group(logGroupName=name)
    return name


def test_every_property_of_a_template_reaches_the_requests(cloud: Cloud, group: str) -> None:
    role = cloud.role(ALLOW_ENDPOINTS)
    api = Stack(cloud).create(template(role, group))

    good = api.post("/m", json={"body": "x"})
    assert (good.status_code, good.text, good.headers["content-type"]) == (200, "one", "text/plain")
    asleep = api.post("/m", json={"status": 400})
    assert (asleep.status_code, asleep.text, asleep.headers["retry-after"]) == (503, "asleep", "5")
    assert api.post("/m", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    unknown = api.call("/nope")
    assert (unknown.status_code, unknown.json()) == (404, {"slug": "not-found"})
    assert unknown.headers["x-request-id"] == unknown.headers["x-amzn-requestid"]
    assert api.post("/m", json={"sleep": 2}).status_code == 504

    integration = cloud.gateway.get_integration(
        restApiId=api.id, resourceId=api._resource("/m"), httpMethod="POST"
    )
    assert (integration["contentHandling"], integration["credentials"]) == ("CONVERT_TO_TEXT", role)
    events = cloud.client("logs").filter_log_events(logGroupName=group)["events"]
    assert f"{good.headers['x-amzn-requestid']} 200" in [event["message"] for event in events]


def test_an_update_takes_effect_through_a_new_deployment_only(cloud: Cloud, group: str) -> None:
    role, stack = cloud.role(ALLOW_ENDPOINTS), Stack(cloud)
    api = stack.create(template(role, group))
    stack.update(template(role, group, answer="two"))
    assert api.post("/m", json={}).text == "one"
    stack.update(template(role, group, answer="two", deployment="D2", log="second $context.status"))
    assert api.post("/m", json={}).text == "two"
    events = cloud.client("logs").filter_log_events(logGroupName=group)["events"]
    assert "second 200" in [event["message"] for event in events]


def test_an_access_log_needs_the_accounts_log_role(cloud: Cloud, group: str) -> None:
    reset = [{"op": "remove", "path": "/cloudwatchRoleArn"}]
    cloud.gateway.update_account(patchOperations=reset)
    refusal = Stack(cloud).refusal(template(cloud.role(ALLOW_ENDPOINTS), group, account=False))
    assert "CloudWatch Logs role ARN must be set in account settings to enable logging" in refusal


def test_an_undeclared_parameter_fails_the_method(cloud: Cloud, group: str) -> None:
    body = template(cloud.role(ALLOW_ENDPOINTS), group)
    del body["Resources"]["Method"]["Properties"]["RequestParameters"]
    assert "Invalid mapping expression parameter specified: method.request.header.Content-Type" in Stack(
        cloud
    ).refusal(body)


def test_two_integration_responses_with_one_status_fail_the_method(cloud: Cloud, group: str) -> None:
    """API Gateway keys them by status: one of the two would be lost."""
    body = template(cloud.role(ALLOW_ENDPOINTS), group)
    responses = body["Resources"]["Method"]["Properties"]["Integration"]["IntegrationResponses"]
    responses.append({**responses[1], "SelectionPattern": "424"})
    assert "StatusCode 500 more than once" in Stack(cloud).refusal(body)
