"""API Gateway calls SageMaker Runtime directly: no function in the path of a GPU model.

Every answer of InvokeEndpoint is mapped by its status, with the failure as the default: an unforeseen
status can only become an error. Without a mapping API Gateway passes backend errors on as 200, with account
ids and log addresses.
"""

from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_iam as iam

from stacks.constructs.problems import (
    INTERNAL,
    MEDIA_TYPE,
    MODEL_ERROR,
    MODEL_UNAVAILABLE,
    TOO_LARGE,
    TYPE_PREFIX,
    Problem,
)

REQUEST_ID = "X-Request-Id"

# The container's own document travels inside SageMaker's ModelError. Only a document of ours is passed on,
# with its status: whatever else a container says on its way down stays inside.
# On few lines, because what stands between directives is part of the answer.
UNWRAP_MODEL_ERROR = f"""\
#set($status = $input.path('$.OriginalStatusCode'))
#set($document = $input.path('$.OriginalMessage'))
#if($document.startsWith('{{"type":"{TYPE_PREFIX}'))
#set($context.responseOverride.status = $status)
$document#{{else}}
#set($context.responseOverride.status = {MODEL_ERROR.status})
{MODEL_ERROR.document()}#end"""

RETRY_AFTER_SECONDS = "5"


def invoke_endpoint(
    endpoint_name: str, credentials: iam.IRole, *, operation: str | None = None
) -> apigateway.AwsIntegration:
    """InvokeEndpoint on `endpoint_name`.

    Args:
        operation: `metadata` asks the container about itself, with an empty JSON object as the body; None
        sends the client's body as it is.
    """
    # Custom attributes are the one header that is certain to reach the container. A header mapping cannot
    # join texts, so a bare value is the request id, and `op=…` an operation.
    attributes = f"'op={operation}'" if operation else "context.requestId"
    content_type = "'application/json'" if operation else "method.request.header.Content-Type"
    return apigateway.AwsIntegration(
        service="runtime.sagemaker",
        path=f"endpoints/{endpoint_name}/invocations",
        integration_http_method="POST",
        options=apigateway.IntegrationOptions(
            credentials_role=credentials,
            passthrough_behavior=apigateway.PassthroughBehavior.NEVER
            if operation
            else apigateway.PassthroughBehavior.WHEN_NO_TEMPLATES,
            request_parameters={
                "integration.request.header.Content-Type": content_type,
                "integration.request.header.X-Amzn-SageMaker-Inference-Id": "context.requestId",
                "integration.request.header.X-Amzn-SageMaker-Custom-Attributes": attributes,
            },
            request_templates={"application/json": "{}"} if operation else None,
            integration_responses=[
                _answer("200", r"2\d{2}", content_type="integration.response.header.Content-Type"),
                # ModelError: the container answered with an error of its own; the template takes its status.
                # An integration has one response per status, and 500 is the default's: 400 stands in.
                _answer("400", "424", template=UNWRAP_MODEL_ERROR),
                _problem(TOO_LARGE, "413"),
                # 400: no such endpoint, or no capacity. 429 and 503: not ready, or overloaded.
                _problem(MODEL_UNAVAILABLE, "400|429|503", retry_after=RETRY_AFTER_SECONDS),
                # Everything else, and 403 above all: ours to repair, nothing a client can act on.
                _problem(INTERNAL, None),
            ],
        ),
    )


def method_responses() -> list[apigateway.MethodResponse]:
    """Every status that `invoke_endpoint` answers with; one that is not declared would become a bare 500."""
    headers = {f"method.response.header.{name}": True for name in ("Content-Type", REQUEST_ID)}
    retry = {**headers, "method.response.header.Retry-After": True}
    statuses = {"200": headers, "400": headers, "413": headers, "500": headers, "503": retry}
    return [
        apigateway.MethodResponse(status_code=status, response_parameters=parameters)
        for status, parameters in statuses.items()
    ]


def _problem(
    problem: Problem, selection_pattern: str | None, *, retry_after: str | None = None
) -> apigateway.IntegrationResponse:
    return _answer(
        str(problem.status), selection_pattern, template=problem.document(), retry_after=retry_after
    )


def _answer(
    status: str,
    selection_pattern: str | None,
    *,
    template: str | None = None,
    content_type: str = f"'{MEDIA_TYPE}'",
    retry_after: str | None = None,
) -> apigateway.IntegrationResponse:
    parameters = {
        "method.response.header.Content-Type": content_type,
        f"method.response.header.{REQUEST_ID}": "context.requestId",
    }
    if retry_after:
        parameters["method.response.header.Retry-After"] = f"'{retry_after}'"
    return apigateway.IntegrationResponse(
        status_code=status,
        selection_pattern=selection_pattern,
        response_parameters=parameters,
        response_templates={"application/json": template} if template else None,
    )
