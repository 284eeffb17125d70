"""SageMaker Runtime: InvokeEndpoint over HTTP, for clients on the wire and for API Gateway's integration.

Errors and headers follow botocore's `sagemaker-runtime` model; only the headers it names reach the container,
and only those it names come back.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
import uuid
from collections.abc import Mapping
from urllib.parse import unquote

import httpx
from ministack.core import responses

from local_aws import telemetry
from local_aws.sagemaker import capture, control, resources
from local_aws.sagemaker.container import Instance
from local_aws.sagemaker.fleet import Fleet, log_group
from local_aws.sagemaker.resources import Component, Endpoint, Scope, Served
from local_aws.wire import Json, java_pattern, service_model

MAX_BODY = 6_291_456  # bytes, of the request and of the answer: InvokeEndpointInput.Body
MODEL_TIMEOUT = 60.0  # seconds a container has to answer

Headers = dict[str, str]
Response = tuple[int, Headers, bytes]

_PATH = re.compile(r"/endpoints/([^/]+)/invocations/?")
_CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
_INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"
_TARGET_VARIANT = "X-Amzn-SageMaker-Target-Variant"
COMPONENT = "X-Amzn-SageMaker-Inference-Component"
# As SageMaker words it; it publishes the metric that wakes the component.
NO_CAPACITY = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress "
    "(if configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
)
# Headers for kinds of endpoints that are not served here: refused, so that no one thinks they had an effect.
_REFUSED = (
    "X-Amzn-SageMaker-Target-Model",
    "X-Amzn-SageMaker-Target-Container-Hostname",
    "X-Amzn-SageMaker-Enable-Explanations",
)
_OPERATION = service_model("sagemaker-runtime").operation_model("InvokeEndpoint")
_INPUT_HEADERS = {
    member.serialization["name"]: member
    for member in _OPERATION.input_shape.members.values()
    if member.serialization.get("location") == "header"
}


class RuntimeFailure(Exception):
    """An error answer: the exception's name in botocore's model, its HTTP status and its members."""

    def __init__(self, code: str, status: int, message: str, **members: object) -> None:
        super().__init__(message)
        self.code, self.status = code, status
        self.members = {"Message": message, **members}


async def invoke_endpoint(
    account: str, region: str, endpoint_name: str, headers: Mapping[str, str], body: bytes
) -> Response:
    """InvokeEndpoint's (status, headers, body) over HTTP; errors are answers, never raised.

    `headers` may be any, in any case; those that the API does not know are dropped.
    """
    try:
        status, answer_headers, answer = await _invoke(Scope(account, region), endpoint_name, headers, body)
    except RuntimeFailure as failure:
        status, answer = failure.status, json.dumps(failure.members).encode()
        answer_headers = {"Content-Type": "application/json", "x-amzn-ErrorType": failure.code}
    return status, {"x-amzn-RequestId": str(uuid.uuid4()), **answer_headers}, answer


def describe_endpoint(account: str, region: str, name: str) -> Json:
    """DescribeEndpoint's answer; raises ServiceError, a ValidationException, for an unknown endpoint."""
    scope = Scope(account, region)
    return control.describe(resources.of(scope).endpoint(scope, name))


async def handle(method: str, path: str, headers: Headers, body: bytes, query: Json) -> Response:
    """MiniStack's handler signature, for requests to the runtime's host."""
    found = _PATH.fullmatch(path)
    if method != "POST" or not found:
        refusal = {
            "Message": f"{method} {path} is not an operation that the embedded SageMaker Runtime serves."
        }
        return (
            404,
            {"Content-Type": "application/json", "x-amzn-ErrorType": "UnknownOperationException"},
            json.dumps(refusal).encode(),
        )
    scope = Scope(responses.get_account_id(), responses.get_region())
    answer = await invoke_endpoint(scope.account, scope.region, unquote(found[1]), headers, body)
    # In lower case, MiniStack takes the content type for the model's own and leaves it alone.
    return answer[0], {name.lower(): value for name, value in answer[1].items()}, answer[2]


async def _invoke(scope: Scope, name: str, headers: Mapping[str, str], body: bytes) -> Response:
    forwarded = _accepted_headers(headers)
    if len(body) > MAX_BODY:
        raise RuntimeFailure(
            "ValidationError",
            400,
            f"1 validation error detected: Value at 'body' failed to satisfy constraint: "
            f"Member must have length less than or equal to {MAX_BODY}",
        )
    endpoint = resources.of(scope).endpoints.get(name.lower())
    # CreateEndpoint takes names as equal whatever their case; here the case must match.
    if endpoint is None or endpoint.name != name or endpoint.fleet is None:
        raise RuntimeFailure("ValidationError", 400, f"Endpoint {name} of account {scope.account} not found.")
    component = _choose_component(endpoint, forwarded.pop(COMPONENT, None))
    if component is None:
        variant = _choose_variant(endpoint, forwarded.pop(_TARGET_VARIANT, None))
    else:
        variant = component.variant
    record = _Metrics(scope, name, variant, component)
    fleet = _choose_fleet(component or endpoint, variant)
    if fleet is None:
        record("NoCapacityInvocationFailures", 1, "Count")
        raise RuntimeFailure("ValidationError", 400, NO_CAPACITY)
    instance = fleet.pick(variant)
    if instance is None:
        raise RuntimeFailure(
            "ServiceUnavailable", 503, f"No instance of variant {variant} of endpoint {name} is healthy."
        )
    started = time.perf_counter()
    record.at_once(instance.requests + 1)
    instance.requests += 1
    try:
        answer = await _ask(instance, forwarded, body)
    except (httpx.HTTPError, TimeoutError) as error:
        record.outcome(0, time.perf_counter() - started)
        raise _model_error(fleet, 0, "", _what_broke(error)) from error
    finally:
        instance.requests -= 1
    record.outcome(answer.status_code, time.perf_counter() - started)
    if not answer.is_success:
        raise _model_error(fleet, answer.status_code, answer.text, None)
    success = _success(answer, variant)
    exchange = capture.Exchange(
        forwarded.get("Content-Type", ""),
        body,
        success[1]["Content-Type"],
        success[2],
        forwarded.get(_INFERENCE_ID),
    )
    capture.offer(endpoint, fleet.plans[variant], exchange)
    return success


def _accepted_headers(headers: Mapping[str, str]) -> Headers:
    """The headers that the API knows, spelled as it spells them; raises RuntimeFailure for a bad value."""
    given = {name.lower(): value for name, value in headers.items()}
    accepted: Headers = {}
    for name, shape in _INPUT_HEADERS.items():
        value = given.get(name.lower())
        if value is None:
            continue
        if name in _REFUSED:
            raise RuntimeFailure("ValidationError", 400, f"This endpoint does not take the header {name}.")
        pattern, longest = shape.metadata.get("pattern"), shape.metadata.get("max")
        if (longest is not None and len(value) > longest) or (
            pattern and not java_pattern(pattern).fullmatch(value)
        ):
            raise RuntimeFailure(
                "ValidationError",
                400,
                f"The header {name} must have at most {longest} characters and match {pattern}.",
            )
        accepted[name] = value
    return accepted


def _choose_component(endpoint: Endpoint, wanted: str | None) -> Component | None:
    """The inference component that is asked for; None of an endpoint that has models of its own."""
    if not endpoint.config.hosts_components:
        if wanted is not None:
            raise RuntimeFailure(
                "ValidationError", 400, f"This endpoint does not take the header {COMPONENT}."
            )
        return None
    if wanted is None:
        raise RuntimeFailure(
            "ValidationError",
            400,
            "Inference Component Name header is required for endpoints to which you plan to deploy inference "
            "components. Please include Inference Component Name header or consider using SageMaker models.",
        )
    found = resources.of(endpoint.scope).components.get(wanted.lower())
    if found is None or found.name != wanted or found.endpoint != endpoint.name:
        raise RuntimeFailure(
            "ValidationError", 400, f"Inference Component {wanted} of endpoint {endpoint.name} not found."
        )
    return found


def _choose_variant(endpoint: Endpoint, wanted: str | None) -> str:
    variants = endpoint.variants
    if wanted is not None:
        if wanted not in variants:
            raise RuntimeFailure(
                "ValidationError", 400, f"Variant {wanted} not found for endpoint {endpoint.name}."
            )
        return wanted
    weights = [variant.weight for variant in variants.values()]
    # SageMaker too serves from a variant whose weight is zero when there is no other.
    chosen = random.choices(list(variants), weights if any(weights) else None)  # noqa: S311 - load balancing
    return chosen[0]


def _choose_fleet(served: Served, variant: str) -> Fleet | None:
    """The fleet that answers; None for a component without copies."""
    incoming = served.incoming
    if (
        incoming is not None and variant in incoming.plans and random.random() < served.incoming_share  # noqa: S311 - traffic shifting
    ):
        return incoming
    return served.fleet


async def _ask(instance: Instance, headers: Headers, body: bytes) -> httpx.Response:
    async with asyncio.timeout(MODEL_TIMEOUT):
        # httpx's own default headers name a client that the container has no business knowing.
        request = httpx.Request(
            "POST", instance.client.base_url.join("/invocations"), headers=headers, content=body
        )
        return await instance.client.send(request)


def _success(answer: httpx.Response, variant: str) -> Response:
    if len(answer.content) > MAX_BODY:
        raise RuntimeFailure(
            "InternalFailure",
            500,
            f"The model's answer is longer than {MAX_BODY} bytes and cannot be returned.",
        )
    headers = {"Content-Type": answer.headers.get("content-type", "application/octet-stream")}
    if _CUSTOM_ATTRIBUTES in answer.headers:
        headers[_CUSTOM_ATTRIBUTES] = answer.headers[_CUSTOM_ATTRIBUTES]
    return 200, {**headers, "x-Amzn-Invoked-Production-Variant": variant}, answer.content


def _what_broke(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "Your invocation timed out while waiting for a response from container primary."
    return "Received server error (0) from primary and could not load the entire response body."


def _model_error(fleet: Fleet, status: int, original: str, message: str | None) -> RuntimeFailure:
    scope, group = fleet.scope, log_group(fleet.endpoint, fleet.component)
    kind = "client" if 400 <= status < 500 else "server"
    first = message or f'Received {kind} error ({status}) from primary with message "{original}".'
    return RuntimeFailure(
        "ModelError",
        424,
        f"{first} See https://{scope.region}.console.aws.amazon.com/cloudwatch/home?region={scope.region}"
        f"#logEventViewer:group={group} in account {scope.account} for more information.",
        ErrorCode="CLIENT_ERROR_FROM_MODEL" if kind == "client" else "INTERNAL_FAILURE_FROM_MODEL",
        OriginalStatusCode=status,
        OriginalMessage=original,
        LogStreamArn=f"arn:aws:logs:{scope.region}:{scope.account}:log-group:{group}",
    )


class _Metrics:
    """AWS/SageMaker's metrics of one invocation.

    docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html
    """

    def __init__(self, scope: Scope, endpoint: str, variant: str, component: Component | None) -> None:
        self._scope, self._of = scope, "Copy" if component else "Instance"
        self._dimensions = (
            {"InferenceComponentName": component.name}
            if component
            else {"EndpointName": endpoint, "VariantName": variant}
        )

    def __call__(self, name: str, value: float, unit: str) -> None:
        telemetry.metric(
            self._scope.account, self._scope.region, "AWS/SageMaker", name, value, unit, self._dimensions
        )

    def at_once(self, requests: int) -> None:
        """`requests` are in the instance, this one included."""
        of = "Copy" if self._of == "Copy" else "Model"
        self(f"ConcurrentRequestsPer{of}", requests, "Count")

    def outcome(self, status: int, seconds: float) -> None:
        """`status` is the container's, 0 if it gave none; `seconds` what it took."""
        self("Invocations", 1, "None")
        self(f"InvocationsPer{self._of}", 1, "None")
        self("Invocation4XXErrors", int(400 <= status < 500), "None")
        self("Invocation5XXErrors", int(status == 0 or status >= 500), "None")
        self("InvocationModelErrors", int(not 200 <= status < 300), "None")
        self("ModelLatency", seconds * 1e6, "Microseconds")
