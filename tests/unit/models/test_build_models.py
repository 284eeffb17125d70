"""models/build.py: reproducible artifacts from pinned weights, whole or absent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog import load_catalog
from inference_runtime.expectations import check
from inference_runtime.manifest import verify
from inference_runtime.model import Model

ROOT = Path(__file__).parents[3]
MODELS = [spec.name for spec in load_catalog(ROOT / "models")]

# metadata.json of magika's wheel: 19 bytes, real, and pinned as weights are.
RECIPE = """
from inference_runtime.manifest import TensorSpec

INPUTS = OUTPUTS = (TensorSpec("x", "FP32", (-1,)),)
FILE = "magika/models/standard_v3_3/metadata.json"
WEIGHTS = {FILE: "1f89624fc8ff832308cddf8692149cd7d1072e7aba2f4d348e2400e3aafb2c4d"}


def build(weights):
    return {"model.onnx": weights[FILE]}
"""
YAML = """
name: toy-model
description: Not a network; its file only has to arrive.
owner: tests
target: cpu
version: 1.0.0
"""


@pytest.fixture
def toy(builder, wheels, tmp_path, monkeypatch):
    """A models folder of its own with one small model, and a build folder with the unpacked wheels."""
    models, build = tmp_path / "models", tmp_path / "build"
    folder = models / "toy-model"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(YAML)
    (folder / "build.py").write_text(RECIPE)
    build.mkdir()
    (build / "wheels").symlink_to(wheels)
    (build / ".wheels.key").write_text((wheels.parent / ".wheels.key").read_text())
    monkeypatch.setattr(builder, "MODELS", models)
    monkeypatch.setattr(builder, "BUILD", build)
    return folder


@pytest.fixture
def run(builder, toy, tmp_path, capfd):
    """Run the command line; gives its status and what it said."""

    def run(*arguments: str) -> tuple[int, str]:
        status = builder.main(["--output", str(tmp_path / "artifacts"), *arguments])
        return status, capfd.readouterr().err

    return run


@pytest.fixture
def artifact(tmp_path):
    return tmp_path / "artifacts" / "toy-model"


@pytest.mark.parametrize("model", MODELS)
def test_two_builds_of_a_model_are_equal_in_every_byte(artifacts, rebuilt, model):
    def files(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folder / model).iterdir()}

    assert files(artifacts) == files(rebuilt)


@pytest.mark.parametrize("model", MODELS)
def test_the_sample_is_answered_as_expected(artifacts, sample, model):
    answer = Model(verify(artifacts / model)).answer(json.dumps(sample(model, "sample.json")).encode()).body

    assert check(sample(model, "expected.json"), json.loads(answer)) == []


@pytest.mark.parametrize("model", MODELS)
def test_an_artifact_is_exactly_the_files_of_its_manifest(artifacts, model):
    found = verify(artifacts / model)

    files = {path.relative_to(found.folder).as_posix() for path in found.folder.rglob("*")}
    assert files == {*found.manifest.files, "manifest.json"}
    assert "sample.json" in files


def test_what_is_up_to_date_is_left_alone(run, artifact):
    assert run()[0] == 0
    before = (artifact / "manifest.json").stat()

    status, said = run()

    assert (status, said.split(maxsplit=1)) == (0, ["toy-model", "up to date\n"])
    assert (artifact / "manifest.json").stat().st_ino == before.st_ino


def test_a_change_that_does_not_concern_the_artifact_builds_nothing(run, toy):
    run()
    (toy / "model.yaml").write_text(YAML.replace("owner: tests", "owner: others"))

    assert "up to date" in run()[1]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.yaml", YAML.replace("1.0.0", "1.0.1")),
        ("build.py", RECIPE.replace("weights[FILE]", "weights[FILE] * 2")),
        ("handler.py", "def preprocess(inputs, state):\n    return inputs\n"),
        ("sample.json", "{}"),
    ],
)
def test_a_change_of_any_source_makes_another_artifact(run, toy, artifact, file, content):
    run()
    before = verify(artifact).manifest
    (toy / file).write_text(content)

    status, said = run()

    assert status == 0
    assert "built version" in said
    assert verify(artifact).manifest.sha256 != before.sha256


def test_a_damaged_artifact_is_built_again(run, artifact):
    run()
    (artifact / "model.onnx").write_bytes(b"damaged")

    status, said = run()

    assert status == 0
    assert "model.onnx" in said
    verify(artifact)


def test_a_weight_with_another_hash_is_refused_and_changes_nothing(run, toy, artifact):
    run()
    before = verify(artifact).manifest.sha256
    right = "1f89624fc8ff832308cddf8692149cd7d1072e7aba2f4d348e2400e3aafb2c4d"
    (toy / "build.py").write_text(RECIPE.replace(right, "0" * 64))

    status, said = run()

    assert status == 1
    assert f"magika/models/standard_v3_3/metadata.json: SHA-256 is {right}, expected {'0' * 64}" in said
    assert verify(artifact).manifest.sha256 == before


@pytest.mark.parametrize("name", ["magika/absent", "all_minilm_l6_v2/model.zip/absent", "absent.zip/member"])
def test_a_weight_that_is_not_there_is_named(run, toy, artifact, name):
    (toy / "build.py").write_text(RECIPE.replace("magika/models/standard_v3_3/metadata.json", name))

    status, said = run()

    assert status == 1
    assert f"{name} cannot be read" in said
    assert not artifact.exists()


def test_a_recipe_that_fails_halfway_leaves_no_artifact_and_no_scraps(run, toy, artifact):
    (toy / "build.py").write_text(RECIPE.replace('"model.onnx":', '"other.onnx":'))

    status, said = run()

    assert status == 1
    assert "there is no `model`" in said
    assert list(artifact.parent.iterdir()) == []


def test_wheels_that_cannot_be_unpacked_are_an_error_with_a_remedy(
    builder, run, tmp_path, monkeypatch, capfd
):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"magika==1.0.3 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(builder, "REQUIREMENTS", requirements)
    monkeypatch.setenv("UV_OFFLINE", "1")

    status, said = run()

    assert status == 1
    assert "uv could not unpack" in said
    assert "package index must be reachable" in said


def test_a_recipe_needs_no_more_than_a_signature_where_the_folder_holds_the_model(
    run, toy, artifact, artifacts, builder, monkeypatch, tmp_path
):
    content = (artifacts / "wine-cultivar" / "model.onnx").read_bytes()
    (toy / "model.onnx").write_bytes(content)
    (toy / "build.py").write_text(RECIPE.partition("FILE =")[0])
    # Nor does it unpack wheels that it takes nothing from.
    monkeypatch.setattr(builder, "REQUIREMENTS", tmp_path / "absent.txt")
    (tmp_path / "absent.txt").write_text("no-such-package==1")

    assert run()[0] == 0
    assert (artifact / "model.onnx").read_bytes() == content
    (toy / "model.onnx").write_bytes(content + b"\0")
    assert "built version" in run()[1]


def test_a_recipe_without_a_graph_needs_a_handler(run, toy, artifact):
    (toy / "build.py").write_text(RECIPE.partition("FILE =")[0])
    status, said = run()
    assert (status, artifact.exists()) == (1, False)
    assert "there is no `model`" in said

    (toy / "handler.py").write_text("def infer(inputs, state):\n    return inputs\n")
    assert run()[0] == 0
    manifest = verify(artifact).manifest
    assert (manifest.model, manifest.platform) == (None, "python")


def test_an_unknown_model_is_an_error_that_says_which_there_are(run):
    status, said = run("toy-modle")

    assert status == 2
    assert "toy-modle" in said
    assert "there are toy-model" in said


def test_a_model_whose_artifact_is_in_s3_is_not_built_here(run, toy, artifact):
    source = f"artifact:\n  source: s3://bucket/folder/\n  sha256: '{'0' * 64}'\n"
    (toy / "model.yaml").write_text(YAML + source)

    assert run() == (0, "")
    assert not artifact.exists()


def test_builds_at_the_same_time_all_succeed(artifacts, tmp_path):
    command = [sys.executable, str(ROOT / "models" / "build.py"), "file-type", "--output", str(tmp_path)]
    builds = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]

    said = [build.communicate()[1] for build in builds]

    assert [build.returncode for build in builds] == [0, 0, 0], said
    assert sum("built version" in text for text in said) == 1
    assert verify(tmp_path / "file-type").manifest.sha256 == verify(artifacts / "file-type").manifest.sha256


def test_help_says_what_the_command_does():
    done = subprocess.run(
        [sys.executable, str(ROOT / "models" / "build.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )

    assert "Build the artifacts of the models" in done.stdout
    assert "build/artifacts" in done.stdout
