"""Each kind of model runs on both targets: a graph with a handler, a graph alone, a handler alone."""

import json
from pathlib import Path

import pytest

from inference_runtime.expectations import check
from inference_runtime.manifest import verify
from models import build as builder
from tests.unit.containers.process import ROOT, serving
from tests.unit.lambdas.function import imported, own_loggers, proxy_event


@pytest.mark.parametrize("name", ["file-type", "wine-cultivar", "pii-redaction"])
def test_function_and_container_give_the_expected_answer(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert builder.main([name]) == 0
    artifact = verify(builder.BUILD / "artifacts" / name)
    folder = ROOT / "models" / name
    sample = (folder / "sample.json").read_bytes()
    sha256 = artifact.manifest.sha256
    for key, value in {
        "MODEL_NAME": name,
        "MODEL_SHA256": sha256,
        "MODEL_URI": f"s3://models/{name}/{sha256}/",
        "ARTIFACT_CACHE": str(tmp_path),
        "METRICS_NAMESPACE": "Inference",
    }.items():
        monkeypatch.setenv(key, value)
    # The Lambda finds the artifact in its cache, where a first start has left it.
    (tmp_path / sha256).symlink_to(artifact.folder)

    with own_loggers(), serving(artifact.folder, sha256, tmp_path / "log", MODEL_NAME=name) as server:
        event = proxy_event("POST", f"/v2/models/{name}/infer", sample.decode())
        answer = imported("inference").handler(event, None)
        server.wait_until_ready()
        reply = server.request("POST", "/invocations", sample, {"content-type": "application/json"})

    assert (answer["statusCode"], reply.status) == (200, 200)
    assert answer["body"].encode() == reply.body
    assert check(json.loads((folder / "expected.json").read_bytes()), reply.json) == []
