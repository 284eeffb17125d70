"""What a file is, from its bytes: Magika's feature extraction and decision rules around its network.

Public input: `content` BYTES [n], whole files.
Public outputs: `label` BYTES [n], Magika's name of the content type, such as `python`; `mime_type` BYTES [n];
`score` FP32 [n], the network's confidence in [0, 1].
Graph input: `bytes` INT32 [n, beg_size + end_size].
Graph output: `target_label` FP32 [n, classes], probabilities.

The method is Google's Magika (Apache-2.0, https://github.com/google/magika, paper arXiv:2409.13768), in its
default high-confidence mode; every number comes from the configuration that ships with the network. The
answers are those of the `magika` package, which the tests run beside this code.

A score is good to two digits: the network takes variances by cancellation in float32, and ONNX Runtime sums
in another order for one file than for several.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

# The network needs about 3 MB of memory for each file of a batch; this keeps a request below half a gigabyte.
MAX_FILES = 128

_EMPTY, _TEXT, _UNKNOWN = b"empty", b"txt", b"unknown"


@dataclass(frozen=True)
class State:
    """Magika's configuration; the arrays are indexed by the network's class.

    A class whose probability reaches `thresholds` is answered as `confident`, any other as `fallback`: the
    generic label for text or for binary data, as the network is rarely wrong about which of the two it saw.
    """

    head_size: int
    tail_size: int
    block_size: int
    min_size: int
    padding: int
    thresholds: NDArray[np.float64]
    confident: NDArray[np.object_]
    fallback: NDArray[np.object_]
    mime_types: dict[bytes, bytes]


def load(folder: Path) -> State:
    """Read the artifact's two tables.

    Raises:
        ValueError: the network wants features that only other generations of Magika have.
    """
    config = json.loads((folder / "config.min.json").read_bytes())
    types = json.loads((folder / "content_types_kb.min.json").read_bytes())
    if config["mid_size"] or config["use_inputs_at_offsets"]:
        raise ValueError(
            "config.min.json: mid_size and use_inputs_at_offsets must be off, as in standard_v3_3"
        )

    classes = config["target_labels_space"]
    answers = [config["overwrite_map"].get(name, name) for name in classes]
    default = config["medium_confidence_threshold"]
    return State(
        head_size=config["beg_size"],
        tail_size=config["end_size"],
        block_size=config["block_size"],
        min_size=config["min_file_size_for_dl"],
        padding=config["padding_token"],
        thresholds=np.array([config["thresholds"].get(name, default) for name in classes], np.float64),
        confident=np.array([name.encode() for name in answers], np.object_),
        fallback=np.array([_TEXT if types[name]["is_text"] else _UNKNOWN for name in answers], np.object_),
        mime_types={name.encode(): _mime_type(entry) for name, entry in types.items()},
    )


def preprocess(inputs: Arrays, state: State) -> Arrays:
    """Both ends of each file: `head_size` bytes aligned left, then `tail_size` bytes aligned right.

    They are cut from the first and the last `block_size` bytes, less leading whitespace in the one and
    trailing whitespace in the other. In a small file the two overlap.

    Raises:
        ValueError: there are more than MAX_FILES files.
    """
    contents = inputs["content"]
    if len(contents) > MAX_FILES:
        raise ValueError(f"content holds {len(contents)} files; send at most {MAX_FILES} in one request")
    features = np.full((len(contents), state.head_size + state.tail_size), state.padding, np.int32)
    for row, content in zip(features, contents, strict=True):
        head = content[: state.block_size].lstrip()[: state.head_size]
        tail = content[-state.block_size :].rstrip()[-state.tail_size :]
        row[: len(head)] = np.frombuffer(head, np.uint8)
        row[row.size - len(tail) :] = np.frombuffer(tail, np.uint8)
    return {"bytes": features}


def postprocess(outputs: Arrays, inputs: Arrays, state: State) -> Arrays:
    """The network's answer where it is sure of it; a plain rule where there were too few bytes to ask it."""
    probabilities = outputs["target_label"]
    best = probabilities.argmax(axis=1)
    score = probabilities.max(axis=1)
    label = np.where(score >= state.thresholds[best], state.confident[best], state.fallback[best])
    for row, content in enumerate(inputs["content"]):
        block = content[: state.block_size]
        if len(block.lstrip()) < state.min_size:
            label[row], score[row] = _label_of_few(block), 1.0
    mime_type = np.array([state.mime_types[name] for name in label], np.object_)
    return {"label": label, "mime_type": mime_type, "score": score}


def _label_of_few(block: bytes) -> bytes:
    if not block:
        return _EMPTY
    try:
        block.decode()
    except UnicodeDecodeError:
        return _UNKNOWN
    return _TEXT


def _mime_type(entry: dict[str, Any]) -> bytes:
    generic = "text/plain" if entry["is_text"] else "application/octet-stream"
    return (entry["mime_type"] or generic).encode()
