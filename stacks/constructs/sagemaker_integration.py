"""API Gateway calls SageMaker Runtime directly: no function in the path of a GPU model.

Every answer of InvokeEndpoint is mapped by its status, with the failure as the default: an unforeseen
status can only become an error. Without a mapping API Gateway passes backend errors on as 200, with account
ids and log addresses.
"""

from collections.abc import Mapping
from typing import Any

from stacks.constructs.problems import (
    INTERNAL,
    MODEL_ASLEEP,
    MODEL_ERROR,
    MODEL_UNAVAILABLE,
    TOO_LARGE,
    TYPE_PREFIX,
    Problem,
)

REQUEST_ID = "X-Request-Id"

# The container's own document travels inside SageMaker's ModelError. Only a document of ours is passed on,
# with its status: whatever else a container says on its way down stays inside. SageMaker passes none of its
# headers on, so the document says when to try again, too; within its texts these quotes would be escaped.
# On few lines, because what stands between directives is part of the answer.
UNWRAP_MODEL_ERROR = f"""\
#set($status = $input.path('$.OriginalStatusCode'))
#set($document = $input.path('$.OriginalMessage'))
#if($document.startsWith('{{"type":"{TYPE_PREFIX}'))
#set($context.responseOverride.status = $status)
#if($document.contains('"retry_after":'))
#set($problem = $util.parseJson($document))
#set($context.responseOverride.header.Retry-After = "$problem.retry_after")
#end
$document#{{else}}
#set($context.responseOverride.status = {MODEL_ERROR.status})
{MODEL_ERROR.document()}#end"""

TEXT = "CONVERT_TO_TEXT"
"""Content handling of answers that are text whatever the client accepts: API Gateway would take them for
base64 where its Accept begins with one of the binary media types."""

# SageMaker says of an inference component without copies what it says of a malformed request: 400, and the
# message tells. At its start only: further on it may repeat what the client sent.
TELL_ASLEEP = f"""\
#set($said = $input.path('$.Message'))
#if($said.startsWith('Inference Component has no capacity'))
#set($context.responseOverride.header.Retry-After = '{MODEL_ASLEEP.retry_after}')
{MODEL_ASLEEP.document()}#else
{MODEL_UNAVAILABLE.document()}#end"""


HEADER_LENGTH = "Inference-Header-Content-Length"
_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
_HEADERS = ("Content-Type", REQUEST_ID)

ANSWERS = {
    "200": (*_HEADERS, HEADER_LENGTH),
    "400": (*_HEADERS, "Retry-After"),
    "413": _HEADERS,
    "500": _HEADERS,
    "503": (*_HEADERS, "Retry-After"),
}
"""Status -> headers of everything that `invoke_endpoint` answers with."""


def invoke_endpoint(
    endpoint_name: str,
    service: str,
    caller: str,
    *,
    operation: str | None = None,
    component: str | None = None,
) -> dict[str, Any]:
    """InvokeEndpoint on `endpoint_name`, as an `x-amazon-apigateway-integration`.

    Args:
        service: what the address begins with, `arn:<partition>:apigateway:<region>`.
        caller: ARN of the role that may invoke the endpoint.
        operation: `metadata` asks the container about itself, with an empty JSON object as the body; None
        sends the client's body as it is.
        component: the inference component that answers, of an endpoint without a model of its own.
    """
    # Custom attributes are the one header that is certain to reach the container. A header mapping cannot
    # join texts, so a bare value is the request id, and `op=…` an operation.
    attributes = f"'op={operation}'" if operation else "context.requestId"
    content_type = "'application/json'" if operation else "method.request.header.Content-Type"
    accept = "'application/json'" if operation else "method.request.header.Accept"
    return {
        "type": "aws",
        "httpMethod": "POST",
        "uri": f"{service}:runtime.sagemaker:path/endpoints/{endpoint_name}/invocations",
        "credentials": caller,
        "passthroughBehavior": "never" if operation else "when_no_templates",
        "requestParameters": {
            "integration.request.header.Content-Type": content_type,
            "integration.request.header.Accept": accept,
            "integration.request.header.X-Amzn-SageMaker-Inference-Id": "context.requestId",
            f"integration.request.header.{_ATTRIBUTES}": attributes,
            **(
                {"integration.request.header.X-Amzn-SageMaker-Inference-Component": f"'{component}'"}
                if component
                else {}
            ),
        },
        **({"requestTemplates": {"application/json": "{}"}} if operation else {}),
        # By the backend's status; API Gateway keeps one response per status of its own.
        "responses": {
            # The container's attributes are the length of the JSON before the bytes, where there are any.
            r"2\d{2}": _answer(
                "200",
                {
                    "Content-Type": "integration.response.header.Content-Type",
                    REQUEST_ID: "context.requestId",
                    HEADER_LENGTH: f"integration.response.header.{_ATTRIBUTES}",
                },
                handling=TEXT if operation else None,
            ),
            # ModelError: the container answered with an error of its own; the template takes its status.
            # 500 is the default's, so 400 stands in.
            "424": _answer("400", MODEL_ERROR.headers(), template=UNWRAP_MODEL_ERROR),
            "413": _problem(TOO_LARGE),
            # 400: no such endpoint or component, or no capacity. 429 and 503: not ready, or overloaded.
            "400|429|503": _problem(MODEL_UNAVAILABLE, template=TELL_ASLEEP if component else None),
            # Everything else, and 403 above all: ours to repair, nothing a client can act on.
            "default": _problem(INTERNAL),
        },
    }


def _problem(problem: Problem, *, template: str | None = None) -> dict[str, Any]:
    """`template`, where given, tells more than the problem's document."""
    return _answer(str(problem.status), problem.headers(), template=template or problem.document())


def _answer(
    status: str, headers: Mapping[str, str], *, template: str | None = None, handling: str | None = TEXT
) -> dict[str, Any]:
    """An integration response."""
    return {
        "statusCode": status,
        "responseParameters": {f"method.response.header.{name}": value for name, value in headers.items()},
        **({"contentHandling": handling} if handling else {}),
        **({"responseTemplates": {"application/json": template}} if template else {}),
    }
