"""`inferctl serve` and `bench`: any ONNX file behind the container's server, and how fast it answers."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from inferctl import load
from inferctl.cli import cli
from tests.unit.inferctl.fake_api import Api
from tests.unit.runtime import tiny


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="inferctl")


@pytest.fixture(scope="module")
def doubler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare ONNX file: y = 2 x, both FP32 [-1, 2]; its constant is in a file beside it."""
    folder = tmp_path_factory.mktemp("bare")
    made = tiny.doubler(folder / "made")
    graph = onnx.load(made.folder / "model.onnx")
    # Only raw bytes are moved out of the graph.
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([2], np.float32), "two"))
    path = folder / "Doubler v2.onnx"
    onnx.save(graph, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (folder / "weights.bin").exists()
    return path


@pytest.fixture(scope="module")
def served(doubler: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`inferctl serve`, and what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "inferctl", "--json", "serve", str(doubler), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_bare_file_is_served_with_the_graphs_own_signature(
    served: tuple[subprocess.Popen[str], dict[str, Any]],
) -> None:
    _, printed = served
    assert printed["model"] == "doubler-v2"
    assert printed["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    answer = httpx.post(f"{printed['url']}/v2/models/doubler-v2/infer", json=tiny.REQUEST, trust_env=False)
    assert answer.json()["outputs"] == tiny.ANSWER["outputs"]


@pytest.mark.parametrize("client", ["what is installed", "asyncio"])
def test_a_server_is_measured(
    served: tuple[subprocess.Popen[str], dict[str, Any]], client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if client == "asyncio":
        monkeypatch.setattr(load.shutil, "which", lambda name: None)
    result = run("--json", "bench", served[1]["url"], "-c", "4", "--seconds", "1")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert client != "asyncio" or document["client"] == "asyncio"
    assert [each["connections"] for each in document["results"]] == [4]
    for each in document["results"]:
        assert each["requests"] > 0
        assert each["failed"] == 0
        assert 0 < each["p50"] <= each["p90"] <= each["p99"] <= each["max"]


def test_sigterm_stops_the_server_too(served: tuple[subprocess.Popen[str], dict[str, Any]]) -> None:
    process, printed = served
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(printed["url"], trust_env=False)


def test_a_file_is_served_while_it_is_measured(doubler: Path) -> None:
    result = run("bench", str(doubler), "-c", "2", "--seconds", "1")
    assert result.exit_code == 0, result.output
    assert "/v2/models/doubler-v2/infer" in result.stdout


def test_requests_that_are_not_answered_well_are_counted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load.shutil, "which", lambda name: None)
    problem = {"type": "about:blank", "title": "Failed", "status": 500, "detail": "no"}
    api.answers["/dev/v2/models/file-type/infer"] = [(500, problem, {})]
    url = f"{api.url}/dev/v2/models/file-type/infer"
    result = load.measure(load.Request(url, {"authorization": "Bearer token"}, b"{}"), 1, 0.2)
    assert result.failed >= 1
    assert result.per_second == pytest.approx((result.requests - result.failed) / result.seconds)
    assert {request.headers["authorization"] for request in api.requests} == {"Bearer token"}


def test_where_nothing_answers_there_is_nothing_to_measure() -> None:
    result = run("bench", "http://127.0.0.1:9")
    assert result.exit_code == 3
    assert "http://127.0.0.1:9" in result.stderr


@pytest.mark.parametrize("command", ["serve", "bench"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, command: str) -> None:
    (tmp_path / "model.onnx").write_text("not a model")
    result = run(command, str(tmp_path / "model.onnx"))
    assert result.exit_code == 2
    assert "is not an ONNX file" in result.stderr


def test_a_folder_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    result = run("serve", str(tmp_path))
    assert result.exit_code == 2
    assert "manifest.json: missing" in result.stderr


def test_an_output_that_the_protocol_cannot_carry_is_refused_by_name(tmp_path: Path) -> None:
    value = helper.make_tensor_sequence_value_info("rows", TensorProto.FLOAT, None)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("SequenceConstruct", ["x"], ["rows"])], "g", [x], [value])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "m.onnx")
    result = run("serve", str(tmp_path / "m.onnx"))
    assert result.exit_code == 2
    assert "'rows' is no tensor" in result.stderr


def test_a_port_that_is_taken_is_refused(doubler: Path, api: Api) -> None:
    port = api.url.rpartition(":")[2]
    result = run("serve", str(doubler), "--port", port)
    assert result.exit_code == 2
    assert f"The port {port} cannot be had" in result.stderr


def test_a_gpu_is_asked_for_only_where_onnx_runtime_has_cuda(doubler: Path) -> None:
    result = run("serve", str(doubler), "--device", "cuda")
    assert result.exit_code == 2
    assert "requirements-cuda.txt" in result.stderr


def test_what_is_neither_file_nor_url_nor_model_is_refused() -> None:
    result = run("bench", "nothing-like-it")
    assert result.exit_code == 2
    assert "no model of the catalog" in result.stderr
