"""Problem documents that the gateway itself answers with, in the one error shape that the runtime also uses
(RFC 9457).
"""

import json
from dataclasses import dataclass

MEDIA_TYPE = "application/problem+json"

TYPE_PREFIX = "urn:inference-platform:problem:"

WAKING_SECONDS = 600
"""How long a model that sleeps takes to wake: 9 minutes 24 seconds for a small one on ml.g5.xlarge, of which
the alarm takes one, the instance and its image most of the rest (measured in us-east-1, July 2026, by Hugging
Face: github.com/huggingface/skills).
"""


@dataclass(frozen=True)
class Problem:
    """One kind of error: `slug` is the last part of its `type`.

    Args:
        retry_after: after so many seconds trying again may help; also the answer's `Retry-After`.
    """

    slug: str
    status: int
    title: str
    detail: str
    retry_after: int | None = None

    def document(self) -> str:
        """The document as an API Gateway template: `$context.requestId` is filled in per request."""
        return self.anonymous(request_id="$context.requestId")

    def anonymous(self, **more: str) -> str:
        """The document without the request's id, for who does not know it, with `more` members at its end."""
        members = {
            "type": TYPE_PREFIX + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        pause = {} if self.retry_after is None else {"retry_after": self.retry_after}
        return json.dumps(members | more | pause, separators=(",", ":"))

    def headers(self) -> dict[str, str]:
        """Those of the answer that the problem is, as API Gateway's mappings say what is fixed."""
        pause = {} if self.retry_after is None else {"Retry-After": f"'{self.retry_after}'"}
        return {"Content-Type": f"'{MEDIA_TYPE}'", "X-Request-Id": "context.requestId", **pause}


BAD_REQUEST = Problem(
    "invalid-request",
    400,
    "The body is not an inference request",
    "The request is malformed; see the API's documentation.",
)
UNAUTHORIZED = Problem(
    "unauthorized",
    401,
    "A valid access token is needed",
    "Send an access token with the scope of this operation as `Authorization: Bearer <token>`.",
)
FORBIDDEN = Problem(
    "forbidden", 403, "The platform refuses this caller", "Ask the operator, and quote the request id."
)
NOT_FOUND = Problem(
    "not-found",
    404,
    "There is nothing at this address",
    "There is no such route or model; GET /v2/models lists the models.",
)
TOO_LARGE = Problem(
    "payload-too-large", 413, "The body is too large", "Send fewer or smaller tensors in one request."
)
UNSUPPORTED_MEDIA_TYPE = Problem(
    "unsupported-media-type",
    415,
    "The body's media type is not supported",
    "Send JSON, as Content-Type: application/json.",
)
THROTTLED = Problem("throttled", 429, "Too many requests", "Slow down, and retry after a pause.", 1)
INTERNAL = Problem(
    "internal", 500, "The server failed", "Not the request's fault; quote the request id when reporting it."
)
MODEL_ERROR = Problem(
    "model-error", 500, "The model failed", "The model could not compute an answer to this request."
)
MODEL_UNAVAILABLE = Problem(
    "model-unavailable", 503, "The model is not ready", "The model cannot answer now; retry after a pause.", 5
)
MODEL_ASLEEP = Problem(
    "model-unavailable",
    503,
    "The model is not ready",
    "The model sleeps while nobody calls it. This request wakes it, which takes minutes: send it again then.",
    WAKING_SECONDS,
)
TIMEOUT = Problem(
    "timeout", 504, "The model did not answer in time", "Send less in one request, or retry after a pause."
)

GATEWAY_RESPONSES = {
    "DEFAULT_4XX": BAD_REQUEST,
    "DEFAULT_5XX": INTERNAL,
    "UNAUTHORIZED": UNAUTHORIZED,
    "EXPIRED_TOKEN": UNAUTHORIZED,
    "ACCESS_DENIED": FORBIDDEN,
    "WAF_FILTERED": FORBIDDEN,
    # What API Gateway calls a path or method that no route has.
    "MISSING_AUTHENTICATION_TOKEN": NOT_FOUND,
    "RESOURCE_NOT_FOUND": NOT_FOUND,
    "REQUEST_TOO_LARGE": TOO_LARGE,
    "UNSUPPORTED_MEDIA_TYPE": UNSUPPORTED_MEDIA_TYPE,
    "THROTTLED": THROTTLED,
    "QUOTA_EXCEEDED": THROTTLED,
    "INTEGRATION_TIMEOUT": TIMEOUT,
    "INTEGRATION_FAILURE": MODEL_UNAVAILABLE,
}
"""Gateway response type -> what the client reads. The messages say nothing about accounts, functions or
endpoints.
"""


def gateway_responses() -> dict[str, dict[str, object]]:
    """`x-amazon-apigateway-gateway-responses`: the answers that API Gateway gives itself, as problems."""
    return {
        response_type: {
            "statusCode": str(problem.status),
            "responseParameters": {
                f"gatewayresponse.header.{name}": value for name, value in problem.headers().items()
            },
            "responseTemplates": {"application/json": problem.document()},
        }
        for response_type, problem in GATEWAY_RESPONSES.items()
    }
