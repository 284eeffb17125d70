"""One request on its way through the gateway, and the answers it can meet."""

import datetime
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
"""An object of MiniStack's stores, in the shape of the API Gateway API."""


class Fault(Exception):
    """An answer API Gateway gives itself.

    `response_type` names its gateway response, `message` is `$context.error.message`, `reason` is for the
    server's log and the access log only: what AWS shows in execution logs. `status` is the status where the
    type has no default of its own.
    """

    def __init__(
        self,
        response_type: str,
        message: str | None = "Internal server error",
        *,
        reason: str = "",
        status: int | None = None,
        error_type: str | None = None,
    ) -> None:
        super().__init__(reason or message)
        self.response_type = response_type
        self.message = message
        self.reason = reason
        self.status = status
        self.error_type = error_type


def misconfigured(reason: str) -> Fault:
    """A mistake in the API's own configuration: 500, told to nobody but the log."""
    return Fault("API_CONFIGURATION_ERROR", reason=f"Execution failed due to configuration error: {reason}")


@dataclass(frozen=True)
class Answer:
    """What the client receives; a list of values is one header line each."""

    status: int
    headers: dict[str, Any]
    body: bytes


@dataclass(frozen=True)
class BackendAnswer:
    """What an integration's backend said, before any mapping.

    `selector` is what selection patterns are matched with: the status, or the error message of a Lambda
    function.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    selector: str = ""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)


@dataclass
class Exchange:
    """The request, what routing found for it, and what became of it. Filled in as it proceeds."""

    account: str
    region: str
    api: Json
    stage: Json
    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, list[str]]
    body: bytes
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    received: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    clock: float = field(default_factory=time.monotonic)

    resource: Json | None = None
    verb: Json | None = None
    path_parameters: Mapping[str, str] = field(default_factory=dict)
    binary_media_types: list[str] = field(default_factory=list)
    minimum_compression_size: int | None = None
    authorizer: Json | None = None

    fault: Fault | None = None
    integration_status: int | None = None
    integration_latency_ms: int | None = None

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)

    def elapsed_ms(self) -> int:
        return round((time.monotonic() - self.clock) * 1000)

    @property
    def integration(self) -> Json:
        if self.verb is None or not self.verb.get("methodIntegration"):
            raise misconfigured("No integration defined for method")
        integration: Json = self.verb["methodIntegration"]
        return integration

    @property
    def method_arn(self) -> str:
        """The ARN that authorizers, roles and function policies know this request by."""
        where = f"{self.api['id']}/{self.stage['stageName']}/{self.method}/{self.path.lstrip('/')}"
        return f"arn:aws:execute-api:{self.region}:{self.account}:{where}"

    def context(self) -> Json:
        """`$context`, nested. A member that has no value for this request is absent or empty."""
        stage = self.stage["stageName"]
        resource = self.resource or {}
        return {
            "accountId": self.account,
            "apiId": self.api["id"],
            "authorizer": self.authorizer or {},
            "deploymentId": self.stage.get("deploymentId") or "",
            "domainName": self.header("host") or "",
            "domainPrefix": (self.header("host") or "").split(".")[0],
            "extendedRequestId": self.request_id,
            "httpMethod": self.method,
            "identity": {
                "sourceIp": (self.header("x-forwarded-for") or "127.0.0.1").split(",")[0].strip(),
                "userAgent": self.header("user-agent") or "",
            },
            "path": f"/{stage}{self.path}",
            "protocol": "HTTP/1.1",
            "requestId": self.request_id,
            "requestTime": self.received.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "requestTimeEpoch": int(self.received.timestamp() * 1000),
            "resourceId": resource.get("id", ""),
            "resourcePath": resource.get("path", ""),
            "stage": stage,
            "xrayTraceId": self.header("x-amzn-trace-id") or "",
        }


def lookup(context: Mapping[str, Any], path: str) -> str | None:
    """The value of a dotted `$context` path as text, or None where the request has none.

    Claims have dots and colons in their names (`authorizer.claims.cognito:groups`), so the rest of the path
    is tried as one name too.
    """
    value: Any = context
    names = path.split(".")
    for position, name in enumerate(names):
        if not isinstance(value, Mapping):
            return None
        rest = ".".join(names[position:])
        if rest in value:
            value = value[rest]
            break
        value = value.get(name)
    if value is None or isinstance(value, Mapping):
        return None
    return str(value)
