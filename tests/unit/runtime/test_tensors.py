"""Tensors survive the trip through JSON exactly, and what is not a tensor is refused by name."""

import base64
import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inference_runtime import tensors
from inference_runtime.errors import Problem
from inference_runtime.manifest import DATATYPES, TensorSpec

NUMERIC = [datatype for datatype in DATATYPES if datatype not in ("BYTES", "BF16")]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, max_side=4)


def decode(document: dict[str, Any], spec: TensorSpec) -> tensors.Array:
    return tensors.Reader(spec).decode(document)


def through_json(name: str, datatype: str, array: tensors.Array) -> dict[str, Any]:
    data, base64 = tensors.dumps(array, datatype)
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(array.shape),
        "data": json.loads(data, parse_constant=pytest.fail),
        **({"parameters": tensors.BASE64} if base64 else {}),
    }


def nested(flat: list[Any], shape: list[int]) -> list[Any]:
    if len(shape) <= 1:
        return flat
    step = len(flat) // shape[0]
    return [nested(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


@given(st.data())
def test_numbers_survive_the_round_trip_flat_and_nested(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(NUMERIC))
    dtype = tensors.DTYPES[datatype]
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    array = data.draw(hnp.arrays(dtype, SHAPES, elements=hnp.from_dtype(dtype, **finite)))
    spec = TensorSpec("x", datatype, (-1,) * array.ndim)
    document = through_json("x", datatype, array)
    for layout in (document["data"], nested(document["data"], document["shape"])):
        back = decode(document | {"data": layout}, spec)
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, array)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=6))
def test_bytes_survive_the_round_trip_whatever_they_are(values: list[bytes]) -> None:
    array = np.empty(len(values), np.object_)
    array[:] = values
    back = decode(through_json("x", "BYTES", array), TensorSpec("x", "BYTES", (-1,)))
    assert back.tolist() == values


@given(st.lists(st.text(max_size=8), min_size=1, max_size=6))
def test_utf8_is_written_as_plain_strings(values: list[str]) -> None:
    array = np.empty(len(values), np.object_)
    array[:] = [value.encode() for value in values]
    assert through_json("x", "BYTES", array)["data"] == values


def test_what_is_not_utf8_is_written_as_base64_and_says_so() -> None:
    array = np.array([b"\xff", b"a"], np.object_)
    document = through_json("x", "BYTES", array)
    assert document["parameters"] == {"content_type": "base64"}
    assert document["data"] == [base64.b64encode(b"\xff").decode(), base64.b64encode(b"a").decode()]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_nan_and_infinity_are_written_as_null_which_numpy_reads_as_nan(datatype: str) -> None:
    array = np.array([np.nan, np.inf, -np.inf, 1], tensors.DTYPES[datatype])
    data = through_json("x", datatype, array)["data"]
    assert data == [None, None, None, 1]
    assert np.isnan(np.array(data, tensors.DTYPES[datatype])[:3]).all()


def test_a_transposed_array_is_written_in_row_major_order() -> None:
    array = np.arange(6, dtype=np.int64).reshape(2, 3).T
    assert through_json("x", "INT64", array) == {
        "name": "x", "datatype": "INT64", "shape": [3, 2], "data": [0, 3, 1, 4, 2, 5],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "slug", "detail"),
    [
        ("FP32", [2], [1, True], "invalid-data", "value 1 is True; data must be numbers"),
        ("FP32", [1], ["1"], "invalid-data", "value 0 is '1'; data must be numbers"),
        ("FP32", [1], [None], "invalid-data", "value 0 is None"),
        ("FP32", [1], [[1]], "invalid-data", "value 0 is [1]"),
        ("FP32", [1], [{}], "invalid-data", "value 0 is {}"),
        ("FP32", [1], [1e39], "invalid-data", "value 0 (1e+39) is out of range for FP32"),
        ("FP16", [2], [0, 70000], "invalid-data", "value 1 (70000) is out of range for FP16"),
        ("INT8", [3], [0, 127, 128], "invalid-data", "value 2 (128) is out of range for INT8"),
        ("UINT8", [1], [-1], "invalid-data", "value 0 (-1) is out of range for UINT8"),
        ("INT64", [1], [2**63], "invalid-data", "out of range for INT64"),
        ("UINT64", [1], [2**64], "invalid-data", "value 0"),
        ("INT32", [1], [1.0], "invalid-data", "whole numbers, written without a fraction"),
        ("INT32", [1], [True], "invalid-data", "whole numbers"),
        ("BOOL", [1], [1], "invalid-data", "data must be true or false"),
        ("BYTES", [1], [1], "invalid-data", "data must be strings"),
        ("FP32", [2], "ab", "invalid-data", "data must be a JSON array"),
        ("FP32", [2], None, "invalid-data", "data must be a JSON array"),
        ("FP32", [2], [1], "invalid-data", "1 values, but shape [2] needs 2"),
        ("FP32", [2, 2], [1, 2, 3], "invalid-data", "3 values, but shape [2, 2] needs 4"),
        ("FP32", [2, 2], [[1, 2], [3]], "invalid-data", "a list at depth 2 of data has not 2 items"),
        ("FP32", [2, 2], [[1, 2]], "invalid-data", "1 rows, but shape [2, 2] needs 2"),
        ("FP32", [2, 2], [[1, 2], 3], "invalid-data", "mix lists and values"),
        ("FP32", [2, 1, 1], [[[1]], [1]], "invalid-data", "mix lists and values at depth 3"),
        ("FP32", [2**62, 2**62], [1], "invalid-data", "1 values"),
        ("FP32", [0], [], "invalid-shape", "each at least 1"),
        ("FP32", [-1], [1], "invalid-shape", "each at least 1"),
        ("FP32", [1.0], [1], "invalid-shape", "list of integers"),
        ("FP32", [True], [1], "invalid-shape", "list of integers"),
        ("FP32", ["1"], [1], "invalid-shape", "list of integers"),
        ("FP32", 1, [1], "invalid-shape", "shape is 1"),
        ("FP32", None, [1], "invalid-shape", "shape is None"),
    ],
)
def test_bad_tensors_are_refused_by_name(
    datatype: str, shape: Any, data: Any, slug: str, detail: str
) -> None:
    spec = TensorSpec("x", datatype, (-1,) * len(shape) if isinstance(shape, list) else (-1,))
    with pytest.raises(Problem) as caught:
        decode({"name": "x", "datatype": datatype, "shape": shape, "data": data}, spec)
    assert caught.value.slug == slug
    assert caught.value.detail.startswith("input 'x': ")
    assert detail in caught.value.detail


@pytest.mark.parametrize(
    ("shape", "wanted"), [([3], (2,)), ([1, 2], (-1,)), ([1], (-1, 2)), ([1, 3], (-1, 2)), ([], (-1,))]
)
def test_a_shape_that_does_not_match_the_signature_is_refused(
    shape: list[int], wanted: tuple[int, ...]
) -> None:
    with pytest.raises(Problem, match="must match") as caught:
        decode({"datatype": "FP32", "shape": shape, "data": []}, TensorSpec("x", "FP32", wanted))
    assert caught.value.slug == "invalid-shape"


@pytest.mark.parametrize("datatype", ["FP64", "BF16", "", None, 3, ["FP32"]])
def test_another_datatype_than_the_signatures_is_refused(datatype: Any) -> None:
    with pytest.raises(Problem, match="it must be FP32") as caught:
        decode({"datatype": datatype, "shape": [1], "data": [1]}, TensorSpec("x", "FP32", (-1,)))
    assert caught.value.slug == "invalid-datatype"


@pytest.mark.parametrize("value", ["a", "====", "YQ=", "Y Q==", "YQ==\n", "é"])
def test_bad_base64_is_refused_by_position(value: str) -> None:
    document = {"datatype": "BYTES", "shape": [2], "data": ["YQ==", value], "parameters": tensors.BASE64}
    with pytest.raises(Problem, match="value 1 is not valid base64"):
        decode(document, TensorSpec("x", "BYTES", (-1,)))


def test_an_unknown_content_type_is_refused() -> None:
    document = {"datatype": "BYTES", "shape": [1], "data": ["a"], "parameters": {"content_type": "pickle"}}
    with pytest.raises(Problem, match="'pickle'; it must be 'base64'"):
        decode(document, TensorSpec("x", "BYTES", (-1,)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=3), children, max_size=2)
    ),
    max_leaves=12,
)


members = dict.fromkeys(("datatype", "shape", "data", "parameters"), json_values)


@given(st.fixed_dictionaries({}, optional=members), st.sampled_from(DATATYPES))
def test_whatever_json_says_the_outcome_is_an_array_or_a_problem(
    document: dict[str, Any], datatype: str
) -> None:
    spec = TensorSpec("x", datatype, (-1, -1))
    with contextlib.suppress(Problem):
        array = decode({"shape": [1, 1], "data": [1]} | document | {"datatype": datatype}, spec)
        assert array.dtype == tensors.DTYPES[datatype]
        assert tensors.fits(array.shape, spec)
