"""The function that says what is served and what is ready, while the catalog changes."""

import json
from pathlib import Path

import boto3
import pytest
from onnx import TensorProto, helper

from inference_runtime import protocol
from tests.unit.lambdas.function import imported, own_loggers, proxy_event
from tests.unit.mocked_aws import mocked_aws
from tests.unit.runtime import tiny


def test_a_model_that_left_the_catalog_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESOURCE_PREFIX", "inference-test")
    monkeypatch.setenv("LIVE_PATH", "/inference/test/models")
    monkeypatch.setenv("MODELS", json.dumps({"cpu": [], "gpu": ["stays"]}))
    with own_loggers("catalog"):
        answer = imported("catalog").handler(proxy_event("GET", "/v2/models/left/ready"), None)
    assert answer["statusCode"] == 404
    assert json.loads(answer["body"])["type"] == "urn:inference-platform:problem:not-found"


def test_a_model_that_sleeps_is_described_as_it_would_describe_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tensor = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [tensor],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
    )
    manifest = tiny.artifact(tmp_path, graph, [("x", "FP32", (-1,))], [("y", "FP32", (-1,))]).manifest
    variables = {
        "RESOURCE_PREFIX": "inference-test",
        "LIVE_PATH": "/inference/test/models",
        "ARTIFACTS_BUCKET": "models",
        "MODELS": json.dumps({"cpu": [], "gpu": ["wide-awake"], "gpu0": ["sleeper", "new"]}),
    }
    with mocked_aws(monkeypatch, **variables), own_loggers("catalog"):
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="models")
        key = f"sleeper/{manifest.sha256}/manifest.json"
        s3.put_object(Bucket="models", Key=key, Body=(tmp_path / "manifest.json").read_bytes())
        boto3.client("ssm").put_parameter(
            Name="/inference/test/models/sleeper/live", Value=manifest.sha256, Type="String"
        )
        handler = imported("catalog").handler
        answer = handler(proxy_event("GET", "/v2/models/sleeper"), None)
        # Not deployed yet; and one that has just stopped sleeping, whose route will lead to itself.
        others = [handler(proxy_event("GET", f"/v2/models/{name}"), None) for name in ("new", "wide-awake")]
        listed = json.loads(handler(proxy_event("GET", "/v2/models"), None)["body"])["models"]
    assert (answer["statusCode"], answer["headers"]["X-Request-Id"]) == (200, "request-1")
    assert json.loads(answer["body"]) == json.loads(protocol.model_metadata(manifest))
    assert [other["statusCode"] for other in others] == [503, 503]
    assert [(model["name"], model["target"], model["artifact_sha256"]) for model in listed] == [
        ("new", "gpu", None),
        ("sleeper", "gpu", manifest.sha256),
        ("wide-awake", "gpu", None),
    ]
