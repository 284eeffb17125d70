"""Others' clients get right answers from the container's server, and from the platform over HTTPS."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from app import ROOT
from tests.integration.platform.conftest import Platform
from tests.unit.containers.process import serving
from tests.unit.runtime import tiny

pytestmark = pytest.mark.conformance

TYPES = {
    "BOOL": TensorProto.BOOL, "BYTES": TensorProto.STRING,
    "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32, "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8, "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32, "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
}  # fmt: skip


def encoded(*values: bytes) -> list[str]:
    return [base64.b64encode(value).decode() for value in values]


def asked(url: str, model: str, inputs: list[list[Any]], token: str = "", ca: str = "") -> dict[str, Any]:
    """What the clients got, by the way in which they asked."""
    settings = {"url": url, "model": model, "inputs": inputs, "token": token, "ca": ca}
    python = ROOT / "build" / "clients" / "bin" / "python"
    assert python.exists(), "run `make conformance`"
    script = Path(__file__).with_name("clients.py")
    run = subprocess.run([python, script, json.dumps(settings)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    results: dict[str, Any] = json.loads(run.stdout)
    clients = {way.partition(" ")[0] for way in results}
    # KServe's client has no BF16.
    assert clients == {"triton"} | ({"kserve"} if all(each[1] != "BF16" for each in inputs) else set())
    assert {results.pop(f"{client} refused") for client in clients} == {400}
    assert len(results) >= 18
    return results


# ONNX Runtime takes no text beside BF16.
@pytest.mark.parametrize("types", [TYPES.keys() - {"BF16"}, TYPES.keys() - {"BYTES"}], ids=["BYTES", "BF16"])
def test_every_datatype_survives_in_every_form(tmp_path: Path, types: set[str]) -> None:
    chosen = {datatype: type_ for datatype, type_ in TYPES.items() if datatype in types}
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"x_{datatype}"], [f"y_{datatype}"]) for datatype in chosen],
        "doubler",
        [helper.make_tensor_value_info(f"x_{datatype}", type_, [None]) for datatype, type_ in chosen.items()],
        [helper.make_tensor_value_info(f"y_{datatype}", type_, [None]) for datatype, type_ in chosen.items()],
    )
    artifact = tiny.artifact(
        tmp_path / "artifact",
        graph,
        [(f"x_{datatype}", datatype, (-1,)) for datatype in chosen],
        [(f"y_{datatype}", datatype, (-1,)) for datatype in chosen],
    )
    special: dict[str, list[Any]] = {"BOOL": [True, False], "BYTES": encoded("é".encode(), b"")}
    values = {datatype: special.get(datatype, [1, 2]) for datatype in chosen}
    inputs = [[f"x_{datatype}", datatype, [2], values[datatype]] for datatype in chosen]
    with serving(artifact.folder, artifact.manifest.sha256, tmp_path / "log") as server:
        server.wait_until_ready()
        results = asked(f"127.0.0.1:{server.port}", "doubler", inputs)
    expected = [[f"y_{datatype}", [2], values[datatype]] for datatype in chosen]
    assert {way: answer for way, answer in results.items() if answer != expected} == {}


@pytest.mark.parametrize(
    ("model", "field"), [("file-type", "content"), ("text-embedding", "text")], ids=["cpu", "gpu"]
)
def test_the_platform_answers_the_same_to_every_client_in_every_form(
    platform: Platform, model: str, field: str
) -> None:
    values = encoded(b"import os\n\nprint(os.getcwd())\n" * 20, b"<html><body>text</body></html>" * 20)
    url = platform.deployed.api_url.removeprefix("https://")
    results = asked(
        url, model, [[field, "BYTES", [2], values]], platform.token(), str(platform.home / "ca.pem")
    )
    plain = platform.infer(
        model,
        json.dumps(
            {
                "inputs": [
                    {
                        "name": field,
                        "datatype": "BYTES",
                        "shape": [2],
                        "data": values,
                        "parameters": {"content_type": "base64"},
                    }
                ]
            }
        ).encode(),
    ).json()
    for way, answer in results.items():
        assert [name for name, _, _ in answer] == [output["name"] for output in plain["outputs"]], way
        for (_, shape, got), output in zip(answer, plain["outputs"], strict=True):
            assert shape == output["shape"], way
            wanted = output["data"]
            if output["datatype"] == "BYTES":
                assert got == encoded(*(value.encode() for value in wanted)), way
            else:
                assert got == pytest.approx(wanted, rel=1e-6), way
