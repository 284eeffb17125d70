"""Compiles what every request passes through, by mypyc: the same server, quicker around the engine.

    python -m inference_containers.onnx.compilation FOLDER

copies the server there, and puts extension modules beside the modules that they are imported instead of. That
takes a C compiler, Python's headers, and requirements-compile.txt. The image is built so, and its server can
be had on a workstation by `make compiled`; everything else here runs the sources
(docs/decisions/0028-the-image-has-compiled-modules.md).

https://mypyc.readthedocs.io
"""

import hashlib
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What a server is made of.
PACKAGES = ("inference_runtime", "inference_containers/onnx")
#: What is compiled. The rest runs once, or is others' native code that is called from Python.
MODULES = (
    "inference_runtime/batching.py",
    "inference_runtime/codecs.py",
    "inference_runtime/metrics.py",
    "inference_runtime/protocol.py",
    "inference_containers/onnx/front.py",
    "inference_containers/onnx/hosting.py",
    "inference_containers/onnx/server.py",
)
#: Says in a compiled server's folder what it was made of.
_STAMP = "compiled-from"
#: `make lint` checks types. mypyc could make nothing of numpy's, which take it longest to read.
_OPTIONS = """
[mypy]
explicit_package_bases = true
namespace_packages = true
ignore_missing_imports = true
disable_error_code = var-annotated
[mypy-numpy.*,onnxruntime.*,prometheus_client.*]
follow_imports = skip
"""


def current(folder: Path) -> bool:
    """Whether a server was compiled into `folder` from the sources as they are now, for this Python."""
    try:
        return (folder / _STAMP).read_text() == _stamp()
    except FileNotFoundError:
        return False


def possible() -> bool:
    """Whether there are a C compiler and Python's headers."""
    return bool(shutil.which("cc")) and Path(sysconfig.get_path("include"), "Python.h").exists()


def compile_into(folder: Path) -> None:
    """Make `folder` a compiled server. Where that fails it stays as it was.

    Raises:
        distutils.errors.CompileError, or SystemExit by mypy: both have said why on standard error.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution

    stamp = _stamp()
    with tempfile.TemporaryDirectory(prefix="compile-") as scratch:
        server = Path(scratch) / "server"
        for source in _sources():
            copy = server / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
        (Path(scratch) / "mypy.ini").write_text(_OPTIONS)
        before = Path.cwd()
        os.chdir(server)
        try:
            # One group: its modules call each other as C does.
            extensions = mypycify(
                ["--config-file=../mypy.ini", *MODULES],
                opt_level="3",
                group_name="inference_server",
                target_dir="made",
            )
            command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
            command.build_lib, command.build_temp = str(server), "made"
            command.ensure_finalized()
            command.run()
        finally:
            os.chdir(before)
        for beside in ("made", ".mypy_cache"):
            shutil.rmtree(server / beside, ignore_errors=True)
        (server / _STAMP).write_text(stamp)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(server, folder)


def main() -> int:
    """The command line."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    if current(folder):
        return 0
    if not possible():
        sys.exit(
            "It takes a C compiler and Python's headers: `apt-get install gcc python3-dev` (Debian, Ubuntu)"
        )
    print(f"Compiling the server into {folder}, which takes about a minute", flush=True)
    compile_into(folder)
    return 0


def _stamp() -> str:
    digest = hashlib.sha256(str(sysconfig.get_config_var("EXT_SUFFIX")).encode())
    for path in _sources():
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _sources() -> list[Path]:
    return sorted(
        path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix == ".py" or path.name == "serve"
    )


if __name__ == "__main__":
    sys.exit(main())
