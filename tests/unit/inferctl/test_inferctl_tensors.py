"""Requests made from texts and files, and answers shown to people."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferctl import tensors
from inferctl.errors import InputError


def metadata(shape: list[int], datatype: str = "BYTES", count: int = 1) -> dict[str, Any]:
    tensor = {"name": "content", "datatype": datatype, "shape": shape}
    return {"name": "m", "inputs": [tensor] * count}


def test_texts_are_sent_as_text() -> None:
    assert tensors.request(metadata([-1]), ["a", "é"]) == {
        "inputs": [{"name": "content", "datatype": "BYTES", "shape": [2], "data": ["a", "é"]}]
    }


@given(st.lists(st.binary(), min_size=1, max_size=5))
def test_files_are_sent_as_base64_and_say_so(values: list[bytes]) -> None:
    (tensor,) = tensors.request(metadata([-1]), values)["inputs"]
    assert tensor["parameters"] == {"content_type": "base64"}
    assert [base64.b64decode(item) for item in tensor["data"]] == values


def test_a_column_of_values_keeps_its_second_axis() -> None:
    assert tensors.request(metadata([-1, 1]), ["a", "b"])["inputs"][0]["shape"] == [2, 1]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            metadata([-1], "FP32"),
            r"m takes content FP32 \[-1\], and not one BYTES tensor: send a JSON request",
        ),
        (metadata([-1], count=2), "and not one BYTES tensor"),
        (metadata([1]), r"m takes content BYTES \[1\], which 2 value\(s\) do not fit"),
        (metadata([-1, 3]), "do not fit"),
    ],
)
def test_a_model_that_takes_something_else_is_described(model: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        tensors.request(model, ["a", "b"])


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', b"\xff\xfe\x00"])
def test_what_is_not_a_request_is_refused_by_its_source(text: str | bytes) -> None:
    with pytest.raises(InputError, match=r"^request\.json is not"):
        tensors.parse(text, "request.json")


ANSWER = {
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["png", "csv"]},
        {"name": "vector", "datatype": "FP32", "shape": [2, 6], "data": [0.123456] * 6 + [1.0] * 6},
    ]
}


def test_an_answer_is_a_table_of_items_with_long_vectors_shortened() -> None:
    columns, rows = tensors.rows(ANSWER)
    assert columns == ["label", "vector"]
    assert rows[0] == ["png", "[0.1235, 0.1235, 0.1235, 0.1235, … 6 values]"]
    assert rows[1][0] == "csv"


def test_nested_data_reads_like_flat_data() -> None:
    nested = {
        "outputs": [{"name": "v", "datatype": "FP32", "shape": [2, 2], "data": [[1.0, 2.0], [3.0, 4.0]]}]
    }
    assert tensors.rows(nested)[1] == [["[1, 2]"], ["[3, 4]"]]


def test_a_summary_is_one_line() -> None:
    assert tensors.summary(ANSWER) == (
        "label: png, csv; vector: [0.1235, 0.1235, … 6 values], [1, 1, … 6 values]"
    )


def test_an_answer_without_items_is_an_empty_table() -> None:
    empty = {"outputs": [{"name": "v", "datatype": "FP32", "shape": [0], "data": []}]}
    assert tensors.rows(empty) == (["v"], [])
