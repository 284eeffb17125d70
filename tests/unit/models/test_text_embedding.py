"""text-embedding computes all-MiniLM-L6-v2, as its authors publish it."""

import json
import math
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from safetensors.numpy import load as read_safetensors

from inference_runtime.errors import Problem

TEXTS = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "",
    "Ærlig talt, så vet jeg ikke. 漢字かな交じり文 🙂",
    "A longer one: " + "the quick brown fox jumps over the lazy dog, again and again; " * 3,
    "word " * 600,
]


def encode(texts: list[str]) -> list[bytes]:
    return [text.encode() for text in texts]


class Reference:
    """The forward pass in float64 numpy, written from the BERT paper and the model's own configuration."""

    def __init__(self, wheels: Path) -> None:
        with zipfile.ZipFile(wheels / "all_minilm_l6_v2" / "model.zip") as archive:
            weights = read_safetensors(archive.read("model.safetensors"))
            self.config = json.loads(archive.read("config.json"))
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}

    def embed(self, ids: list[int]) -> np.ndarray:
        """One text without padding: token ids -> [384], unit length."""
        w, heads = self.weights, self.config["num_attention_heads"]
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = self.norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
        for index in range(self.config["num_hidden_layers"]):
            layer = f"encoder.layer.{index}"
            q, k, v = (
                np.stack(np.split(self.linear(f"{layer}.attention.self.{part}", x), heads, axis=-1))
                for part in ("query", "key", "value")
            )
            scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
            context = np.concatenate(scores / scores.sum(-1, keepdims=True) @ v, axis=-1)
            output = f"{layer}.attention.output"
            x = self.norm(f"{output}.LayerNorm", self.linear(f"{output}.dense", context) + x)
            inner = self.linear(f"{layer}.intermediate.dense", x)
            inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
            output = f"{layer}.output"
            x = self.norm(f"{output}.LayerNorm", self.linear(f"{output}.dense", inner) + x)
        mean = x.mean(axis=0)
        return mean / np.sqrt((mean**2).sum())

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


@pytest.fixture(scope="module")
def tokenize(artifacts, load_module):
    """Texts to the graph's feeds, by the artifact's own handler."""
    folder = artifacts / "text-embedding"
    handler = load_module(folder / "handler.py")
    tokenizer = handler.load(folder)
    return lambda texts: handler.preprocess({"text": np.array(encode(texts), np.object_)}, tokenizer)


def test_similarities_are_those_that_the_authors_publish(embed):
    # The quick start of sentence-transformers, for this model: https://sbert.net/docs/quickstart.html
    embeddings = embed(encode(TEXTS[:3]))

    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(embeddings @ embeddings.T, published, atol=6e-5)


def test_the_graph_computes_what_an_independent_implementation_does(embed, tokenize, wheels):
    reference = Reference(wheels)
    feeds = tokenize(TEXTS)
    rows = zip(feeds["input_ids"], feeds["attention_mask"], strict=True)

    expected = [reference.embed(ids[mask == 1].tolist()) for ids, mask in rows]

    np.testing.assert_allclose(embed(encode(TEXTS)), expected, atol=1e-5)


def test_the_graph_is_valid_and_takes_any_batch_and_length(artifacts):
    path = artifacts / "text-embedding" / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(path).graph

    def axes(value: onnx.ValueInfoProto) -> list[str | int]:
        return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]

    assert {value.name: axes(value) for value in [*graph.input, *graph.output]} == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "embedding": ["batch", 384],
    }


def test_the_fusions_of_onnx_runtime_happen_and_change_nothing(artifacts, tokenize, tmp_path):
    def run(level: ort.GraphOptimizationLevel) -> tuple[np.ndarray, set[str]]:
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        session = ort.InferenceSession(str(artifacts / "text-embedding" / "model.onnx"), options)
        nodes = onnx.load(options.optimized_model_filepath, load_external_data=False).graph.node
        return session.run(None, tokenize(TEXTS))[0], {node.op_type for node in nodes}

    plain, _ = run(ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    fused, operators = run(ort.GraphOptimizationLevel.ORT_ENABLE_ALL)

    np.testing.assert_allclose(fused, plain, atol=1e-5)
    assert {"SkipLayerNormalization", "BiasGelu"} <= operators


def test_meaning_decides_how_close_two_texts_are(embed):
    question, same, other = embed(
        [b"How do I reset my password?", b"How can I reset my password?", b"Glaciers retreat in summer."]
    )

    assert question @ same > 0.8
    assert question @ other < 0.3


def test_every_text_gets_a_vector_of_unit_length(embed):
    texts = [*TEXTS, " ", "\n\t", "\0", "é" * 5000, "漢" * 5000, "x" * 100_000, "e\u0301", "\U0010ffff"]

    embeddings = embed(encode(texts))

    assert embeddings.shape == (len(texts), 384)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_a_batch_is_answered_as_its_texts_one_by_one(embed):
    alone = np.concatenate([embed([text]) for text in encode(TEXTS)])

    np.testing.assert_allclose(embed(encode(TEXTS)), alone, atol=1e-6)


def test_a_text_counts_up_to_256_tokens(embed, tokenize):
    words = ["apple", "river", "stone", "music"] * 100
    long, cut, shorter = (" ".join(words[:count]) for count in (400, 254, 253))

    embeddings = embed(encode([long, cut, shorter]))

    assert tokenize([long])["input_ids"].shape == (1, 256)
    np.testing.assert_allclose(embeddings[0], embeddings[1], atol=1e-6)
    assert np.abs(embeddings[1] - embeddings[2]).max() > 1e-4


def test_a_text_counts_up_to_8192_characters_so_that_megabytes_cost_nothing(tokenize):
    spaces = " " * 8191

    assert (
        tokenize([spaces + "a" + "b" * 4_000_000])["input_ids"].tolist()
        == tokenize(["a"])["input_ids"].tolist()
    )


def test_tokens_are_those_of_lower_casing_wordpiece_padded_to_the_longest(tokenize):
    feeds = tokenize(["Hello, WORLD!", "embeddings", ""])

    assert feeds["input_ids"].tolist() == [
        [101, 7592, 1010, 2088, 999, 102],
        [101, 7861, 8270, 4667, 2015, 102],
        [101, 102, 0, 0, 0, 0],
    ]
    assert feeds["attention_mask"].sum(axis=1).tolist() == [6, 6, 2]


def test_threads_share_the_model(embed):
    expected = [embed([text]) for text in encode(TEXTS)]

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            np.testing.assert_allclose(
                list(pool.map(lambda text: embed([text]), encode(TEXTS))), expected, atol=1e-6
            )


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([b"fine", b"caf\xe9"], r"text\[1\] is not UTF-8: byte 3 is 0xe9"),
        ([b"x"] * 65, "65 texts; send at most 64"),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_the_reason(embed, texts, reason):
    with pytest.raises(Problem, match=reason) as refused:
        embed(texts)

    assert refused.value.slug == "invalid-data"
