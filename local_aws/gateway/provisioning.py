"""What the control plane must carry for requests to be executed faithfully, and must refuse as AWS does."""

import copy
import json
from collections.abc import Callable
from typing import Any

from ministack.services import apigateway_v1 as api_gateway
from ministack.services.cloudformation import provisioners

from local_aws.gateway import deployments, openapi
from local_aws.gateway.exchange import Json

Create = Callable[[str, Json, str], tuple[str, Json]]
Update = Callable[[str, Json, Json, str], tuple[str, Json]]
MiniStackAnswer = tuple[int, Json, bytes]


def install() -> None:
    _wrap_deployments()
    _wrap_integrations()
    _import_bodies()
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


def _import_bodies() -> None:
    """AWS::ApiGateway::RestApi: a `Body` is the API, and a changed one changes it in place."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::ApiGateway::RestApi"]
    create: Create = handlers["create"]
    update: Callable[..., tuple[str, Json]] = handlers["update"]

    def create_api(logical_id: str, properties: Json, stack_name: str) -> tuple[str, Json]:
        named, body = _without_body(properties)
        created = create(logical_id, named, stack_name)
        if body is not None:
            try:
                openapi.replace(created[0], body)
            except ValueError:
                api_gateway._delete_rest_api(created[0])
                raise
        return created

    def update_api(
        physical_id: str, before: Json, after: Json, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Json]:
        named, body = _without_body(after)
        if body is not None and body != before.get("Body"):
            openapi.replace(physical_id, body)
        updated: tuple[str, Json] = update(
            physical_id, _without_body(before)[0], named, stack_name, logical_id=logical_id
        )
        return updated

    handlers["create"], handlers["update"] = create_api, update_api
    # The platform's API is one document. MiniStack's methods would lose parts of a template without a word.
    for part in ("Resource", "Method", "Authorizer", "GatewayResponse"):
        del provisioners._RESOURCE_HANDLERS[f"AWS::ApiGateway::{part}"]


def _without_body(properties: Json) -> tuple[Json, Json | None]:
    """The properties that MiniStack handles, with the name that the document gives, and the document."""
    if properties.get("Mode", "overwrite") != "overwrite" or properties.keys() & {
        "BodyS3Location",
        "CloneFrom",
    }:
        raise ValueError("The embedded AWS makes a RestApi of a Body with Mode overwrite only.")
    body: Json | None = properties.get("Body")
    rest = {name: value for name, value in properties.items() if name not in ("Body", "Mode")}
    if body is None:
        return rest, None
    title = body.get("info", {}).get("title")
    return {**({"Name": title} if title else {}), **rest}, body


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
