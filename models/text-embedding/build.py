"""The `text-embedding` artifact: all-MiniLM-L6-v2 as one ONNX graph, from token ids to unit-length vectors.

The weights are the published safetensors, Apache-2.0:
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2. The graph around them is BERT (Devlin et al.,
arXiv:1810.04805) as config.json sizes it, then the mean over the tokens of a text and a division by the L2
norm, as modules.json says. It is written down here, node by node, because an exporter would need torch.

Graph inputs: `input_ids` INT64 [batch, sequence]; `attention_mask` INT64 [batch, sequence], 1 for a token and
0 for padding, at least one 1 in each row. Graph output: `embedding` FP32 [batch, 384].
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper
from safetensors.numpy import load as read_safetensors

from inference_runtime.manifest import TensorSpec

INPUTS = (TensorSpec("text", "BYTES", (-1,)),)
OUTPUTS = (TensorSpec("embedding", "FP32", (-1, 384)),)

_ZIP = "all_minilm_l6_v2/model.zip"
WEIGHTS = {
    f"{_ZIP}/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    f"{_ZIP}/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    f"{_ZIP}/sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    f"{_ZIP}/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

# Opset 20 is the first with GELU as one operator, which ONNX Runtime fuses with its bias; it needs IR 9.
OPSET, IR_VERSION = 20, 9
# Added to the attention scores of padding, whose weight after the softmax is then exactly zero in float32.
MASKED = -10000.0

Array = NDArray[Any]


def build(weights: Mapping[str, bytes]) -> dict[str, bytes]:
    """Build the graph; the tokenizer and its maximal length go along as they are."""
    files = {path.removeprefix(f"{_ZIP}/"): content for path, content in weights.items()}
    graph = _Graph(read_safetensors(files["model.safetensors"]), json.loads(files["config.json"]))
    return {
        "model.onnx": graph.model(),
        "tokenizer.json": files["tokenizer.json"],
        "sentence_bert_config.json": files["sentence_bert_config.json"],
    }


class _Graph:
    """An ONNX graph that grows node by node. A tensor is its name; a node has the name of its one output.

    Layers and weights are named as in the safetensors. Hidden states are FP32 [batch, sequence, hidden].
    """

    def __init__(self, weights: Mapping[str, Array], config: Mapping[str, Any]) -> None:
        self._weights = weights
        self._hidden: int = config["hidden_size"]
        self._heads: int = config["num_attention_heads"]
        self._layers: int = config["num_hidden_layers"]
        self._epsilon: float = config["layer_norm_eps"]
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def model(self) -> bytes:
        """The whole network, serialized. The same weights give the same bytes."""
        ids, tokens = "input_ids", "attention_mask"
        real = self._op("Cast", "mask", tokens, to=TensorProto.FLOAT)
        padding = self._mask(real)
        hidden = self._embeddings(ids)
        for index in range(self._layers):
            hidden = self._layer(f"encoder.layer.{index}", hidden, padding)
        embedding = self._sentence("embedding", hidden, real)

        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self._nodes,
            "all-MiniLM-L6-v2",
            [value(name, TensorProto.INT64, ["batch", "sequence"]) for name in (ids, tokens)],
            [value(embedding, TensorProto.FLOAT, ["batch", self._hidden])],
            list(self._constants.values()),
            # Shape inference loses the sequence axis at the sliced position table. With it, ONNX Runtime can
            # prove that a residual and its branch have one shape, and fuses their sum into the normalization.
            value_info=[value("embeddings", TensorProto.FLOAT, ["batch", "sequence", self._hidden])],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _mask(self, real: str) -> str:
        """0 for a token and MASKED for padding, ready to add to scores. -> [batch, 1, 1, sequence]"""
        padding = self._op("Sub", "mask.padding", self._number("mask.one", 1.0), real)
        score = self._op("Mul", "mask.score", padding, self._number("mask.masked", MASKED))
        return self._op("Unsqueeze", "mask.scores", score, self._integers("mask.axes", 1, 2))

    def _embeddings(self, ids: str) -> str:
        """Word, position and token type, summed and normalized. A text by itself is all of token type 0."""
        words = self._op("Gather", "embeddings.words", self._weight("embeddings.word_embeddings.weight"), ids)
        length = self._op("Shape", "embeddings.length", ids, start=1, end=2)
        table = self._weight("embeddings.position_embeddings.weight")
        positions = self._op(
            "Slice", "embeddings.positions", table, self._integers("embeddings.start", 0), length
        )
        token_type = self._constant(
            "embeddings.token_type", self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        placed = self._op("Add", "embeddings.placed", words, positions)
        return self._normalized("embeddings.LayerNorm", self._op("Add", "embeddings", placed, token_type))

    def _layer(self, name: str, hidden: str, padding: str) -> str:
        attention = self._dense(f"{name}.attention.output.dense", self._attention(name, hidden, padding))
        hidden = self._joined(f"{name}.attention.output", attention, hidden)
        inner = self._op("Gelu", f"{name}.gelu", self._dense(f"{name}.intermediate.dense", hidden))
        return self._joined(f"{name}.output", self._dense(f"{name}.output.dense", inner), hidden)

    def _attention(self, layer: str, hidden: str, padding: str) -> str:
        """Multi-head self-attention, before its output projection."""
        name = f"{layer}.attention.self"
        size = self._hidden // self._heads
        split = self._integers("attention.split", 0, 0, self._heads, size)
        joined = self._integers("attention.joined", 0, 0, self._hidden)

        def heads(part: str, *order: int) -> str:
            parts = self._op("Reshape", f"{name}.{part}.split", self._dense(f"{name}.{part}", hidden), split)
            return self._op("Transpose", f"{name}.{part}.heads", parts, perm=order)

        query, key = heads("query", 0, 2, 1, 3), heads("key", 0, 2, 3, 1)
        scores = self._op("MatMul", f"{name}.scores", query, key)
        scaled = self._op("Div", f"{name}.scaled", scores, self._number("attention.scale", size**0.5))
        weights = self._op(
            "Softmax", f"{name}.weights", self._op("Add", f"{name}.masked", scaled, padding), axis=-1
        )
        context = self._op("MatMul", f"{name}.context", weights, heads("value", 0, 2, 1, 3))
        return self._op(
            "Reshape", name, self._op("Transpose", f"{name}.tokens", context, perm=(0, 2, 1, 3)), joined
        )

    def _sentence(self, name: str, hidden: str, real: str) -> str:
        """The mean over a text's tokens, at unit length. -> [batch, hidden]"""
        weights = self._op("Unsqueeze", f"{name}.weights", real, self._integers(f"{name}.axis", 2))
        weighted = self._op("Mul", f"{name}.weighted", hidden, weights)
        axis = self._integers(f"{name}.tokens", 1)
        # The sum has the mean's direction, and its length goes in the next step.
        total = self._op("ReduceSum", f"{name}.total", weighted, axis, keepdims=0)
        return self._op("Div", name, total, self._op("ReduceL2", f"{name}.length", total, axis, keepdims=1))

    def _joined(self, name: str, branch: str, hidden: str) -> str:
        return self._normalized(f"{name}.LayerNorm", self._op("Add", f"{name}.residual", branch, hidden))

    def _normalized(self, name: str, hidden: str) -> str:
        scale, shift = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._op("LayerNormalization", name, hidden, scale, shift, axis=-1, epsilon=self._epsilon)

    def _dense(self, name: str, hidden: str) -> str:
        # Safetensors hold torch's [out, in].
        weight = self._constant(f"{name}.weight", self._weights[f"{name}.weight"].T)
        product = self._op("MatMul", f"{name}.product", hidden, weight)
        return self._op("Add", name, product, self._weight(f"{name}.bias"))

    def _op(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _number(self, name: str, value: float) -> str:
        return self._constant(name, np.array(value, np.float32))

    def _integers(self, name: str, *values: int) -> str:
        return self._constant(name, np.array(values, np.int64))

    def _constant(self, name: str, value: Array) -> str:
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name
