"""Whatever bytes arrive: a request that fits the signature, or a problem. `make fuzz` tries for a minute."""

import gzip
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_runtime import compression, protocol, tensors
from inference_runtime.codecs import Codec
from inference_runtime.manifest import Manifest, TensorSpec
from inference_runtime.number_lists import NumberList
from tests.unit.runtime.codec_fuzz import LIMIT, Failure, Fuzzer


def test_the_seeds_are_requests() -> None:
    fuzzer = Fuzzer()
    for name, headers, body in fuzzer.seeds:
        assert fuzzer.codecs[name].read(headers, body, LIMIT).requests


def test_damaged_requests_are_read_as_the_signature_says_or_refused() -> None:
    assert Fuzzer().run(0, seconds=3) > 0


_view = tensors.Reader.view


def _believes_how_long_it_is(reader: tensors.Reader, data: tensors.Buffer, size: int) -> tensors.Array:
    return np.frombuffer(data, np.int32) if reader.spec.datatype == "INT32" else _view(reader, data, size)


def _inflates_without_a_care(encoding: str, body: tensors.Buffer, limit: int) -> bytes:
    return gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)


def _takes_true_for_a_number(frame: Any, text: bytes) -> tensors.Array | None:
    try:
        return np.ndarray(frame.shape, frame.dtype, frame.pack(*orjson.loads(text)))
    except (orjson.JSONDecodeError, TypeError, struct.error, OverflowError):
        return None


_array = NumberList.array


def _takes_lists_for_what_is_in_them(numbers: NumberList, text: bytes) -> tensors.Array | None:
    return _array(numbers, b"[%s]" % text.translate(None, b"[]"))


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (tensors.Reader, "view", _believes_how_long_it_is),
        (compression, "inflate", _inflates_without_a_care),
        (protocol._Frame, "array", _takes_true_for_a_number),
        (NumberList, "array", _takes_lists_for_what_is_in_them),
    ],
)
def test_a_codec_that_reads_what_it_should_refuse_is_found(
    owner: object, name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(Failure, match=r"case \d+: .*"):
        Fuzzer().run(0, seconds=60, most=20_000)


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
