"""Real requests to real models over HTTPS: right answers, and the same protocol whatever the target."""

import base64
import gzip
import io
import json
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from app import ROOT
from catalog import load_catalog
from inference_runtime.expectations import check
from tests.integration.platform.conftest import Platform

MODELS = ("file-type", "text-embedding")


def request(name: str, data: list[str], **parameters: str) -> bytes:
    tensor: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": data}
    if parameters:
        tensor["parameters"] = parameters
    return json.dumps({"inputs": [tensor]}).encode()


def outputs(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    return {o["name"]: np.array(o["data"]).reshape(o["shape"]) for o in answer["outputs"]}


@pytest.mark.parametrize("model", [spec.name for spec in load_catalog(ROOT / "models")])
def test_the_sample_is_answered_as_expected(platform: Platform, model: str) -> None:
    folder = ROOT / "models" / model
    answer = platform.infer(model, (folder / "sample.json").read_bytes())
    assert answer.status_code == 200, answer.text
    assert check(json.loads((folder / "expected.json").read_text()), answer.json()) == []


def test_file_types_are_told_from_bytes(platform: Platform) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("a.txt", "hello " * 100)
    files = {
        "zip": archive.getvalue(),
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n" * 8,
        "json": json.dumps({"names": ["a", "b"], "values": list(range(60))}).encode(),
        "shell": b'#!/bin/bash\nset -eu\nfor f in *.txt; do\n  echo "$f"\n  mv "$f" "${f%.txt}.md"\ndone\n',
    }
    body = request(
        "content", [base64.b64encode(content).decode() for content in files.values()], content_type="base64"
    )
    answer = platform.infer("file-type", body)
    assert answer.status_code == 200, answer.text
    assert outputs(answer.json())["label"].tolist() == list(files)


def test_sentences_that_mean_the_same_are_close(platform: Platform) -> None:
    texts = ["How do I reset my password?", "I forgot my login and need a new one.", "Bananas are yellow."]
    answer = platform.infer("text-embedding", request("text", texts))
    assert answer.status_code == 200, answer.text
    embedding = outputs(answer.json())["embedding"]
    assert embedding.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    assert embedding[0] @ embedding[1] > 0.5 > 0.3 > embedding[0] @ embedding[2]


TRITON = "application/vnd.sagemaker-triton.binary+json"
TEXT = b"How do I reset my password?"


@pytest.mark.parametrize(("model", "field"), [("file-type", "content"), ("text-embedding", "text")])
def test_bytes_are_answered_as_the_same_values_in_json_are(
    platform: Platform, model: str, field: str
) -> None:
    asked = request(field, [base64.b64encode(TEXT).decode()], content_type="base64")
    plain = platform.infer(model, asked, **{"Accept-Encoding": "gzip"}).json()["outputs"]
    tensor = {"name": field, "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 31}}
    header = json.dumps({"inputs": [tensor]}).encode()
    body = header + struct.pack("<I", len(TEXT)) + TEXT
    media_type = f"{TRITON};json-header-size={len(header)}"

    for form, content in ((media_type, body), ("application/octet-stream", TEXT)):
        # Not asked for bytes, it answers with none, whatever it was sent.
        assert platform.infer(model, content, media_type=form).json()["outputs"] == plain

    answer = platform.infer(model, body, media_type=media_type, Accept=TRITON)
    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == f"{TRITON};json-header-size={length}"
    document, tail = json.loads(answer.content[:length]), answer.content[length:]
    for output, expected in zip(document["outputs"], plain, strict=True):
        size = output["parameters"]["binary_data_size"]
        values, tail = tail[:size], tail[size:]
        if output["datatype"] == "FP32":
            np.testing.assert_array_equal(
                np.frombuffer(values, "<f4"), np.array(expected["data"], np.float32)
            )
        else:
            assert [values[4:].decode()] == expected["data"]
    assert tail == b""


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("body", [b"{}", bytes(11 << 20)], ids=["refused by the model", "too large"])
def test_errors_are_documents_for_who_accepts_bytes_too(platform: Platform, model: str, body: bytes) -> None:
    answer = platform.infer(model, body, Accept="application/octet-stream")
    assert answer.status_code in (400, 413)
    assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize("model", MODELS)
def test_compressed_requests_are_answered_like_others(platform: Platform, model: str) -> None:
    body = (ROOT / "models" / model / "sample.json").read_bytes()
    answer = platform.infer(model, gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == platform.infer(model, body).json()


@pytest.mark.parametrize("model", MODELS)
def test_metadata_describes_what_is_live(platform: Platform, model: str) -> None:
    metadata = platform.call("GET", f"/v2/models/{model}").json()
    assert list(metadata) == ["name", "versions", "platform", "inputs", "outputs", "parameters"]
    assert metadata["name"] == model
    live = platform.aws("ssm").get_parameter(Name=f"/inference/local/models/{model}/live")["Parameter"][
        "Value"
    ]
    assert metadata["parameters"] == {"artifact_sha256": live}
    listed = {m["name"]: m["artifact_sha256"] for m in platform.call("GET", "/v2/models").json()["models"]}
    assert listed[model] == live


@pytest.mark.parametrize("client", ["demo", "operator"])
@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/v2", {"name": "inference-local", "version": "2", "extensions": ["binary_tensor_data"]}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/file-type/ready", {"name": "file-type", "ready": True}),
        ("/v2/models/text-embedding/ready", {"name": "text-embedding", "ready": True}),
    ],
)
def test_state_is_readable_with_either_scope(
    platform: Platform, client: str, path: str, document: dict[str, Any]
) -> None:
    answer = platform.call("GET", path, token=platform.token(client))
    assert (answer.status_code, answer.json()) == (200, document)


@pytest.mark.parametrize("model", MODELS)
def test_one_request_id_is_in_the_answer_the_access_log_and_the_models_log(
    platform: Platform, model: str
) -> None:
    answer = platform.infer(model, b"{}")
    request_id = answer.headers["x-request-id"]
    assert answer.json()["request_id"] == request_id
    group = {"file-type": "/aws/lambda/inference-local-file-type"}.get(
        model, "/aws/sagemaker/Endpoints/inference-local-text-embedding"
    )
    logs = platform.aws("logs")
    for name in ("/inference/local/api-access", group):
        events = logs.filter_log_events(logGroupName=name, filterPattern=f'"{request_id}"')["events"]
        assert events, name


@pytest.mark.parametrize("model", MODELS)
def test_no_log_holds_the_payload(platform: Platform, model: str) -> None:
    marker = "unmistakable-payload-marker"
    field = {"file-type": "content", "text-embedding": "text"}[model]
    assert platform.infer(model, request(field, [marker])).status_code == 200
    logs = platform.aws("logs")
    for group in logs.describe_log_groups()["logGroups"]:
        events = logs.filter_log_events(logGroupName=group["logGroupName"])["events"]
        assert not [e for e in events if marker in e["message"]], group["logGroupName"]


@pytest.mark.parametrize(("model", "name"), [("file-type", "content"), ("text-embedding", "text")])
def test_a_burst_is_answered_whole(platform: Platform, model: str, name: str) -> None:
    platform.token()
    bodies = [request(name, [f"text number {number}"]) for number in range(32)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: platform.infer(model, body), bodies))
    assert [answer.status_code for answer in answers] == [200] * len(bodies)
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(bodies)
