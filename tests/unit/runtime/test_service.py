"""The Open Inference Protocol as a client meets it: right answers, and one shape for every error."""

import json
import logging
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from inference_runtime.manifest import ArtifactError
from inference_runtime.model import Model
from inference_runtime.service import MAX_ANSWER_BYTES, SERVER, Answer, Service
from tests.unit.runtime import tiny

X = tiny.REQUEST["inputs"][0]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    artifact = tiny.doubler(tmp_path_factory.mktemp("doubler"))
    service = Service("doubler", lambda: Model(artifact))
    service.load()
    return service


def infer(service: Service, body: bytes, content_type: str | None = "application/json") -> Answer:
    headers = {} if content_type is None else {"content-type": content_type}
    return service.handle("POST", f"/v2/models/{service.name}/infer", headers, body, "request-1")


def problem(answer: Answer) -> dict[str, Any]:
    """The answer's problem document, which always has exactly the five members."""
    document: dict[str, Any] = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == document["request_id"] == "request-1"
    assert document.keys() == {"type", "title", "status", "detail", "request_id"}
    assert document["status"] == answer.status
    return document | {"slug": document["type"].removeprefix("urn:inference-platform:problem:")}


def loaded(folder: Path, name: str, **artifact: Any) -> Service:
    made = tiny.doubler(folder, **artifact)
    service = Service(name, lambda: Model(made))
    service.load()
    return service


def test_an_inference_is_answered(service: Service) -> None:
    answer = infer(service, json.dumps(tiny.REQUEST).encode())
    assert (answer.status, json.loads(answer.body)) == (200, tiny.ANSWER)
    assert answer.headers == {"content-type": "application/json", "x-request-id": "request-1"}


def test_nested_data_are_the_same_request(service: Service) -> None:
    answer = infer(service, tiny.body(data=[[1, 2], [3.5, -4]]))
    assert json.loads(answer.body)["outputs"] == tiny.ANSWER["outputs"]


@pytest.mark.parametrize("content_type", [None, "", "application/json", "Application/JSON; charset=utf-8"])
def test_json_is_accepted_by_any_of_its_names(service: Service, content_type: str | None) -> None:
    assert infer(service, tiny.body(), content_type).status == 200


@pytest.mark.parametrize(
    "extra", [{"outputs": [{"name": "y"}]}, {"outputs": []}, {"parameters": {"a": 1}}, {"new": 1}]
)
def test_optional_members_are_accepted(service: Service, extra: dict[str, Any]) -> None:
    assert infer(service, json.dumps(tiny.REQUEST | extra).encode()).status == 200


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/v2", SERVER),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/doubler/ready", {"name": "doubler", "ready": True}),
    ],
)
def test_the_protocols_get_routes(service: Service, path: str, document: dict[str, Any]) -> None:
    answer = service.handle("GET", path, {}, b"", "request-1")
    assert (answer.status, json.loads(answer.body)) == (200, document)


def test_metadata_is_the_public_signature_and_the_artifacts_id(service: Service, tmp_path: Path) -> None:
    answer = service.handle("GET", "/v2/models/doubler", {}, b"", "request-1")
    assert json.loads(answer.body) == {
        "name": "doubler",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        "parameters": {"artifact_sha256": tiny.doubler(tmp_path / "same").manifest.sha256},
    }


def test_the_server_metadata_carry_the_projects_version() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert (SERVER["name"], SERVER["version"]) == (project["name"], project["version"])


@pytest.mark.parametrize(
    ("body", "slug", "detail"),
    [
        (b"", "invalid-json", "empty"),
        (b'{"inputs":[', "invalid-json", "Line 1, column 12"),
        (b"not json", "invalid-json", "Line 1, column"),
        (b"\xff\xfe", "invalid-json", "UTF-8"),
        (
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[NaN,1]}]}',
            "invalid-json",
            "column 64",
        ),
        (
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1e999,1]}]}',
            "invalid-json",
            "column",
        ),
        (b"[" * 5000, "invalid-json", "depth"),
        (b"[]", "invalid-request", "not a JSON object"),
        (b'"x"', "invalid-request", "not a JSON object"),
        (b"{}", "invalid-request", "inputs is missing"),
        (b'{"inputs":{}}', "invalid-request", "inputs is missing or not a list"),
        (b'{"inputs":[1]}', "invalid-request", "inputs[0] is not an object with a `name`"),
        (b'{"inputs":[{"name":1}]}', "invalid-request", "inputs[0]"),
        (b'{"id":7,"inputs":[]}', "invalid-request", "id is 7"),
        (b'{"parameters":[],"inputs":[]}', "invalid-request", "parameters is not an object"),
        (tiny.body(parameters=7), "invalid-request", "inputs[0].parameters"),
        (json.dumps({"inputs": [X, X]}).encode(), "invalid-request", "'x' appears twice"),
        (json.dumps({"inputs": [X], "outputs": {}}).encode(), "invalid-request", "outputs is not a list"),
        (json.dumps({"inputs": [X], "outputs": ["y"]}).encode(), "invalid-request", "outputs[0]"),
        (
            json.dumps({"inputs": [X], "outputs": [{"name": "y"}] * 2}).encode(),
            "invalid-request",
            "'y' appears twice",
        ),
        (b'{"inputs":[]}', "missing-input", "inputs lack ['x']"),
        (tiny.body(name="z"), "unknown-input", "inputs[0] is named 'z'; the model takes ['x']"),
        (tiny.body(name="z" * 10**6), "unknown-input", "..."),
        (json.dumps({"inputs": [X], "outputs": [{"name": "z"}]}).encode(), "unknown-output", "gives ['y']"),
        (tiny.body(datatype="FP64"), "invalid-datatype", "datatype is 'FP64'; it must be FP32"),
        (tiny.body(shape=[2, 3]), "invalid-shape", "it must match [-1, 2]"),
        (tiny.body(shape=[2**62, 2]), "invalid-data", "4 values"),
        (tiny.body(data=[1, 2, 3]), "invalid-data", "3 values, but shape [2, 2] needs 4"),
        (
            b'{"inputs":[{"name":"x","datatype":"FP32","shape":' + b"[" * 1000 + b"]" * 1000 + b"}]}",
            "invalid-shape",
            "",
        ),
    ],
)
def test_bad_requests_are_400_and_name_the_field(
    service: Service, body: bytes, slug: str, detail: str
) -> None:
    document = problem(infer(service, body))
    assert (document["status"], document["slug"]) == (400, slug)
    assert detail in document["detail"]
    assert len(document["detail"]) < 300


@pytest.mark.parametrize("content_type", ["text/plain", "application/jsonx", "*/*"])
def test_other_media_types_are_415(service: Service, content_type: str) -> None:
    document = problem(infer(service, tiny.body(), content_type))
    assert (document["status"], document["slug"]) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/", "/v2/models", "/v2/models/other/infer", "/v2/models/doubler/x"]
)
def test_unknown_addresses_and_models_are_404(service: Service, path: str) -> None:
    assert problem(service.handle("POST", path, {}, b"", "request-1"))["slug"] == "not-found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/doubler/infer", "POST"),
        ("POST", "/v2/models/doubler", "GET"),
        ("PUT", "/v2", "GET"),
    ],
)
def test_wrong_methods_are_405_and_say_the_right_one(
    service: Service, method: str, path: str, allowed: str
) -> None:
    answer = service.handle(method, path, {}, b"", "request-1")
    assert problem(answer)["slug"] == "method-not-allowed"
    assert answer.headers["allow"] == allowed


def test_the_limit_is_the_last_body_that_is_accepted(tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path)
    service = Service("doubler", lambda: Model(artifact), max_body_bytes=200)
    service.load()
    assert infer(service, tiny.body().ljust(200)).status == 200
    document = problem(infer(service, tiny.body().ljust(201)))
    assert (document["status"], document["slug"]) == (413, "payload-too-large")
    assert "200 bytes" in document["detail"]


def test_an_answer_that_no_target_could_carry_is_413(tmp_path: Path) -> None:
    handler = """
import numpy as np
def postprocess(outputs, inputs, state):
    return {"y": np.tile(outputs["y"], (400_000, 1)) if inputs["x"].any() else outputs["y"]}
"""
    document = problem(infer(loaded(tmp_path, "doubler", handler=handler), tiny.body()))
    assert document["slug"] == "payload-too-large"
    assert str(MAX_ANSWER_BYTES) in document["detail"]


def test_before_the_model_is_loaded_only_liveness_is_answered(tmp_path: Path) -> None:
    artifact = tiny.doubler(tmp_path)
    service = Service("doubler", lambda: Model(artifact))
    assert service.handle("GET", "/v2/health/live", {}, b"", "request-1").status == 200
    for method, path in (
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models/doubler"),
        ("GET", "/v2/models/doubler/ready"),
        ("POST", "/v2/models/doubler/infer"),
    ):
        document = problem(service.handle(method, path, {}, b"", "request-1"))
        assert (document["status"], document["slug"]) == (503, "model-unavailable")


def test_a_corrupt_artifact_is_logged_by_file_and_hash_and_never_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from inference_runtime.manifest import verify

    sha256 = tiny.doubler(tmp_path).manifest.files["model.onnx"].sha256
    (tmp_path / "model.onnx").write_bytes(b"damaged")
    service = Service("doubler", lambda: Model(verify(tmp_path)))
    service.load()
    assert not service.ready
    assert sha256 in caplog.text
    assert "model.onnx" in caplog.text
    document = problem(infer(service, tiny.body()))
    assert (document["status"], document["detail"]) == (503, "The model 'doubler' could not be loaded")


def test_an_artifact_of_another_model_never_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = loaded(tmp_path, "tripler")
    assert not service.ready
    assert "the artifact is 'doubler', expected 'tripler'" in caplog.text


TRANSLATING = """
import numpy as np

def load(folder):
    return int((folder / "factor.txt").read_text())

def preprocess(inputs, state):
    if (inputs["x"] > 100).any():
        raise ValueError("input 'x': values must be at most 100")
    return {"x": inputs["x"] * state}

def postprocess(outputs, inputs, state):
    return {"y": outputs["y"] + inputs["x"]}
"""


def test_a_handler_translates_between_the_public_signature_and_the_graphs(tmp_path: Path) -> None:
    service = loaded(tmp_path, "doubler", handler=TRANSLATING, files={"factor.txt": b"10"})
    answer = json.loads(infer(service, tiny.body()).body)
    assert answer["outputs"][0]["data"] == [21.0, 42.0, 73.5, -84.0]
    assert not (tmp_path / "__pycache__").exists()


def test_a_value_that_the_handler_refuses_is_the_clients_error(tmp_path: Path) -> None:
    service = loaded(tmp_path, "doubler", handler=TRANSLATING, files={"factor.txt": b"10"})
    document = problem(infer(service, tiny.body(data=[1, 2, 3, 101])))
    assert document["slug"] == "invalid-data"
    assert document["detail"] == "input 'x': values must be at most 100"


@pytest.mark.parametrize(
    "handler",
    [
        "def preprocess(inputs, state):\n"
        "    return {'x': inputs['x'][:, :1]} if inputs['x'].any() else inputs",
        "def preprocess(inputs, state): return inputs if not inputs['x'].any() else {}['/secret/path']",
        "def postprocess(outputs, inputs, state): return outputs if not inputs['x'].any() else {}",
        "def postprocess(outputs, inputs, state):\n"
        "    return outputs if not inputs['x'].any() else {'y': outputs['y'].astype('float64')}",
        "def postprocess(outputs, inputs, state):\n"
        "    return outputs if not inputs['x'].any() else {'y': outputs['y'][0]}",
        "def postprocess(outputs, inputs, state):\n"
        "    if inputs['x'].any(): raise ValueError('/secret/path')\n    return outputs",
    ],
    ids=["graph", "preprocess", "missing output", "wrong dtype", "wrong shape", "postprocess"],
)
def test_a_failing_model_is_500_with_nothing_internal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, handler: str
) -> None:
    document = problem(infer(loaded(tmp_path, "doubler", handler=handler), tiny.body()))
    assert (document["status"], document["slug"]) == (500, "model-error")
    assert document["detail"] == "The model could not answer this request"
    assert caplog.records[-1].exc_info, "the reason is in the log"


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        ("def load(folder): return {}['vocab']", r"handler\.py: KeyError"),
        ("syntax error", r"handler\.py: SyntaxError"),
        ("def postprocess(outputs, inputs, state): return {}", "does not answer its warm-up request"),
    ],
)
def test_a_model_that_cannot_answer_is_refused_at_load(tmp_path: Path, handler: str, reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason):
        Model(tiny.doubler(tmp_path, handler=handler))


def test_an_artifacts_own_sample_must_be_answered(tmp_path: Path) -> None:
    Model(tiny.doubler(tmp_path / "good", files={"sample.json": tiny.body()}))
    with pytest.raises(ArtifactError, match="warm-up request: input 'x': shape"):
        Model(tiny.doubler(tmp_path / "bad", files={"sample.json": tiny.body(shape=[1])}))


def test_a_graph_that_lacks_the_signature_is_refused_at_load(tmp_path: Path) -> None:
    artifact = tiny.identity(tmp_path, "INT64", TensorProto.FLOAT)
    with pytest.raises(ArtifactError, match=r"has 'x' as INT64, the graph has \{'x': 'FP32'\}"):
        Model(artifact)


def test_what_is_no_onnx_graph_is_refused_by_name(tmp_path: Path) -> None:
    from inference_runtime import manifest

    good = tiny.doubler(tmp_path).manifest
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    manifest.write(
        tmp_path, name="doubler", version="1", model="model.onnx", handler=None,
        inputs=good.inputs, outputs=good.outputs,
    )  # fmt: skip
    with pytest.raises(ArtifactError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        Model(manifest.verify(tmp_path))


@pytest.mark.parametrize(
    ("datatype", "graph_type", "data"),
    [
        ("BOOL", TensorProto.BOOL, [True, False]),
        ("UINT8", TensorProto.UINT8, [0, 255]),
        ("UINT16", TensorProto.UINT16, [0, 2**16 - 1]),
        ("UINT32", TensorProto.UINT32, [0, 2**32 - 1]),
        ("UINT64", TensorProto.UINT64, [0, 2**64 - 1]),
        ("INT8", TensorProto.INT8, [-128, 127]),
        ("INT16", TensorProto.INT16, [-(2**15), 1]),
        ("INT32", TensorProto.INT32, [-(2**31), 1]),
        ("INT64", TensorProto.INT64, [-(2**63), 2**63 - 1]),
        ("BF16", TensorProto.BFLOAT16, [1.5, -2.0]),
        ("FP16", TensorProto.FLOAT16, [0.5, -65504.0]),
        ("FP32", TensorProto.FLOAT, [0.1, 3.4028235e38]),
        ("FP64", TensorProto.DOUBLE, [0.1, 1e300]),
        ("BYTES", TensorProto.STRING, ["", "naïve ☃"]),
    ],
)
def test_every_datatype_passes_through_the_engine(
    tmp_path: Path, datatype: str, graph_type: int, data: list[Any]
) -> None:
    model = Model(tiny.identity(tmp_path, datatype, graph_type))
    tensor = {"name": "x", "datatype": datatype, "shape": [2], "data": data}
    answer = json.loads(model.answer(json.dumps({"inputs": [tensor]}).encode()).body)
    assert answer["outputs"] == [tensor | {"name": "y"}]


def test_bytes_that_a_text_graph_cannot_take_are_the_clients_error(tmp_path: Path) -> None:
    artifact = tiny.identity(tmp_path, "BYTES", TensorProto.STRING)
    service = Service("identity", lambda: Model(artifact))
    service.load()
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "data": ["/w=="]}
    tensor["parameters"] = {"content_type": "base64"}
    assert problem(infer(service, json.dumps({"inputs": [tensor]}).encode()))["slug"] == "invalid-data"


def test_loading_says_which_execution_provider_runs_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        Model(tiny.doubler(tmp_path))
    assert "CPUExecutionProvider" in caplog.records[-1].__dict__["execution_providers"]


def test_public_arrays_can_be_run_without_json(tmp_path: Path) -> None:
    outputs = Model(tiny.doubler(tmp_path)).infer({"x": np.ones((3, 2), np.float32)}, ["y"])
    np.testing.assert_array_equal(outputs["y"], np.full((3, 2), 2, np.float32))
