"""The snapshot of an API that a stage serves: a change takes effect with the next deployment."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ministack.core.responses import AccountRegionScopedDict
from ministack.services import apigateway_v1 as api_gateway

from local_aws.gateway.exchange import Json


@dataclass(frozen=True)
class Route:
    resource: Json
    verb: Json
    path_parameters: dict[str, str]


@dataclass(frozen=True)
class Deployment:
    resources: dict[str, Json]
    binary_media_types: list[str]
    minimum_compression_size: int | None

    def route(self, method: str, path: str) -> Route | None:
        """The resource and method for a request, or None.

        API Gateway chooses among the resources that have the method: a literal segment before `{name}`, that
        before `{name+}`, from left to right.
        """
        segments = [segment for segment in path.split("/") if segment]
        routes = []
        for resource in self.resources.values():
            verbs = resource.get("resourceMethods") or {}
            verb = verbs.get(method) or verbs.get("ANY")
            match = _match(resource["path"].split("/"), segments) if verb else None
            if verb and match is not None:
                routes.append((match[0], Route(resource, verb, match[1])))
        return min(routes, key=lambda route: route[0])[1] if routes else None


def _match(template: Iterable[str], segments: list[str]) -> tuple[list[int], dict[str, str]] | None:
    """How specific each segment's match is (0 literal, 1 variable, 2 greedy), and the path parameters."""
    rank: list[int] = []
    parameters: dict[str, str] = {}
    rest = list(segments)
    for part in (part for part in template if part):
        if not rest:
            return None
        if part.startswith("{") and part.endswith("+}"):
            parameters[part[1:-2]] = "/".join(rest)
            return [*rank, 2], parameters
        segment = rest.pop(0)
        if part.startswith("{"):
            parameters[part[1:-1]] = segment
            rank.append(1)
        elif part == segment:
            rank.append(0)
        else:
            return None
    return (rank, parameters) if not rest else None


_snapshots: Any = AccountRegionScopedDict()
"""REST API id -> {deployment id -> Deployment}."""


def capture(api_id: str, deployment_id: str) -> None:
    """Keep the API as it is now for the stages that will point at this deployment."""
    _snapshots.setdefault(api_id, {})[deployment_id] = _live(api_id, copied=True)


def forget(api_id: str, deployment_id: str) -> None:
    _snapshots.get(api_id, {}).pop(deployment_id, None)


def served(api_id: str, stage: Json) -> Deployment:
    """What a stage serves; its live API where an earlier process took the snapshot."""
    snapshot: Deployment | None = _snapshots.get(api_id, {}).get(stage.get("deploymentId"))
    return snapshot or _live(api_id)


def _live(api_id: str, copied: bool = False) -> Deployment:
    resources = api_gateway._resources.get(api_id, {})
    api = api_gateway._rest_apis.get(api_id) or {}
    return Deployment(
        copy.deepcopy(dict(resources)) if copied else resources,
        list(api.get("binaryMediaTypes") or []),
        api.get("minimumCompressionSize"),
    )
