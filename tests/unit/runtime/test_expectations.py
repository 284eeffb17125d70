"""inference_runtime.expectations finds every way in which an answer can be wrong."""

from typing import Any

import pytest

from inference_runtime.expectations import check


def answer(name: str = "y", datatype: str = "FP32", shape: Any = None, data: Any = None) -> dict[str, Any]:
    return {"outputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]}


def rules(**of: Any) -> dict[str, Any]:
    return {"outputs": {"y": of}}


VECTORS = answer(shape=[3, 2], data=[1.0, 0.0, 0.6, 0.8, 0.0, 1.0])
LABELS = answer(datatype="BYTES", shape=[2], data=["python", "png"])


@pytest.mark.parametrize(
    ("expected", "response"),
    [
        (rules(equals=["python", "png"], shape=[2]), LABELS),
        (rules(equals=[1.0, 0.0, 0.6, 0.8, 0.0, 1.0]), VECTORS),
        (rules(close={"to": [1.0, 0.0, 0.59, 0.81, 0.0, 1.0], "within": 0.02}), VECTORS),
        (rules(shape=[3, 2], min=0.0, max=1.0, unit_length=True), VECTORS),
        (rules(cosine=[{"rows": [0, 1], "min": 0.59, "max": 0.61}, {"rows": [0, 2], "max": 0.01}]), VECTORS),
        (rules(unit_length=True), answer(shape=[1, 2], data=[[0.6, 0.8]])),
    ],
)
def test_a_right_answer_has_no_failures(expected, response):
    assert check(expected, response) == []


@pytest.mark.parametrize(
    ("expected", "response", "failure"),
    [
        (rules(equals=["png", "python"]), LABELS, "y: is ['python', 'png'], expected ['png', 'python']"),
        (
            rules(close={"to": [1.0, 0.0, 0.6, 0.8, 0.0, 0.9], "within": 0.05}),
            VECTORS,
            "y: has 1.0, expected 0.9 within 0.05",
        ),
        (rules(close={"to": [1.0], "within": 9}), VECTORS, "y: has 6 values, expected 1"),
        (
            rules(close={"to": [1], "within": 9}),
            answer(shape=[1], data=[None]),
            "y: has nan, expected 1 within 9",
        ),
        (rules(shape=[2, 3]), VECTORS, "y: has shape [3, 2], expected [2, 3]"),
        (rules(min=0.5), VECTORS, "y: has 0.0, expected at least 0.5"),
        (rules(max=0.5), VECTORS, "y: has 1.0, expected at most 0.5"),
        (
            rules(unit_length=True),
            answer(shape=[1, 2], data=[1, 1]),
            "y: row 0 has length 1.414214, expected 1",
        ),
        (
            rules(cosine=[{"rows": [0, 1], "min": 0.8}]),
            VECTORS,
            "y: rows 0 and 1 have cosine 0.6000, expected 0.8 to inf",
        ),
        (rules(cosine=[{"rows": [0, 9], "min": 0.8}]), VECTORS, "y: has 3 rows, expected row 9"),
        (rules(min=0), answer(shape=[1], data=[None]), "y: has nan, expected at least 0"),
        (rules(max=0), answer(shape=[1], data=[None]), "y: has nan, expected at most 0"),
        (rules(unit_length=True), answer(shape=[1, 1], data=[None]), "y: row 0 has length nan, expected 1"),
        (rules(shape=[2]), answer(name="z", shape=[2], data=[0, 0]), "y: not in the answer"),
        (rules(shape=[2]), {"type": "urn:problem", "status": 500}, "y: not in the answer"),
    ],
)
def test_a_wrong_answer_is_told_by_output_and_rule(expected, response, failure):
    assert check(expected, response) == [failure]


@pytest.mark.parametrize(
    "response",
    [
        answer(shape=[3], data=[1, 2]),
        answer(data=[1]),
        answer(shape=[1], data=["x"]),
        answer(shape=[0], data=[]),
    ],
)
def test_what_is_no_tensor_is_a_failure_and_no_crash(response):
    assert [failure.startswith("y: not a tensor") for failure in check(rules(min=0), response)] == [True]


def test_every_failing_rule_is_told():
    assert len(check(rules(shape=[1], min=2, max=-1), VECTORS)) == 3


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"outputs": {}},
        {"outputs": {"y": {}}},
        {"output": {"y": {"min": 0}}},
        rules(minimum=0),
        rules(unit_length=False),
        rules(cosine=[{"rows": [0, 1]}]),
        rules(cosine=[{"rows": [0, 1], "least": 0.8}]),
    ],
)
def test_expectations_that_could_pass_unnoticed_are_refused(expected):
    with pytest.raises(ValueError, match=r"expected\.json|unknown rule|unit_length|cosine"):
        check(expected, VECTORS)
