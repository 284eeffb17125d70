"""Adding a service to MiniStack: its handler, which requests are its, and what IAM makes of them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ministack import app
from ministack.core import iam_actions, router

from local_aws.wire import Json, JsonService, Operation, Response

Handler = Callable[[str, str, Json, bytes, Json], Awaitable[Response]]
# (operation, parameters of a JSON request, path, region, account) -> the ARN that policies name
ResourceArn = Callable[[str, Json, str, str, str], str]


@dataclass(frozen=True)
class Service:
    """A service. `rest_models` are the botocore models whose routes name the IAM action of a REST request."""

    name: str
    handler: Handler
    target_prefix: str
    host_patterns: tuple[str, ...]
    rest_models: tuple[str, ...]
    resource_arn: ResourceArn


# (what MiniStack says, headers, body, query, region, account) -> what AWS says
RefineArn = Callable[[str, Json, bytes, Json, str, str], str]

_services: dict[str, Service] = {}
_refinements: dict[str, RefineArn] = {}


def register(service: Service) -> None:
    """Serve `service` behind MiniStack's port, its calls authorized like every other's."""
    _services[service.name] = service
    app.SERVICE_HANDLERS[service.name] = service.handler
    router.SERVICE_PATTERNS[service.name] = {
        "target_prefixes": [service.target_prefix],
        "host_patterns": list(service.host_patterns),
        "credential_scope": service.name,
    }
    iam_actions.SERVICE_TO_IAM_NAMESPACE[service.name] = service.name
    iam_actions._BOTOCORE_SERVICE_MAP[service.name] = list(service.rest_models)


def extend(name: str, operations: Mapping[str, Operation]) -> None:
    """Add operations that a JSON service of MiniStack lacks; its own handler answers all others."""
    known, ours = app.SERVICE_HANDLERS[name], JsonService(name, operations)

    async def handle(method: str, path: str, headers: Json, body: bytes, query: Json) -> Response:
        operation = str(headers.get("x-amz-target", "")).rpartition(".")[2]
        answer: Response = await (ours.handle if operation in operations else known)(
            method, path, headers, body, query
        )
        return answer

    app.SERVICE_HANDLERS[name] = handle


def refine(name: str, resource_arn: RefineArn) -> None:
    """Correct the resource that MiniStack's IAM takes a request of one of its own services to name."""
    _refinements[name] = resource_arn


def install() -> None:
    """Teach MiniStack's IAM the resources of our services: it has a registry of actions only."""
    known = iam_actions.extract_resource_arn

    def extract_resource_arn(
        service: str,
        method: str,
        path: str,
        headers: Json,
        body: bytes,
        query_params: Json,
        region: str,
        account_id: str,
    ) -> str:
        ours = _services.get(service)
        if ours is None:
            arn = str(known(service, method, path, headers, body, query_params, region, account_id))
            refined = _refinements.get(service)
            return refined(arn, headers, body, query_params, region, account_id) if refined else arn
        operation = str(headers.get("x-amz-target", "")).rpartition(".")[2]
        return ours.resource_arn(operation, _parameters(operation, body), path, region, account_id)

    iam_actions.extract_resource_arn = extract_resource_arn


def _parameters(operation: str, body: bytes) -> Json:
    """The parameters of a JSON request; nothing for one that is not, which its service refuses later."""
    try:
        parameters: Any = json.loads(body) if operation else {}
    except ValueError:
        return {}
    return parameters if isinstance(parameters, dict) else {}
