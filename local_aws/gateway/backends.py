"""The backends of integrations, called in this process. A target that is not modelled fails by name."""

import asyncio
import base64
import json
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ministack import app as ministack
from ministack.core.responses import request_scope
from ministack.services import apigateway_v1 as api_gateway

from local_aws.gateway import access, mapping
from local_aws.gateway.exchange import Answer, BackendAnswer, Exchange, Fault, Json, misconfigured

DEFAULT_TIMEOUT_MS = 29_000


InvokeEndpoint = Callable[
    [str, str, str, Mapping[str, str], bytes], Awaitable[tuple[int, Mapping[str, str], bytes]]
]
"""(account, region, endpoint name, headers, body) -> SageMaker Runtime's answer: (status, headers, body)."""

invoke_endpoint: InvokeEndpoint | None = None

Outcome = TypeVar("Outcome", Answer, BackendAnswer)


async def answer(exchange: Exchange) -> Answer:
    """Call the method's integration and build the client's answer.

    Raises Fault for everything that API Gateway answers itself, INTEGRATION_TIMEOUT among it.
    """
    integration = exchange.integration
    if integration["type"] in ("AWS", "AWS_PROXY") and integration.get("httpMethod") != "POST":
        # Lambda, SageMaker Runtime and every action of a JSON service are called with POST.
        raise misconfigured(f"Invalid HTTP method for the integration: {integration.get('httpMethod')}")
    match integration["type"]:
        case "MOCK":
            return mapping.to_client(exchange, _mock(mapping.to_backend(exchange)))
        case "AWS_PROXY":
            return await _timed(exchange, _lambda_proxy(exchange))
        case "AWS":
            outgoing = mapping.to_backend(exchange)
            return mapping.to_client(exchange, await _timed(exchange, _aws(exchange, outgoing)))
        case "HTTP_PROXY":
            return await _timed(exchange, _http_proxy(exchange))
    raise misconfigured(f"integrations of type {integration['type']} are not modelled by the embedded AWS")


async def _timed(exchange: Exchange, call: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run the backend's call, for as long as the integration allows, and note how it went."""
    limit = float(exchange.integration.get("timeoutInMillis") or DEFAULT_TIMEOUT_MS) / 1000
    started = time.monotonic()
    # Not wait_for, which waits for a cancelled task to end: a function in a thread ends when it likes.
    task = asyncio.create_task(call)
    _running.add(task)
    task.add_done_callback(_running.discard)
    done, _ = await asyncio.wait({task}, timeout=limit)
    exchange.integration_latency_ms = round((time.monotonic() - started) * 1000)
    if not done:
        task.add_done_callback(lambda late: late.cancelled() or late.exception())
        raise Fault(
            "INTEGRATION_TIMEOUT", "Endpoint request timed out", reason=f"no answer within {limit:g} s"
        )
    result = task.result()
    exchange.integration_status = result.status
    return result


_running: set[asyncio.Task[Any]] = set()


# --- MOCK ---------------------------------------------------------------------------------------------------


def _mock(outgoing: mapping.Outgoing) -> BackendAnswer:
    """The status that the request template says; API Gateway reads even CDK's `{ statusCode: 200 }`."""
    text = outgoing.body.decode()
    found = re.search(r"""["']?statusCode["']?\s*:\s*["']?(\d{3})\b""", text)
    if found is None:
        raise misconfigured(
            f"Unable to parse statusCode from the mock integration's request template: {text[:200]!r}"
        )
    return BackendAnswer(int(found[1]), {}, b"")


# --- Lambda -------------------------------------------------------------------------------------------------


def _function_arn(exchange: Exchange) -> str:
    arn: str = api_gateway._extract_lambda_ref_from_integration_uri(exchange.integration["uri"])
    return arn


def _check_may_invoke(exchange: Exchange, function_arn: str) -> None:
    credentials = exchange.integration.get("credentials")
    if credentials:
        allowed = access.role_allows(exchange, credentials, "lambda:InvokeFunction", function_arn)
    else:
        allowed = access.function_allows(exchange, function_arn)
    if not allowed:
        raise misconfigured(f"Invalid permissions on Lambda function {function_arn}")


async def _invoke(exchange: Exchange, event: Any) -> Json:
    function_arn = _function_arn(exchange)
    _check_may_invoke(exchange, function_arn)
    result, error = await api_gateway._call_lambda_raw(
        function_arn, event, account_id=exchange.account, region=exchange.region
    )
    if error:
        raise misconfigured(f"Lambda function {function_arn}: {error}")
    if result.get("throttle"):
        raise Fault("DEFAULT_5XX", status=500, reason=f"Lambda throttled {function_arn}")
    invoked: Json = result
    return invoked


async def _lambda_proxy(exchange: Exchange) -> Answer:
    """AWS_PROXY: the function gets the whole request and answers with status, headers and body."""
    event = api_gateway._build_lambda_event_v1(
        exchange.api["id"],
        exchange.stage["stageName"],
        exchange.stage,
        exchange.resource,
        exchange.path,
        exchange.method,
        exchange.headers,
        exchange.body,
        exchange.query,
        exchange.path_parameters,
        binary_media_types=exchange.binary_media_types,
        authorizer_context=exchange.authorizer,
    )
    context = exchange.context()
    event["requestContext"] |= {
        name: context[name] for name in ("requestId", "extendedRequestId", "requestTime", "requestTimeEpoch")
    }
    result = await _invoke(exchange, event)
    return _proxy_answer(exchange, result)


def _proxy_answer(exchange: Exchange, result: Json) -> Answer:
    payload = result.get("body")
    if isinstance(payload, str | bytes):
        try:
            payload = json.loads(payload)
        except ValueError:
            payload = None
    malformed = _malformed(payload)
    if result.get("error") or malformed:
        # A failing function's message stays inside: the client gets 502 and nothing else.
        what = json.dumps(payload)[:500] if result.get("error") else malformed
        raise Fault("DEFAULT_5XX", status=502, reason=f"{_function_arn(exchange)}: {what}")
    assert isinstance(payload, dict)
    headers: dict[str, tuple[str, Any]] = {"content-type": ("Content-Type", mapping.JSON)}
    for name, value in (payload.get("headers") or {}).items():
        headers[name.lower()] = (name, value)
    for name, values in (payload.get("multiValueHeaders") or {}).items():
        headers[name.lower()] = (name, list(values))
    if "x-amzn-requestid" in headers:
        # The request id of the answer is the gateway's own.
        headers["x-amzn-remapped-x-amzn-requestid"] = (
            "x-amzn-Remapped-x-amzn-RequestId",
            headers.pop("x-amzn-requestid")[1],
        )
    body = (payload.get("body") or "").encode()
    wanted = mapping.media_type(exchange.header("accept"))
    if payload.get("isBase64Encoded") and mapping.is_binary(wanted, exchange.binary_media_types):
        body = base64.b64decode(body)
    return Answer(int(payload["statusCode"]), dict(headers.values()), body)


def _malformed(payload: Any) -> str | None:
    """Why a function's output is no proxy response, or None."""
    if not isinstance(payload, dict):
        return "Malformed Lambda proxy response: not an object"
    if not re.fullmatch(r"[1-5]\d\d", str(payload.get("statusCode"))):
        return f"Malformed Lambda proxy response: statusCode is {payload.get('statusCode')!r}"
    if not isinstance(payload.get("body"), str | None):
        return "Malformed Lambda proxy response: body is not a string"
    return None


async def _lambda(exchange: Exchange, outgoing: mapping.Outgoing) -> BackendAnswer:
    """Non-proxy: the mapped body is the event, and a failure is selected by its error message."""
    try:
        event = json.loads(outgoing.body or b"{}")
    except ValueError as error:
        raise Fault(
            "BAD_REQUEST_BODY", "Invalid request body", reason=f"the event is not JSON: {error}"
        ) from None
    result = await _invoke(exchange, event)
    payload = result.get("body")
    selector = str((payload or {}).get("errorMessage") or "") if result.get("error") else ""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return BackendAnswer(200, {"Content-Type": mapping.JSON}, body, selector=selector or "null")


# --- Other services -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """`arn:aws:apigateway:<region>:<service>:<path|action>/<rest>`."""

    region: str
    service: str
    kind: str
    rest: str


def _target(exchange: Exchange, outgoing: mapping.Outgoing) -> Target:
    uri = exchange.integration.get("uri") or ""
    parsed = api_gateway._parse_service_integration_uri(uri)
    if parsed is None:
        raise misconfigured(f"AWS ARN for integration contains invalid path: {uri}")
    region, service, kind, rest = parsed
    return Target(region, service, kind, re.sub(r"\{(\w+)\}", lambda m: outgoing.path.get(m[1], m[0]), rest))


async def _aws(exchange: Exchange, outgoing: mapping.Outgoing) -> BackendAnswer:
    target = _target(exchange, outgoing)
    if target.service == "lambda":
        return await _lambda(exchange, outgoing)
    if target.service == "runtime.sagemaker":
        endpoint = (
            re.fullmatch(r"endpoints/([^/]+)/invocations", target.rest) if target.kind == "path" else None
        )
        if endpoint:
            return await _invoke_endpoint(exchange, target, endpoint[1], outgoing)
    if (target.service, target.kind, target.rest) == ("sagemaker", "action", "DescribeEndpoint"):
        return await _describe_endpoint(exchange, target, outgoing)
    raise misconfigured(
        f"the embedded AWS does not model integrations with {target.service}:{target.kind}/{target.rest}"
    )


def _refused(
    exchange: Exchange, target: Target, action: str, name: str, status: int, kind: str = "endpoint"
) -> BackendAnswer | None:
    """The service's own answer where the integration's role does not allow the call, else None."""
    credentials = exchange.integration.get("credentials")
    resource = f"arn:aws:sagemaker:{target.region}:{exchange.account}:{kind}/{name}".lower()
    if not credentials:
        return BackendAnswer(
            403, {"Content-Type": mapping.JSON}, b'{"message":"Missing Authentication Token"}'
        )
    if access.role_allows(exchange, credentials, action, resource):
        return None
    role = credentials.rsplit("/", 1)[-1]
    caller = f"arn:aws:sts::{exchange.account}:assumed-role/{role}/BackplaneAssumeRoleSession"
    message = (
        f"User: {caller} is not authorized to perform: {action} on resource: {resource} "
        f"because no identity-based policy allows the {action} action"
    )
    mapping.logger.warning("%s: %s", exchange.request_id, message)
    body = json.dumps({"__type": "AccessDeniedException", "Message": message}).encode()
    return BackendAnswer(
        status,
        {"Content-Type": "application/x-amz-json-1.1", "x-amzn-ErrorType": "AccessDeniedException"},
        body,
    )


async def _invoke_endpoint(
    exchange: Exchange, target: Target, endpoint_name: str, outgoing: mapping.Outgoing
) -> BackendAnswer:
    given = {name.lower(): value for name, value in outgoing.headers.items()}
    component = given.get("x-amzn-sagemaker-inference-component")
    for kind, name in (("endpoint", endpoint_name), ("inference-component", component)):
        refused = _refused(exchange, target, "sagemaker:InvokeEndpoint", name, 403, kind) if name else None
        if refused:
            return refused
    if invoke_endpoint is None:
        raise misconfigured("no SageMaker Runtime is installed in the embedded AWS")
    status, headers, body = await invoke_endpoint(
        exchange.account, target.region, endpoint_name, outgoing.headers, outgoing.body
    )
    return BackendAnswer(status, headers, body)


async def _describe_endpoint(exchange: Exchange, target: Target, outgoing: mapping.Outgoing) -> BackendAnswer:
    """DescribeEndpoint speaks JSON 1.1: the mapped body is its input, and a refusal's status is 400."""
    try:
        endpoint_name = str(json.loads(outgoing.body)["EndpointName"])
    except (ValueError, KeyError, TypeError):
        endpoint_name = "*"  # for the service to refuse
    refused = _refused(exchange, target, "sagemaker:DescribeEndpoint", endpoint_name, 400)
    if refused:
        return refused
    service = ministack.SERVICE_HANDLERS["sagemaker"]
    with request_scope(exchange.account, target.region):
        status, headers, body = await service(
            "POST", "/", {"x-amz-target": "SageMaker.DescribeEndpoint"}, outgoing.body, {}
        )
    return BackendAnswer(status, headers, body)


# --- HTTP ---------------------------------------------------------------------------------------------------


async def _http_proxy(exchange: Exchange) -> Answer:
    call: Awaitable[Any] = api_gateway._invoke_http_proxy_v1(
        exchange.integration,
        exchange.path,
        exchange.method,
        exchange.headers,
        exchange.body,
        exchange.query,
        exchange.path_parameters,
    )
    result = await call
    if isinstance(result, api_gateway._GatewayError):
        raise Fault("INTEGRATION_FAILURE", "Network error communicating with endpoint")
    status, headers, body = result
    return Answer(status, headers, body)
