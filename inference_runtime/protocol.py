"""Open Inference Protocol v2 documents (https://github.com/kserve/open-inference-protocol), and the binary
tensor extension to them: a JSON document followed by the bytes of tensors
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).

Members beyond those read here, which the protocol's other extensions and clients add, are ignored, unless
they ask for another answer than the one that would be given.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from inference_runtime import tensors
from inference_runtime.errors import Problem, shown
from inference_runtime.manifest import Manifest
from inference_runtime.tensors import Array, Buffer

if TYPE_CHECKING:
    from inference_runtime.number_lists import NumberList

_NONE: dict[str, Any] = {}
_NOTHING: frozenset[str] = frozenset()
#: One of so many documents that are like none before is looked at for its frame.
_TRIED = 64
_MEMBERS = {"name", "shape", "datatype", "data"}
#: More numbers than these are read by simdjson.
_FEW = 256
#: Datatypes of which a whole batch is written at once.
_PLAIN = ("FP32", "FP64", "INT32", "INT64")
#: What an output may be asked for that is not done here.
_NOT_DONE = ("classification", "shared_memory_region")


class InferRequest:
    """What a client asked: every input of the signature, and the outputs to answer, in order.

    `binary` are those of the outputs that the client wants as bytes.
    """

    # No data class: where this is compiled, that one's __init__ is still interpreted.
    __slots__ = ("binary", "id", "inputs", "outputs")

    def __init__(
        self,
        inputs: dict[str, Array],
        outputs: tuple[str, ...],
        id: str | None = None,
        binary: frozenset[str] = _NOTHING,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.id = id
        self.binary = binary


class Documents:
    """Reads and writes the documents of one model. Safe to use from several threads."""

    def __init__(self, manifest: Manifest) -> None:
        self.readers = {spec.name: tensors.Reader(spec) for spec in manifest.inputs}
        self.datatypes = {spec.name: spec.datatype for spec in manifest.outputs}
        self.outputs = tuple(self.datatypes)
        self._everything = frozenset(self.outputs)
        self._frame: _Frame | None = None
        self._unframed = 0
        self._head = orjson.dumps({"model_name": manifest.name, "model_version": manifest.version})[:-1]
        # Of each output, what comes before its shape.
        self._heads = {
            name: orjson.dumps({"name": name, "datatype": datatype})[:-1] + b',"shape":'
            for name, datatype in self.datatypes.items()
        }

    def read_again(self, body: bytes) -> InferRequest:
        """As `read`, for documents that mostly differ in their values alone, as those of one client do.

        What stands before and after the values of one that was read means the same around other values, so
        only these are parsed and checked.
        """
        frame = self._frame
        if frame is not None and body.startswith(frame.before) and body.endswith(frame.after):
            array = frame.array(body[frame.start : frame.end])
            if array is not None:
                return InferRequest({frame.name: array}, self.outputs)
        request = self.read(body)
        # To find the frame costs as much as to read the document, so that is done for a few.
        if self._unframed % _TRIED == 0:
            self._frame = _framed(self, body)
        self._unframed += 1
        return request

    def read(self, body: Buffer, tail: Buffer = b"", *, binary: bool = False) -> InferRequest:
        """Parse and check an inference request against the model's signature.

        Args:
            tail: the bytes of the inputs that say `binary_data_size`, in the order of the inputs.
            binary: whether outputs come as bytes where the document does not say.

        Raises:
            Problem: any of the 400s, naming the field.
        """
        document = _parse(body)
        id_ = document.get("id")
        if (id_ is None and "id" in document) or (id_ is not None and type(id_) is not str):
            raise Problem("invalid-request", f"id is {shown(id_)}; it must be a string")
        if "parameters" in document:
            parameters = document["parameters"]
            _require_object("parameters", parameters)
            binary = _flag("parameters.binary_data_output", parameters.get("binary_data_output", binary))
        inputs = self._read_inputs(document.get("inputs"), tail)
        wanted = document.get("outputs")
        if wanted is None or wanted == []:
            return InferRequest(inputs, self.outputs, id_, self._everything if binary else frozenset())
        names, binary_names = self._read_outputs(wanted, binary)
        return InferRequest(inputs, names, id_, binary_names)

    def write(self, request: InferRequest, arrays: dict[str, Array]) -> bytes:
        """The answer in JSON: the request's outputs in its order, and its `id`, if it has one."""
        outputs = [self._output(name, arrays[name]) for name in request.outputs]
        return self._document(request, outputs)

    def rows(self, arrays: dict[str, Array]) -> list[bytes] | None:
        """The answers in JSON to the requests of one row each that ask for everything and have no `id`, all
        written at once. None where the outputs are not such that this is simple.
        """
        name = self.outputs[0]
        array = arrays[name]
        if len(self.outputs) > 1 or self.datatypes[name] not in _PLAIN or array.ndim < 2 or not array.size:
            return None
        flat = np.ascontiguousarray(array).reshape(len(array), -1)
        before = b'%s,"outputs":[%s%s,"data":[' % (
            self._head,
            self._heads[name],
            orjson.dumps((1, *array.shape[1:])),
        )
        rows = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
        return [b"%s%s]}]}" % (before, row) for row in rows]

    def write_binary(self, request: InferRequest, arrays: dict[str, Array]) -> tuple[bytes, int]:
        """The answer with the outputs in `request.binary` as bytes, and the length of its JSON."""
        outputs, tail = [], []
        for name in request.outputs:
            if name not in request.binary:
                outputs.append(self._output(name, arrays[name]))
                continue
            tail.append(tensors.tobytes(arrays[name], self.datatypes[name]))
            outputs.append(
                b'%s%s,"parameters":{"binary_data_size":%d}}'
                % (self._heads[name], orjson.dumps(arrays[name].shape), len(tail[-1]))
            )
        header = self._document(request, outputs)
        return b"".join((header, *tail)), len(header)

    def _document(self, request: InferRequest, outputs: Sequence[bytes]) -> bytes:
        id_ = b"" if request.id is None else b',"id":' + orjson.dumps(request.id)
        return b'%s%s,"outputs":[%s]}' % (self._head, id_, b",".join(outputs))

    def _output(self, name: str, array: Array) -> bytes:
        data, base64 = tensors.dumps(array, self.datatypes[name])
        parameters = b',"parameters":{"content_type":"base64"}' if base64 else b""
        return b'%s%s%s,"data":%s}' % (self._heads[name], orjson.dumps(array.shape), parameters, data)

    def _read_inputs(self, documents: object, tail: Buffer) -> dict[str, Array]:
        if type(documents) is not list:
            raise Problem("invalid-request", "inputs is missing or not a list of tensors")
        inputs: dict[str, Array] = {}
        position = 0
        for index, document in enumerate(documents):
            name = _name("inputs", index, document)
            reader = self.readers.get(name)
            if reader is None:
                raise Problem(
                    "unknown-input",
                    f"inputs[{index}] is named {shown(name)}; the model takes {list(self.readers)}",
                )
            if name in inputs:
                raise Problem("invalid-request", f"inputs[{index}]: {name!r} appears twice")
            parameters = document.get("parameters", _NONE)
            if type(parameters) is not dict:
                raise Problem("invalid-request", f"inputs[{index}].parameters is not an object")
            size = parameters.get("binary_data_size")
            if size is None:
                inputs[name] = reader.decode(document)
                continue
            left = len(tail) - position
            if type(size) is not int or not 0 <= size <= left:
                raise reader.refused(
                    f"binary_data_size is {shown(size)}; {left} bytes are left after the JSON header"
                )
            if "data" in document:
                raise reader.refused("it has both data and binary_data_size")
            inputs[name] = reader.decode_binary(document, memoryview(tail)[position : position + size])
            position += size
        if len(inputs) != len(self.readers):
            missing = [name for name in self.readers if name not in inputs]
            raise Problem("missing-input", f"inputs lack {missing}; the model takes {list(self.readers)}")
        if position != len(tail):
            raise Problem("invalid-data", f"{len(tail) - position} bytes of the body belong to no input")
        return inputs

    def _read_outputs(self, documents: object, binary: bool) -> tuple[tuple[str, ...], frozenset[str]]:
        """The outputs asked for, and which of them as bytes."""
        if not isinstance(documents, list):
            raise Problem("invalid-request", "outputs is not a list")
        wanted: dict[str, bool] = {}
        for index, document in enumerate(documents):
            name = _name("outputs", index, document)
            if name not in self.datatypes:
                raise Problem(
                    "unknown-output",
                    f"outputs[{index}] is named {shown(name)}; the model gives {list(self.outputs)}",
                )
            if name in wanted:
                raise Problem("invalid-request", f"outputs[{index}]: {name!r} appears twice")
            parameters = document.get("parameters", {})
            where = f"outputs[{index}].parameters"
            _require_object(where, parameters)
            for parameter in _NOT_DONE:
                if parameter in parameters:
                    raise Problem("invalid-request", f"{where}: {parameter} is not offered here")
            wanted[name] = _flag(f"{where}.binary_data", parameters.get("binary_data", binary))
        return tuple(wanted), frozenset(name for name, flag in wanted.items() if flag)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a document has around the values of its one input, and what that says."""

    before: bytes
    after: bytes
    #: Of the values' text in the document; the end from behind.
    start: int
    end: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pack: Callable[..., bytes]
    #: What reads the values instead, if they are not few.
    many: "NumberList | None"

    def array(self, text: bytes) -> Array | None:
        """The values, if they are as many numbers as they must be. None where something is to be refused."""
        if self.many is not None:
            values = self.many.array(text)
            return None if values is None else values.reshape(self.shape)
        # Packing takes true and false for numbers. Both have an e, and so have few numbers; nothing else that
        # it takes has their other letters. `in` would first try what it is given as a number, and raise an
        # exception each time.
        if text.find(b"e") >= 0 and (text.find(b"t") >= 0 or text.find(b"f") >= 0):
            return None
        try:
            return np.ndarray(self.shape, self.dtype, self.pack(*orjson.loads(text)))
        except (orjson.JSONDecodeError, TypeError, struct.error, OverflowError):
            return None


def _framed(documents: Documents, body: bytes) -> _Frame | None:
    """The frame of a document that was read, if it has one input of numbers and says nothing else."""
    document = orjson.loads(body)
    inputs = document["inputs"]
    if document.keys() != {"inputs"} or len(inputs) != 1 or inputs[0].keys() != _MEMBERS:
        return None
    [tensor] = inputs
    reader, name = documents.readers[tensor["name"]], tensor["name"]
    count = len(tensor["data"])
    packer = reader.packer(count)
    place = body.find(b'"data"')
    start, end = body.find(b"[", place), body.find(b"]", place) + 1
    before, after = body[:start], body[end:]
    if packer is None or not after:
        return None
    # Without the values it must be the same document with none: only then are the places what they seem.
    without = {"inputs": [{**tensor, "data": []}]}
    if orjson.loads(body[start:end]) != tensor["data"] or orjson.loads(before + b"[]" + after) != without:
        return None
    many = None
    if count > _FEW:
        # Only servers read again, and only they have simdjson.
        from inference_runtime.number_lists import NumberList

        many = NumberList(reader.dtype, count)
    shape = tuple(tensor["shape"])
    return _Frame(before, after, start, -len(after), name, shape, reader.dtype, packer.pack, many)


def model_metadata(manifest: Manifest) -> bytes:
    """`GET /v2/models/<model>`: the signature, and which artifact this is."""
    return orjson.dumps(manifest.metadata())


def _parse(body: Buffer) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not len(body):
            detail = "The body is empty; send an inference request as a JSON object"
            raise Problem("invalid-json", detail) from None
        raise Problem("invalid-json", f"Line {error.lineno}, column {error.colno}: {error.msg}") from None
    if type(document) is not dict:
        raise Problem("invalid-request", "The body is not a JSON object with `inputs`")
    return document


def _require_object(where: str, value: object) -> None:
    if not isinstance(value, dict):
        raise Problem("invalid-request", f"{where} is not an object")


def _flag(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise Problem("invalid-request", f"{where} is {shown(value)}; it must be true or false")
    return value


def _name(member: str, index: int, document: object) -> str:
    if type(document) is dict:
        name = document.get("name")
        if type(name) is str:
            return name
    raise Problem("invalid-request", f"{member}[{index}] is not an object with a `name`")
