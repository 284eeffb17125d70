"""The CPU target: a model from S3 behind API Gateway's proxy events."""

import base64
import json
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from inference_runtime.manifest import Artifact
from tests.unit import fake_s3
from tests.unit.fake_s3 import FakeS3
from tests.unit.lambdas.function import imported, own_loggers, proxy_event
from tests.unit.runtime import tiny

INFER = "/v2/models/doubler/infer"


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return tiny.doubler(tmp_path / "model")


@pytest.fixture
def s3(artifact: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeS3]:
    sha256 = artifact.manifest.sha256
    settings = {
        "MODEL_NAME": "doubler",
        "MODEL_URI": f"s3://models/doubler/{sha256}/",
        "MODEL_SHA256": sha256,
        "ARTIFACT_CACHE": str(tmp_path / "cache"),
        "METRICS_NAMESPACE": "Inference",
    }
    with fake_s3.configured(monkeypatch, **settings) as found:
        found.publish(artifact.folder, f"models/doubler/{sha256}")
        yield found


@pytest.fixture
def start(s3: FakeS3) -> Iterator[Callable[[], ModuleType]]:
    """A cold start."""
    with own_loggers():
        yield lambda: imported("inference")


def logged(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_an_inference_is_answered(start: Callable[[], ModuleType]) -> None:
    answer = start().handler(proxy_event("POST", INFER, json.dumps(tiny.REQUEST)), None)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, tiny.ANSWER)
    assert answer["headers"] == {"content-type": "application/json", "x-request-id": "request-1"}
    assert answer["isBase64Encoded"] is False


@pytest.mark.parametrize(
    "changes",
    [
        {"body": base64.b64encode(tiny.body()).decode(), "isBase64Encoded": True},
        {"path": "/base/path/v2/models/doubler/infer"},
        {"headers": None},
        {"headers": {"content-type": "application/json"}},
    ],
)
def test_the_forms_that_an_event_may_take(start: Callable[[], ModuleType], changes: dict[str, Any]) -> None:
    event = proxy_event("POST", INFER, tiny.body().decode()) | changes
    assert start().handler(event, None)["statusCode"] == 200


def test_metadata_and_readiness(start: Callable[[], ModuleType]) -> None:
    handler = start().handler
    assert json.loads(handler(proxy_event("GET", "/v2/models/doubler"), None)["body"])["name"] == "doubler"
    ready = handler(proxy_event("GET", "/v2/models/doubler/ready"), None)
    assert json.loads(ready["body"]) == {"name": "doubler", "ready": True}


@pytest.mark.parametrize("body", [None, "", "{", "[]", '{"id":"\ud800"}'])
def test_a_bad_body_is_a_problem_document(start: Callable[[], ModuleType], body: str | None) -> None:
    answer = start().handler(proxy_event("POST", INFER, body), None)
    document = json.loads(answer["body"])
    assert (answer["statusCode"], document["status"], document["request_id"]) == (400, 400, "request-1")
    assert answer["headers"]["content-type"] == "application/problem+json"


def test_the_limit_counts_the_decoded_body(
    start: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_BODY_BYTES", "200")
    handler = start().handler
    for size, status in ((200, 200), (201, 413)):
        body = base64.b64encode(tiny.body().ljust(size)).decode()
        event = proxy_event("POST", INFER, body, isBase64Encoded=True)
        assert handler(event, None)["statusCode"] == status


def test_one_log_record_per_request_without_its_payload(
    start: Callable[[], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    module = start()
    capsys.readouterr()
    module.handler(proxy_event("POST", INFER, tiny.body(data=[1, 2, 3, 123456.5]).decode()), None)
    output = capsys.readouterr().out
    [record] = [entry for entry in logged(output) if entry.get("message") == "request"]
    assert record.items() >= {
        "request_id": "request-1", "model": "doubler", "version": "1", "status": 200, "cold_start": True,
    }.items()  # fmt: skip
    phases = [record[name] for name in ("parse_ms", "compute_ms", "serialize_ms")]
    assert 0 < sum(phases) < record["latency_ms"]
    assert record["load_ms"] > 0
    assert "123456" not in output


@pytest.mark.parametrize("body", [tiny.body().decode(), "a client's mistake"])
def test_metrics_have_the_model_as_their_only_dimension(
    start: Callable[[], ModuleType], capsys: pytest.CaptureFixture[str], body: str
) -> None:
    module = start()
    for cold_start in (1, 0):
        capsys.readouterr()
        module.handler(proxy_event("POST", INFER, body), None)
        [metrics] = [entry for entry in logged(capsys.readouterr().out) if "_aws" in entry]
        [directive] = metrics["_aws"]["CloudWatchMetrics"]
        assert (directive["Namespace"], directive["Dimensions"]) == ("Inference", [["Model"]])
        assert metrics["Model"] == "doubler"
        assert (metrics["Invocations"], metrics["Errors"]) == (1, 0)
        assert metrics["ColdStart"] == cold_start
        assert metrics["LatencyMs"] > 0


def test_the_phases_of_an_inference_are_metrics_if_asked_for(
    start: Callable[[], ModuleType], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(module: ModuleType, body: str) -> set[str]:
        capsys.readouterr()
        module.handler(proxy_event("POST", INFER, body), None)
        [metrics] = [entry for entry in logged(capsys.readouterr().out) if "_aws" in entry]
        return metrics.keys() & {"ParseMs", "ComputeMs", "SerializeMs", "LoadMs"}

    assert not found(start(), tiny.body().decode())
    monkeypatch.setenv("PHASE_METRICS", "1")
    module = start()
    assert found(module, tiny.body().decode()) == {"ParseMs", "ComputeMs", "SerializeMs", "LoadMs"}
    assert found(module, tiny.body().decode()) == {"ParseMs", "ComputeMs", "SerializeMs"}
    assert not found(module, "a client's mistake")


def test_a_corrupt_artifact_is_503_with_the_reason_in_the_log_only(
    start: Callable[[], ModuleType], s3: FakeS3, artifact: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.objects[f"models/doubler/{artifact.manifest.sha256}/model.onnx"] = b"damaged"
    module = start()
    answer = module.handler(proxy_event("POST", INFER, tiny.body().decode()), None)
    output = capsys.readouterr().out
    assert answer["statusCode"] == 503
    assert json.loads(answer["body"])["detail"] == "The model 'doubler' could not be loaded"
    [failure] = [entry for entry in logged(output) if entry.get("message") == "model not loaded"]
    assert failure["reason"].startswith("model.onnx: SHA-256 is ")
    assert artifact.manifest.files["model.onnx"].sha256 in failure["reason"]
    [metrics] = [entry for entry in logged(output) if "_aws" in entry]
    assert metrics["Errors"] == 1


def test_a_model_that_was_missing_is_loaded_later_but_not_at_every_request(
    start: Callable[[], ModuleType], s3: FakeS3, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"models/doubler/{artifact.manifest.sha256}/manifest.json"
    content = s3.objects.pop(key)
    module = start()
    event = proxy_event("POST", INFER, tiny.body().decode())
    assert module.handler(event, None)["statusCode"] == 503
    s3.objects[key] = content
    assert module.handler(event, None)["statusCode"] == 503
    monkeypatch.setattr(module, "_retry_at", 0)
    assert module.handler(event, None)["statusCode"] == 200


def test_a_share_of_the_answered_requests_is_captured(
    start: Callable[[], ModuleType], s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTURE_URI", "s3://data/captures/inference-dev-doubler/AllTraffic/")
    monkeypatch.setenv("CAPTURE_SHARE", "1.0")
    monkeypatch.setenv("CAPTURE_REDACT", "x")
    written: queue.Queue[bytes] = queue.Queue()
    module = start()
    monkeypatch.setattr(module.recorder, "_put", lambda bucket, key, body, type: written.put(body))
    module.handler(proxy_event("GET", "/v2/models/doubler"), None)
    module.handler(proxy_event("POST", INFER, "{"), None)
    answer = module.handler(proxy_event("POST", INFER, json.dumps(tiny.REQUEST)), None)
    kept = json.loads(written.get(timeout=10))
    assert kept["eventMetadata"]["inferenceId"] == answer["headers"]["x-request-id"]
    assert json.loads(kept["captureData"]["endpointOutput"]["data"]) == json.loads(answer["body"])
    (tensor,) = json.loads(kept["captureData"]["endpointInput"]["data"])["inputs"]
    assert "data" not in tensor
    assert written.empty()
