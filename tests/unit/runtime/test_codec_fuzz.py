"""Whatever bytes arrive: a request that fits the signature, or a problem. `make fuzz` tries for longer."""

import gzip
import io
import json
import zlib
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_runtime.codecs import Codec
from inference_runtime.errors import Problem
from inference_runtime.manifest import DATATYPES, Manifest, TensorSpec
from inference_runtime.tensors import DTYPES, fits

LIMIT = 1 << 16
TRITON = "application/vnd.sagemaker-triton.binary+json"


def codec(*specs: TensorSpec) -> Codec:
    outputs = (TensorSpec("y", "FP32", (-1,)), TensorSpec("z", "BYTES", (-1,)))
    return Codec(Manifest("0" * 64, "m", "1", "onnxruntime_onnx", "model.onnx", None, {}, specs, outputs))


def one(datatype: str) -> Codec:
    return codec(TensorSpec("x", datatype, (-1, 2)))


MANY = [TensorSpec(datatype.lower(), datatype, (-1, 2)) for datatype in DATATYPES]
CODECS = {name: one(name) for name in DATATYPES} | {"all": codec(*MANY)}
ANSWER = {"y": np.ones(1, np.float32), "z": np.array([b"\xff"], np.object_)}


def seeds() -> list[tuple[str, dict[str, str], bytes]]:
    """Valid requests: the codec's name, headers and body."""
    tensors: list[dict[str, Any]] = []
    described: list[dict[str, Any]] = []
    tail = b""
    found = []
    for spec in MANY:
        dtype = DTYPES[spec.datatype]
        array = np.array([[1, 0], [1, 1]]).astype(dtype)
        member = {"name": spec.name, "datatype": spec.datatype, "shape": [2, 2]}
        data = array.tobytes()
        values: Any = array.tolist()
        if spec.datatype == "BYTES":
            values, data = [["a", ""], ["é", "bc"]], b"\1\0\0\0a\0\0\0\0\2\0\0\0\xc3\xa9\2\0\0\0bc"
        elif spec.datatype == "BF16":
            data = b"\x80\x3f\0\0\x80\x3f\x80\x3f"
        tensors.append(member | {"data": values})
        described.append(member | {"parameters": {"binary_data_size": len(data)}})
        tail += data
        alone = json.dumps({"inputs": [tensors[-1] | {"name": "x"}]}).encode()
        rows = "\n".join(",".join(str(value).lower() for value in row) for row in values).encode()
        found += [
            (spec.datatype, {"content-type": "application/jsonlines"}, alone + b"\n" + alone),
            (spec.datatype, {"content-type": "text/csv"}, rows),
            (spec.datatype, {"accept-encoding": "gzip", "content-encoding": "deflate"}, zlib.compress(alone)),
        ]
        if dtype.kind != "O":
            found.append((spec.datatype, {"content-type": "application/octet-stream"}, data))
            file = io.BytesIO()
            np.save(file, array)
            found.append((spec.datatype, {"content-type": "application/x-npy"}, file.getvalue()))
    outputs = [{"name": "z", "parameters": {"binary_data": True}}, {"name": "y"}]
    whole = json.dumps({"id": "7", "inputs": tensors, "outputs": outputs, "parameters": {"k": 1}}).encode()
    header = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    length = str(len(header))
    return [
        *found,
        ("all", {}, whole),
        ("all", {"content-encoding": "gzip"}, gzip.compress(whole)),
        ("all", {"inference-header-content-length": length}, header + tail),
        ("all", {"content-type": f"{TRITON};json-header-size={length}", "accept": "*/*"}, header + tail),
        (
            "all",
            {
                "content-type": "application/octet-stream",
                "x-amzn-sagemaker-custom-attributes": f"json-header-size={length}",
            },
            header + tail,
        ),
    ]


SEEDS = seeds()
TOKENS = [
    b"-1", b"0", b"1e999", b"18446744073709551616", b"null", b"true", b"{}", b"[]", b'"x"', b"[[", b"\xff",
    b"\0" * 4, b"\xff" * 4, b"NaN", b",", b"\n", b'"', b'"data":', b'"binary_data_size":', b'"shape":',
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with a few bytes cut, copied, changed or put in."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.integers(0, 6)))
        put = draw(st.sampled_from(TOKENS) | st.binary(max_size=4) | st.just(content[at:end] * 2))
        content = content[:at] + put + content[end:]
    return content


@st.composite
def requests(draw: st.DrawFn) -> tuple[Codec, dict[str, str], bytes]:
    name, headers, body = draw(st.sampled_from(SEEDS))
    headers = dict(headers)
    for header in draw(st.lists(st.sampled_from(sorted(headers)), max_size=1)) if headers else ():
        headers[header] = draw(damaged(headers[header].encode())).decode("latin-1")
    return CODECS[name], headers, draw(damaged(body))


def test_the_seeds_are_requests() -> None:
    for name, headers, body in SEEDS:
        assert CODECS[name].read(headers, body, LIMIT).requests


@settings(max_examples=settings.default.max_examples * 10)
@given(requests())
def test_damaged_requests_are_read_as_the_signature_says_or_refused(
    request_: tuple[Codec, dict[str, str], bytes],
) -> None:
    codec, headers, body = request_
    problem: Problem | None = None
    try:
        call = codec.read(headers, body, LIMIT)
        encoded = codec.write(call, [ANSWER for _ in call.requests])
    except Problem as caught:
        problem = caught
    if problem:
        assert problem.status in (400, 413, 415)
        assert len(problem.detail) < 600
        return
    sent = len(body) if "content-encoding" not in headers else LIMIT
    for request in call.requests:
        assert request.inputs.keys() == codec.inputs.keys()
        for name, array in request.inputs.items():
            assert array.dtype == DTYPES[codec.inputs[name].datatype]
            assert fits(array.shape, codec.inputs[name])
            assert array.nbytes <= 8 * sent
    assert encoded.body


def outcome(codec: Codec, body: bytes, *, again: bool) -> tuple[str, Any]:
    """What reading a document gives: its problem, or the request's parts."""
    try:
        request = codec.read_document(body) if again else codec.read({}, body, LIMIT).requests[0]
    except Problem as problem:
        return problem.slug, problem.detail
    arrays = {name: (array.shape, array.tobytes()) for name, array in request.inputs.items()}
    return "", (request.id, request.outputs, request.binary, arrays)


@st.composite
def alike(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """A datatype, a document of one tensor of it, and one that is like it in most of its bytes."""
    datatype = draw(st.sampled_from([name for name in DATATYPES if name != "BYTES"]))
    value: Any = st.integers(0, 1)
    other = value | st.booleans() | st.none() | st.integers() | st.floats(allow_nan=False) | st.just("1")
    rows = st.lists(st.lists(value | other, min_size=2, max_size=2), min_size=1, max_size=2)
    member = {"name": "x", "datatype": datatype, "shape": [1, 2]}
    valid = [True, False] if datatype == "BOOL" else [1, 0]
    flat = draw(st.booleans())
    order = draw(st.permutations([*member, "data"]))
    documents = []
    for data in (valid, draw(st.lists(other, min_size=1, max_size=3) | rows)):
        tensor = {name: (member | {"data": data})[name] for name in order}
        documents.append(json.dumps({"inputs": [tensor]}, separators=(",", ":") if flat else None).encode())
    first, second = documents
    return datatype, first, draw(damaged(second) | damaged(first))


@settings(max_examples=settings.default.max_examples * 5)
@given(alike())
def test_a_document_like_the_one_before_is_read_as_if_there_had_been_none(
    drawn: tuple[str, bytes, bytes],
) -> None:
    datatype, first, second = drawn
    codec = one(datatype)
    for body in (first, second, first):
        assert outcome(codec, body, again=True) == outcome(codec, body, again=False)


@given(st.lists(st.tuples(*[st.floats(width=32)] * 2), min_size=1, max_size=4))
def test_answers_that_are_written_at_once_are_those_written_one_by_one(
    rows: list[tuple[float, float]],
) -> None:
    signature = (TensorSpec("x", "FP32", (-1, 2)),)
    codec = Codec(Manifest("0" * 64, "m", "1", "", "m", None, {}, signature, signature))
    array = np.array(rows, np.float32)
    call = codec.read({}, b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}', LIMIT)
    one_by_one = [codec.write(call, [{"x": row[None]}]).body for row in array]
    assert codec.rows({"x": array}) == one_by_one
