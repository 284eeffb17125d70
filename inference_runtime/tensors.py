"""Tensors in the JSON form of the Open Inference Protocol v2, to and from numpy arrays.

`data` may be flat (row-major) or nested lists, and is checked against `shape` before anything is allocated:
memory is bounded by the body's size, never by a number that the client wrote.

BYTES are JSON strings (UTF-8), or base64 when the tensor carries `"parameters": {"content_type": "base64"}`,
MLServer's convention. In numpy they are object arrays of `bytes`.

JSON has no NaN or infinity. In answers they become `null`, which numpy-based clients read back as NaN; in
requests they are refused, as are numbers that overflow the datatype.
"""

import base64
import binascii
from collections.abc import Sequence
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_runtime.errors import Problem, shown
from inference_runtime.manifest import TensorSpec

Array = NDArray[Any]

#: Open Inference Protocol datatype -> numpy dtype.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
BASE64 = {"content_type": "base64"}


def fits(shape: Sequence[int], spec: TensorSpec) -> bool:
    """Whether a concrete shape matches a signature's, where -1 stands for any length."""
    return len(shape) == len(spec.shape) and all(
        want in (-1, have) for have, want in zip(shape, spec.shape, strict=True)
    )


def decode(document: dict[str, Any], spec: TensorSpec) -> Array:
    """One tensor of a request, checked against its place in the signature.

    Args:
        document: the tensor as parsed JSON; its `name` is already known to be `spec.name`.

    Returns:
        A C-contiguous array of `DTYPES[spec.datatype]` with the request's shape.

    Raises:
        Problem: invalid-datatype, invalid-shape or invalid-data, naming the input.
    """
    where = f"input {spec.name!r}"
    if document.get("datatype") != spec.datatype:
        raise Problem(
            "invalid-datatype",
            f"{where}: datatype is {shown(document.get('datatype'))}; it must be {spec.datatype}",
        )
    shape = _shape(where, document.get("shape"), spec)
    if not isinstance(document.get("data"), list):
        raise Problem("invalid-data", f"{where}: data must be a JSON array of the tensor's values")
    values = _flatten(where, document["data"], shape)
    if spec.datatype == "BYTES":
        array: Array = np.empty(len(values), np.object_)
        array[:] = _bytes(where, values, document.get("parameters"))
    else:
        array = _numbers(where, values, spec.datatype)
    return array.reshape(shape)


def encode(name: str, datatype: str, array: Array) -> dict[str, Any]:
    """One tensor of an answer, with flat row-major data, ready for `orjson` with OPT_SERIALIZE_NUMPY."""
    document: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    flat = np.ascontiguousarray(array).reshape(-1)
    if datatype != "BYTES":
        return document | {"data": flat}
    try:
        return document | {"data": [value.decode() for value in flat]}
    except UnicodeDecodeError:
        return document | {"parameters": BASE64, "data": [base64.b64encode(value).decode() for value in flat]}


def _shape(where: str, shape: object, spec: TensorSpec) -> list[int]:
    if not isinstance(shape, list) or not all(type(length) is int and length >= 1 for length in shape):
        raise Problem(
            "invalid-shape",
            f"{where}: shape is {shown(shape)}; it must be a list of integers, each at least 1",
        )
    if not fits(shape, spec):
        raise Problem(
            "invalid-shape",
            f"{where}: shape is {shown(shape)}; it must match {list(spec.shape)}, where -1 is any length",
        )
    return shape


def _flatten(where: str, data: list[Any], shape: list[int]) -> list[Any]:
    """The values of `data` in row-major order. A list among them means that all of `data` is nested."""
    values = data
    if len(shape) > 1 and data and isinstance(data[0], list):
        for axis, length in enumerate(shape):
            if axis:
                if set(map(type, values)) != {list}:
                    raise Problem("invalid-data", f"{where}: data mix lists and values at depth {axis + 1}")
                if set(map(len, values)) != {length}:
                    raise Problem(
                        "invalid-data",
                        f"{where}: a list at depth {axis + 1} of data has not {length} items (shape {shape})",
                    )
                values = list(chain.from_iterable(values))
            elif len(values) != length:
                raise Problem(
                    "invalid-data", f"{where}: data have {len(values)} rows, but shape {shape} needs {length}"
                )
    elif len(values) != prod(shape):
        raise Problem(
            "invalid-data",
            f"{where}: data have {len(values)} values, but shape {shown(shape)} needs {prod(shape)}",
        )
    return values


def _bytes(where: str, values: list[Any], parameters: object) -> list[bytes]:
    _only(where, values, {str}, "strings")
    content_type = parameters.get("content_type") if isinstance(parameters, dict) else None
    if content_type is None or content_type == "str":
        return [value.encode() for value in values]
    if content_type != "base64":
        raise Problem(
            "invalid-data",
            f"{where}: content_type is {shown(content_type)}; it must be 'base64', or left out for UTF-8",
        )
    decoded = []
    for index, value in enumerate(values):
        try:
            decoded.append(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            raise Problem("invalid-data", f"{where}: value {index} is not valid base64") from None
    return decoded


def _numbers(where: str, values: list[Any], datatype: str) -> Array:
    dtype = DTYPES[datatype]
    if datatype == "BOOL":
        _only(where, values, {bool}, "true or false")
        return np.array(values, dtype)
    if dtype.kind == "f":
        _only(where, values, {int, float}, "numbers")
        with np.errstate(over="ignore"):
            array = np.array(values, np.float64).astype(dtype)
        if np.isfinite(array).all():
            return array
        index = int(np.flatnonzero(~np.isfinite(array))[0])
        raise Problem(
            "invalid-data", f"{where}: value {index} ({shown(values[index])}) is out of range for {datatype}"
        )
    _only(where, values, {int}, "whole numbers, written without a fraction")
    try:
        return np.array(values, dtype)
    except OverflowError:
        limits = np.iinfo(dtype)
        index = next(i for i, value in enumerate(values) if not limits.min <= value <= limits.max)
        raise Problem(
            "invalid-data", f"{where}: value {index} ({shown(values[index])}) is out of range for {datatype}"
        ) from None


def _only(where: str, values: list[Any], allowed: set[type], words: str) -> None:
    # Exact types, as a JSON true is a Python int. Building the set is one loop in C.
    if not set(map(type, values)) <= allowed:
        index = next(i for i, value in enumerate(values) if type(value) not in allowed)
        raise Problem(
            "invalid-data", f"{where}: value {index} is {shown(values[index])}; data must be {words}"
        )
