"""Whether an answer is right, not only well-formed: a response held against a model's `expected.json`.

`models/<name>/expected.json` says what the answer to `sample.json`, beside it, must be, by rules per output:

    {"outputs": {"label": {"equals": ["python"]}, "embedding": {"shape": [3, 384], "unit_length": true}}}

    equals        the values, flat and in order, exactly
    shape         the tensor's shape
    min, max      no value is below, or above
    unit_length   `true`: every vector along the last axis has L2 norm 1
    cosine        [{"rows": [0, 1], "min": 0.8}, ...]: the cosine of two rows is within min, max or both
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Failures = list[str]

#: Float32 rounding over a few hundred terms stays far below, a missing normalization far above.
UNIT_LENGTH_TOLERANCE = 1e-3


def check(expected: Mapping[str, Any], response: Mapping[str, Any]) -> Failures:
    """Hold an Open Inference Protocol v2 response (JSON form) against what was expected of it.

    Returns:
        One sentence for each rule that fails, naming the output; empty if the answer is right.

    Raises:
        ValueError: `expected` has an unknown key or rule, or expects nothing: it would pass unnoticed.
    """
    if set(expected) != {"outputs"} or not all(expected["outputs"].values()) or not expected["outputs"]:
        raise ValueError(
            "expected.json must be {'outputs': {<name>: {<rule>: <value>}}}, with a rule or more each"
        )
    answered = {output.get("name"): output for output in response.get("outputs", [])}
    failures: Failures = []
    for name, rules in expected["outputs"].items():
        unknown = rules.keys() - _RULES.keys()
        if unknown:
            raise ValueError(f"{name}: unknown rule {', '.join(sorted(unknown))}; known: {', '.join(_RULES)}")
        if name not in answered:
            failures.append(f"{name}: not in the answer")
            continue
        try:
            array = _array(answered[name])
        except (KeyError, TypeError, ValueError) as error:
            failures.append(f"{name}: not a tensor: {error!r}")
            continue
        for rule, value in rules.items():
            failures += [f"{name}: {failure}" for failure in _RULES[rule](array, value)]
    return failures


def _array(output: Mapping[str, Any]) -> NDArray[Any]:
    # null is how a number that JSON cannot write is answered.
    dtype = np.object_ if output["datatype"] == "BYTES" else np.float64
    array = np.array(output["data"], dtype).reshape(tuple(output["shape"]))
    if array.size == 0:
        raise ValueError("it has no values, and would pass any comparison")
    return array


def _equals(array: NDArray[Any], value: list[Any]) -> Failures:
    found = array.reshape(-1).tolist()
    return [] if found == value else [f"is {_short(found)}, expected {_short(value)}"]


def _shape(array: NDArray[Any], value: list[int]) -> Failures:
    return [] if list(array.shape) == value else [f"has shape {list(array.shape)}, expected {value}"]


# The comparisons below are written so that NaN fails them.
def _min(array: NDArray[Any], value: float) -> Failures:
    return [] if (array >= value).all() else [f"has {array.min()}, expected at least {value}"]


def _max(array: NDArray[Any], value: float) -> Failures:
    return [] if (array <= value).all() else [f"has {array.max()}, expected at most {value}"]


def _unit_length(array: NDArray[Any], value: bool) -> Failures:
    if value is not True:
        raise ValueError("unit_length must be true, or left out")
    lengths = np.linalg.norm(array, axis=-1).reshape(-1)
    return [
        f"row {row} has length {length:.6f}, expected 1"
        for row, length in enumerate(lengths)
        if not abs(length - 1) <= UNIT_LENGTH_TOLERANCE
    ]


def _cosine(array: NDArray[Any], value: list[dict[str, Any]]) -> Failures:
    failures = []
    for pair in value:
        if "rows" not in pair or not pair.keys() - {"rows"} <= {"min", "max"} or len(pair) == 1:
            raise ValueError(f"cosine: {pair} must have rows, and min or max")
        (i, j), low, high = pair["rows"], pair.get("min", -np.inf), pair.get("max", np.inf)
        if not max(i, j) < len(array):
            failures.append(f"has {len(array)} rows, expected row {max(i, j)}")
            continue
        cosine = array[i] @ array[j] / (np.linalg.norm(array[i]) * np.linalg.norm(array[j]))
        if not low <= cosine <= high:
            failures.append(f"rows {i} and {j} have cosine {cosine:.4f}, expected {low} to {high}")
    return failures


def _short(values: list[Any]) -> str:
    text = str(values)
    return text if len(text) <= 120 else text[:117] + "..."


_RULES: dict[str, Callable[[NDArray[Any], Any], Failures]] = {
    "equals": _equals,
    "shape": _shape,
    "min": _min,
    "max": _max,
    "unit_length": _unit_length,
    "cosine": _cosine,
}
