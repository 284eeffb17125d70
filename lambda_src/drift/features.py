"""What of a model's traffic is compared: features, made from tensors in the same way for the baseline and for
every window after it.

| Tensor, by the signature                    | Features                                                     |
|---|---|
| numbers, up to 64 a row                     | each column: `name`, or `name[3]`                            |
| numbers, up to 4096 a row (a vector)        | `name:distance` to the baseline's mean, `name:direction-1` … |
|                                             | along the directions in which the baseline varies most       |
| more, or of a length that varies            | `name:mean`, `name:deviation`, `name:size` of each row       |
| few different texts, booleans, few integers | `name`, as a category                                        |
| other texts, bytes                          | `name:length`                                                |

A row is an item of the batch where the signature has one, else a request. Of one request up to
ROWS_PER_REQUEST rows are taken: what comes together is often alike.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from captured import Array, Exchange
from numpy.typing import NDArray

from inference_runtime.manifest import Manifest, TensorSpec

Floats = NDArray[np.float64]

ROWS_PER_REQUEST = 16
COLUMNS = 64
LONGEST_VECTOR = 4096
DIRECTIONS = 5
TEACHERS = 1000
"""Vectors from which directions are learnt, at most: the time that takes grows with their square."""

CATEGORIES = 50
FEW_INTEGERS = 10
LONGEST_CATEGORY = 64

INPUT, OUTPUT = "input", "output"
NUMERIC, CATEGORY = "numeric", "category"


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing that is compared: `side` is input or output, `kind` numeric or category."""

    side: str
    name: str
    kind: str

    @property
    def key(self) -> str:
        return f"{self.side} {self.name}"


@dataclass
class Rows:
    """The rows of one tensor: `numbers` [n, width] where that is fixed, or a summary [n, 3] of each row;
    `texts` with None for what is too long to be a category, and `lengths`.
    """

    spec: TensorSpec
    side: str
    numbers: list[Floats] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)

    @property
    def matrix(self) -> Floats:
        return np.concatenate(self.numbers) if self.numbers else np.empty((0, 1))


@dataclass
class Vectors:
    """How vectors of one tensor become a few numbers: their mean, and orthogonal directions [k, width]."""

    center: Floats
    directions: Floats

    def __call__(self, matrix: Floats) -> dict[str, Floats]:
        centered = matrix - self.center
        found = {"distance": np.linalg.norm(centered, axis=1)}
        for number, values in enumerate((centered @ self.directions.T).T, 1):
            found[f"direction-{number}"] = values
        return found

    @classmethod
    def learn(cls, matrix: Floats) -> "Vectors":
        center = matrix.mean(axis=0)
        directions = np.linalg.svd(matrix - center, full_matrices=False)[2][:DIRECTIONS]
        return cls(center, directions)


def width(spec: TensorSpec) -> int | None:
    """Values of a row; None if that varies."""
    rest = spec.shape[1:] if _batched(spec) else spec.shape
    return None if -1 in rest else math.prod(rest)


def _batched(spec: TensorSpec) -> bool:
    return bool(spec.shape) and spec.shape[0] == -1


class Table:
    """The rows of many exchanges, tensor by tensor."""

    def __init__(self, manifest: Manifest, random: Random) -> None:
        self._random = random
        self.tensors = {
            (side, spec.name): Rows(spec, side)
            for side, specs in ((INPUT, manifest.inputs), (OUTPUT, manifest.outputs))
            for spec in specs
        }
        self.rows = 0

    def add(self, exchange: Exchange) -> None:
        most = 0
        for side, arrays in ((INPUT, exchange.inputs), (OUTPUT, exchange.outputs)):
            for name, array in arrays.items():
                most = max(most, self._add(self.tensors[side, name], array))
        self.rows += most

    def _add(self, rows: Rows, array: Array) -> int:
        spec = rows.spec
        items = array.reshape(len(array), -1) if _batched(spec) and len(array) else array.reshape(1, -1)
        if not items.size:
            return 0
        if len(items) > ROWS_PER_REQUEST:
            items = items[sorted(self._random.sample(range(len(items)), ROWS_PER_REQUEST))]
        if spec.datatype == "BYTES":
            for value in items.ravel():
                text = _text(value)
                rows.lengths.append(math.nan if text is None else float(len(text)))
                rows.texts.append(text if text is None or len(text) <= LONGEST_CATEGORY else None)
        else:
            numbers = items.astype(np.float64)
            numbers[~np.isfinite(numbers)] = math.nan
            fixed = width(spec)
            if fixed is None or fixed > LONGEST_VECTOR:
                size = np.full(len(numbers), numbers.shape[1], np.float64)
                numbers = np.column_stack([numbers.mean(axis=1), numbers.std(axis=1), size])
            rows.numbers.append(numbers)
        return len(items)


def _text(value: Any) -> str | None:
    """A text; None where there is none. What is no UTF-8 has a length all the same."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) and value else None


@dataclass
class Columns:
    """Values by feature: floats with NaN, or texts with None, where a value is missing."""

    values: dict[Feature, Floats | list[str | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)


class Plan:
    """Which features there are, and how vectors become some. Learnt from a baseline's rows, kept with it."""

    def __init__(self, kinds: dict[str, str], vectors: dict[str, Vectors]) -> None:
        self._kinds, self._vectors = kinds, vectors

    @classmethod
    def learn(cls, table: Table, categorical: Sequence[str]) -> tuple["Plan", Columns]:
        """The plan, and the baseline's own columns by it.

        Vectors lie closer to what was learnt from them than others do. So one half of the rows teaches, and
        only the other half is in the columns.
        """
        kinds, vectors = {}, {}
        for (side, name), rows in table.tensors.items():
            where = f"{side} {name}"
            if rows.numbers and _is_vector(rows.spec):
                whole = _complete(rows.matrix)
                if len(whole) >= 2:
                    vectors[where] = Vectors.learn(whole[::2][:TEACHERS])
            elif rows.numbers:
                for number, column in enumerate(rows.matrix.T):
                    feature = _column(rows.spec, number)
                    named = feature in categorical or name in categorical
                    if named or _is_category(rows.spec, column):
                        kinds[f"{side} {feature}"] = CATEGORY
            elif rows.texts:
                distinct = len(set(rows.texts))
                few = distinct <= min(CATEGORIES, len(rows.texts) / 5) and None not in rows.texts
                kinds[where] = CATEGORY if few or name in categorical else NUMERIC
        plan = cls(kinds, vectors)
        return plan, plan.columns(table, learning=True)

    def columns(self, table: Table, *, learning: bool = False) -> Columns:
        found = Columns()
        for (side, name), rows in table.tensors.items():
            where = f"{side} {name}"
            if rows.texts and self._kinds.get(where) == CATEGORY:
                found.values[Feature(side, name, CATEGORY)] = list(rows.texts)
            elif rows.lengths:
                found.values[Feature(side, f"{name}:length", NUMERIC)] = np.array(rows.lengths)
            elif rows.numbers and _is_vector(rows.spec):
                if where in self._vectors:
                    whole = _complete(rows.matrix)
                    derived = self._vectors[where](whole[1::2] if learning else whole)
                    for label, values in derived.items():
                        found.values[Feature(side, f"{name}:{label}", NUMERIC)] = values
            elif rows.numbers:
                for number, column in enumerate(rows.matrix.T):
                    label = _column(rows.spec, number)
                    if self._kinds.get(f"{side} {label}") == CATEGORY:
                        found.values[Feature(side, label, CATEGORY)] = [_category(each) for each in column]
                    else:
                        found.values[Feature(side, label, NUMERIC)] = column
        return found

    def to_json(self) -> dict[str, Any]:
        def short(values: Floats) -> Any:
            return values.astype(np.float32).tolist()

        vectors = {
            name: {"center": short(each.center), "directions": short(each.directions)}
            for name, each in self._vectors.items()
        }
        return {"kinds": self._kinds, "vectors": vectors}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Plan":
        vectors = {
            name: Vectors(np.array(each["center"]), np.array(each["directions"]))
            for name, each in document["vectors"].items()
        }
        return cls(document["kinds"], vectors)


def counted(values: Iterable[str | None]) -> Counter[str]:
    return Counter(value for value in values if value is not None)


def present(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def missing(values: Floats | list[str | None]) -> int:
    if isinstance(values, list):
        return sum(value is None for value in values)
    return int(np.isnan(values).sum())


def _is_vector(spec: TensorSpec) -> bool:
    count = width(spec)
    return count is not None and COLUMNS < count <= LONGEST_VECTOR


def _column(spec: TensorSpec, number: int) -> str:
    count = width(spec)
    if count is None or count > LONGEST_VECTOR:
        return f"{spec.name}:{('mean', 'deviation', 'size')[number]}"
    return spec.name if count == 1 else f"{spec.name}[{number}]"


def _is_category(spec: TensorSpec, column: Floats) -> bool:
    if spec.datatype == "BOOL":
        return True
    integers = spec.datatype.startswith(("INT", "UINT"))
    return integers and len(np.unique(column)) <= min(FEW_INTEGERS, len(column) / 10)


def _category(value: float) -> str | None:
    return None if math.isnan(value) else f"{value:g}"


def _complete(matrix: Floats) -> Floats:
    """The rows without NaN or infinity: a vector is compared as a whole."""
    return matrix[np.isfinite(matrix).all(axis=1)]
