"""The function that says what is served and what is ready, while the catalog changes."""

import json

import pytest

from tests.unit.lambdas.function import imported, own_loggers, proxy_event


def test_a_model_that_left_the_catalog_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESOURCE_PREFIX", "inference-test")
    monkeypatch.setenv("LIVE_PATH", "/inference/test/models")
    monkeypatch.setenv("MODELS", json.dumps({"cpu": [], "gpu": ["stays"]}))
    with own_loggers("catalog"):
        answer = imported("catalog").handler(proxy_event("GET", "/v2/models/left/ready"), None)
    assert answer["statusCode"] == 404
    assert json.loads(answer["body"])["type"] == "urn:inference-platform:problem:not-found"
