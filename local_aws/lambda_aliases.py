"""What an alias of a Lambda function does besides naming a version: it sends a share of the requests to
another.

docs.aws.amazon.com/lambda/latest/dg/configuring-alias-routing.html: each request is routed by chance.
MiniStack keeps the weights and sends everything to the alias's own version.
"""

from __future__ import annotations

import random
from typing import Any

from ministack.services import lambda_svc

from local_aws.patches import replace_everywhere
from local_aws.wire import Json

_chance = random.Random()  # noqa: S311 (routing is no secret)


def install() -> None:
    _route_by_weights()


def _route_by_weights() -> None:
    known_record, known_invoke = lambda_svc._effective_func_record_for_qualifier, lambda_svc._invoke

    def effective(function: Json | None, qualifier: str | None) -> Any:
        return known_record(function, _version(function, qualifier))

    async def invoke(
        name: str,
        event: Json,
        headers: Json,
        path_qualifier: str | None = None,
        query_params: Json | None = None,
    ) -> Any:
        asked = path_qualifier or lambda_svc._qp_first(query_params or {}, "Qualifier") or None
        chosen = _version(lambda_svc._functions.get(name), asked)
        return await known_invoke(name, event, headers, chosen, query_params)

    replace_everywhere(known_record, effective)
    replace_everywhere(known_invoke, invoke)


def _version(function: Json | None, qualifier: str | None) -> str | None:
    """The version that answers this request where `qualifier` is an alias with weights; else `qualifier`."""
    alias = ((function or {}).get("aliases") or {}).get(qualifier) or {}
    weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
    drawn = _chance.random()
    for version, weight in weights.items():
        drawn -= float(weight)
        if drawn < 0:
            return str(version)
    return qualifier
