"""One request in every form that clients send, and every answer in the form that they asked for."""

import base64
import gzip
import io
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inference_runtime.codecs import Call, Codec, Encoded, Form
from inference_runtime.errors import Problem
from inference_runtime.manifest import DATATYPES, Manifest, TensorSpec
from inference_runtime.protocol import InferRequest
from inference_runtime.tensors import DTYPES, Array

LIMIT = 1 << 20
TRITON = "application/vnd.sagemaker-triton.binary+json"
NUMERIC = [datatype for datatype in DATATYPES if datatype != "BYTES"]


def manifest(inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Manifest:
    return Manifest(
        "0" * 64, "m", "1", "onnxruntime_onnx", "model.onnx", None, {}, tuple(inputs), tuple(outputs)
    )


def echo(datatype: str, shape: tuple[int, ...]) -> Codec:
    """The codec of a model whose one output `y` is like its one input `x`."""
    return Codec(manifest([TensorSpec("x", datatype, shape)], [TensorSpec("y", datatype, shape)]))


PAIR = Codec(
    manifest(
        [TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "BYTES", (-1,))],
        [TensorSpec("c", "FP32", (-1, 2)), TensorSpec("d", "BYTES", (-1,))],
    )
)


def objects(values: list[bytes]) -> Array:
    array: Array = np.empty(len(values), np.object_)
    array[:] = values
    return array


def wire(array: Array, datatype: str) -> bytes:
    """The binary form, written here anew from its specification."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in array.ravel())
    if datatype == "BF16":
        return (np.ascontiguousarray(array).view(np.uint32) >> 16).astype("<u2").tobytes()
    return array.tobytes()


def binary(*inputs: tuple[str, str, Array], **members: Any) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request whose inputs are all bytes."""
    described, tail = [], b""
    for name, datatype, array in inputs:
        data = wire(array, datatype)
        parameters = {"binary_data_size": len(data)}
        shape = list(array.shape)
        described.append({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
        tail += data
    header = json.dumps({"inputs": described} | members).encode()
    return {"inference-header-content-length": str(len(header))}, header + tail


def npy(array: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def document(encoded: Encoded) -> tuple[dict[str, Any], bytes]:
    """An answer's document and the bytes after it."""
    length = int(encoded.headers.get("inference-header-content-length", len(encoded.body)))
    return json.loads(encoded.body[:length]), encoded.body[length:]


def refused(codec: Codec, headers: dict[str, str], body: bytes, slug: str, detail: str) -> None:
    with pytest.raises(Problem) as caught:
        codec.read(headers, body, LIMIT)
    assert caught.value.slug == slug, caught.value.detail
    assert detail in caught.value.detail


@st.composite
def arrays(draw: st.DrawFn, *datatypes: str, min_dims: int = 0) -> tuple[str, Array]:
    """A datatype and an array of any of its values, NaN and infinity included, in any memory layout."""
    datatype = draw(st.sampled_from(datatypes or DATATYPES))
    shape = draw(hnp.array_shapes(min_dims=min_dims, max_dims=3, max_side=4))
    if datatype == "BYTES":
        size = int(np.prod(shape))
        values = draw(st.lists(st.binary(max_size=5), min_size=size, max_size=size))
        return datatype, objects(values).reshape(shape)
    array = draw(hnp.arrays(DTYPES[datatype], shape))
    if datatype == "BF16":
        array = (array.view(np.uint32) & 0xFFFF0000).view(np.float32)
    return datatype, array.T if draw(st.booleans()) else array


def same(left: Array, right: Array) -> None:
    assert (left.dtype, left.shape) == (right.dtype, right.shape)
    np.testing.assert_array_equal(left, right)


# --- Values survive -----------------------------------------------------------------------------------------


@given(arrays())
def test_bytes_are_read_and_written_as_the_same_values(drawn: tuple[str, Array]) -> None:
    datatype, array = drawn
    codec = echo(datatype, (-1,) * array.ndim)
    contiguous = array.copy(order="C")
    headers, body = binary(("x", datatype, contiguous), parameters={"binary_data_output": True})
    call = codec.read(headers, body, LIMIT)
    same(call.requests[0].inputs["x"], contiguous)
    encoded = codec.write(call, [{"y": array}])
    answer, tail = document(encoded)
    assert encoded.headers["content-type"] == "application/octet-stream"
    assert tail == wire(contiguous, datatype)
    assert answer["outputs"] == [
        {
            "name": "y",
            "datatype": datatype,
            "shape": list(array.shape),
            "parameters": {"binary_data_size": len(tail)},
        }
    ]


@given(arrays(*NUMERIC))
def test_npy_files_are_read_and_written_as_the_same_values(drawn: tuple[str, Array]) -> None:
    datatype, array = drawn
    codec = echo(datatype, (-1,) * array.ndim)
    call = codec.read({"content-type": "application/x-npy"}, npy(array), LIMIT)
    same(call.requests[0].inputs["x"], array)
    encoded = codec.write(call, [{"y": array}])
    assert encoded.headers == {"content-type": "application/x-npy"}
    same(np.load(io.BytesIO(encoded.body), allow_pickle=False), array)


@given(arrays(*NUMERIC, min_dims=1))
def test_raw_bytes_are_read_and_written_as_the_same_values(drawn: tuple[str, Array]) -> None:
    datatype, array = drawn
    array = array.copy(order="C")
    codec = echo(datatype, (-1, *array.shape[1:]))
    call = codec.read({"content-type": "application/octet-stream"}, wire(array, datatype), LIMIT)
    same(call.requests[0].inputs["x"], array)
    encoded = codec.write(call, [{"y": array}])
    assert encoded.headers == {"content-type": "application/octet-stream"}
    assert encoded.body == wire(array, datatype)


def test_every_value_of_bf16_is_written_as_it_was_read_each_nan_too() -> None:
    codec = echo("BF16", (-1,))
    body = np.arange(1 << 16, dtype="<u2").tobytes()
    call = codec.read({"content-type": "application/octet-stream"}, body, LIMIT)
    assert codec.write(call, [{"y": call.requests[0].inputs["x"]}]).body == body


@given(st.data())
def test_csv_is_read_and_written_as_the_same_values(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(DATATYPES))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=3))
    if datatype == "BYTES":
        text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=5)
        size = int(np.prod(shape))
        texts = data.draw(st.lists(text, min_size=size, max_size=size))
        array = objects([value.encode() for value in texts]).reshape(shape)
    else:
        array = data.draw(hnp.arrays(DTYPES[datatype], shape))
        if datatype == "BF16":
            array = (array.view(np.uint32) & 0xFFFF0000).view(np.float32)
    codec = echo(datatype, (-1, *shape[1:]))
    written = codec.write(Call([InferRequest({}, ("y",))], Form.CSV), [{"y": array}])
    back = codec.read({"content-type": "text/csv"}, written.body, LIMIT)
    same(back.requests[0].inputs["x"], array)


@pytest.mark.parametrize("text", ["two\nlines", "\r", "ends\r\n", ""])
def test_a_text_of_csv_keeps_its_line_ends(text: str) -> None:
    codec = echo("BYTES", (-1,))
    array = objects([text.encode(), b"next"])
    written = codec.write(Call([InferRequest({}, ("y",))], Form.CSV), [{"y": array}])
    same(codec.read({"content-type": "text/csv"}, written.body, LIMIT).requests[0].inputs["x"], array)


@given(arrays(*NUMERIC, min_dims=1))
def test_every_form_of_a_request_is_the_same_request(drawn: tuple[str, Array]) -> None:
    datatype, array = drawn
    array = array.copy(order="C")
    if array.dtype.kind == "f":
        array[~np.isfinite(array)] = 0
    codec = echo(datatype, (-1, *array.shape[1:]))
    tensor = {"name": "x", "datatype": datatype, "shape": list(array.shape), "data": array.tolist()}
    rows = array.reshape(len(array), -1)
    forms = [
        ({}, json.dumps({"inputs": [tensor]}).encode()),
        ({"content-type": "application/jsonlines"}, json.dumps({"inputs": [tensor]}).encode() + b"\n"),
        ({"content-type": "text/csv"}, "\n".join(",".join(map(str, row)) for row in rows).encode()),
        binary(("x", datatype, array)),
        ({"content-type": "application/x-npy"}, npy(array)),
        ({"content-type": "application/x-npy"}, npy(np.asfortranarray(array))),
        ({"content-type": "application/octet-stream"}, wire(array, datatype)),
    ]
    for headers, body in forms:
        same(codec.read(headers, body, LIMIT).requests[0].inputs["x"], array)
        zipped = {**headers, "content-encoding": "gzip"}
        same(codec.read(zipped, gzip.compress(body), LIMIT).requests[0].inputs["x"], array)


def test_bf16_is_rounded_to_the_nearest_and_to_even() -> None:
    codec = echo("BF16", (-1,))
    values = [1.0, 1 + 2**-8, 1 + 2**-7 + 2**-8, 1 + 2**-8 + 2**-20, -3.0e38]
    body = json.dumps({"inputs": [{"name": "x", "datatype": "BF16", "shape": [5], "data": values}]}).encode()
    call = codec.read({}, body, LIMIT)
    expected = [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -3.004055e38]
    np.testing.assert_allclose(call.requests[0].inputs["x"], expected, rtol=1e-6)


@pytest.mark.parametrize("count", [2, 300])
@pytest.mark.parametrize(
    ("datatype", "largest", "too_large"),
    [
        ("FP16", 65519.9, 65520.0),
        ("BF16", 3.396e38, 3.3962e38),
        ("FP32", 3.4028235e38, 3.40282357e38),
        ("INT8", 127, 128),
        ("UINT64", 2**64 - 1, -1),
    ],
)
def test_the_largest_value_passes_and_the_next_is_refused_in_lists_of_any_length(
    count: int, datatype: str, largest: float, too_large: float
) -> None:
    codec = echo(datatype, (-1,))
    tensor = {"name": "x", "datatype": datatype, "shape": [count]}

    def body(value: float) -> bytes:
        return json.dumps({"inputs": [tensor | {"data": [0] * (count - 1) + [value]}]}).encode()

    assert codec.read({}, body(largest), LIMIT).requests[0].inputs["x"].shape == (count,)
    refused(codec, {}, body(too_large), "invalid-data", f"value {count - 1} ")


def test_inputs_are_views_of_the_body_and_cannot_be_changed() -> None:
    headers, body = binary(("x", "FP32", np.arange(4, dtype=np.float32)))
    array = echo("FP32", (-1,)).read(headers, body, LIMIT).requests[0].inputs["x"]
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    for form in (array, echo("FP32", (-1,)).read({}, json_body([1, 2]), LIMIT).requests[0].inputs["x"]):
        assert not form.flags.writeable


def json_body(data: list[Any], **members: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(data)], "data": data}
    return json.dumps({"inputs": [tensor]} | members).encode()


# --- Which form the answer has ------------------------------------------------------------------------------

ONE = echo("FP32", (-1,))
Y = {"y": np.array([1.5, -2], np.float32)}
OCTETS = "application/octet-stream"
BINARY_OUTPUT = {"parameters": {"binary_data_output": True}}
TENSOR = ("x", "FP32", Y["y"])
NPY = npy(Y["y"])


@pytest.mark.parametrize(
    ("headers", "body", "answered"),
    [
        ({}, json_body([1]), "application/json"),
        ({"accept": "*/*"}, json_body([1]), "application/json"),
        ({"accept": "text/html, application/*"}, json_body([1]), "application/json"),
        ({"accept": "application/x-npy"}, json_body([1]), "application/x-npy"),
        ({"accept": OCTETS}, json_body([1]), OCTETS),
        ({"accept": TRITON}, json_body([1]), TRITON),
        ({}, json_body([1], **BINARY_OUTPUT), OCTETS),
        ({}, json_body([1], outputs=[{"name": "y", "parameters": {"binary_data": True}}]), OCTETS),
        (
            {},
            json_body([1], outputs=[{"name": "y", "parameters": {"binary_data": False}}], **BINARY_OUTPUT),
            "application/json",
        ),
        (*binary(TENSOR), "application/json"),
        (*binary(TENSOR, **BINARY_OUTPUT), OCTETS),
        ({"content-type": "application/x-npy"}, npy(Y["y"]), "application/x-npy"),
        (
            {"content-type": "application/x-npy", "accept": "application/json"},
            npy(Y["y"]),
            "application/json",
        ),
        ({"content-type": "application/x-npy", "accept": OCTETS}, npy(Y["y"]), OCTETS),
        ({"content-type": "application/x-npy", "accept": TRITON}, npy(Y["y"]), TRITON),
        ({"content-type": OCTETS}, Y["y"].tobytes(), OCTETS),
        ({"content-type": OCTETS, "accept": "application/x-npy"}, Y["y"].tobytes(), "application/x-npy"),
        ({"content-type": "text/csv"}, b"1\n2", "text/csv"),
        ({"content-type": "text/csv", "accept": "application/json"}, b"1\n2", "application/json"),
        ({"content-type": "application/jsonlines"}, json_body([1]), "application/jsonlines"),
        ({"content-type": "application/x-ndjson; charset=utf-8"}, json_body([1]), "application/jsonlines"),
    ],
)
def test_the_answer_has_the_form_that_was_asked_for_or_that_of_the_request(
    headers: dict[str, str], body: bytes, answered: str
) -> None:
    encoded = ONE.write(ONE.read(headers, body, LIMIT), [Y])
    assert encoded.headers["content-type"].partition(";")[0] == answered


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": OCTETS},
        {"content-type": "application/x-npy"},
        {"inference-header-content-length": "0"},
    ],
)
def test_who_does_not_ask_for_bytes_gets_none_where_the_way_back_carries_text(
    headers: dict[str, str],
) -> None:
    form = headers.get("content-type")
    body = {OCTETS: Y["y"].tobytes(), "application/x-npy": npy(Y["y"])}.get(form or "")
    if body is None:
        headers, body = binary(TENSOR, **BINARY_OUTPUT)
    for accept in ({}, {"accept": "*/*"}, {"accept": f"application/json, {OCTETS}"}):
        for call in (
            ONE.read(headers | accept, body, LIMIT, text_only=True),
            ONE.read(headers | accept | {"x-amzn-sagemaker-custom-attributes": "id-1"}, body, LIMIT),
        ):
            encoded = ONE.write(call, [Y])
            assert encoded.headers == {"content-type": "application/json"}
            assert json.loads(encoded.body)["outputs"][0]["data"] == [1.5, -2]


@pytest.mark.parametrize("accept", [OCTETS, "application/x-npy", TRITON])
def test_what_has_no_plain_form_comes_as_a_document_and_as_bytes_if_bytes_were_accepted(accept: str) -> None:
    headers, body = binary(
        ("a", "FP32", np.zeros((1, 2), np.float32)), ("b", "BYTES", objects([b"\xff\x00"]))
    )
    arrays = {"c": np.ones((1, 2), np.float32), "d": objects([b"\xff"])}
    encoded = PAIR.write(PAIR.read(headers | {"accept": accept}, body, LIMIT), [arrays])
    answer, tail = document(encoded)
    assert [output["parameters"] for output in answer["outputs"]] == [
        {"binary_data_size": 8},
        {"binary_data_size": 5},
    ]
    assert tail == wire(arrays["c"], "FP32") + b"\x01\x00\x00\x00\xff"
    plain = PAIR.write(PAIR.read(headers, body, LIMIT), [arrays])
    assert json.loads(plain.body)["outputs"][1] == {
        "name": "d", "datatype": "BYTES", "shape": [1],
        "parameters": {"content_type": "base64"}, "data": [base64.b64encode(b"\xff").decode()],
    }  # fmt: skip


def test_outputs_mix_forms_and_keep_their_order() -> None:
    headers, body = binary(
        ("a", "FP32", np.zeros((1, 2), np.float32)),
        ("b", "BYTES", objects([b"x"])),
        id="7",
        outputs=[{"name": "d", "parameters": {"binary_data": True}}, {"name": "c"}],
    )
    call = PAIR.read(headers, body, LIMIT)
    answer, tail = document(PAIR.write(call, [{"c": np.ones((1, 2), np.float32), "d": objects([b"hi"])}]))
    assert tail == b"\x02\x00\x00\x00hi"
    assert answer == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "d", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}},
            {"name": "c", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 1.0]},
        ],
    }


@pytest.mark.parametrize(
    ("carried", "told"),
    [
        (lambda length: {"inference-header-content-length": length}, OCTETS),
        (lambda length: {"content-type": f"{TRITON};json-header-size={length}"}, TRITON),
        (lambda length: {"content-type": f"{TRITON}; json-header-size={length}"}, TRITON),
        (
            lambda length: {
                "content-type": OCTETS,
                "x-amzn-sagemaker-custom-attributes": f"id=7;json-header-size={length}",
            },
            OCTETS,
        ),
    ],
)
def test_the_headers_length_is_carried_in_three_ways_and_told_in_the_same(carried: Any, told: str) -> None:
    headers, body = binary(TENSOR, **BINARY_OUTPUT)
    sent = carried(headers["inference-header-content-length"])
    call = ONE.read(sent, body, LIMIT)
    same(call.requests[0].inputs["x"], Y["y"])
    encoded = ONE.write(call, [Y])
    length = encoded.headers["inference-header-content-length"]
    assert json.loads(encoded.body[: int(length)])["outputs"][0]["parameters"] == {"binary_data_size": 8}
    media_type = f"{TRITON};json-header-size={length}" if told == TRITON else OCTETS
    assert encoded.headers["content-type"] == media_type
    attributes = encoded.headers.get("x-amzn-sagemaker-custom-attributes")
    assert attributes == (length if "x-amzn-sagemaker-custom-attributes" in sent else None)


# --- What is refused ----------------------------------------------------------------------------------------


def changed(length: int = 0, tail: bytes | None = None, **tensor: Any) -> tuple[dict[str, str], bytes]:
    """The binary request of FP32 [2] with its tensor's members changed, and `length` added."""
    described = {
        "name": "x",
        "datatype": "FP32",
        "shape": [2],
        "parameters": {"binary_data_size": 8},
    } | tensor
    header = json.dumps({"inputs": [described]}).encode()
    headers = {"inference-header-content-length": str(len(header) + length)}
    return headers, header + (bytes(8) if tail is None else tail)


@pytest.mark.parametrize(
    ("request_", "slug", "detail"),
    [
        (({"inference-header-content-length": "x"}, b"{}"), "invalid-request", "length is 'x'"),
        (({"inference-header-content-length": "-1"}, b"{}"), "invalid-request", "length is '-1'"),
        (({"inference-header-content-length": "+2"}, b"{}"), "invalid-request", "length is '+2'"),
        (({"inference-header-content-length": "٢"}, b"{}"), "invalid-request", "length is"),
        (({"inference-header-content-length": "9" * 5000}, b"{}"), "invalid-request", "length is"),
        (({"inference-header-content-length": "3"}, b"{}"), "invalid-request", "at most the 2 of the body"),
        (({"content-type": TRITON}, b"{}"), "invalid-request", "length is None"),
        (({"content-type": f"{TRITON};json-header-size="}, b"{}"), "invalid-request", "length is ''"),
        (({"inference-header-content-length": "0"}, b"{}"), "invalid-json", "empty"),
        (
            ({"content-type": "text/csv", "inference-header-content-length": "2"}, b"{}"),
            "unsupported-media-type",
            "text/csv",
        ),
        (changed(length=-1), "invalid-json", "Line 1"),
        (changed(length=1), "invalid-json", "Line 1"),
        (changed(tail=bytes(7)), "invalid-data", "binary_data_size is 8; 7 bytes are left"),
        (changed(tail=bytes(9)), "invalid-data", "1 bytes of the body belong to no input"),
        (changed(parameters={"binary_data_size": -1}), "invalid-data", "binary_data_size is -1"),
        (changed(parameters={"binary_data_size": True}), "invalid-data", "binary_data_size is True"),
        (changed(parameters={"binary_data_size": 8.0}), "invalid-data", "binary_data_size is 8.0"),
        (changed(parameters={"binary_data_size": 2**70}), "invalid-data", "binary_data_size is"),
        (changed(parameters={"binary_data_size": 4}), "invalid-data", "4 bytes of data; 2 values"),
        (changed(shape=[3]), "invalid-data", "8 bytes of data; 3 values of FP32 are 12 bytes"),
        (changed(shape=[2**62]), "invalid-data", "8 bytes of data"),
        (changed(shape=[0], tail=b"", parameters={"binary_data_size": 0}), "invalid-shape", "at least 1"),
        (changed(data=[1, 2]), "invalid-data", "both data and binary_data_size"),
        (changed(datatype="FP64"), "invalid-datatype", "it must be FP32"),
        (changed(parameters={"shared_memory_region": "r"}, tail=b""), "invalid-data", "must be a JSON array"),
        (({}, json_body([1], parameters={"binary_data_output": 1})), "invalid-request", "true or false"),
        (
            ({}, json_body([1], outputs=[{"name": "y", "parameters": {"binary_data": "yes"}}])),
            "invalid-request",
            "outputs[0].parameters.binary_data is 'yes'",
        ),
        (
            ({}, json_body([1], outputs=[{"name": "y", "parameters": {"classification": 3}}])),
            "invalid-request",
            "classification is not offered",
        ),
        (({}, json_body([1], outputs=[{"name": "y", "parameters": 1}])), "invalid-request", "not an object"),
        (({"content-type": OCTETS}, bytes(7)), "invalid-shape", "7 bytes of FP32"),
        (({"content-type": OCTETS}, b""), "invalid-shape", "0 bytes of FP32"),
        (({"content-type": "application/x-npy"}, b"\x93NUMPY"), "invalid-data", "not an npy file"),
        (({"content-type": "application/x-npy"}, npy(Y["y"])[:-1]), "invalid-data", "7 bytes of data"),
        (({"content-type": "application/x-npy"}, npy(Y["y"]) + b"1"), "invalid-data", "9 bytes of data"),
        (({"content-type": "application/x-npy"}, npy(np.zeros(2))), "invalid-datatype", "'<f8'"),
        (({"content-type": "application/x-npy"}, npy(np.zeros(0, "f4"))), "invalid-shape", "[0]"),
        (
            ({"content-type": "application/x-npy"}, npy(np.array([{}], object), allow_pickle=True)),
            "invalid-data",
            "numbers or text",
        ),
        (({"content-type": "application/x-npy"}, NPY.replace(b"<f4", b"<f9")), "invalid-data", "not an npy"),
        (
            ({"content-type": "application/x-npy"}, NPY.replace(b"(2,)", b"2, 0")),
            "invalid-data",
            "not an npy",
        ),
        (
            ({"content-type": "application/x-npy"}, NPY.replace(b"(2,)", b"(2.)")),
            "invalid-data",
            "not an npy",
        ),
        (
            ({"content-type": "application/x-npy"}, NPY.replace(b"(2,)", b"[2L]")),
            "invalid-data",
            "not an npy",
        ),
        (({"content-type": "application/x-npy"}, NPY.replace(b"(2,)", b"[2.]")), "invalid-shape", "[2.0]"),
        (({"content-type": "application/x-npy"}, b"\x93NUMPY\x01\x00" + b"\xff" * 9), "invalid-data", "npy"),
        (({"content-type": "application/x-npy"}, b"\x93NUMPY\x09\x00" + NPY[8:]), "invalid-data", "npy"),
        (
            (
                {"content-type": "application/x-npy"},
                npy(np.zeros(1, [("a", "f4"), ("b", "O")]), allow_pickle=True),
            ),
            "invalid-data",
            "numbers or text",
        ),
        (({"content-type": "text/csv"}, b""), "invalid-data", "no rows"),
        (({"content-type": "text/csv"}, b"1\n2,3\n"), "invalid-data", "line 2: it has 2 columns"),
        (({"content-type": "text/csv"}, b"1\n\n2"), "invalid-data", "line 2: it has 0 columns"),
        (({"content-type": "text/csv"}, b"1\n1_0\n"), "invalid-data", "line 2: input 'x': value 0 is '1_0'"),
        (({"content-type": "text/csv"}, b"1\n2\n1e39"), "invalid-data", "line 3: input 'x': value 0"),
        (({"content-type": "text/csv"}, b"1e999"), "invalid-data", "line 1"),
        (({"content-type": "text/csv"}, b'"1'), "invalid-data", "line 1"),
        (({"content-type": "text/csv"}, b"\xff"), "invalid-data", "UTF-8"),
        (({"content-type": "application/jsonlines"}, b""), "invalid-json", "empty"),
        (
            ({"content-type": "application/jsonlines"}, json_body([1]) + b"\n{}\n"),
            "invalid-request",
            "line 2: inputs is missing",
        ),
        (
            ({"content-type": "application/jsonlines"}, json_body([1]) + b"\n\n" + json_body([1])),
            "invalid-json",
            "line 2: The body is empty",
        ),
        (({"content-type": "text/html"}, b""), "unsupported-media-type", "use application/json"),
        (({"content-encoding": "br"}, b""), "unsupported-media-type", "'br'; use gzip, deflate"),
        (({"content-encoding": "gzip"}, b"{}"), "invalid-request", "not valid gzip"),
        (({"content-encoding": "gzip"}, gzip.compress(b"{}")[:-3]), "invalid-request", "one whole gzip"),
        (({"content-encoding": "gzip"}, gzip.compress(b"{}") + b"x"), "invalid-request", "one whole gzip"),
    ],
)
def test_what_is_malformed_is_refused_by_name(
    request_: tuple[dict[str, str], bytes], slug: str, detail: str
) -> None:
    refused(ONE, *request_, slug, detail)


def test_a_pickle_in_an_npy_file_is_never_loaded() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return pytest.fail, ("unpickled",)

    body = npy(np.array([Bomb()], object), allow_pickle=True)
    for codec in (ONE, echo("BYTES", (-1,))):
        refused(codec, {"content-type": "application/x-npy"}, body, "invalid-data", "numbers or text")


@pytest.mark.parametrize(
    ("size", "tail", "detail"),
    [
        (1, b"", "too few for 1 values"),
        (2, b"\x00" * 4, "too few for 2 values"),
        (2**40, b"\x00" * 4, "too few"),
        (1, b"\x02\x00\x00\x00a", "value 0 says that it has 2 bytes; 1 are left"),
        (1, b"\xff\xff\xff\xffa", "value 0 says that it has 4294967295 bytes"),
        (2, b"\x04\x00\x00\x00abcd", "the data end before value 1"),
        (1, b"\x00\x00\x00\x00a", "1 bytes of data are left"),
    ],
)
def test_lengths_of_bytes_that_disagree_are_refused(size: int, tail: bytes, detail: str) -> None:
    headers, body = changed(
        tail=tail, datatype="BYTES", shape=[size], parameters={"binary_data_size": len(tail)}
    )
    refused(echo("BYTES", (-1,)), headers, body, "invalid-data", detail)


def test_a_byte_that_is_no_boolean_is_refused() -> None:
    headers, body = changed(tail=b"\x01\x02", datatype="BOOL", shape=[2], parameters={"binary_data_size": 2})
    refused(echo("BOOL", (-1,)), headers, body, "invalid-data", "value 1 is the byte 2")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_before_it_is_inflated(encoding: str) -> None:
    inflated = b" " * (100 * LIMIT)
    bomb = gzip.compress(inflated) if encoding == "gzip" else zlib.compress(inflated)
    refused(ONE, {"content-encoding": encoding}, bomb, "payload-too-large", f"the limit of {LIMIT} bytes")


def test_a_tensor_by_itself_is_for_models_with_one_input() -> None:
    for form in (OCTETS, "application/x-npy"):
        refused(PAIR, {"content-type": form}, b"", "unsupported-media-type", "the model takes ['a', 'b']")


def test_raw_bytes_need_a_signature_that_leaves_one_length() -> None:
    codec = echo("FP32", (-1, -1))
    refused(codec, {"content-type": OCTETS}, bytes(8), "invalid-shape", "do not fill one shape")


def test_csv_needs_fixed_lengths() -> None:
    codec = echo("FP32", (-1, -1))
    refused(codec, {"content-type": "text/csv"}, b"1", "unsupported-media-type", "free lengths")


# --- Rows and lines -----------------------------------------------------------------------------------------


def test_the_columns_of_csv_are_the_inputs_in_order_and_its_rows_the_batch() -> None:
    call = PAIR.read({"content-type": "text/csv"}, b'1,,"a ""b"",c"\r\nnan,-inf,\r\n', LIMIT)
    (request,) = call.requests
    np.testing.assert_array_equal(request.inputs["a"], [[1, np.nan], [np.nan, -np.inf]])
    assert request.inputs["b"].tolist() == [b'a "b",c', b""]
    arrays = {"c": np.array([[1, np.nan], [0.1, 2]], np.float32), "d": objects([b"x,y", b"z"])}
    encoded = PAIR.write(call, [arrays])
    assert encoded.headers == {"content-type": "text/csv; charset=utf-8"}
    assert encoded.body == b'1.0,nan,"x,y"\n0.1,2.0,z\n'


def test_rows_of_a_model_without_a_batch_are_requests_of_their_own() -> None:
    codec = echo("INT32", (1, 2))
    call = codec.read({"content-type": "text/csv"}, b"1,2\n3,4\n", LIMIT)
    assert [request.inputs["x"].tolist() for request in call.requests] == [[[1, 2]], [[3, 4]]]
    answers = [{"y": np.array([[5, 6]], np.int32)}, {"y": np.array([[7, 8]], np.int32)}]
    assert codec.write(call, answers).body == b"5,6\n7,8\n"
    assert call.located(1, Problem("invalid-data", "no")).detail == "line 2: no"


def test_each_line_is_a_request_and_gets_a_line() -> None:
    body = json_body([1], id="a") + b"\n" + json_body([2, 3], id="b")
    call = ONE.read({"content-type": "application/jsonlines"}, body, LIMIT)
    assert [request.inputs["x"].tolist() for request in call.requests] == [[1], [2, 3]]
    lines = ONE.write(call, [Y, Y]).body.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]
    assert call.located(0, Problem("model-error", "no")).detail == "line 1: no"


def test_a_raw_body_is_one_value_of_bytes() -> None:
    codec = echo("BYTES", (-1,))
    call = codec.read({"content-type": OCTETS}, b"\x00any\xff", LIMIT)
    assert call.requests[0].inputs["x"].tolist() == [b"\x00any\xff"]
    assert json.loads(codec.write(call, [{"y": objects([b"text"])}]).body)["outputs"][0]["data"] == ["text"]


@pytest.mark.parametrize("array", [np.array(["é", ""]), np.array([b"\xc3\xa9", b""])])
def test_npy_files_of_text_are_bytes(array: Array) -> None:
    call = echo("BYTES", (-1,)).read({"content-type": "application/x-npy"}, npy(array), LIMIT)
    assert call.requests[0].inputs["x"].tolist() == ["é".encode(), b""]


def test_a_huge_string_and_an_empty_one_survive() -> None:
    values = [b"x" * (3 << 20), b""]
    headers, body = binary(("x", "BYTES", objects(values)), **BINARY_OUTPUT)
    codec = echo("BYTES", (-1,))
    call = codec.read(headers, body, LIMIT)
    assert call.requests[0].inputs["x"].tolist() == values
    assert document(codec.write(call, [{"y": objects(values)}]))[1] == wire(objects(values), "BYTES")


def test_outputs_without_values_are_answered_in_every_form() -> None:
    empty = {"y": np.empty((0,), np.float32)}
    assert (
        json.loads(ONE.write(ONE.read({}, json_body([1]), LIMIT), [empty]).body)["outputs"][0]["data"] == []
    )
    for accept, size in ((OCTETS, 0), ("application/x-npy", None)):
        encoded = ONE.write(ONE.read({"accept": accept}, json_body([1]), LIMIT), [empty])
        if size is None:
            assert np.load(io.BytesIO(encoded.body)).shape == (0,)
        else:
            assert document(encoded)[0]["outputs"][0]["shape"] == [0]


# --- Compressed answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offers", "encoding"),
    [
        ("gzip", "gzip"),
        ("deflate, gzip", "deflate"),
        ("br;q=1.0, gzip;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.0, deflate", "deflate"),
        ("identity", None),
        ("", None),
    ],
)
def test_large_text_is_compressed_as_the_client_accepts(offers: str, encoding: str | None) -> None:
    large = {"y": np.zeros(4096, np.float32)}
    call = ONE.read({"accept-encoding": offers}, json_body([1]), LIMIT)
    encoded = ONE.write(call, [large])
    assert encoded.headers.get("content-encoding") == encoding
    inflate = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[encoding]
    assert len(json.loads(inflate(encoded.body))["outputs"][0]["data"]) == 4096
    assert "content-encoding" not in ONE.write(call, [Y]).headers
