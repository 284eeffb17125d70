"""Lists of numbers that become arrays at once: what they give is what the tensors' reader gives."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_runtime.errors import Problem
from inference_runtime.manifest import TensorSpec
from inference_runtime.number_lists import NumberList
from inference_runtime.tensors import DTYPES, Array, Reader

WHOLE = ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
FLOATS = ["FP16", "FP32", "FP64"]
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(1 << 65), 1 << 65),
    st.integers(-300, 300),
    st.just(-0.0),
)


def array(text: bytes, datatype: str, count: int) -> Array | None:
    return NumberList(DTYPES[datatype], count).array(text)


def read(values: list[float], datatype: str) -> Array | None:
    """What the tensors' reader gives; None for what it refuses."""
    try:
        return Reader(TensorSpec("x", datatype, (-1,))).values(values)
    except Problem:
        return None


@given(st.sampled_from(WHOLE + FLOATS), st.lists(numbers, min_size=1), st.integers(0, 3))
def test_an_array_is_the_one_that_the_reader_gives(datatype: str, values: list[float], spaces: int) -> None:
    text = json.dumps(values, separators=("," + " " * spaces, ":")).encode()
    found, expected = array(text, datatype, len(values)), read(values, datatype)
    if found is not None:
        assert expected is not None
        assert (found.dtype, found.tobytes()) == (expected.dtype, expected.tobytes())
        assert not found.flags.writeable


@pytest.mark.parametrize("datatype", WHOLE + FLOATS)
def test_a_datatypes_usual_values_are_read(datatype: str) -> None:
    dtype = DTYPES[datatype]
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    values = [limits.min.item() if dtype.kind == "f" else int(limits.min), 0, 1, 100]
    found = array(json.dumps(values).encode(), datatype, 4)
    assert found is not None
    assert found.tolist() == values


@pytest.mark.parametrize(
    "text",
    [
        b"[1,2]", b"[1,2,3,4]", b"[1,2,true]", b"[1,2,null]", b'[1,2,"3"]', b"[1,2,{}]", b"[1,2,[3]]",
        b"[[1,2,3]]", b"[[1],[2],[3]]", b"[1,2,3", b"1,2,3", b"[1,2,3]]", b"[1,2,3],4", b"[1,2,1e999]",
        b"[1,2,1e39]", b"[1,2,-1e39]", b"[1e39,-1e39,0]", b"[1,2,NaN]", b"[1,2,03]", b" [1,2,3]",
        b"\xef\xbb\xbf[1,2,3]", b"", b"{}",
    ],
)  # fmt: skip
def test_what_is_no_flat_list_of_so_many_numbers_of_the_datatype_is_left_to_others(text: bytes) -> None:
    assert array(text, "FP32", 3) is None


@pytest.mark.parametrize(
    ("text", "datatype"),
    [(b"[1.0]", "INT64"), (b"[128]", "INT8"), (b"[-1]", "UINT8"), (b"[18446744073709551616]", "UINT64")],
)
def test_whole_numbers_are_written_as_such_and_in_range(text: bytes, datatype: str) -> None:
    assert array(text, datatype, 1) is None


@pytest.mark.parametrize("length", [100, 200_000])
def test_an_array_is_its_own_whatever_is_read_next_and_wherever(length: int) -> None:
    def first(start: int) -> Array:
        found = array(json.dumps(list(range(start, start + length))).encode(), "INT64", length)
        assert found is not None
        return found

    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(first, range(20)))
    for start, found in enumerate(arrays):
        assert np.array_equal(found, np.arange(start, start + length))
