"""An API from its OpenAPI document, as PutRestApi imports it with mode `overwrite`: all of it, or nothing.

A document may say more than is modelled here. Whatever would be lost without a word is refused by name, such
as an extension or a security scheme that nothing here knows.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ministack.services import apigateway_v1 as api_gateway

from local_aws.gateway.exchange import Json

_X = "x-amazon-apigateway-"

_VERBS = {verb: verb.upper() for verb in ("get", "put", "post", "delete", "patch", "head", "options")} | {
    f"{_X}any-method": "ANY"
}

_STORES = ("_resources", "_authorizers_v1", "_models", "_gateway_responses", "_request_validators")
"""What an import replaces. Deployments and stages stay, and go on serving what they serve."""


def replace(api_id: str, document: Any) -> None:
    """Make the API what `document` says. Raises ValueError, which names the reason, and changes nothing."""
    # The control plane checks what it is given one by one, so it gets an API of its own until all is said.
    draft = _said(api_gateway._create_rest_api({"name": "draft"}))["id"]
    try:
        _fill(draft, document)
        _keep_resource_ids(api_id, draft)
        for name in _STORES:
            store = getattr(api_gateway, name)
            store[api_id] = store.pop(draft, {})
    finally:
        api_gateway._delete_rest_api(draft)
    media_types = document.get(f"{_X}binary-media-types")
    if media_types is not None:
        api_gateway._rest_apis[api_id]["binaryMediaTypes"] = list(media_types)
    least = document.get(f"{_X}minimum-compression-size")
    if least is not None:
        api_gateway._rest_apis[api_id]["minimumCompressionSize"] = int(least)


def _keep_resource_ids(api_id: str, draft: str) -> None:
    """A path that was there keeps its resource, and the root always does: templates refer to it."""
    before = {resource["path"]: resource["id"] for resource in api_gateway._resources[api_id].values()}
    drafted = api_gateway._resources[draft]
    ids = {id_: before.get(resource["path"], id_) for id_, resource in drafted.items()}
    for id_, resource in list(drafted.items()):
        del drafted[id_]
        resource |= {"id": ids[id_], "parentId": ids.get(resource["parentId"])}
        drafted[ids[id_]] = resource


def _fill(api_id: str, document: Any) -> None:
    if not str(document.get("openapi", "")).startswith("3.0"):
        raise ValueError("Unable to import the body: its member openapi must be 3.0.x")
    _only(
        "the document",
        document,
        "openapi", "info", "paths", "components", "security",
        f"{_X}gateway-responses", f"{_X}binary-media-types", f"{_X}minimum-compression-size",
    )  # fmt: skip
    _only("components", document.get("components", {}), "securitySchemes")
    schemes = document.get("components", {}).get("securitySchemes", {})
    authorizers = {name: _authorizer(api_id, name, scheme) for name, scheme in schemes.items()}
    for path, item in document["paths"].items():
        _only(f"the path {path}", item, *_VERBS)
        resource = _resource(api_id, path)
        for verb, operation in item.items():
            where = f"{_VERBS[verb]} {path}"
            security = operation.get("security", document.get("security", []))
            method = _method(where, operation, security, authorizers)
            _put(api_id, resource, _VERBS[verb], where, method, operation)
    for response_type, response in document.get(f"{_X}gateway-responses", {}).items():
        _only(
            f"the gateway response {response_type}",
            response,
            "statusCode", "responseParameters", "responseTemplates",
        )  # fmt: skip
        _said(api_gateway._put_gateway_response(api_id, response_type, response), response_type)


def _only(where: str, mapping: Mapping[str, object], *known: str) -> None:
    unknown = sorted(mapping.keys() - set(known))
    if unknown:
        raise ValueError(f"The embedded AWS does not import {', '.join(unknown)} of {where}.")


def _said(answer: tuple[int, Json, bytes], where: str = "") -> Json:
    """What the control plane answered. Raises ValueError where it refused."""
    document: Json = json.loads(answer[2])
    if answer[0] >= 400:
        raise ValueError(f"Unable to import {where}: {document.get('message')}")
    return document


# --- Authorizers --------------------------------------------------------------------------------------------


def _authorizer(api_id: str, name: str, scheme: Json) -> str:
    """The id of the authorizer that a security scheme stands for."""
    where = f"the security scheme {name}"
    _only(where, scheme, "type", "name", "in", f"{_X}authtype", f"{_X}authorizer")
    extension: Json = scheme.get(f"{_X}authorizer") or {}
    kind = (scheme.get("type"), scheme.get("in"), scheme.get(f"{_X}authtype"), extension.get("type"))
    if kind != ("apiKey", "header", "cognito_user_pools", "cognito_user_pools"):
        # AWS would take a scheme that it does not know for documentation, and its methods would be open.
        raise ValueError(
            f"The embedded AWS imports authorizers of Cognito user pools only: {where} is {kind}."
        )
    _only(f"{_X}authorizer of {where}", extension, "type", "providerARNs")
    data = {
        "name": name,
        "type": "COGNITO_USER_POOLS",
        "authType": "cognito_user_pools",
        "identitySource": f"method.request.header.{scheme['name']}",
        "providerARNs": extension["providerARNs"],
    }
    authorizer: str = _said(api_gateway._create_authorizer(api_id, data), where)["id"]
    return authorizer


# --- Methods ------------------------------------------------------------------------------------------------


def _resource(api_id: str, path: str) -> str:
    """The id of the resource of a path, made with those above it where they are not there yet."""
    known = {resource["path"]: resource["id"] for resource in api_gateway._resources[api_id].values()}
    current, current_path = known["/"], ""
    for part in path.strip("/").split("/") if path != "/" else ():
        current_path += f"/{part}"
        current = (
            known.get(current_path)
            or _said(api_gateway._create_resource(api_id, current, {"pathPart": part}), path)["id"]
        )
    return str(current)


def _method(where: str, operation: Json, security: Iterable[Json], authorizers: Mapping[str, str]) -> Json:
    """An operation as PutMethod takes it."""
    _only(
        where,
        operation,
        "operationId", "summary", "description", "tags",
        "parameters", "responses", "security", f"{_X}integration",
    )  # fmt: skip
    method: Json = {
        "authorizationType": "NONE",
        "operationName": operation.get("operationId", ""),
        "requestParameters": {
            f"method.request.{_LOCATIONS[parameter['in']]}.{parameter['name']}": bool(
                parameter.get("required")
            )
            for parameter in operation.get("parameters", [])
        },
    }
    requirements = [(scheme, scopes) for either in security for scheme, scopes in either.items()]
    if len(requirements) > 1 or any(scheme not in authorizers for scheme, _ in requirements):
        raise ValueError(f"Unable to import {where}: its security must name one security scheme")
    for scheme, scopes in requirements:
        method |= {
            "authorizationType": "COGNITO_USER_POOLS",
            "authorizerId": authorizers[scheme],
            "authorizationScopes": list(scopes),
        }
    return method


_LOCATIONS = {"header": "header", "query": "querystring", "path": "path"}


def _put(api_id: str, resource: str, verb: str, where: str, method: Json, operation: Json) -> None:
    """The method, its answers, its integration and the integration's answers."""
    at = (api_id, resource, verb)
    _said(api_gateway._put_method(*at, method), where)
    for status, response in operation["responses"].items():
        _only(f"the response {status} of {where}", response, "description", "headers", "content")
        if any(media_type.get("schema") for media_type in response.get("content", {}).values()):
            raise ValueError(f"The embedded AWS does not import models: {where}, response {status}.")
        headers = {f"method.response.header.{name}": False for name in response.get("headers", {})}
        answer = api_gateway._put_method_response(*at, status, {"responseParameters": headers})
        _said(answer, where)
    integration: Json = operation.get(f"{_X}integration") or {}
    _only(
        f"{_X}integration of {where}",
        integration,
        "type", "httpMethod", "uri", "credentials", "passthroughBehavior", "contentHandling",
        "timeoutInMillis", "requestParameters", "requestTemplates", "responses",
    )  # fmt: skip
    settings = {name: value for name, value in integration.items() if name != "responses"}
    for enumerated in ("type", "passthroughBehavior"):
        if enumerated in settings:
            settings[enumerated] = str(settings[enumerated]).upper()
    _said(api_gateway._put_integration(*at, settings), where)
    for pattern, response in integration.get("responses", {}).items():
        _integration_response(at, where, pattern, response)


def _integration_response(at: tuple[str, str, str], where: str, pattern: str, response: Json) -> None:
    what = f"the integration response {pattern} of {where}"
    _only(what, response, "statusCode", "responseParameters", "responseTemplates", "contentHandling")
    status = str(response["statusCode"])
    api_id, resource, verb = at
    integration = api_gateway._resources[api_id][resource]["resourceMethods"][verb]["methodIntegration"]
    if status in integration["integrationResponses"]:
        # API Gateway keeps one response per status, so one of the two would be lost without a word.
        raise ValueError(
            f"Unable to import {what}: another one has the status {status}. Give each its own status, and "
            "let its template set $context.responseOverride.status."
        )
    selected = {**response, "selectionPattern": "" if pattern == "default" else pattern}
    _said(api_gateway._put_integration_response(*at, status, selected), where)
