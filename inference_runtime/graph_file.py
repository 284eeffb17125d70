"""What an ONNX file says of itself, read without loading it: versions, and which other files it draws on.

Only the fields that are needed are decoded, straight from the protocol buffer
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), so that neither the onnx package nor memory for the
weights is needed, and nothing of a file that may be hostile is run.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inference_runtime.manifest import ArtifactError

#: What the pinned ONNX Runtime (1.31) loads: it guarantees nothing below, and knows nothing above.
OPSETS = range(7, 27)
IR_VERSIONS = range(3, 14)
#: The names of ONNX's own operator set; others' sets have versions of their own.
ONNX_DOMAINS = ("", "ai.onnx")

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5

# message -> the numbers of its fields that lead to tensors -> the message that each holds.
_TENSORS_WITHIN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_IR_VERSION, _OPSET_IMPORT, _EXTERNAL_DATA = 1, 8, 13


@dataclass(slots=True)
class GraphFile:
    """`opsets` are versions by domain; `external` the files, as the graph names them, with tensors of its."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    external: set[str] = field(default_factory=set)

    @property
    def opset(self) -> int | None:
        """The version of ONNX's own operators."""
        return next((self.opsets[domain] for domain in ONNX_DOMAINS if domain in self.opsets), None)


def read(path: Path) -> GraphFile:
    """Read an ONNX file's facts.

    Raises:
        ArtifactError: it is no ONNX file.
    """
    found = GraphFile()
    try:
        with path.open("rb") as file:
            _read_model(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), found)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path.name}: not an ONNX file: {error}") from None
    if not found.opsets:
        raise ArtifactError(f"{path.name}: not an ONNX file: it imports no operators")
    return found


def _read_model(message: memoryview, found: GraphFile) -> None:
    for number, value in _fields(message):
        if number == _IR_VERSION and isinstance(value, int):
            found.ir_version = value
        elif number == _OPSET_IMPORT and isinstance(value, memoryview):
            parts = dict(_fields(value))
            version = parts.get(2, 0)
            found.opsets[_text(parts.get(1))] = version if isinstance(version, int) else 0
    _collect_external(message, "model", found.external)


def _collect_external(message: memoryview, kind: str, locations: set[str]) -> None:
    for number, value in _fields(message):
        if not isinstance(value, memoryview):
            continue
        if kind == "tensor":
            if number == _EXTERNAL_DATA:
                entry = dict(_fields(value))
                if _text(entry.get(1)) == "location":
                    locations.add(_text(entry.get(2)))
        elif number in _TENSORS_WITHIN[kind]:
            _collect_external(value, _TENSORS_WITHIN[kind][number], locations)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: number, and an integer or the bytes. Raises ValueError for what is none."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == _BYTES:
            size, position = _varint(message, position)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if wire == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if number == 0 or position + size > end:
            raise ValueError("a field that does not end")
        yield number, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number that does not end")


def _text(value: int | memoryview | None) -> str:
    return bytes(value).decode(errors="replace") if isinstance(value, memoryview) else ""
