"""Tensors of the Open Inference Protocol v2, in JSON and in bytes, to and from numpy arrays.

Everything is checked against the signature and against what was sent before anything is allocated: memory is
bounded by the body's size, never by a number that the client wrote.

In JSON, `data` may be flat (row-major) or nested lists. BYTES are strings (UTF-8), or base64 when the tensor
carries `"parameters": {"content_type": "base64"}`, MLServer's convention. JSON has no NaN or infinity: in
answers they become `null`, which numpy-based clients read back as NaN; in requests they are refused, as are
numbers that overflow the datatype.

In bytes, values are little-endian and row-major, BOOL is one byte of 0 or 1, and each of BYTES is preceded by
its length in four bytes. NaN and infinity pass.

In numpy, BYTES are object arrays of `bytes`, and BF16, which numpy does not have, are float32 arrays of
values that BF16 has. Arrays that were read are read-only, as they may be views of the body.
"""

import base64
import binascii
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from math import prod
from typing import Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from inference_runtime.errors import Problem, shown
from inference_runtime.manifest import TensorSpec

Array: TypeAlias = NDArray[Any]
Buffer = bytes | bytearray | memoryview

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
    "BF16": np.dtype(np.float32),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
#: The `parameters` of BYTES in JSON that are base64.
BASE64 = {"content_type": "base64"}

#: How `struct` packs a datatype: in one pass, with the range checked, in less than half of numpy's time.
_PACKED = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
_LENGTH = struct.Struct("<I")


def fits(shape: Sequence[int], spec: TensorSpec) -> bool:
    """Whether a concrete shape matches a signature's, where -1 stands for any length."""
    if len(shape) != len(spec.shape):
        return False
    for have, want in zip(shape, spec.shape):  # noqa: B905, SIM110 (as long as each other; called often)
        if have != want and want != -1:
            return False
    return True


class Reader:
    """Reads one input of a signature. Made once for a model: what can be known beforehand is."""

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.where = f"input {spec.name!r}"
        self.dtype = DTYPES[spec.datatype]
        self._shape, self._rank = spec.shape, len(spec.shape)
        self._packed = _PACKED.get(spec.datatype)
        self._wire = wire(spec.datatype)
        self._types, self._words = _json_types(spec.datatype)

    def decode(self, document: dict[str, Any]) -> Array:
        """One tensor of a request in JSON; its `name` is already known to be the signature's.

        Raises:
            Problem: invalid-datatype, invalid-shape or invalid-data, naming the input.
        """
        if document.get("datatype") != self.spec.datatype:
            raise self._datatype_refused(document)
        shape = document.get("shape")
        size = self._size(shape)
        values = document.get("data")
        if type(values) is not list:
            raise self.refused("data must be a JSON array of the tensor's values")
        if len(values) != size or (type(values[0]) is list and self._rank > 1):
            values = _flatten(self, values, shape, size)
        return self._array(values, shape, document.get("parameters"))

    def decode_binary(self, document: dict[str, Any], data: Buffer) -> Array:
        """One tensor of a request whose values are in `data`: a view of it, where the datatype allows."""
        if document.get("datatype") != self.spec.datatype:
            raise self._datatype_refused(document)
        shape = document.get("shape")
        return self.view(data, self._size(shape)).reshape(shape)

    def view(self, data: Buffer, size: int) -> Array:
        """The `size` values that are in `data`, as a flat array."""
        if self.spec.datatype == "BYTES":
            return _frozen(_objects(self._elements(data, size)))
        if len(data) != size * self._wire.itemsize:
            raise self.refused(
                f"there are {len(data)} bytes of data; "
                f"{size} values of {self.spec.datatype} are {size * self._wire.itemsize} bytes"
            )
        array: Array = np.frombuffer(data, self._wire)
        if self.spec.datatype == "BF16":
            array = from_bfloat16(array)
        elif self.spec.datatype == "BOOL":
            if array.max(initial=0) > 1:
                index = int(np.argmax(array > 1))
                raise self.refused(f"value {index} is the byte {int(array[index])}; BOOL is 0 or 1")
            array = array.view(np.bool_)
        return _frozen(array)

    def packer(self, count: int) -> struct.Struct | None:
        """What turns so many of JSON's numbers, and of its true and false, into an array's bytes.

        None where the datatype has no numbers, or they are rounded.
        """
        return None if self._packed in (None, "?") else _packer(self._packed, count)

    def values(self, values: list[Any]) -> Array:
        """A flat array of JSON's values, whose types and ranges are checked."""
        return self._array(values, [len(values)], None)

    def _array(self, values: list[Any], shape: Any, parameters: object) -> Array:
        # Exact types, as a JSON true is a Python int. Building the set is one loop in C.
        if not self._types.issuperset(map(type, values)):
            index = next(i for i, value in enumerate(values) if type(value) not in self._types)
            raise self.refused(f"value {index} is {shown(values[index])}; data must be {self._words}")
        if self._packed:
            try:
                return np.ndarray(shape, self.dtype, _packer(self._packed, len(values)).pack(*values))
            except (struct.error, OverflowError):
                raise self._out_of_range(values) from None
        if self.spec.datatype == "BYTES":
            return _frozen(_objects(_texts(self, values, parameters)).reshape(shape))
        try:
            with np.errstate(over="ignore"):
                array = _bfloat16(np.array(values, self.dtype))
        except OverflowError:
            raise self._out_of_range(values) from None
        if not np.isfinite(array).all():
            raise self._out_of_range(values)
        return _frozen(array.reshape(shape))

    def check_shape(self, shape: object) -> None:
        """Raise invalid-shape where `shape` is none, or not the signature's."""
        self._size(shape)

    def refused(self, what: str, slug: str = "invalid-data") -> Problem:
        return Problem(slug, f"{self.where}: {what}")

    def _datatype_refused(self, document: dict[str, Any]) -> Problem:
        return self.refused(
            f"datatype is {shown(document.get('datatype'))}; it must be {self.spec.datatype}",
            "invalid-datatype",
        )

    def _size(self, shape: object) -> int:
        """How many values a tensor of this shape has."""
        if type(shape) is list and len(shape) == self._rank:
            size = 1
            for have, want in zip(shape, self._shape):  # noqa: B905 (as long as each other; called often)
                if type(have) is not int or have < 1 or (have != want and want != -1):
                    break
                size *= have
            else:
                return size
        if not isinstance(shape, list) or not all(type(length) is int and length >= 1 for length in shape):
            must = "it must be a list of integers, each at least 1"
        else:
            must = f"it must match {list(self.spec.shape)}, where -1 is any length"
        raise self.refused(f"shape is {shown(shape)}; {must}", "invalid-shape")

    def _elements(self, data: Buffer, size: int) -> list[bytes]:
        """BYTES in the binary form."""
        # Each takes its length at least: a shape of billions allocates nothing.
        if size * _LENGTH.size > len(data):
            raise self.refused(f"there are {len(data)} bytes of data, too few for {shown(size)} values")
        content, end = bytes(data), len(data)
        elements = []
        position = 0
        for index in range(size):
            start = position + _LENGTH.size
            if start > end:
                raise self.refused(f"the data end before value {index}")
            position = start + _LENGTH.unpack_from(content, start - _LENGTH.size)[0]
            if position > end:
                raise self.refused(
                    f"value {index} says that it has {position - start} bytes; {end - start} are left"
                )
            elements.append(content[start:position])
        if position != end:
            raise self.refused(f"{end - position} bytes of data are left after {size} values")
        return elements

    def _out_of_range(self, values: list[Any]) -> Problem:
        index = next(i for i, value in enumerate(values) if not self._in_range(value))
        return self.refused(
            f"value {index} ({shown(values[index])}) is out of range for {self.spec.datatype}"
        )

    def _in_range(self, value: float) -> bool:
        if self.dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = np.array([value], np.float64).astype(self.dtype)
            return bool(np.isfinite(_bfloat16(array) if self.spec.datatype == "BF16" else array)[0])
        limits = np.iinfo(self.dtype)
        return bool(limits.min <= value <= limits.max)


def dumps(array: Array, datatype: str) -> tuple[bytes, bool]:
    """The values as one flat JSON list in row-major order, and whether they are base64."""
    flat = array.ravel()
    if datatype != "BYTES":
        return orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY), False
    try:
        return orjson.dumps([value.decode() for value in flat]), False
    except UnicodeDecodeError:
        return orjson.dumps([base64.b64encode(value).decode() for value in flat]), True


def tobytes(array: Array, datatype: str) -> bytes:
    """The values in the binary form."""
    if datatype == "BYTES":
        return b"".join(chain.from_iterable((_LENGTH.pack(len(value)), value) for value in array.ravel()))
    if datatype == "BF16":
        return to_bfloat16(array).astype("<u2", copy=False).tobytes()
    return array.astype(wire(datatype), copy=False).tobytes()


def to_bfloat16(array: Array) -> Array:
    """The bits of BF16, as uint16, of float32 values, which are rounded as `_bfloat16` does."""
    bits: Array = (_bfloat16(array).view(np.uint32) >> 16).astype(np.uint16)
    return bits


def from_bfloat16(bits: Array) -> Array:
    """The float32 values that the bits of BF16 stand for."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _bfloat16(array: Array) -> Array:
    """float32 values rounded (to nearest, ties to even) to those that BF16 has; NaN keeps its sign and what
    BF16 has of its payload.
    """
    bits = np.asarray(array, np.float32, order="C").view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    # A payload that BF16 has nothing of must not leave an infinity.
    kept = np.where(bits & 0x7F0000, bits & 0xFFFF0000, (bits & 0xFFFF0000) | 0x400000)
    return np.where(np.isnan(array), kept, rounded).astype(np.uint32).view(np.float32)


def wire(datatype: str) -> np.dtype[Any]:
    """How values look in bytes."""
    special = {"BF16": "<u2", "BOOL": "u1"}
    return np.dtype(special[datatype]) if datatype in special else DTYPES[datatype].newbyteorder("<")


def _json_types(datatype: str) -> tuple[frozenset[type], str]:
    if datatype == "BOOL":
        return frozenset({bool}), "true or false"
    if datatype == "BYTES":
        return frozenset({str}), "strings"
    if datatype in _FLOATS:
        return frozenset({int, float}), "numbers"
    return frozenset({int}), "whole numbers, written without a fraction"


@lru_cache(maxsize=1024)
def _packer(packed: str, count: int) -> struct.Struct:
    return struct.Struct(f"={count}{packed}")


def _flatten(reader: Reader, data: list[Any], shape: Any, size: int) -> list[Any]:
    """The values of `data` in row-major order. A list among them means that all of `data` is nested."""
    values = data
    if len(shape) > 1 and data and isinstance(data[0], list):
        for axis, length in enumerate(shape):
            if axis:
                if set(map(type, values)) != {list}:
                    raise reader.refused(f"data mix lists and values at depth {axis + 1}")
                if set(map(len, values)) != {length}:
                    raise reader.refused(
                        f"a list at depth {axis + 1} of data has not {length} items (shape {shown(shape)})"
                    )
                values = list(chain.from_iterable(values))
            elif len(values) != length:
                raise reader.refused(f"data have {len(values)} rows, but shape {shown(shape)} needs {length}")
    elif len(values) != size:
        raise reader.refused(f"data have {len(values)} values, but shape {shown(shape)} needs {size}")
    return values


def _texts(reader: Reader, values: list[str], parameters: object) -> list[bytes]:
    content_type = parameters.get("content_type") if isinstance(parameters, dict) else None
    if content_type is None or content_type == "str":
        return [value.encode() for value in values]
    if content_type != "base64":
        raise reader.refused(
            f"content_type is {shown(content_type)}; it must be 'base64', or left out for UTF-8"
        )
    decoded = []
    for index, value in enumerate(values):
        try:
            decoded.append(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            raise reader.refused(f"value {index} is not valid base64") from None
    return decoded


def _objects(values: list[bytes]) -> Array:
    array: Array = np.empty(len(values), np.object_)
    array[:] = values
    return array


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


def sized(spec: TensorSpec, size: int) -> list[int] | None:
    """The shape with `size` values that a signature with at most one free length allows, or None."""
    free = spec.shape.count(-1)
    fixed = prod(length for length in spec.shape if length != -1)
    if free > 1 or size < 1 or size % fixed or (not free and size != fixed):
        return None
    return [size // fixed if length == -1 else length for length in spec.shape]
