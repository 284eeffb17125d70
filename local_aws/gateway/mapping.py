"""What of a request reaches the backend, and what of the backend's answer reaches the client.

Only what is mapped passes: a header without a mapping stops here, in both directions. A mapping to a static
value is `'value'`; one whose source is absent from this request is left out.
"""

import base64
import binascii
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ministack.services import apigateway_v1 as api_gateway

from local_aws import vtl
from local_aws.gateway.exchange import Answer, BackendAnswer, Exchange, Fault, Json, lookup, misconfigured

logger = logging.getLogger("local_aws.gateway")

JSON = "application/json"


@dataclass(frozen=True)
class Outgoing:
    """The request to the backend."""

    headers: dict[str, str]
    query: dict[str, str]
    path: dict[str, str]
    body: bytes


def media_type(value: str | None) -> str:
    """A Content-Type, or the *first* type of an Accept, without parameters; none is taken as JSON."""
    return (value or JSON).split(",", 1)[0].split(";", 1)[0].strip().lower()


def is_binary(value: str, binary_media_types: list[str]) -> bool:
    return bool(api_gateway._media_type_matches(value, binary_media_types))


# --- Request ------------------------------------------------------------------------------------------------


def to_backend(exchange: Exchange) -> Outgoing:
    """The integration request: parameters, then the body through its template, then the template's overrides.

    Raises Fault: UNSUPPORTED_MEDIA_TYPE where the passthrough behaviour refuses the body, BAD_REQUEST_BODY
    where the template reads a body that is not JSON, API_CONFIGURATION_ERROR where the template cannot be
    rendered.
    """
    integration = exchange.integration
    groups: dict[str, dict[str, str]] = {"header": {}, "querystring": {}, "path": {}}
    for target, source in (integration.get("requestParameters") or {}).items():
        group, _, name = target.removeprefix("integration.request.").partition(".")
        if group not in groups:
            raise misconfigured(f"Invalid mapping expression parameter specified: {target}")
        value = _request_value(exchange, source)
        if value is not None:
            groups[group][name] = value

    content_type = media_type(exchange.header("content-type"))
    binary = is_binary(content_type, exchange.binary_media_types)
    template = _request_template(integration, content_type)
    if template is None:
        body = _convert(exchange.body, binary, integration.get("contentHandling"))
    else:
        text = _readable(exchange.body, binary)
        rendered, overrides = _render(template, text, exchange, "requestOverride")
        body = rendered.encode()
        if integration.get("contentHandling") == "CONVERT_TO_BINARY":
            body = _decoded(body)
        for name, members in (
            ("header", overrides.header),
            ("querystring", overrides.querystring),
            ("path", overrides.path),
        ):
            groups[name].update(members)
    headers = groups["header"]
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = JSON
    return Outgoing(headers, groups["querystring"], groups["path"], body)


def _request_template(integration: Json, content_type: str) -> str | None:
    """The template for a body of this type, or None where the body passes; raises Fault where it may not."""
    templates: dict[str, str] = integration.get("requestTemplates") or {}
    for key, template in templates.items():
        if media_type(key) == content_type:
            return template
    behaviour = (integration.get("passthroughBehavior") or "WHEN_NO_MATCH").upper()
    if behaviour == "NEVER" or (behaviour == "WHEN_NO_TEMPLATES" and templates):
        raise Fault("UNSUPPORTED_MEDIA_TYPE", "Unsupported Media Type")
    return None


def _request_value(exchange: Exchange, source: str) -> str | None:
    """The value of one mapping source: `'static'`, `context.*`, `stageVariables.*` or `method.request.*`."""
    if len(source) >= 2 and source[0] == source[-1] == "'":
        return source[1:-1]
    origin, _, rest = source.partition(".")
    if origin == "context":
        context = exchange.context()
        if rest.split(".")[0] not in context:
            raise misconfigured(f"Invalid mapping expression parameter specified: {source}")
        return lookup(context, rest)
    if origin == "stageVariables":
        return (exchange.stage.get("variables") or {}).get(rest)
    kind, _, name = rest.removeprefix("request.").partition(".")
    match kind:
        case "header" | "multivalueheader":
            return exchange.header(name)
        case "querystring":
            values = exchange.query.get(name)
            return values[-1] if values else None
        case "multivaluequerystring":
            values = exchange.query.get(name)
            return ",".join(values) if values else None
        case "path":
            return exchange.path_parameters.get(name)
        case "body":
            return _body_value(exchange.body, name, BAD_REQUEST_BODY)
    raise misconfigured(f"Invalid mapping expression parameter specified: {source}")


BAD_REQUEST_BODY = "BAD_REQUEST_BODY"


# --- Response -----------------------------------------------------------------------------------------------


def to_client(exchange: Exchange, backend: BackendAnswer) -> Answer:
    """The method response that the integration's responses select and build.

    Raises Fault API_CONFIGURATION_ERROR: no integration response for this selector, no method response for
    its status, a template that cannot be rendered, a body that cannot be decoded as the client asks.
    """
    response = _select(
        exchange.integration.get("integrationResponses") or {}, backend.selector or str(backend.status)
    )
    status = str(response["statusCode"])
    declared = ((exchange.verb or {}).get("methodResponses") or {}).get(status)
    if declared is None:
        raise misconfigured(f"Output mapping refers to an invalid method response: {status}")

    headers = {"content-type": ("Content-Type", JSON)}
    for target, source in (response.get("responseParameters") or {}).items():
        if target not in (declared.get("responseParameters") or {}):
            raise misconfigured(f"Invalid mapping expression parameter specified: {target}")
        name = target.removeprefix("method.response.header.")
        value = _response_value(exchange, backend, source)
        if value is not None:
            headers[name.lower()] = (name, value)

    binary = is_binary(media_type(backend.header("content-type")), exchange.binary_media_types)
    template = _response_template(response, exchange)
    body: bytes
    if template is None:
        body, is_text = backend.body, not binary
    else:
        text = _readable(backend.body, binary)
        rendered, overrides = _render(template, text, exchange, "responseOverride")
        body, is_text = rendered.encode(), True
        status = str(overrides.status or status)
        for name, value in overrides.header.items():
            headers[name.lower()] = (name, value)
    wants_binary = is_binary(media_type(exchange.header("accept")), exchange.binary_media_types)
    handling = response.get("contentHandling") or ("CONVERT_TO_BINARY" if wants_binary else "CONVERT_TO_TEXT")
    return Answer(int(status), dict(headers.values()), _convert(body, not is_text, handling))


def _select(responses: Mapping[str, Json], selector: str) -> Json:
    """The first response whose pattern matches the whole selector, else the one without a pattern."""
    default = None
    for response in responses.values():
        pattern = response.get("selectionPattern")
        if not pattern:
            default = response
            continue
        try:
            matched = re.fullmatch(pattern, selector, re.DOTALL)
        except re.error as error:
            raise misconfigured(f"Invalid selection pattern {pattern!r}: {error}") from None
        if matched:
            return response
    if default is None:
        raise misconfigured(
            f"No match for output mapping and no default endpoint response mapping configured ({selector!r})"
        )
    return default


def _response_template(response: Json, exchange: Exchange) -> str | None:
    templates: dict[str, str] = {
        media_type(key): template for key, template in (response.get("responseTemplates") or {}).items()
    }
    if not templates:
        return None
    for wanted in (media_type(exchange.header("accept")), JSON):
        if wanted in templates:
            return templates[wanted]
    return next(iter(templates.values()))


def _response_value(exchange: Exchange, backend: BackendAnswer, source: str) -> str | None:
    if not source.startswith("integration.response."):
        return _request_value(exchange, source)
    kind, _, name = source.removeprefix("integration.response.").partition(".")
    match kind:
        case "header" | "multivalueheader":
            return backend.header(name)
        case "body":
            return _body_value(backend.body, name, "API_CONFIGURATION_ERROR")
    raise misconfigured(f"Invalid mapping expression parameter specified: {source}")


# --- Bodies -------------------------------------------------------------------------------------------------


def _readable(body: bytes, binary: bool) -> str:
    """A body as a template sees it: binary media as base64, everything else as UTF-8."""
    return base64.b64encode(body).decode() if binary else body.decode("utf-8", errors="replace")


def _convert(body: bytes, binary: bool, handling: str | None) -> bytes:
    """A body after content handling; text that is not UTF-8 is damaged on its way, as on AWS."""
    if handling == "CONVERT_TO_BINARY":
        return body if binary else _decoded(body)
    if handling == "CONVERT_TO_TEXT":
        return _readable(body, binary).encode()
    return body if binary else body.decode("utf-8", errors="replace").encode()


def _decoded(body: bytes) -> bytes:
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise misconfigured(f"Unable to base64 decode the body: {error}") from None


def _body_value(body: bytes, path: str, response_type: str) -> str | None:
    """`body`, or `body.<JSONPath>`, as text; None where the path is absent."""
    text = body.decode("utf-8", errors="replace")
    if not path:
        return text
    try:
        value = vtl.json_path(json.loads(text or "{}"), path if path.startswith("$") else f"$.{path}")
    except ValueError as error:
        raise Fault(
            response_type, "Invalid request body", reason=f"{path}: the body is not JSON: {error}"
        ) from None
    except vtl.TemplateFailure as error:
        raise misconfigured(str(error)) from None
    if value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _render(template: str, text: str, exchange: Exchange, override: str) -> tuple[str, vtl.Overrides]:
    request = vtl.Input(
        text,
        exchange.headers,
        {name: values[-1] for name, values in exchange.query.items()},
        exchange.path_parameters,
    )
    variables: dict[str, Any] = exchange.stage.get("variables") or {}
    try:
        return vtl.render(template, request, exchange.context(), variables, override)
    except vtl.BodyNotJson as error:
        if override == "requestOverride":
            raise Fault(
                BAD_REQUEST_BODY,
                "Invalid request body",
                reason=f"Could not parse request body into json: {error}",
            ) from None
        raise misconfigured(f"Could not parse the integration's response into json: {error}") from None
    except vtl.TemplateFailure as error:
        raise misconfigured(f"Unable to transform {override.removesuffix('Override')}: {error}") from None
