"""The classifier in the repository is the one that its training makes."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from inference_runtime.manifest import verify
from inference_runtime.model import Model

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "models" / "wine-cultivar"

#: Of the data set: the least and the greatest value of each measurement.
LOW = [11.03, 0.74, 1.36, 10.6, 70, 0.98, 0.34, 0.13, 0.41, 1.28, 0.48, 1.27, 278]
HIGH = [14.83, 5.8, 3.23, 30, 162, 3.88, 5.08, 0.66, 3.58, 13, 1.71, 4, 1680]


@pytest.fixture(scope="module")
def model(artifacts):
    return Model(verify(artifacts / "wine-cultivar"))


def ask(model: Model, measurements: np.ndarray) -> dict[str, np.ndarray]:
    inputs = {"measurements": measurements.astype(np.float32)}
    return model.infer(inputs, [spec.name for spec in model.manifest.outputs])


def test_training_again_gives_the_same_network(tmp_path):
    again = tmp_path / "again.onnx"
    # scikit-learn is in an environment of its own.
    installed = "build/training/.installed"
    subprocess.run([shutil.which("make") or "make", "--silent", installed], cwd=ROOT, check=True)
    done = subprocess.run(
        [ROOT / "build/training/bin/python", str(FOLDER / "train.py"), "--output", str(again)],
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "45 of 45 wines that it had not seen are told right\n"
    ours, theirs = (onnx.load(path).graph for path in (FOLDER / "model.onnx", again))
    assert [node.op_type for node in ours.node] == [node.op_type for node in theirs.node]
    # All numbers are attributes. Their last digits are another processor's own.
    for mine, other in zip(ours.node, theirs.node, strict=True):
        for one, two in zip(mine.attribute, other.attribute, strict=True):
            assert (one.name, one.type, one.strings) == (two.name, two.type, two.strings)
            np.testing.assert_allclose(one.floats, two.floats, rtol=1e-4, atol=1e-5)
    assert [numpy_helper.to_array(each) for each in ours.initializer] == []
    mine, other = (exchanges(folder / "baseline.jsonl") for folder in (FOLDER, tmp_path))
    assert mine[0].tolist() == other[0].tolist()
    assert mine[1] == other[1]
    np.testing.assert_allclose(mine[2], other[2], atol=1e-5)


def exchanges(file: Path) -> tuple[np.ndarray, list[str], np.ndarray]:
    """The measurements, cultivars and probabilities of a baseline."""
    documents = [json.loads(line) for line in file.read_text().splitlines()]
    measurements = np.array([each["inputs"][0]["data"] for each in documents])
    cultivar, probability = ([each["outputs"][i]["data"] for each in documents] for i in (0, 1))
    return measurements, [name for (name,) in cultivar], np.array(probability)


def test_the_baseline_is_what_the_network_answers(model):
    measurements, cultivar, probability = exchanges(FOLDER / "baseline.jsonl")
    answer = ask(model, measurements)
    assert [name.decode() for name in answer["cultivar"]] == cultivar
    np.testing.assert_allclose(answer["probability"], probability, atol=1e-5)


def test_the_scaling_is_in_the_graph(model):
    # In the data's own units, where proline alone would otherwise outweigh all the rest.
    rows = np.random.default_rng(1).uniform(LOW, HIGH, (500, 13))

    answer = ask(model, rows)

    np.testing.assert_allclose(answer["probability"].sum(axis=1), 1, atol=1e-6)
    # The columns are in alphabetical order, and the name is that of the largest.
    names = np.array([b"barbera", b"barolo", b"grignolino"], np.object_)
    assert (names[answer["probability"].argmax(axis=1)] == answer["cultivar"]).all()
    assert set(answer["cultivar"]) == set(names)


def test_a_wine_is_answered_the_same_alone_and_among_others(model):
    rows = np.random.default_rng(2).uniform(LOW, HIGH, (64, 13))
    together = ask(model, rows)["probability"]

    alone = np.concatenate([ask(model, row[None])["probability"] for row in rows])

    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-7)
