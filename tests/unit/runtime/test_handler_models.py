"""An artifact without a graph: its handler infers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inference_runtime import manifest
from inference_runtime.errors import Problem
from inference_runtime.manifest import Artifact, ArtifactError, TensorSpec
from inference_runtime.model import Model
from tests.unit.runtime import tiny

INFER = """
def load(folder):
    return int((folder / "factor.txt").read_text())

def infer(inputs, factor):
    if (inputs["x"] == 13).any():
        raise ValueError("/secret/path")
    return {"y": inputs["x"] * factor}
"""
PREPROCESS = """
def preprocess(inputs, factor):
    if (inputs["x"] == 13).any():
        raise ValueError("input 'x': 13 is not allowed")
    return {"x": inputs["x"] + 1}
"""
POSTPROCESS = """
def postprocess(outputs, inputs, factor):
    return {"y": outputs["y"] + inputs["x"]}
"""


def artifact(folder: Path, handler: str) -> Artifact:
    """y = 2 x, as `tiny.doubler`, unless the handler says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "handler.py").write_text(handler)
    (folder / "factor.txt").write_text("2")
    manifest.write(
        folder,
        name="doubler",
        version="1",
        model=None,
        handler="handler.py",
        inputs=[TensorSpec("x", "FP32", (-1, 2))],
        outputs=[TensorSpec("y", "FP32", (-1, 2))],
    )
    return manifest.verify(folder)


def test_it_answers_as_a_graph_would(tmp_path: Path) -> None:
    model = Model(artifact(tmp_path, INFER))
    assert json.loads(model.answer(json.dumps(tiny.REQUEST).encode()).body) == tiny.ANSWER
    assert model.manifest.platform == "python"


def test_what_comes_before_and_after_stays_as_with_a_graph(tmp_path: Path) -> None:
    model = Model(artifact(tmp_path, INFER + PREPROCESS + POSTPROCESS))
    answer = json.loads(model.answer(tiny.body(data=[1, 2, 3, 4])).body)
    assert answer["outputs"][0]["data"] == [5.0, 8.0, 11.0, 14.0]


def test_only_preprocess_tells_the_client_what_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(Problem) as failed:
        Model(artifact(tmp_path / "a", INFER)).answer(tiny.body(data=[13, 0, 0, 0]))
    assert (failed.value.slug, "secret" in failed.value.detail) == ("model-error", False)
    with pytest.raises(Problem, match="13 is not allowed") as refused:
        Model(artifact(tmp_path / "b", INFER + PREPROCESS)).answer(tiny.body(data=[13, 0, 0, 0]))
    assert refused.value.slug == "invalid-data"


def test_a_handler_infers_where_there_is_no_graph_and_only_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"handler\.py: .* must define infer"):
        Model(artifact(tmp_path / "without", PREPROCESS))
    with pytest.raises(ArtifactError, match=r"handler\.py: .* only there"):
        Model(tiny.doubler(tmp_path / "with", handler=INFER, files={"factor.txt": b"2"}))


def test_it_does_not_pay_for_onnx_runtime(tmp_path: Path) -> None:
    folder = artifact(tmp_path, INFER).folder
    script = (
        "import sys; from pathlib import Path; from inference_runtime.manifest import verify\n"
        "from inference_runtime.model import Model\n"
        "Model(verify(Path(sys.argv[1]))); print('onnxruntime' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
