"""The image's build recipe, as far as it can be held to its word without building an image."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from inference_containers.onnx import compilation

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "inference_containers" / "onnx"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()


def test_what_the_image_copies_is_all_that_the_server_needs(tmp_path: Path) -> None:
    _, _, final_stage = DOCKERFILE.rpartition("FROM ")
    assert "COPY --from=compiled /compiled ./" in final_stage
    copied = [f"{package} {package}" for package in compilation.PACKAGES]
    copied += re.findall(r"^COPY (?!--from)(.+)$", final_stage, re.MULTILINE)
    for line in copied:
        *sources, target = line.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target)
            else:
                shutil.copy(ROOT / source, tmp_path / target)
    assert os.access(tmp_path / "serve", os.X_OK)
    # -S: without the .pth file that makes the project importable from the environment.
    process = subprocess.run(
        [sys._base_executable, "-S", "-B", str(tmp_path / "serve")],  # type: ignore[attr-defined]
        env={"PYTHONPATH": sysconfig.get_path("purelib"), "SAGEMAKER_BIND_TO_PORT": "0"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # It starts, imports everything, and only then misses its settings.
    assert (process.returncode, process.stderr) == (2, "")
    assert "the environment lacks MODEL_NAME, MODEL_SHA256" in process.stdout


@pytest.mark.parametrize(
    ("what", "runtime"), [("cpu", ["onnxruntime"]), ("cuda", ["onnxruntime-gpu"]), ("compile", [])]
)
def test_every_requirement_is_pinned_and_hashed(what: str, runtime: list[str]) -> None:
    lock = (FOLDER / f"requirements-{what}.txt").read_text()
    requirements = re.sub(r"\\\n\s*", "", lock).splitlines()
    assert all(re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line) for line in requirements)
    names = [line.partition("==")[0] for line in requirements]
    assert [name for name in names if name.startswith("onnxruntime")] == runtime
    assert "://" not in lock


def test_the_base_image_is_an_argument_with_a_version() -> None:
    [default] = re.findall(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.search(r":\d+\.\d+", default)
    assert {line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")} == {
        "${BASE_IMAGE}"
    }


def test_the_image_asks_for_the_gpu() -> None:
    # Without the first, NVIDIA's container runtime shows no GPU, and the model would be served by the CPU.
    assert "NVIDIA_VISIBLE_DEVICES=all" in DOCKERFILE
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in DOCKERFILE
