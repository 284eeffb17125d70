"""The smallest artifacts that mean something: ONNX graphs of one node, and a request for them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from inference_runtime import manifest
from inference_runtime.manifest import Artifact, TensorSpec

#: The arguments of a TensorSpec.
Signature = tuple[str, str, tuple[int, ...]] | tuple[str, str, tuple[int, ...], float]

REQUEST: dict[str, Any] = {
    "id": "seven",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3.5, -4]}],
}
ANSWER: dict[str, Any] = {
    "model_name": "doubler",
    "model_version": "1",
    "id": "seven",
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [2.0, 4.0, 7.0, -8.0]}],
}


def doubler(folder: Path, *, handler: str | None = None, files: dict[str, bytes] | None = None) -> Artifact:
    """An artifact whose graph gives y = 2 x, both FP32 [-1, 2]."""
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "doubler",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        [two],
    )
    return artifact(folder, graph, [("x", "FP32", (-1, 2))], [("y", "FP32", (-1, 2))], handler, files)


def identity(folder: Path, datatype: str, graph_type: int, handler: str | None = None) -> Artifact:
    """An artifact whose graph gives y = x, both of `datatype` and shape [-1]."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", graph_type, [None])],
        [helper.make_tensor_value_info("y", graph_type, [None])],
    )
    return artifact(folder, graph, [("x", datatype, (-1,))], [("y", datatype, (-1,))], handler)


def artifact(
    folder: Path,
    graph: onnx.GraphProto,
    inputs: Sequence[Signature],
    outputs: Sequence[Signature],
    handler: str | None = None,
    files: dict[str, bytes] | None = None,
) -> Artifact:
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    if handler is not None:
        (folder / "handler.py").write_text(handler)
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    manifest.write(
        folder,
        name=graph.name,
        version="1",
        model="model.onnx",
        handler="handler.py" if handler is not None else None,
        inputs=[TensorSpec(*spec) for spec in inputs],
        outputs=[TensorSpec(*spec) for spec in outputs],
    )
    return manifest.verify(folder)


def body(**changes: Any) -> bytes:
    """REQUEST with members of its one input changed."""
    return json.dumps({"inputs": [REQUEST["inputs"][0] | changes]}).encode()
