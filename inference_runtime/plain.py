"""Requests that are no documents: a tensor by itself (`npy`, raw bytes), and rows of CSV.

A tensor by itself is for models with one input. Rows of CSV are the items of a batch, or, where the model has
no batch, a request each; their columns are the inputs' values in the order of the signature.
"""

import ast
import csv
import io
import math
import re
import struct
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import orjson

from inference_runtime import tensors
from inference_runtime.errors import Problem, shown
from inference_runtime.manifest import TensorSpec
from inference_runtime.tensors import Array, Buffer, Reader

#: An array of dozens of dimensions has no longer one.
_NPY_HEADER_BYTES = 1024
_NPY_DTYPE = re.compile(r"[<>|=]?[?biufSU]\d{0,8}", re.ASCII)
_FINITE = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[-+]?\d{1,20}", re.ASCII)
_SPECIAL = {"": math.nan, "nan": math.nan, "inf": math.inf, "+inf": math.inf, "-inf": -math.inf}
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def read_npy(reader: Reader, body: Buffer) -> Array:
    """The array of an `.npy` file. Nothing is ever unpickled.

    Raises:
        Problem: invalid-data, invalid-datatype or invalid-shape, naming the input.
    """
    try:
        dtype, by_column, shape, start = _npy_header(body)
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError, struct.error):
        raise reader.refused("the body is not an npy file with an array of numbers or text") from None
    text = reader.spec.datatype == "BYTES" and dtype.kind in "SU" and dtype.itemsize
    if not (text or dtype.newbyteorder("=") == reader.dtype):
        raise reader.refused(
            f"the npy file has the dtype {dtype.str!r}; the model takes {reader.spec.datatype}",
            "invalid-datatype",
        )
    reader.check_shape(shape)
    data = memoryview(body)[start:]
    if len(data) != prod(shape) * dtype.itemsize:
        raise reader.refused(f"the npy file has {len(data)} bytes of data, too many or too few for its shape")
    array: Array = np.frombuffer(data, dtype)
    if text:
        array = np.array(
            [value.encode() if dtype.kind == "U" else bytes(value) for value in array], np.object_
        )
    else:
        array = reader.view(
            tensors.tobytes(array.astype(reader.dtype, copy=False), reader.spec.datatype), array.size
        )
    return np.asarray(array.reshape(shape, order="F" if by_column else "C"), order="C")


def _npy_header(body: Buffer) -> tuple[np.dtype[Any], bool, list[int], int]:
    """The header's dtype, whether the order is Fortran's, the shape, and where the data begin.

    numpy's own reader also takes what Python 2 wrote, objects and structures: more than a stranger is given.
    https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    magic, version = bytes(body[:6]), bytes(body[6:7])
    start = {b"\1": 10, b"\2": 12, b"\3": 12}[version]
    (length,) = struct.unpack_from("<H" if start == 10 else "<I", body, 8)
    if magic != b"\x93NUMPY" or length > _NPY_HEADER_BYTES:
        raise ValueError
    header = ast.literal_eval(str(body[start : start + length], "utf-8"))
    shape = list(header["shape"])
    if not _NPY_DTYPE.fullmatch(header["descr"]):
        raise ValueError
    return np.dtype(header["descr"]), header["fortran_order"] is True, shape, start + length


def write_npy(array: Array) -> bytes:
    """An `.npy` file of version 1.0. BF16, which numpy does not have, are float32 in it."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def read_raw(reader: Reader, body: Buffer) -> Array:
    """The tensor whose bytes are the body, in the shape that the signature leaves; of BYTES, one value."""
    spec = reader.spec
    if spec.datatype == "BYTES":
        values: list[Any] = [bytes(body)]
        shape: list[int] | None = [1] * len(spec.shape)
        if not tensors.fits([1] * len(spec.shape), spec):
            raise reader.refused(f"a raw body is one value; the model takes the shape {list(spec.shape)}")
        array: Array = np.empty(1, np.object_)
        array[:] = values
        return array.reshape(shape)
    itemsize = tensors.wire(spec.datatype).itemsize
    shape = tensors.sized(spec, len(body) // itemsize)
    if shape is None or len(body) % itemsize:
        raise reader.refused(
            f"{len(body)} bytes of {spec.datatype} do not fill one shape that fits {list(spec.shape)}; "
            "use a form that has the shape in it",
            "invalid-shape",
        )
    return reader.view(body, len(body) // itemsize).reshape(shape)


class Table:
    """The rows of one model's CSV."""

    def __init__(self, inputs: Sequence[Reader], outputs: Sequence[TensorSpec]) -> None:
        self._inputs, self._outputs = inputs, outputs
        #: Whether all rows are one request.
        self.batched = all(reader.spec.shape[:1] == (-1,) for reader in inputs)
        self._shapes = [reader.spec.shape[self.batched :] for reader in inputs]

    def read(self, body: Buffer) -> list[dict[str, Array]]:
        """The inputs of each request that the rows are.

        Raises:
            Problem: naming the line, and the input.
        """
        if any(-1 in shape for shape in self._shapes):
            raise Problem(
                "unsupported-media-type",
                "The model takes tensors of free lengths, which CSV cannot tell; use application/jsonlines",
            )
        widths = [prod(shape) for shape in self._shapes]
        rows = self._rows(body, sum(widths))
        columns: list[dict[str, list[Array]]] = []
        for line, row in rows:
            position, of_row = 0, {}
            for reader, width in zip(self._inputs, widths, strict=True):
                try:
                    of_row[reader.spec.name] = [_cells(reader, row[position : position + width])]
                except Problem as problem:
                    raise located(line, problem) from None
                position += width
            columns.append(of_row)
        if not self.batched:
            return [
                {
                    reader.spec.name: row[reader.spec.name][0].reshape(shape)
                    for reader, shape in zip(self._inputs, self._shapes, strict=True)
                }
                for row in columns
            ]
        return [
            {
                reader.spec.name: np.concatenate([row[reader.spec.name][0] for row in columns]).reshape(
                    len(columns), *shape
                )
                for reader, shape in zip(self._inputs, self._shapes, strict=True)
            }
        ]

    def write(self, answers: Sequence[dict[str, Array]], names: Sequence[str]) -> bytes:
        """A line for each row: the outputs' values in order."""
        datatypes = {spec.name: spec.datatype for spec in self._outputs}
        lines: list[str] = []
        for arrays in answers:
            count = len(next(iter(arrays.values()))) if self.batched else 1
            columns = []
            for name in names:
                array = arrays[name]
                if self.batched and array.shape[:1] != (count,):
                    raise Problem(
                        "unsupported-media-type",
                        f"output {name!r} has not a value for each row; send Accept: application/json",
                    )
                columns.append(_written(array.reshape(count, -1), datatypes[name]))
            lines += (",".join(parts) for parts in zip(*columns, strict=True))
        return "".join(f"{line}\n" for line in lines).encode()

    def _rows(self, body: Buffer, width: int) -> list[tuple[int, list[str]]]:
        """Each row and the line that it ends on."""
        try:
            text = str(body, "utf-8")
        except UnicodeDecodeError as error:
            raise Problem("invalid-data", f"The body is not UTF-8: {error}") from None
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = []
        try:
            for row in reader:
                if len(row) != width:
                    raise Problem(
                        "invalid-data",
                        f"line {reader.line_num}: it has {len(row)} columns; the inputs have {width}",
                    )
                rows.append((reader.line_num, row))
        except csv.Error as error:
            raise Problem("invalid-data", f"line {reader.line_num}: {error}") from None
        if not rows:
            raise Problem("invalid-data", "The body has no rows")
        return rows


def located(line: int, problem: Problem) -> Problem:
    """The problem, said of a line of the body."""
    return Problem(problem.slug, f"line {line}: {problem.detail}", problem.headers)


def _cells(reader: Reader, cells: list[str]) -> Array:
    datatype = reader.spec.datatype
    if datatype == "BYTES":
        return reader.values(cells)
    parse: Callable[[str], Any] = _boolean if datatype == "BOOL" else _integer
    if reader.dtype.kind == "f":
        parse = _float
    values = []
    for index, cell in enumerate(cells):
        try:
            values.append(parse(cell.strip()))
        except (ValueError, KeyError):
            raise reader.refused(f"value {index} is {shown(cell)}; it must be {datatype}") from None
    if reader.dtype.kind != "f":
        return reader.values(values)
    # NaN and infinity are values here; only what overflows is refused.
    finite = [value if math.isfinite(value) else 0.0 for value in values]
    array = reader.values(finite)
    if finite != values:
        array = array.copy()
        special = ~np.isfinite(np.array(values))
        array[special] = np.array(values)[special]
    return array


def _float(text: str) -> float:
    if _FINITE.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise ValueError
        return value
    return _SPECIAL[text.lower()]


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError
    return int(text)


def _boolean(text: str) -> bool:
    return _BOOLEANS[text.lower()]


def _written(rows: Array, datatype: str) -> list[str]:
    """Each row's values, separated by commas."""
    if datatype == "BYTES":
        try:
            return [_quoted([value.decode() for value in row]) for row in rows]
        except UnicodeDecodeError:
            detail = "An output is not text; send Accept: application/json"
            raise Problem("unsupported-media-type", detail) from None
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        return [",".join(map(str, row)) for row in rows]
    return [
        orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode()
        for row in np.ascontiguousarray(rows)
    ]


def _quoted(row: list[str]) -> str:
    line = io.StringIO()
    # Before Python 3.13 a writer quotes no line ends but its own.
    csv.writer(line, lineterminator="\r\n").writerow(row)
    return line.getvalue().removesuffix("\r\n")
