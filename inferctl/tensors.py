"""Requests from what people have at hand, and answers as people read them (Open Inference Protocol v2)."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from inferctl.errors import InputError
from inference_runtime.expectations import flat

Json = dict[str, Any]


def parse(text: str | bytes, source: str) -> Json:
    """A request that is already JSON; `source` is what an error calls it. Raises InputError."""
    try:
        request = json.loads(text)
    except ValueError as error:
        raise InputError(f"{source} is not JSON: {error}.") from error
    if not isinstance(request, dict) or "inputs" not in request:
        raise InputError(f'{source} is not a request: expected {{"inputs": [...]}}.')
    return request


def request(metadata: Mapping[str, Any], values: Sequence[str | bytes]) -> Json:
    """A request with one item per value, for a model whose only input is a BYTES tensor.

    Text is sent as text, bytes as base64 (`"parameters": {"content_type": "base64"}`, MLServer's convention).
    Raises InputError for a model that takes something else, saying what.
    """
    name, inputs = metadata["name"], metadata["inputs"]
    if len(inputs) != 1 or inputs[0]["datatype"] != "BYTES":
        raise InputError(
            f"{name} takes {_signature(inputs)}, and not one BYTES tensor: send a JSON request instead."
        )
    batch, *inner = inputs[0]["shape"]
    if batch not in (-1, len(values)) or any(size not in (-1, 1) for size in inner):
        raise InputError(f"{name} takes {_signature(inputs)}, which {len(values)} value(s) do not fit.")
    tensor: Json = {"name": inputs[0]["name"], "datatype": "BYTES", "shape": [len(values), *[1] * len(inner)]}
    if any(isinstance(value, bytes) for value in values):
        tensor["parameters"] = {"content_type": "base64"}
        tensor["data"] = [base64.b64encode(v.encode() if isinstance(v, str) else v).decode() for v in values]
    else:
        tensor["data"] = list(values)
    return {"inputs": [tensor]}


def rows(response: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """An answer as a table: a column per output, a row per item of the batch, long vectors shortened."""
    outputs = response["outputs"]
    columns = [[_cell(item) for item in _items(output)] for output in outputs]
    length = max((len(column) for column in columns), default=0)
    filled = [column + [""] * (length - len(column)) for column in columns]
    return [output["name"] for output in outputs], [list(row) for row in zip(*filled, strict=True)]


def summary(response: Mapping[str, Any]) -> str:
    """An answer in one line: `label: python, png; score: 0.9996, 0.9812`."""
    parts = []
    for output in response["outputs"]:
        items = [_cell(item, longest=2) for item in _items(output)]
        more = [f"… {len(items)} in all"] if len(items) > 3 else []
        parts.append(f"{output['name']}: {', '.join(items[:3] + more)}")
    return "; ".join(parts)


def _items(output: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The flat values of each item of the batch; data may come flat or nested."""
    shape, values = output["shape"], list(flat(output["data"]))
    count = shape[0] if shape else 1
    size = len(values) // count if count else 0
    for i in range(count):
        yield values[i * size : (i + 1) * size]


def _cell(values: list[Any], longest: int = 4) -> str:
    shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    if len(shown) == 1:
        return shown[0]
    return (
        "["
        + ", ".join(shown if len(shown) <= longest else [*shown[:longest], f"… {len(shown)} values"])
        + "]"
    )


def _signature(inputs: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{each['name']} {each['datatype']} {each['shape']}" for each in inputs)
