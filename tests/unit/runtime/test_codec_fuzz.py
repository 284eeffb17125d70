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


MANY = [TensorSpec(datatype.lower(), datatype, (-1, 2)) for datatype in DATATYPES]
CODECS = {name: codec(TensorSpec("x", name, (-1, 2))) for name in DATATYPES} | {"all": codec(*MANY)}
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
