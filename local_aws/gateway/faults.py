"""Gateway responses: how the answers that API Gateway gives itself look, as the stage's deployment has them.

Their templates know no Velocity, only `$context…`, `$stageVariables…` and `$method.request…` substitution. A
type that is not customized takes templates and headers of DEFAULT_4XX or DEFAULT_5XX, and their status where
they set one (documentation: api-gateway-gatewayResponse-definition, supported-gateway-response-types).
"""

import json
import re

from ministack.services import apigateway_v1 as api_gateway

from local_aws.gateway.exchange import Answer, Exchange, Fault, Json, lookup

_VARIABLE = re.compile(
    r"\$(?:\{((?:context|stageVariables|method)\.[\w.-]+)\}|((?:context|stageVariables)(?:\.\w+)+))"
)
_SPACED = (
    "API_CONFIGURATION_ERROR",
    "AUTHORIZER_CONFIGURATION_ERROR",
    "BAD_REQUEST_BODY",
    "BAD_REQUEST_PARAMETERS",
    "DEFAULT_5XX",
)
"""Types whose `$context.error.messageString` AWS renders with a leading space (measured by MiniStack)."""


def render(exchange: Exchange, fault: Fault) -> Answer:
    """The gateway response of a fault."""
    custom, family = _customized(exchange, fault)
    response = custom or family or {}
    default_status = api_gateway._DEFAULT_GATEWAY_RESPONSE_STATUS_CODES.get(fault.response_type)
    status = int(response.get("statusCode") or fault.status or default_status or _family_status(fault))

    headers = {"content-type": ("Content-Type", "application/json")}
    for target, source in (response.get("responseParameters") or {}).items():
        name = target.removeprefix("gatewayresponse.header.")
        value = _value(exchange, fault, source)
        if value is not None:
            headers[name.lower()] = (name, value)
    error_type = fault.error_type or api_gateway._GATEWAY_RESPONSE_ERROR_TYPES.get(fault.response_type)
    if error_type:
        headers["x-amzn-errortype"] = ("x-amzn-ErrorType", error_type)

    template = (response.get("responseTemplates") or {}).get("application/json")
    if template is None:
        # The built-in body of ACCESS_DENIED spells its member with a capital.
        key = "Message" if fault.response_type == "ACCESS_DENIED" else "message"
        template = f'{{"{key}":$context.error.messageString}}'
    return Answer(status, dict(headers.values()), _substituted(exchange, fault, template).encode())


def _substituted(exchange: Exchange, fault: Fault, template: str) -> str:
    """The template with its variables' values: empty where the request has none, unchanged where unknown."""
    known = {*exchange.context(), "error"}

    def value(found: re.Match[str]) -> str:
        source = found[1] or found[2]
        if source.startswith("context.") and source.split(".")[1] not in known:
            return found[0]
        return _value(exchange, fault, source) or ""

    return _VARIABLE.sub(value, template)


def _customized(exchange: Exchange, fault: Fault) -> tuple[Json | None, Json | None]:
    """The customized response of the fault's type, and that of its family."""
    api_id = exchange.api["id"]
    deployed = api_gateway._deployed_gateway_responses.get(api_id, {}).get(exchange.stage.get("deploymentId"))
    responses = api_gateway._gateway_responses.get(api_id, {}) if deployed is None else deployed
    return responses.get(fault.response_type), responses.get(_family(fault))


def _family(fault: Fault) -> str:
    if fault.response_type.startswith("DEFAULT_"):
        return fault.response_type
    status = api_gateway._DEFAULT_GATEWAY_RESPONSE_STATUS_CODES[fault.response_type]
    return "DEFAULT_5XX" if status.startswith("5") else "DEFAULT_4XX"


def _family_status(fault: Fault) -> int:
    return 500 if fault.response_type == "DEFAULT_5XX" else 403


def error_context(fault: Fault) -> Json:
    """`$context.error`."""
    message_string = "null" if fault.message is None else json.dumps(fault.message)
    return {
        "message": fault.message or "",
        "messageString": f" {message_string}" if fault.response_type in _SPACED else message_string,
        # Measured by MiniStack: the configuration errors of an authorizer report the general type.
        "responseType": "API_CONFIGURATION_ERROR"
        if fault.response_type == "AUTHORIZER_CONFIGURATION_ERROR"
        else fault.response_type,
        "validationErrorString": fault.reason if fault.response_type.startswith("BAD_REQUEST") else "",
    }


def _value(exchange: Exchange, fault: Fault, source: str) -> str | None:
    if len(source) >= 2 and source[0] == source[-1] == "'":
        return source[1:-1]
    origin, _, rest = source.partition(".")
    match origin:
        case "context":
            return lookup({**exchange.context(), "error": error_context(fault)}, rest)
        case "stageVariables":
            return (exchange.stage.get("variables") or {}).get(rest)
    kind, _, name = rest.removeprefix("request.").partition(".")
    match kind:
        case "header":
            return exchange.header(name)
        case "querystring":
            values = exchange.query.get(name)
            return values[-1] if values else None
        case "path":
            return exchange.path_parameters.get(name)
    return None
