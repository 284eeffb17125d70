"""The models that are measured: their shapes are what takes time, their weights come from fixed seeds.

    mlp      16 -> 64 -> 64 -> 3: microseconds, so that the layer around the engine is all there is
    wide     256 -> 2048 -> 2048 -> 2048 -> 10, 36 MB: bound by memory alone, so that batching pays on a CPU
    encoder  a transformer of MiniLM's size (6 layers, 384 wide, 12 heads), 128 tokens
    convnet  ResNet-18 on 224 x 224 pixels, sent as bytes

The batch is the first axis of every input and output.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper

from inference_runtime.manifest import TensorSpec

OPSET, IR_VERSION = 20, 9


def made(name: str, folder: Path) -> Path:
    """The file of a model, made when it is not there."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(MODELS[name]())
    return path


def request(specs: Sequence[TensorSpec], axis: int) -> dict[str, NDArray[Any]]:
    """One row of random values for every input; a later axis that the client chooses gets the length `axis`.

    Raises:
        ValueError: an input is of BYTES, for which random values mean nothing.
    """
    random = np.random.default_rng(7)
    arrays: dict[str, NDArray[Any]] = {}
    for spec in specs:
        if spec.datatype == "BYTES":
            raise ValueError(f"input {spec.name!r} is of BYTES; only numbers are made up here")
        shape = [1, *(axis if length == -1 else length for length in spec.shape[1:])]
        if spec.datatype.startswith("FP"):
            # Few digits, as a client would send.
            arrays[spec.name] = (
                random.standard_normal(shape).round(4).astype(f"f{int(spec.datatype[2:]) // 8}")
            )
        elif spec.datatype == "BOOL":
            arrays[spec.name] = np.ones(shape, bool)
        else:
            arrays[spec.name] = random.integers(1, 100, shape).astype(spec.datatype.lower())
    return arrays


class _Graph:
    """An ONNX graph that grows node by node; a tensor is its name."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, *shape: int, fan_in: int) -> str:
        """He's initialization: values keep their size through the layers."""
        values = self._random.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5)
        return self.constant(values)

    def zeros(self, *shape: int) -> str:
        return self.constant(np.zeros(shape, np.float32))

    def ones(self, *shape: int) -> str:
        return self.constant(np.ones(shape, np.float32))

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """For any number of axes before the last."""
        return self.op(
            "Add", self.op("MatMul", x, self.weight(inputs, outputs, fan_in=inputs)), self.zeros(outputs)
        )

    def serialized(self, name: str, x: tuple[str, int, list[int]], y: str, width: int) -> bytes:
        self._nodes.append(helper.make_node("Identity", [y], ["y"]))
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(x[0], x[1], ["n", *x[2]])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
            self._constants,
        )
        model = helper.make_model(
            graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        checker.check_model(model)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def _perceptron(name: str, seed: int, *widths: int) -> bytes:
    graph, value = _Graph(seed), "x"
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        value = graph.op("Gemm", value, graph.weight(inputs, outputs, fan_in=inputs), graph.zeros(outputs))
        if layer < len(widths) - 2:
            value = graph.op("Relu", value)
    return graph.serialized(name, ("x", TensorProto.FLOAT, [widths[0]]), value, widths[-1])


def _encoder(
    layers: int = 6, width: int = 384, heads: int = 12, tokens: int = 128, vocabulary: int = 30522
) -> bytes:
    graph = _Graph(2)
    scale, shift = graph.ones(width), graph.zeros(width)

    def normalized(x: str) -> str:
        return graph.op("LayerNormalization", x, scale, shift, axis=-1)

    split = graph.constant(np.array([0, 0, heads, width // heads]))
    joined = graph.constant(np.array([0, 0, width]))
    root = graph.constant(np.array((width // heads) ** 0.5, np.float32))

    def attention(x: str) -> str:
        def part(*order: int) -> str:
            parts = graph.op("Reshape", graph.dense(x, width, width), split)
            return graph.op("Transpose", parts, perm=order)

        scores = graph.op("Div", graph.op("MatMul", part(0, 2, 1, 3), part(0, 2, 3, 1)), root)
        context = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), part(0, 2, 1, 3))
        together = graph.op("Reshape", graph.op("Transpose", context, perm=(0, 2, 1, 3)), joined)
        return graph.dense(together, width, width)

    words = graph.op("Gather", graph.weight(vocabulary, width, fan_in=2), "ids")
    hidden = normalized(graph.op("Add", words, graph.weight(1, tokens, width, fan_in=2)))
    for _ in range(layers):
        hidden = normalized(graph.op("Add", hidden, attention(hidden)))
        inner = graph.op("Gelu", graph.dense(hidden, width, 4 * width))
        hidden = normalized(graph.op("Add", hidden, graph.dense(inner, 4 * width, width)))
    pooled = graph.op("ReduceMean", hidden, graph.constant(np.array([1])), keepdims=0)
    return graph.serialized("encoder", ("ids", TensorProto.INT64, [tokens]), pooled, width)


def _convnet(classes: int = 1000) -> bytes:
    graph = _Graph(1)

    def convolution(x: str, inputs: int, outputs: int, size: int, stride: int) -> str:
        # Batch normalization is folded into the weights, as an export for inference has it.
        weight = graph.weight(outputs, inputs, size, size, fan_in=inputs * size * size)
        pads, strides = [size // 2] * 4, [stride, stride]
        return graph.op("Conv", x, weight, graph.zeros(outputs), pads=pads, strides=strides)

    def block(x: str, inputs: int, outputs: int, stride: int) -> str:
        branch = graph.op("Relu", convolution(x, inputs, outputs, 3, stride))
        branch = convolution(branch, outputs, outputs, 3, 1)
        # Halved, or the sum would grow from block to block.
        branch = graph.op("Mul", branch, graph.constant(np.array(0.5, np.float32)))
        past = x if inputs == outputs else convolution(x, inputs, outputs, 1, stride)
        return graph.op("Relu", graph.op("Add", branch, past))

    value = graph.op("Relu", convolution("x", 3, 64, 7, 2))
    value = graph.op("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = 64
    for outputs in (64, 128, 256, 512):
        value = block(value, inputs, outputs, 1 if outputs == 64 else 2)
        value = block(value, outputs, outputs, 1)
        inputs = outputs
    pooled = graph.op("Flatten", graph.op("GlobalAveragePool", value))
    value = graph.op("Gemm", pooled, graph.weight(512, classes, fan_in=512), graph.zeros(classes))
    return graph.serialized("convnet", ("x", TensorProto.FLOAT, [3, 224, 224]), value, classes)


MODELS: dict[str, Callable[[], bytes]] = {
    "mlp": lambda: _perceptron("mlp", 0, 16, 64, 64, 3),
    "wide": lambda: _perceptron("wide", 3, 256, 2048, 2048, 2048, 10),
    "encoder": _encoder,
    "convnet": _convnet,
}
