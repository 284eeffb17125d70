"""Deployment packages: same inputs, same bytes; built once, whole, and for the machine asked for."""

import json
import multiprocessing
import os
import re
import shutil
import struct
import zipfile
from pathlib import Path

import pytest

from stacks import bundling

#: What `readelf -h` calls the machine.
ELF_MACHINES = {"x86_64": 62, "arm64": 183}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project with functions that carry nothing, our runtime, and a compiled wheel."""
    root = tmp_path / "project"
    (root / "inference_runtime" / "__pycache__").mkdir(parents=True)
    (root / "inference_runtime" / "__pycache__" / "errors.pyc").write_bytes(b"machine's own")
    (root / "inference_runtime" / "errors.py").write_text("PROBLEMS = {}\n")
    for function, source in {
        "plain": "import json\n",
        "shared": "from inference_runtime.errors import PROBLEMS\n",
        "compiled": "import orjson\n",
    }.items():
        (root / "lambda_src" / function).mkdir(parents=True)
        (root / "lambda_src" / function / "handler.py").write_text(source)
    lock = (bundling.ROOT / "lambda_src" / "inference" / "requirements.txt").read_text()
    orjson = re.search(r"^orjson==(?:.*\\\n)*.*\n", lock, re.MULTILINE)
    assert orjson
    (root / "lambda_src" / "compiled" / "requirements.txt").write_text(orjson[0])
    monkeypatch.setattr(bundling, "ROOT", root)
    monkeypatch.setattr(bundling, "BUILD", root / "build" / "zips")
    return root


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def build(function: str) -> Path:
    return bundling.lambda_zip(function, python="host", architecture="host")


def test_a_function_gets_its_own_files_and_our_runtime_only_if_it_imports_it(project: Path) -> None:
    (project / "lambda_src" / "plain" / "logic.py").write_text("")
    assert names(build("plain")) == ["handler.py", "logic.py"]
    assert names(build("shared")) == ["handler.py", "inference_runtime/errors.py"]


def test_a_function_gets_the_common_modules_that_it_imports(project: Path) -> None:
    for name in ("custom_resource", "other"):
        (project / "lambda_src" / "common").mkdir(exist_ok=True)
        (project / "lambda_src" / "common" / f"{name}.py").write_text("")
    (project / "lambda_src" / "plain" / "handler.py").write_text("from custom_resource import respond\n")
    assert names(build("plain")) == ["custom_resource.py", "handler.py"]


def test_a_second_call_finds_the_first_ones_file(project: Path) -> None:
    first = build("compiled")
    written = first.stat().st_mtime_ns
    assert build("compiled") == first
    assert first.stat().st_mtime_ns == written
    assert list(first.parent.glob("*.partial")) == []


@pytest.mark.parametrize(
    "changed", ["lambda_src/shared/handler.py", "inference_runtime/errors.py", "lambda_src/shared/new.py"]
)
def test_a_changed_input_makes_another_file(project: Path, changed: str) -> None:
    before = build("shared")
    with (project / changed).open("a") as source:
        source.write("# changed\n")
    assert build("shared") != before


def test_the_bytes_depend_on_nothing_but_the_content(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build("compiled")
    for path in project.rglob("*.py"):
        os.utime(path, (0, 0))
        path.chmod(0o755)
    monkeypatch.setattr(bundling, "BUILD", project / "elsewhere")
    second = build("compiled")
    assert second != first
    assert second.name == first.name
    assert second.read_bytes() == first.read_bytes()
    with zipfile.ZipFile(second) as archive:
        assert archive.namelist() == sorted(archive.namelist())
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_nothing_of_the_machine_that_built_it_is_inside(project: Path) -> None:
    with zipfile.ZipFile(build("compiled")) as archive:
        assert not [
            name for name in archive.namelist() if name.endswith((".pyc", "/RECORD")) or "bin/" in name
        ]
        assert not [name for name in archive.namelist() if str(project).encode() in archive.read(name)]


@pytest.mark.parametrize("architecture", ELF_MACHINES)
def test_compiled_wheels_are_for_the_lambda_and_not_for_this_machine(
    project: Path, architecture: str
) -> None:
    path = bundling.lambda_zip("compiled", python="3.14", architecture=architecture)
    with zipfile.ZipFile(path) as archive:
        [library] = [name for name in archive.namelist() if name.endswith(".so")]
        assert "cpython-314" in library
        (machine,) = struct.unpack_from("<H", archive.read(library), 18)
    assert machine == ELF_MACHINES[architecture]


def test_processes_that_build_at_once_get_one_whole_file(project: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        [path] = set(pool.map(build, ["compiled"] * 3))
    assert "handler.py" in names(path)
    assert [entry.name for entry in path.parent.glob("*.zip")] == [path.name]


def test_a_build_that_fails_leaves_nothing(project: Path) -> None:
    requirements = project / "lambda_src" / "compiled" / "requirements.txt"
    requirements.write_text(re.sub(r"sha256:\w+", "sha256:" + "0" * 64, requirements.read_text()))
    with pytest.raises(bundling.subprocess.CalledProcessError):
        build("compiled")
    assert [path for path in (project / "build" / "zips").iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("function", "architecture", "message"),
    [
        ("nothing", "host", "lambda_src/nothing/handler.py does not exist"),
        ("plain", "riscv", "must be one of"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(
    project: Path, function: str, architecture: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bundling.lambda_zip(function, python="host", architecture=architecture)


def test_an_artifact_is_built_by_its_model_and_zipped_as_it_is(project: Path) -> None:
    (project / "models").mkdir()
    (project / "models" / "build.py").write_text(
        "import pathlib, sys\n"
        "folder = pathlib.Path('build/artifacts') / sys.argv[1]\n"
        "folder.mkdir(parents=True)\n"
        "(folder / 'manifest.json').write_text('{}')\n"
        "(folder / 'model.onnx').write_bytes(b'weights')\n"
    )
    bundling._build_artifact.cache_clear()
    path = bundling.artifact_zip("tiny")
    sha256 = bundling.artifact_sha256("tiny")
    assert path.name == f"artifact-tiny-{sha256}.zip"
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "manifest.json": b"{}",
            "model.onnx": b"weights",
        }
    bundling._build_artifact.cache_clear()
    shutil.rmtree(project / "build")


def test_the_real_functions_are_under_lambdas_limit() -> None:
    for function in ("inference", "publish_artifact"):
        with zipfile.ZipFile(build(function)) as archive:
            assert sum(entry.file_size for entry in archive.infolist()) < 130 * 10**6
            assert json.dumps(sorted(archive.namelist())) == json.dumps(archive.namelist())
