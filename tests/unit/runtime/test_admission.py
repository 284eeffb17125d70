"""inference_runtime.admission: what is told of an artifact without running it, and in which words."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference_runtime import admission, graph_file, manifest
from inference_runtime.manifest import Artifact, ArtifactError, Manifest, TensorSpec
from tests.unit.runtime import tiny

GOLDEN = {"sample.json": tiny.body(), "expected.json": b'{"outputs": {"y": {"shape": [2, 2]}}}'}


def admissible(folder: Path, **files: bytes) -> Artifact:
    return tiny.doubler(folder, files=GOLDEN | files)


def with_graph(folder: Path, **options: Any) -> Artifact:
    """The doubler of other versions of ONNX."""
    found = admissible(folder)
    model = onnx.load(folder / "model.onnx")
    changed = helper.make_model(
        model.graph,
        ir_version=options.get("ir_version", 10),
        opset_imports=[helper.make_opsetid("", options.get("opset", 17))],
    )
    (folder / "model.onnx").write_bytes(changed.SerializeToString())
    return rewritten(found)


def rewritten(artifact: Artifact) -> Artifact:
    """The artifact with a manifest of what is in its folder now."""
    known = artifact.manifest
    manifest.write(
        artifact.folder,
        name=known.name,
        version=known.version,
        model=known.model,
        handler=known.handler,
        inputs=known.inputs,
        outputs=known.outputs,
    )
    return manifest.verify(artifact.folder)


def problems(artifact: Artifact, *, pickles: bool = False) -> list[str]:
    return admission.problems(artifact, None, breaking=False, pickles=pickles)


def signed(
    inputs: list[tuple[str, str, tuple[int, ...]]], outputs: list[tuple[str, str, tuple[int, ...]]]
) -> Manifest:
    return Manifest(
        sha256="0" * 64, name="tiny", version="1.0.0", platform=manifest.ONNX, model="model.onnx",
        handler=None, files={},
        inputs=tuple(TensorSpec(*spec) for spec in inputs),
        outputs=tuple(TensorSpec(*spec) for spec in outputs),
    )  # fmt: skip


X, Y = ("x", "FP32", (-1, 2)), ("y", "FP32", (-1, 2))


def test_nothing_speaks_against_a_model_that_shows_its_answer(tmp_path: Path) -> None:
    assert problems(admissible(tmp_path / "a")) == []


def test_a_version_without_a_golden_request_and_answer_is_refused(tmp_path: Path) -> None:
    (said,) = problems(tiny.doubler(tmp_path / "a"))
    assert said.startswith("no sample.json and no expected.json: ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"opset": 6}, "model.onnx: opset 6, allowed are 7 to 26"),
        ({"opset": 27}, "model.onnx: opset 27, allowed are 7 to 26"),
        ({"ir_version": 14}, "model.onnx: ONNX IR version 14, allowed are 3 to 13"),
    ],
)
def test_versions_that_the_engine_does_not_know_are_refused(
    tmp_path: Path, options: dict[str, int], said: str
) -> None:
    assert problems(with_graph(tmp_path / "a", **options)) == [said]


@pytest.mark.parametrize("opset", [7, 26])
def test_the_limits_are_those_of_the_engine(tmp_path: Path, opset: int) -> None:
    """The allowed ones load, so that the limit is no stricter than what would serve."""
    import onnxruntime as ort

    artifact = with_graph(tmp_path / "a", opset=opset)
    assert problems(artifact) == []
    ort.InferenceSession(str(artifact.folder / "model.onnx"), providers=["CPUExecutionProvider"])


def test_what_is_read_of_a_graph_is_what_onnx_reads(tmp_path: Path) -> None:
    """Tensors outside the file are found wherever a graph may keep one: initializers, constants, branches."""

    def outside(name: str) -> TensorProto:
        tensor = helper.make_tensor(name, TensorProto.FLOAT, [1], [0.0])
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{name}.bin")
        tensor.external_data.add(key="offset", value="0")
        return tensor

    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, [1])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["v"], value=outside("branch"))], "b", [], [value]
    )
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=outside("constant")),
            helper.make_node("If", ["flag"], ["v"], then_branch=branch, else_branch=branch),
        ],
        "g",
        [helper.make_tensor_value_info("flag", TensorProto.BOOL, [1])],
        [value],
        [outside("weights")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=10, opset_imports=opsets).SerializeToString())
    found = graph_file.read(path)
    assert (found.ir_version, found.opset, found.opsets) == (10, 17, {"": 17, "ai.onnx.ml": 3})
    assert found.external == {"branch.bin", "constant.bin", "weights.bin"}


def test_weights_outside_the_graph_must_be_in_the_manifest(tmp_path: Path) -> None:
    artifact = admissible(tmp_path / "a")
    model = onnx.load(artifact.folder / "model.onnx")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save(
        model,
        artifact.folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    named = rewritten(artifact)
    assert problems(named) == []
    (artifact.folder / "weights.bin").rename(tmp_path / "elsewhere")
    assert problems(rewritten(artifact)) == [
        "model.onnx: draws on weights.bin, which the manifest does not name"
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b"no graph", b"\x0a", b"\x3a\x3a" * 100_000, bytes(range(256)) * 64],
    ids=["empty", "text", "cut", "deep", "noise"],
)
def test_what_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"^model.onnx: not an ONNX file"):
        graph_file.read(path)


def _npz(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, array=array)
    return buffer.getvalue()


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _torch() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps([1]))
    return buffer.getvalue()


OBJECTS = np.array([{"a": 1}], dtype=object)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scaler.joblib", b"anything"),
        ("scaler.PKL", b"anything"),
        ("scaler.dat", pickle.dumps({"mean": 1})),
        ("table.npy", _npy(OBJECTS)),
        ("tables.npz", _npz(OBJECTS)),
        ("weights.bin", _torch()),
    ],
)
def test_pickles_are_refused_by_name_or_content_unless_the_model_admits_them(
    tmp_path: Path, name: str, content: bytes
) -> None:
    artifact = admissible(tmp_path / "a", **{name: content})
    (said,) = problems(artifact)
    assert said.startswith(f"{name}: pickles run code when they are read")
    assert problems(artifact, pickles=True) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("table.npy", _npy(np.ones(3))), ("tables.npz", _npz(np.ones(3))), ("words.txt", b"\x80"), ("x", b"")],
)
def test_plain_arrays_and_other_bytes_are_no_pickles(tmp_path: Path, name: str, content: bytes) -> None:
    assert problems(admissible(tmp_path / "a", **{name: content})) == []


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([X], [Y]),
        ([("x", "FP32", (-1, -1))], [Y]),  # takes more
        ([X], [("y", "FP32", (8, 2)), ("z", "BYTES", (1,))]),  # answers more, and more exactly
    ],
)
def test_a_version_that_takes_and_answers_what_the_live_one_does_and_more_is_compatible(
    inputs: list[Any], outputs: list[Any]
) -> None:
    assert admission.incompatibilities(signed([X], [Y]), signed(inputs, outputs)) == []


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ([X, ("a", "FP32", (1,))], [Y], "input 'a' is new, and every client would have to send it"),
        ([], [Y], "input 'x' is gone"),
        ([("x", "FP64", (-1, 2))], [Y], "input 'x' was FP32[-1, 2], and takes only FP64[-1, 2]"),
        ([("x", "FP32", (1, 2))], [Y], "input 'x' was FP32[-1, 2], and takes only FP32[1, 2]"),
        ([("x", "FP32", (-1,))], [Y], "input 'x' was FP32[-1, 2], and takes only FP32[-1]"),
        ([X], [("z", "FP32", (-1, 2))], "output 'y' is gone"),
        ([X], [("y", "FP32", (-1, -1))], "output 'y' was FP32[-1, 2], and is FP32[-1, -1]"),
    ],
)  # fmt: skip
def test_what_a_client_would_notice_breaks_it(inputs: list[Any], outputs: list[Any], said: str) -> None:
    (found,) = admission.incompatibilities(signed([X], [Y]), signed(inputs, outputs))
    assert found == (
        f"the signature breaks clients of version 1.0.0: {said} (say breaking: true if that is meant)"
    )


def test_a_breaking_version_is_admitted_when_it_says_so(tmp_path: Path) -> None:
    artifact = admissible(tmp_path / "a")
    live = signed([("other", "FP32", (-1,))], [Y])
    assert admission.problems(artifact, live, breaking=False, pickles=False)
    assert admission.problems(artifact, live, breaking=True, pickles=False) == []
