"""An artifact is what its manifest says, or it is refused by name."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from inference_runtime import manifest
from inference_runtime.manifest import Artifact, ArtifactError
from tests.unit.runtime import tiny


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return tiny.doubler(tmp_path / "a", handler="# nothing", files={"vocab.txt": b"words"})


IDS = {"name": "ids", "datatype": "UINT8", "shape": [-1, -1]}


def edited(artifact: Artifact, **changes: Any) -> bytes:
    document = json.loads((artifact.folder / "manifest.json").read_bytes())
    return json.dumps(document | changes).encode()


def test_the_id_is_the_hash_of_the_manifest_which_covers_every_file(artifact: Artifact) -> None:
    content = (artifact.folder / "manifest.json").read_bytes()
    assert artifact.manifest.sha256 == hashlib.sha256(content).hexdigest()
    assert set(artifact.manifest.files) == {"model.onnx", "handler.py", "vocab.txt"}
    assert (
        content
        == json.dumps(json.loads(content), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    )


def test_the_same_files_give_the_same_id(artifact: Artifact, tmp_path: Path) -> None:
    again = tiny.doubler(tmp_path / "b", handler="# nothing", files={"vocab.txt": b"words"})
    assert again.manifest == artifact.manifest


def test_a_changed_file_is_refused_with_both_hashes(artifact: Artifact) -> None:
    expected = artifact.manifest.files["vocab.txt"].sha256
    (artifact.folder / "vocab.txt").write_bytes(b"sword")
    found = hashlib.sha256(b"sword").hexdigest()
    with pytest.raises(ArtifactError, match=f"vocab.txt: SHA-256 is {found} .* expected {expected}"):
        manifest.verify(artifact.folder)


def test_a_missing_file_is_refused_by_name(artifact: Artifact) -> None:
    (artifact.folder / "model.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx: missing"):
        manifest.verify(artifact.folder)


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json: missing"):
        manifest.verify(tmp_path)


def test_another_artifact_than_the_one_asked_for_is_refused_with_both_ids(artifact: Artifact) -> None:
    asked = "0" * 64
    with pytest.raises(ArtifactError, match=f"{artifact.manifest.sha256}, expected {asked}"):
        manifest.verify(artifact.folder, asked)


def test_a_link_out_of_the_folder_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"words")
    (artifact.folder / "vocab.txt").unlink()
    (artifact.folder / "vocab.txt").symlink_to(tmp_path / "outside")
    with pytest.raises(ArtifactError, match=r"vocab\.txt: a link that leaves"):
        manifest.verify(artifact.folder)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a\\b", "", ".", "manifest.json"]
)
def test_a_path_that_could_leave_the_folder_or_alias_another_is_refused(
    artifact: Artifact, name: str
) -> None:
    files = {"model.onnx": {"sha256": "0" * 64, "size": 1}, name: {"sha256": "0" * 64, "size": 1}}
    with pytest.raises(ArtifactError, match=r"files is .* plain relative paths"):
        manifest.parse(edited(artifact, files=files, handler=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema is 2; it must be 1"),
        ({"schema": True}, "schema has the wrong type"),
        ({"extra": 1}, "unknown extra"),
        ({"name": "No Spaces"}, "name is 'No Spaces'"),
        ({"version": ""}, "version is ''"),
        ({"platform": "torch"}, "platform is 'torch'"),
        ({"model": "other.onnx"}, "model is 'other.onnx'; it must be one of `files`"),
        ({"handler": "other.py"}, "handler is 'other.py'"),
        ({"model": None}, "platform is 'onnxruntime_onnx'; it must be 'python'"),
        ({"model": None, "platform": "python", "handler": None}, "handler is None.* there is no `model`"),
        ({"platform": "python"}, "platform is 'python'; it must be 'onnxruntime_onnx'"),
        ({"files": []}, "files has the wrong type"),
        ({"files": {"model.onnx": {"sha256": "zz", "size": 1}}}, r"files\['model.onnx'\].sha256 is 'zz'"),
        ({"files": {"model.onnx": {"sha256": "0" * 64, "size": -1}}}, r"files\['model.onnx'\].size is -1"),
        ({"files": {"model.onnx": {"sha256": "0" * 64}}}, r"files\['model.onnx'\]: missing size"),
        ({"inputs": []}, "inputs is .* at least one tensor"),
        ({"inputs": [{"name": "x", "datatype": "FP8", "shape": [1]}]}, r"inputs\[0\].datatype is 'FP8'"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [0]}]}, r"inputs\[0\].shape is \[0\]"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}] * 2}, r"inputs\[1\].name is 'x'"),
        ({"outputs": ["y"]}, r"outputs\[0\] is not an object"),
        ({"outputs": [IDS | {"padding": 0}]}, r"outputs\[0\]: unknown padding"),
        ({"inputs": [IDS | {"padding": "0"}]}, r"inputs\[0\]: padding has the wrong type"),
        ({"inputs": [IDS | {"padding": True}]}, r"inputs\[0\]: padding has the wrong type"),
        ({"inputs": [IDS | {"padding": 256}]}, r"inputs\[0\].padding is 256; it must be a value of UINT8"),
        ({"inputs": [IDS | {"padding": 0.5}]}, r"inputs\[0\].padding is 0.5; it must be a value of UINT8"),
        (
            {"inputs": [IDS | {"datatype": "FP32", "padding": float("nan")}]},
            "padding is nan; it must be a value",
        ),
        (
            {"inputs": [IDS | {"datatype": "BYTES", "padding": 0}]},
            "padding is 0; it must be a value of BYTES",
        ),
        ({"inputs": [IDS | {"shape": [-1, 3], "padding": 0}]}, "padding is 0; it must be left out where"),
        ({"inputs": [IDS | {"shape": [1, -1], "padding": 0}]}, "padding is 0; it must be left out where"),
        ({"inputs": [IDS | {"shape": [], "padding": 0}]}, "padding is 0; it must be left out where"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(
    artifact: Artifact, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        manifest.parse(edited(artifact, **changes))


def test_a_missing_field_is_named(artifact: Artifact) -> None:
    document = json.loads((artifact.folder / "manifest.json").read_bytes())
    del document["version"]
    with pytest.raises(ArtifactError, match="missing version"):
        manifest.parse(json.dumps(document).encode())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"schema":1,"schema":1}', b"[" * 100_000])
def test_what_is_not_a_json_object_with_unique_keys_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        manifest.parse(content)


def test_what_an_input_is_padded_with_is_kept_and_no_part_of_the_protocols_metadata(
    artifact: Artifact,
) -> None:
    found = manifest.parse(edited(artifact, inputs=[IDS | {"padding": 0}]))
    assert found.inputs == (manifest.TensorSpec("ids", "UINT8", (-1, -1), 0),)
    assert found.metadata()["inputs"] == [{"name": "ids", "datatype": "UINT8", "shape": (-1, -1)}]
    written = manifest.write(
        artifact.folder,
        name="m",
        version="1",
        model=None,
        handler="handler.py",
        inputs=found.inputs,
        outputs=found.outputs,
    )
    assert manifest.verify(artifact.folder).manifest.inputs == written.inputs == found.inputs
