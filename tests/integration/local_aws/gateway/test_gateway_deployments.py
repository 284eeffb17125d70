"""A stage serves its deployment, and CloudFormation's properties reach the requests."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.local_aws.gateway.client import ALLOW_ENDPOINTS, ALLOW_LOGS, Api, Cloud, Method, mock

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
    path: str = "/m",
) -> Json:
    """A GPU model's route in the shape that the platform has it."""
    header = "method.response.header"
    text = {"schema": {"type": "string"}}
    operation = {
        "parameters": [{"name": "Content-Type", "in": "header", **text}],
        "responses": {
            "200": {"description": "good", "headers": {"Content-Type": text}},
            "500": {"description": "bad", "headers": {"Retry-After": text}},
        },
        "x-amazon-apigateway-integration": {
            "type": "aws",
            "httpMethod": "POST",
            "uri": "arn:aws:apigateway:us-east-1:runtime.sagemaker:path/endpoints/script/invocations",
            "credentials": role,
            "passthroughBehavior": "never",
            "contentHandling": "CONVERT_TO_TEXT",
            "timeoutInMillis": 1000,
            "requestParameters": {
                "integration.request.header.Content-Type": "method.request.header.Content-Type"
            },
            "requestTemplates": {"application/json": "$input.json('$')", "a/binary": "$input.body"},
            "responses": {
                "2..": {
                    "statusCode": "200",
                    "responseParameters": {f"{header}.Content-Type": "'text/plain'"},
                    "responseTemplates": {"application/json": answer},
                },
                "default": {
                    "statusCode": "500",
                    "responseParameters": {f"{header}.Retry-After": "'5'"},
                    "responseTemplates": {
                        "application/json": "#set($context.responseOverride.status = 503)asleep"
                    },
                    "contentHandling": "CONVERT_TO_TEXT",
                },
            },
        },
    }
    resources: Json = {
        "Api": {
            "Type": "AWS::ApiGateway::RestApi",
            "Properties": {
                "Body": {
                    "openapi": "3.0.1",
                    "info": {"title": "cfn", "version": "1"},
                    "paths": {path: {"post": operation}},
                    "x-amazon-apigateway-binary-media-types": ["a/binary"],
                    "x-amazon-apigateway-gateway-responses": {
                        "MISSING_AUTHENTICATION_TOKEN": {
                            "statusCode": "404",
                            "responseParameters": {
                                "gatewayresponse.header.X-Request-Id": "context.requestId"
                            },
                            "responseTemplates": {"application/json": '{"slug":"not-found"}'},
                        }
                    },
                }
            },
        },
        deployment: {"Type": "AWS::ApiGateway::Deployment", "Properties": {"RestApiId": {"Ref": "Api"}}},
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


def body_of(stack: Json) -> Json:
    """The OpenAPI document in a template."""
    found: Json = stack["Resources"]["Api"]["Properties"]["Body"]
    return found


def operation_of(stack: Json) -> Json:
    """The one operation of that document."""
    [item] = body_of(stack)["paths"].values()
    found: Json = item["post"]
    return found


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
    role = cloud.role(ALLOW_ENDPOINTS, ALLOW_LOGS)
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
    role, stack = cloud.role(ALLOW_ENDPOINTS, ALLOW_LOGS), Stack(cloud)
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
    refusal = Stack(cloud).refusal(template(cloud.role(ALLOW_ENDPOINTS, ALLOW_LOGS), group, account=False))
    assert "CloudWatch Logs role ARN must be set in account settings to enable logging" in refusal


def test_a_changed_document_changes_the_api_in_place(cloud: Cloud, group: str) -> None:
    role, stack = cloud.role(ALLOW_ENDPOINTS, ALLOW_LOGS), Stack(cloud)
    api = stack.create(template(role, group))
    root = api._resource("/")
    stack.update(template(role, group, path="/n/o", deployment="D2"))
    assert (api.post("/n/o", json={}).text, api.post("/m", json={}).status_code) == ("one", 404)
    paths = {r["path"]: r["id"] for r in cloud.gateway.get_resources(restApiId=api.id)["items"]}
    assert paths.keys() == {"/", "/n", "/n/o"}
    assert paths["/"] == root
    assert cloud.gateway.get_rest_api(restApiId=api.id)["name"] == "cfn"


def test_a_document_that_is_refused_leaves_the_api_as_it_was(cloud: Cloud, group: str) -> None:
    role, stack = cloud.role(ALLOW_ENDPOINTS, ALLOW_LOGS), Stack(cloud)
    api = stack.create(template(role, group))
    broken = template(role, group, path="/n", deployment="D2")
    operation_of(broken)["x-unheard-of"] = True
    with pytest.raises(Exception, match="ROLLBACK"):
        stack.update(broken)
    assert (api.post("/m", json={}).text, api.post("/n", json={}).status_code) == ("one", 404)
    names = [one["name"] for one in cloud.gateway.get_rest_apis(limit=500)["items"]]
    assert "draft" not in names


def undeclared(stack: Json) -> None:
    del operation_of(stack)["parameters"]


def twice(stack: Json) -> None:
    responses = operation_of(stack)["x-amazon-apigateway-integration"]["responses"]
    responses["424"] = responses["default"]


def extension(stack: Json) -> None:
    body_of(stack)["x-amazon-apigateway-request-validator"] = "all"


def integration_setting(stack: Json) -> None:
    operation_of(stack)["x-amazon-apigateway-integration"]["tlsConfig"] = {}


def foreign_authorizer(stack: Json) -> None:
    body_of(stack)["components"] = {
        "securitySchemes": {
            "custom": {
                "type": "apiKey",
                "name": "Authorization",
                "in": "header",
                "x-amazon-apigateway-authtype": "custom",
                "x-amazon-apigateway-authorizer": {"type": "token", "authorizerUri": "arn:aws:any"},
            }
        }
    }


def unknown_scheme(stack: Json) -> None:
    operation_of(stack)["security"] = [{"nobody": []}]


def model(stack: Json) -> None:
    operation_of(stack)["requestBody"] = {"content": {}}


def swagger(stack: Json) -> None:
    body_of(stack).update(openapi="3.1.0")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (undeclared, "Invalid mapping expression parameter specified: method.request.header.Content-Type"),
        (twice, "integration response 424 of POST /m: another one has the status 500"),
        (extension, "does not import x-amazon-apigateway-request-validator of the document"),
        (integration_setting, "does not import tlsConfig of x-amazon-apigateway-integration of POST /m"),
        (foreign_authorizer, "authorizers of Cognito user pools only: the security scheme custom"),
        (unknown_scheme, "POST /m: its security must name one security scheme"),
        (model, "does not import requestBody of POST /m"),
        (swagger, "member openapi must be 3.0.x"),
    ],
)
def test_a_document_is_refused_for_what_would_be_lost(
    cloud: Cloud, group: str, change: Callable[[Json], None], reason: str
) -> None:
    stack = template(cloud.role(ALLOW_ENDPOINTS, ALLOW_LOGS), group)
    change(stack)
    assert reason in Stack(cloud).refusal(stack)


def test_an_api_in_parts_is_refused_by_type(cloud: Cloud, group: str) -> None:
    stack = template(cloud.role(ALLOW_ENDPOINTS, ALLOW_LOGS), group)
    stack["Resources"]["Method"] = {"Type": "AWS::ApiGateway::Method", "Properties": {}}
    with pytest.raises(ClientError, match="AWS::ApiGateway::Method"):
        Stack(cloud).create(stack)
