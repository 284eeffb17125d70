"""What the control plane must carry for requests to be executed faithfully, and must refuse as AWS does."""

import copy
import json
from collections.abc import Callable
from typing import Any

from ministack.services import apigateway_v1 as api_gateway
from ministack.services.cloudformation import provisioners

from local_aws.gateway import deployments
from local_aws.gateway.exchange import Json

Create = Callable[[str, Json, str], tuple[str, Json]]
Update = Callable[[str, Json, Json, str], tuple[str, Json]]
MiniStackAnswer = tuple[int, Json, bytes]


def install() -> None:
    _wrap_deployments()
    _wrap_integrations()
    _wrap_methods()
    _wrap_stages()


# --- Deployments --------------------------------------------------------------------------------------------


def _wrap_deployments() -> None:
    """Capture the API with each deployment, which MiniStack does for gateway responses only."""
    create, delete = api_gateway._create_deployment, api_gateway._delete_deployment

    def create_deployment(api_id: str, data: Json) -> MiniStackAnswer:
        for resource in api_gateway._resources.get(api_id, {}).values():
            for verb, method in (resource.get("resourceMethods") or {}).items():
                if not method.get("methodIntegration"):
                    return _bad_request(f"No integration defined for method {verb} {resource['path']}")
        answer: MiniStackAnswer = create(api_id, data)
        if answer[0] == 201:
            deployments.capture(api_id, json.loads(answer[2])["id"])
        return answer

    def delete_deployment(api_id: str, deployment_id: str) -> MiniStackAnswer:
        if any(
            s.get("deploymentId") == deployment_id for s in api_gateway._stages_v1.get(api_id, {}).values()
        ):
            return _bad_request("Active stages pointing to this deployment must be moved or deleted")
        answer: MiniStackAnswer = delete(api_id, deployment_id)
        deployments.forget(api_id, deployment_id)
        return answer

    api_gateway._create_deployment = create_deployment
    api_gateway._delete_deployment = delete_deployment


def _bad_request(message: str) -> MiniStackAnswer:
    answer: MiniStackAnswer = api_gateway._v1_error("BadRequestException", message, 400)
    return answer


# --- Integrations -------------------------------------------------------------------------------------------


def invalid_mappings(method: Json) -> list[str]:
    """The mapping expressions of a method that refer to a parameter that it does not declare."""
    integration = method.get("methodIntegration") or {}
    declared = set(method.get("requestParameters") or {})
    invalid = [
        source
        for source in (integration.get("requestParameters") or {}).values()
        if source.startswith(
            ("method.request.header.", "method.request.querystring.", "method.request.path.")
        )
        and source not in declared
    ]
    for status, response in (integration.get("integrationResponses") or {}).items():
        answers = (method.get("methodResponses") or {}).get(status) or {}
        invalid += [
            target
            for target in response.get("responseParameters") or {}
            if target not in (answers.get("responseParameters") or {})
        ]
    return invalid


TIMEOUT_MS = range(50, 29_001)
"""What an integration may ask for in an account whose quota was not raised."""


def _refusal(method: Json) -> str | None:
    """Why AWS refuses the method's integration, or None."""
    if (
        int((method.get("methodIntegration") or {}).get("timeoutInMillis") or TIMEOUT_MS[-1])
        not in TIMEOUT_MS
    ):
        return f"Timeout should be between {TIMEOUT_MS[0]} ms and {TIMEOUT_MS[-1]} ms"
    responses = (method.get("methodIntegration") or {}).get("integrationResponses") or {}
    patterns = [response.get("selectionPattern") or "default" for response in responses.values()]
    twice = next((pattern for pattern in patterns if patterns.count(pattern) > 1), None)
    if twice:
        return f"Integration response with selection pattern {twice} already exists"
    invalid = invalid_mappings(method)
    if not invalid:
        return None
    errors = ", ".join(f"Invalid mapping expression parameter specified: {name}" for name in invalid)
    return f"Invalid mapping expression specified: Validation Result: warnings : [], errors : [{errors}]"


def _wrap_integrations() -> None:
    """AWS refuses a timeout, or a mapping of an undeclared parameter, when it is put and not when used."""

    def refusing(put: Callable[..., MiniStackAnswer]) -> Callable[..., MiniStackAnswer]:
        def checked(api_id: str, resource_id: str, http_method: str, *rest: Any) -> MiniStackAnswer:
            before = copy.deepcopy(_method(api_id, resource_id, http_method))
            answer = put(api_id, resource_id, http_method, *rest)
            refusal = _refusal(_method(api_id, resource_id, http_method) or {}) if answer[0] < 400 else None
            if refusal is None:
                return answer
            api_gateway._resources[api_id][resource_id]["resourceMethods"][http_method] = before
            return _bad_request(refusal)

        return checked

    api_gateway._put_integration = refusing(api_gateway._put_integration)
    api_gateway._put_integration_response = refusing(api_gateway._put_integration_response)


def _method(api_id: str, resource_id: str, http_method: str) -> Json | None:
    resource = api_gateway._resources.get(api_id, {}).get(resource_id) or {}
    method: Json | None = (resource.get("resourceMethods") or {}).get(http_method)
    return method


# --- CloudFormation -----------------------------------------------------------------------------------------


def _wrap_methods() -> None:
    """AWS::ApiGateway::Method: properties that MiniStack drops, and refusals that it swallows."""
    create: Create = provisioners._apigw_method_create

    def create_method(logical_id: str, properties: Json, stack_name: str) -> tuple[str, Json]:
        _check_statuses(properties)
        refusal = _refusal(_as_method(properties))
        if refusal:
            raise ValueError(refusal)
        created = create(logical_id, properties, stack_name)
        method = _method(properties["RestApiId"], properties["ResourceId"], properties["HttpMethod"])
        if method is None:
            raise ValueError(
                f"{logical_id}: Invalid Resource identifier specified: {properties['ResourceId']}"
            )
        method["requestValidatorId"] = properties.get("RequestValidatorId")
        integration = properties.get("Integration") or {}
        if integration.get("ContentHandling"):
            method["methodIntegration"]["contentHandling"] = integration["ContentHandling"]
        return created

    # Its update handler calls the creation by this name.
    provisioners._apigw_method_create = create_method
    provisioners._RESOURCE_HANDLERS["AWS::ApiGateway::Method"]["create"] = create_method


def _as_method(properties: Json) -> Json:
    """A template's method in the API's shape, as far as `_refusal` reads it."""
    integration = properties.get("Integration") or {}
    return {
        "requestParameters": properties.get("RequestParameters"),
        "methodResponses": {
            str(response["StatusCode"]): {"responseParameters": response.get("ResponseParameters")}
            for response in properties.get("MethodResponses") or []
        },
        "methodIntegration": {
            "requestParameters": integration.get("RequestParameters"),
            "timeoutInMillis": integration.get("TimeoutInMillis"),
            "integrationResponses": {
                str(response["StatusCode"]): {
                    "selectionPattern": response.get("SelectionPattern"),
                    "responseParameters": response.get("ResponseParameters"),
                }
                for response in integration.get("IntegrationResponses") or []
            },
        },
    }


def _check_statuses(properties: Json) -> None:
    """API Gateway keeps one response per status, so of two in a template one would be lost without a word."""
    integration = properties.get("Integration") or {}
    for name, responses in (
        ("MethodResponses", properties.get("MethodResponses")),
        ("Integration.IntegrationResponses", integration.get("IntegrationResponses")),
    ):
        statuses = [str(response["StatusCode"]) for response in responses or []]
        twice = next((status for status in statuses if statuses.count(status) > 1), None)
        if twice:
            raise ValueError(
                f"{name} has StatusCode {twice} more than once: API Gateway keys them by status. "
                "Give each its own status, and let its template set $context.responseOverride.status."
            )


def _wrap_stages() -> None:
    """AWS::ApiGateway::Stage: the access log, which AWS refuses without the account's log role."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::ApiGateway::Stage"]
    create: Create = handlers["create"]
    update: Update = handlers["update"]

    def create_stage(logical_id: str, properties: Json, stack_name: str) -> tuple[str, Json]:
        _check_log_role(properties)
        created = create(logical_id, properties, stack_name)
        _set_access_log(properties)
        return created

    def update_stage(physical_id: str, before: Json, after: Json, stack_name: str) -> tuple[str, Json]:
        _check_log_role(after)
        updated = update(physical_id, before, after, stack_name)
        _set_access_log(after)
        return updated

    handlers["create"], handlers["update"] = create_stage, update_stage


def _check_log_role(properties: Json) -> None:
    logs = properties.get("AccessLogSetting") or any(
        setting.get("LoggingLevel", "OFF") != "OFF" for setting in properties.get("MethodSettings") or []
    )
    if logs and not json.loads(api_gateway._get_account()[2]).get("cloudwatchRoleArn"):
        raise ValueError("CloudWatch Logs role ARN must be set in account settings to enable logging")


def _set_access_log(properties: Json) -> None:
    setting = properties.get("AccessLogSetting") or {}
    stage = api_gateway._stages_v1[properties["RestApiId"]][properties["StageName"]]
    stage["accessLogSettings"] = (
        {"destinationArn": setting["DestinationArn"], "format": setting.get("Format", "")} if setting else {}
    )
