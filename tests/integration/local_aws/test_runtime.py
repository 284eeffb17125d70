"""InvokeEndpoint in process, as the gateway calls it, with containers that fail in ways no process can."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from local_aws.sagemaker import resources, runtime
from local_aws.sagemaker.resources import Endpoint, EndpointConfig, Scope, Variant
from tests.integration.local_aws.embedded import unique


def invoke(answer: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
    """(status, headers, parsed body) of an invocation of a container that answers as `answer` does."""
    scope, name = Scope("000000000000", "us-east-1"), unique("endpoint")
    config = EndpointConfig("config", "arn", {"ProductionVariants": [{"ModelName": "m"}]}, resources.now())
    endpoint = Endpoint(scope, name, scope.arn("endpoint", name), resources.now(), resources.now(), config)
    endpoint.variants = {"AllTraffic": Variant("AllTraffic", 1.0, 1.0, 1, 1)}
    resources.of(scope).endpoints[name] = endpoint

    async def run() -> tuple[int, dict[str, str], bytes]:
        client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://container")
        instance = SimpleNamespace(client=client, requests=0) if answer else None
        fleet = SimpleNamespace(pick=lambda variant: instance, scope=scope, endpoint=name, component=None)
        endpoint.fleet = fleet  # type: ignore[assignment]
        return await runtime.invoke_endpoint(scope.account, scope.region, name, {}, b"{}")

    status, headers, body = asyncio.run(run())
    return status, headers, json.loads(body)


def test_a_container_that_takes_too_long_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(5)
        return httpx.Response(200)

    monkeypatch.setattr(runtime, "MODEL_TIMEOUT", 0.05)
    status, headers, body = invoke(slow)
    assert (status, headers["x-amzn-ErrorType"]) == (424, "ModelError")
    assert (body["OriginalStatusCode"], body["ErrorCode"]) == (0, "INTERNAL_FAILURE_FROM_MODEL")
    assert "timed out while waiting for a response" in body["Message"]


def test_a_container_that_cannot_be_reached_is_a_model_error() -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    status, headers, body = invoke(gone)
    assert (status, headers["x-amzn-ErrorType"], body["OriginalStatusCode"]) == (424, "ModelError", 0)


def test_an_answer_beyond_the_bound_is_an_internal_failure() -> None:
    status, headers, _ = invoke(lambda request: httpx.Response(200, content=b"x" * (runtime.MAX_BODY + 1)))
    assert (status, headers["x-amzn-ErrorType"]) == (500, "InternalFailure")


def test_a_fleet_without_a_living_instance_is_unavailable() -> None:
    status, headers, _ = invoke(None)
    assert (status, headers["x-amzn-ErrorType"]) == (503, "ServiceUnavailable")
