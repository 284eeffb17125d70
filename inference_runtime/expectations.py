"""Whether an answer is right, not only well-formed: a response held against a model's `expected.json`.

`models/<name>/expected.json` says what the answer to `sample.json`, beside it, must be, by rules per output:

    {"outputs": {"label": {"equals": ["python"]}, "embedding": {"shape": [3, 384], "unit_length": true}}}

    equals        the values, flat and in order, exactly
    close         {"to": [0.5, 1.5], "within": 0.01}: the numbers, in order, each at most so far off
    shape         the tensor's shape
    min, max      no value is below, or above
    unit_length   `true`: every vector along the last axis has L2 norm 1
    cosine        [{"rows": [0, 1], "min": 0.8}, ...]: the cosine of two rows is within min, max or both

The standard library alone: the command line and the probe hold answers against the same rules.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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
            tensor = Tensor.of(answered[name])
        except (KeyError, TypeError, ValueError) as error:
            failures.append(f"{name}: not a tensor: {error!r}")
            continue
        for rule, value in rules.items():
            failures += [f"{name}: {failure}" for failure in _RULES[rule](tensor, value)]
    return failures


@dataclass(frozen=True)
class Tensor:
    """An output's values, flat and in order: texts, or numbers as floats."""

    shape: list[int]
    values: list[Any]

    @classmethod
    def of(cls, output: Mapping[str, Any]) -> "Tensor":
        """Raises KeyError, TypeError or ValueError for what is no tensor."""
        texts = output["datatype"] == "BYTES"
        # null is how a number that JSON cannot write is answered.
        values = [
            value if texts else float("nan" if value is None else value) for value in flat(output["data"])
        ]
        shape = [int(size) for size in output["shape"]]
        if math.prod(shape) != len(values):
            raise ValueError(f"it has {len(values)} values for the shape {shape}")
        if not values:
            raise ValueError("it has no values, and would pass any comparison")
        return cls(shape, values)

    def rows(self, count: int) -> list[list[float]]:
        """The values in `count` parts of equal length."""
        length = len(self.values) // count
        return [self.values[start : start + length] for start in range(0, len(self.values), length)]


def flat(data: Any) -> Iterator[Any]:
    """The values of a tensor's data, which may come flat or nested, in order."""
    if isinstance(data, list):
        for item in data:
            yield from flat(item)
    else:
        yield data


def _equals(tensor: Tensor, value: list[Any]) -> Failures:
    found = tensor.values
    return [] if found == value else [f"is {_short(found)}, expected {_short(value)}"]


def _close(tensor: Tensor, value: dict[str, Any]) -> Failures:
    if value.keys() != {"to", "within"}:
        raise ValueError(f"close: {value} must have to and within, and nothing else")
    found, wanted, within = tensor.values, value["to"], value["within"]
    if len(found) != len(wanted):
        return [f"has {len(found)} values, expected {len(wanted)}"]
    # Written so that NaN fails, as below.
    far = [(one, other) for one, other in zip(found, wanted, strict=True) if not abs(one - other) <= within]
    return [f"has {far[0][0]}, expected {far[0][1]} within {within}"] if far else []


def _shape(tensor: Tensor, value: list[int]) -> Failures:
    return [] if tensor.shape == value else [f"has shape {tensor.shape}, expected {value}"]


# The comparisons below are written so that NaN fails them.
def _min(tensor: Tensor, value: float) -> Failures:
    low = [one for one in tensor.values if not one >= value]
    return [f"has {min(low)}, expected at least {value}"] if low else []


def _max(tensor: Tensor, value: float) -> Failures:
    high = [one for one in tensor.values if not one <= value]
    return [f"has {max(high)}, expected at most {value}"] if high else []


def _unit_length(tensor: Tensor, value: bool) -> Failures:
    if value is not True:
        raise ValueError("unit_length must be true, or left out")
    lengths = [_length(row) for row in tensor.rows(len(tensor.values) // tensor.shape[-1])]
    return [
        f"row {row} has length {length:.6f}, expected 1"
        for row, length in enumerate(lengths)
        if not abs(length - 1) <= UNIT_LENGTH_TOLERANCE
    ]


def _cosine(tensor: Tensor, value: list[dict[str, Any]]) -> Failures:
    failures = []
    rows = tensor.rows(tensor.shape[0])
    for pair in value:
        if "rows" not in pair or not pair.keys() - {"rows"} <= {"min", "max"} or len(pair) == 1:
            raise ValueError(f"cosine: {pair} must have rows, and min or max")
        (i, j), low, high = pair["rows"], pair.get("min", -math.inf), pair.get("max", math.inf)
        if not max(i, j) < len(rows):
            failures.append(f"has {len(rows)} rows, expected row {max(i, j)}")
            continue
        lengths = _length(rows[i]) * _length(rows[j])
        product = math.fsum(a * b for a, b in zip(rows[i], rows[j], strict=True))
        cosine = product / lengths if lengths else math.nan
        if not low <= cosine <= high:
            failures.append(f"rows {i} and {j} have cosine {cosine:.4f}, expected {low} to {high}")
    return failures


def _length(row: list[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in row))


def _short(values: list[Any]) -> str:
    text = str(values)
    return text if len(text) <= 120 else text[:117] + "..."


_RULES: dict[str, Callable[[Tensor, Any], Failures]] = {
    "equals": _equals,
    "close": _close,
    "shape": _shape,
    "min": _min,
    "max": _max,
    "unit_length": _unit_length,
    "cosine": _cosine,
}
