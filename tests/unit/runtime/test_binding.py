"""A graph run in memory of its own: what comes out is the requests', whatever was there before."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_runtime.binding import Binding
from inference_runtime.model import Engine, Model
from tests.unit.runtime import tiny

ROWS = 8


@pytest.fixture(scope="module")
def binding(tmp_path_factory: pytest.TempPathFactory) -> Binding:
    artifact = tiny.doubler(tmp_path_factory.mktemp("doubler"))
    session = onnxruntime.InferenceSession(str(artifact.folder / "model.onnx"))
    return Binding(session, artifact.manifest.inputs, artifact.manifest.outputs, ROWS, "cpu")


@given(
    st.lists(st.lists(st.floats(width=32), min_size=1, max_size=3), min_size=1, max_size=12),
)
def test_every_request_gets_its_own_rows_whatever_an_earlier_one_left(
    binding: Binding, asked: list[list[float]]
) -> None:
    kept = []
    for values in asked:
        requests = [{"x": np.full((1, 2), value, np.float32)} for value in values]
        with np.errstate(over="ignore"):
            kept.append((binding.run(requests, len(values), ("y",))["y"], np.array(values, np.float32) * 2))
    for found, expected in kept:
        # Not views of what the next batch overwrites.
        np.testing.assert_array_equal(found, np.stack([expected, expected], axis=1))


def test_the_buckets_are_as_many_rows_as_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tiny.doubler(tmp_path)
    session = onnxruntime.InferenceSession(str(artifact.folder / "model.onnx"))
    inputs, outputs = artifact.manifest.inputs, artifact.manifest.outputs
    assert [Binding(session, inputs, outputs, rows, "cpu").rows for rows in (1, 2, 3, 64)] == [1, 2, 2, 64]
    monkeypatch.setattr("inference_runtime.binding._LOCKED_BYTES", 4 * 4096)
    assert Binding(session, inputs, outputs, 64, "cpu").rows == 4


def test_on_a_cpu_nothing_is_bound_and_requests_are_joined_all_the_same(tmp_path: Path) -> None:
    model = Model(tiny.doubler(tmp_path), Engine(device="cpu"))
    assert model.bind(ROWS) == 0
    requests = [{"x": np.array([[1, 2]], np.float32)}, {"x": np.array([[3, 4], [5, 6]], np.float32)}]
    assert model.infer_joined(requests, ["y"])["y"].tolist() == [[2, 4], [6, 8], [10, 12]]
