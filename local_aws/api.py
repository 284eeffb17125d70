"""Calling any service of this server in process, through the very bytes a client would send.

botocore writes the request and reads the answer, so what is called and what comes back are the API's,
whatever protocol the service speaks. There is no IAM in between: the caller is a service that has the right
already.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import botocore.model
import botocore.parsers
import botocore.serialize
from botocore.awsrequest import HeadersDict
from ministack import app

from local_aws.wire import Json, ServiceError, service_model

# MiniStack's name of a service where botocore's differs.
_HANDLERS = {"cloudwatch": "monitoring", "application-autoscaling": "application-autoscaling"}


def call(service: str, operation: str, parameters: Json) -> Json:
    """The answer of an operation, for the account and region of the calling context.

    Only from a worker thread: the server's loop has to be free to answer. Values of a template may be strings
    where the API has numbers. Raises ServiceError with the service's own code and message.
    """
    model = service_model(service)
    described = model.operation_model(operation)
    # The one that clients choose: a service may speak several.
    protocol = model.resolved_protocol
    shape = described.input_shape
    typed = coerce(shape, parameters) if shape else parameters
    request = botocore.serialize.create_serializer(protocol).serialize_to_request(typed, described)
    future = asyncio.run_coroutine_threadsafe(_send(service, request), app._MAIN_LOOP)
    status, headers, body = future.result()
    answer = {"status_code": status, "headers": HeadersDict(headers), "body": body}
    parsed: Json = botocore.parsers.create_parser(protocol).parse(answer, described.output_shape)
    if status >= 300:
        error = parsed.get("Error", {})
        raise ServiceError(error.get("Code", str(status)), error.get("Message", "no message"), status)
    return parsed


async def _send(service: str, request: Json) -> tuple[int, dict[str, str], bytes]:
    handler = app.SERVICE_HANDLERS[_HANDLERS.get(service, service)]
    body = request["body"]
    headers = {name.lower(): value for name, value in request["headers"].items()}
    if isinstance(body, dict):
        headers.setdefault("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        body = urlencode(body)
    encoded = body.encode() if isinstance(body, str) else bytes(body)
    query = {name: [str(value)] for name, value in (request["query_string"] or {}).items()}
    status, answer_headers, answer = await handler(
        request["method"], request["url_path"], headers, encoded, query
    )
    return status, answer_headers, answer.encode() if isinstance(answer, str) else answer


def coerce(shape: botocore.model.Shape, value: Any) -> Any:
    """`value` as `shape` wants it: strings become numbers and booleans, or those become strings."""
    if isinstance(shape, botocore.model.StructureShape) and isinstance(value, dict):
        return {
            name: coerce(shape.members[name], item) if name in shape.members else item
            for name, item in value.items()
            if item is not None
        }
    if isinstance(shape, botocore.model.ListShape) and isinstance(value, list):
        return [coerce(shape.member, item) for item in value]
    if isinstance(shape, botocore.model.MapShape) and isinstance(value, dict):
        return {key: coerce(shape.value, item) for key, item in value.items()}
    return _scalar(shape.type_name, value)


def _scalar(kind: str, value: Any) -> Any:
    if kind == "string" and isinstance(value, bool):
        return str(value).lower()
    if kind == "string" and isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return value
    try:
        if kind in ("integer", "long"):
            return int(value)
        if kind in ("float", "double"):
            return float(value)
    except ValueError:
        return value
    if kind == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value
