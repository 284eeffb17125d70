"""One request from the client to its answer, in API Gateway's order of checks."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from ministack.services import apigateway_v1 as api_gateway
from ministack.services import cognito

from local_aws.gateway import backends, coding, deployments, faults, records
from local_aws.gateway.exchange import Answer, Exchange, Fault

logger = logging.getLogger("local_aws.gateway")

MAXIMUM_BODY_BYTES = 10 * 1024 * 1024

MiniStackAnswer = tuple[int, dict[str, Any], bytes]


async def execute(
    api_id: str,
    stage_name: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    query: Mapping[str, list[str]] | None,
    account: str,
    region: str,
) -> MiniStackAnswer:
    """Stands in for MiniStack's `_handle_execute_in_scope`: runs with the API's account and region set."""
    api = api_gateway._rest_apis.get(api_id)
    stage = api_gateway._stages_v1.get(api_id, {}).get(stage_name)
    if api is None or stage is None:
        # No gateway response applies: the request reaches no deployment.
        return (
            403,
            {"Content-Type": "application/json", "x-amzn-ErrorType": "ForbiddenException"},
            b'{"message":"Forbidden"}',
        )
    exchange = Exchange(account, region, api, stage, method, path, headers or {}, query or {}, body or b"")
    try:
        answer = coding.deflated(exchange, await _answer(exchange))
    except Fault as fault:
        answer = _fault(exchange, fault)
    except Exception:
        logger.exception("%s: the embedded AWS failed", exchange.request_id)
        answer = _fault(exchange, Fault("DEFAULT_5XX", status=500))
    try:
        records.write(exchange, answer)
    except Exception:
        logger.exception("%s: the embedded AWS could not record the request", exchange.request_id)
    answer.headers["x-amzn-requestid"] = exchange.request_id
    return answer.status, answer.headers, answer.body


def _fault(exchange: Exchange, fault: Fault) -> Answer:
    exchange.fault = fault
    records.log_fault(exchange)
    return faults.render(exchange, fault)


async def _answer(exchange: Exchange) -> Answer:
    deployment = deployments.served(exchange.api["id"], exchange.stage)
    route = deployment.route(exchange.method, exchange.path)
    if route is None:
        # API Gateway takes a path or method that it does not know for a badly signed call.
        raise Fault("MISSING_AUTHENTICATION_TOKEN", "Missing Authentication Token")
    exchange.resource, exchange.verb, exchange.path_parameters = (
        route.resource,
        route.verb,
        route.path_parameters,
    )
    exchange.binary_media_types = deployment.binary_media_types
    exchange.minimum_compression_size = deployment.minimum_compression_size
    if len(exchange.body) > MAXIMUM_BODY_BYTES:
        raise Fault("REQUEST_TOO_LARGE", "Request Too Long")
    await _authorize(exchange)
    coding.inflate(exchange, MAXIMUM_BODY_BYTES)
    _admit(exchange)
    return await backends.answer(exchange)


async def _authorize(exchange: Exchange) -> None:
    """MiniStack's authorizers verify signature, issuer, times and scopes; one rule they leave out."""
    verb = exchange.verb or {}
    error, exchange.authorizer = await api_gateway._authorize_request_v1(
        exchange.api["id"],
        exchange.stage["stageName"],
        verb,
        exchange.method,
        exchange.path,
        exchange.resource,
        exchange.headers,
        exchange.body,
        exchange.query,
        exchange.path_parameters,
        exchange.stage,
        exchange.account,
        exchange.region,
    )
    _raise(error)
    if verb.get("authorizationType") == "COGNITO_USER_POOLS" and not verb.get("authorizationScopes"):
        claims = (exchange.authorizer or {}).get("claims") or {}
        if claims.get("token_use") != "id":
            # Without scopes on the method a token is read as an identity token.
            raise Fault("UNAUTHORIZED", "Unauthorized")


def _admit(exchange: Exchange) -> None:
    """API key, throttles, quota, then the request's validator."""
    api_id, stage, stage_name = exchange.api["id"], exchange.stage, exchange.stage["stageName"]
    verb, resource = exchange.verb, exchange.resource or {}
    error, key = api_gateway._check_api_key(verb, api_id, stage_name, exchange.headers)
    _raise(error)
    caller = key or api_gateway._resolve_api_key(api_gateway._api_key_from_request(exchange.headers))
    _raise(api_gateway._check_throttle(stage, api_id, stage_name, resource["path"], exchange.method, caller))
    _raise(api_gateway._check_quota(key, api_id, stage_name))
    request = {"path_params": exchange.path_parameters}
    _raise(
        api_gateway._check_request_validation(
            verb, api_id, request, exchange.headers, exchange.body, exchange.query
        )
    )


def _raise(error: Any) -> None:
    if error is not None:
        raise Fault(error.response_type, error.message, error_type=error.error_type)


async def _signing_keys(url: str) -> dict[str, Any]:
    """A user pool's public keys by the address that MiniStack resolves for its issuer."""
    pool_id = url.split("/")[-3]
    if cognito._get_pool_unscoped(pool_id) is None:
        return {"keys": []}
    keys: dict[str, Any] = json.loads(cognito.well_known_jwks(pool_id)[2])
    return keys


def installed() -> bool:
    return api_gateway._handle_execute_in_scope is execute


def install() -> None:
    api_gateway._handle_execute_in_scope = execute
    # MiniStack fetches a pool's keys from itself over plain HTTP, which a server with TLS does not speak; and
    # it caches them for two hours, in which a pool may be gone.
    api_gateway._fetch_jwks = _signing_keys
