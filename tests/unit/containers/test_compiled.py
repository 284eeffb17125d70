"""The server as its image has it, with compiled modules: held to the tests of the sources it is made of."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from inferctl.serving import COMPILED
from inference_containers.onnx import compilation
from tests.unit.containers.process import FILES, ROOT

#: What asks the server, or calls what is compiled.
TESTS = (
    "tests/unit/containers/test_front.py",
    "tests/unit/containers/test_kinds.py",
    "tests/unit/containers/test_onnx_server.py",
    "tests/unit/containers/test_processes.py",
    "tests/unit/runtime/test_batching.py",
    "tests/unit/runtime/test_codec_fuzz.py",
    "tests/unit/runtime/test_codecs.py",
)
#: It breaks the reader by patching it, which what is compiled does not let happen.
PATCHED = "test_a_codec_that_reads_what_it_should_refuse_is_found"

# `make test` needs Python and nothing else, as promised; where there is a compiler, as in CI, this runs too.
pytestmark = pytest.mark.skipif(
    not compilation.possible(), reason="there is no C compiler here, or Python's headers are missing"
)


@pytest.fixture(scope="module")
def code() -> Path:
    if not compilation.current(COMPILED):
        compilation.compile_into(COMPILED)
    return COMPILED


def test_it_is_current_until_a_source_changes(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compilation.current(code)
    for package in compilation.PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    monkeypatch.setattr(compilation, "ROOT", tmp_path)
    assert compilation.current(code)
    with (tmp_path / compilation.MODULES[0]).open("a") as module:
        module.write("# changed\n")
    assert not compilation.current(code)
    assert not compilation.current(tmp_path / "nowhere")


def test_what_runs_is_compiled(code: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILES],
        env={"PYTHONPATH": str(code)},
        cwd=code,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    expected = [str(code / module).replace(".py", suffix) for module in compilation.MODULES]
    assert done.stdout.split() == expected


def test_it_passes_the_tests_of_its_sources(code: Path, tmp_path: Path) -> None:
    path = f"pythonpath={code} . lambda_src/common lambda_src/drift lambda_src/release"
    options = ["-q", "-o", path, "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-k", f"not {PATCHED}", *TESTS],
        cwd=ROOT,
        env=os.environ | {"SERVER_CODE": str(code)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
