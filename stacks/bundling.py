"""What gets uploaded: zips of Lambda functions and of model artifacts, made without Docker.

Same inputs, same bytes: members are sorted and carry one timestamp and one mode, so that an asset's hash, and
with it a deployment, changes only when its content does. Everything is kept under `build/` by a hash of all
inputs; a second call finds it there. Files appear there whole or not at all, whoever else is building.

Only the standard library and uv are imported, never aws_cdk: the zips can be made without a synth.
"""

import fcntl
import hashlib
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import uv

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "zips"
#: Our package that functions may import, and the folder of modules that they may; what they import goes into
#: their zips.
SHARED = "inference_runtime"
COMMON = "lambda_src/common"
HOST = "host"

#: uv's names for the Lambda runtimes' machines (Amazon Linux 2023 has glibc 2.34).
_PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
#: Left out: what no import reads. `inference` is then 90 MB of the 250 allowed.
_UNUSED = (
    "bin/*", ".lock", "*/__pycache__/*", "*.pyi", "*/tests/*",
    "*.dist-info/RECORD", "*.dist-info/INSTALLER", "*.dist-info/REQUESTED",
    # The C API's library; the Python extension is linked with its own copy.
    "onnxruntime/capi/libonnxruntime.so.*",
    "onnxruntime/transformers/*", "onnxruntime/quantization/*", "onnxruntime/tools/*",
)  # fmt: skip


def lambda_zip(
    function: str, *, python: str, architecture: str, files: Mapping[str, Path] | None = None
) -> Path:
    """The deployment package of `lambda_src/<function>/`.

    It holds the function's `*.py` at the root, beside them the common modules that they import, our runtime
    if they import it, and the wheels locked in its `requirements.txt`, if it has one. The file's name ends in
    the hash of all that went in.

    Args:
        python: the Lambda runtime's version, such as `3.14`, or `host`: the running interpreter's.
        architecture: `x86_64`, `arm64`, or `host`: this machine's.
        files: what else the function reads, by the path that it has in the zip.

    Raises:
        ValueError: there is no such function or architecture.
        subprocess.CalledProcessError: uv could not install the wheels, and has said why on stderr.
    """
    folder = ROOT / "lambda_src" / function
    if not (folder / "handler.py").is_file():
        raise ValueError(f"lambda_src/{function}/handler.py does not exist")
    if architecture not in (HOST, *_PLATFORMS):
        raise ValueError(f"architecture is {architecture!r}; it must be one of {[HOST, *_PLATFORMS]}")
    sources = {path.name: path for path in folder.glob("*.py")}
    own = [path.read_text() for path in sources.values()]
    if _imported(SHARED, own):
        sources |= {path.relative_to(ROOT).as_posix(): path for path in (ROOT / SHARED).rglob("*.py")}
    modules = (ROOT / COMMON).glob("*.py")
    sources |= {path.name: path for path in modules if _imported(path.stem, own)}
    sources |= files or {}
    requirements = folder / "requirements.txt"
    if not requirements.exists():
        return _cached(f"lambda-{function}", _hash(sources), lambda zip_path: _write_zip(zip_path, sources))

    def build(zip_path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            _install(requirements, python, architecture, Path(scratch))
            _write_zip(zip_path, _wheel_files(Path(scratch)) | sources)

    target = f"{host_python() if python == HOST else python} {sysconfig.get_platform()} {architecture}"
    return _cached(f"lambda-{function}", _hash(sources | {"requirements.txt": requirements}, target), build)


def _imported(name: str, sources: Iterable[str]) -> bool:
    return any(re.search(rf"^(from|import) {name}\b", source, re.MULTILINE) for source in sources)


def artifact_zip(model: str) -> Path:
    """The artifact of `models/<model>/`, built if need be, as a zip for the `publish_artifact` function."""
    folder, sha256 = _build_artifact(model)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    # Weights do not compress.
    return _cached(
        f"artifact-{model}", sha256, lambda zip_path: _write_zip(zip_path, files, zipfile.ZIP_STORED)
    )


def artifact_sha256(model: str) -> str:
    """The id of the artifact in `artifact_zip(model)`: the SHA-256 of its manifest."""
    return _build_artifact(model)[1]


def host_python() -> str:
    """The running interpreter's version, as Lambda names its runtimes: `3.14`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@cache
def _build_artifact(model: str) -> tuple[Path, str]:
    subprocess.run([sys.executable, ROOT / "models" / "build.py", model], check=True, cwd=ROOT)
    folder = ROOT / "build" / "artifacts" / model
    return folder, hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def _install(requirements: Path, python: str, architecture: str, target: Path) -> None:
    """Unpack the locked wheels. `--no-deps`: the lock is complete, and leaves out what its overrides say."""
    command = [
        uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--require-hashes",
        "--only-binary", ":all:", "--no-compile-bytecode", "--python", sys.executable,
        "--target", str(target), "--requirements", str(requirements),
    ]  # fmt: skip
    if python != HOST:
        command += ["--python-version", python]
    if architecture != HOST:
        command += ["--python-platform", _PLATFORMS[architecture]]
    subprocess.run(command, check=True)


def _wheel_files(folder: Path) -> dict[str, Path]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in files.items() if not _unused(name)}


def _unused(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _UNUSED)


def _hash(files: Mapping[str, Path], *settings: str) -> str:
    """A hash of the inputs: settings, the files' names and contents, and this recipe itself."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name, path in sorted(({**files, "recipe": Path(__file__)}).items()):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()


def _cached(stem: str, key: str, build: Callable[[Path], None]) -> Path:
    """`build/zips/<stem>-<key>.zip`, made by `build` (which is given where to write) if it is not there."""
    path = BUILD / f"{stem}-{key}.zip"
    if path.exists():
        return path
    BUILD.mkdir(parents=True, exist_ok=True)
    # One process builds, the others wait for it; the lock goes with the process that holds it.
    with (BUILD / f"{stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            partial = path.with_suffix(".partial")
            build(partial)
            partial.rename(path)
    return path


def _write_zip(path: Path, files: Mapping[str, Path], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in sorted(files.items()):
            member = zipfile.ZipInfo(name)  # dated 1980-01-01, the epoch of zip files
            member.external_attr = 0o644 << 16
            # Level 1 takes a third of the default's time for a tenth more bytes.
            archive.writestr(member, source.read_bytes(), compression, compresslevel=1)
