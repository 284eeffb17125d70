"""Build the artifacts of the models in this folder, each into build/artifacts/<name>/.

A model's recipe is its own build.py:

    INPUTS, OUTPUTS    the public signature, as TensorSpecs
    WEIGHTS            files of the wheels in requirements.txt that it needs -> their SHA-256;
                       "package/data.zip/member" is a file inside an archive. Left out: none
    build(weights)     the same names -> their bytes, verified; returns the artifact's files, name -> bytes.
                       Left out: no file but those of the model's folder

To these come the folder's own model.onnx, handler.py, sample.json, expected.json and baseline.jsonl
(docs/drift.md), where it has them, and a manifest that names every file with its hash. An artifact has a
model.onnx, or else a handler that infers by itself.

The same sources give the same bytes on every machine. What is up to date is left alone; a folder is whole or
absent, also with two builds at once.
"""

import argparse
import fcntl
import hashlib
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import BadZipFile, ZipFile

from catalog import CatalogError, ModelSpec, load_catalog
from inference_runtime import manifest
from inference_runtime.manifest import ArtifactError

MODELS = Path(__file__).resolve().parent
BUILD = MODELS.parent / "build"
REQUIREMENTS = MODELS / "requirements.txt"
#: Files of a model's folder that go into its artifact as they are, where they exist.
CARRIED = ("model.onnx", "handler.py", "sample.json", "expected.json", "baseline.jsonl")


class BuildError(Exception):
    """The artifact cannot be built; the message says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, 1 if a build fails, 2 for a name that is no model."""
    options = _parser().parse_args(arguments)
    try:
        specs = {spec.name: spec for spec in load_catalog(MODELS) if spec.artifact.source == "local"}
        unknown = [name for name in options.names if name not in specs]
        if unknown:
            _say("error", f"no local model {', '.join(unknown)}: there are {', '.join(specs)}")
            return 2
        with _alone(BUILD):
            for name in options.names or specs:
                build(specs[name], options.output)
    except (BuildError, CatalogError, ArtifactError) as error:
        _say("error", str(error))
        return 1
    return 0


def build(spec: ModelSpec, output: Path) -> Path:
    """Build one model's artifact into `<output>/<name>/`, unless it is there and up to date.

    Raises:
        BuildError: the wheels cannot be unpacked, or a weight is missing or not the one that is pinned.
        ArtifactError: the recipe's files do not make an artifact.
    """
    source, target = MODELS / spec.name, output / spec.name
    key = _key(spec, source)
    if _fresh(target, key) and _intact(target):
        _say(spec.name, "up to date")
        return target

    recipe = _load(source / "build.py")
    weights = _read_weights(_unpack_wheels(), recipe.WEIGHTS) if recipe.WEIGHTS else {}
    started = time.monotonic()
    _say(spec.name, "building")
    files: Mapping[str, bytes] = recipe.build(weights)
    with _replacing(target, key) as folder:
        for file, content in files.items():
            (folder / file).write_bytes(content)
        for file in CARRIED:
            if (source / file).exists():
                shutil.copyfile(source / file, folder / file)
        built = manifest.write(
            folder,
            name=spec.name,
            version=spec.version,
            model=_if_there(folder, "model.onnx"),
            handler=_if_there(folder, "handler.py"),
            inputs=recipe.INPUTS,
            outputs=recipe.OUTPUTS,
        )
    megabytes = built.size / 1e6
    seconds = time.monotonic() - started
    _say(
        spec.name,
        f"built version {spec.version}, {megabytes:.1f} MB, in {seconds:.1f} s ({built.sha256[:12]})",
    )
    return target


def _read_weights(wheels: Path, expected: Mapping[str, str]) -> dict[str, bytes]:
    weights = {}
    for name, sha256 in expected.items():
        try:
            content = _read(wheels, name)
        except (OSError, KeyError, BadZipFile) as error:
            raise BuildError(
                f"{name} cannot be read from the wheels of {REQUIREMENTS.name}: {error}"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise BuildError(
                f"{name}: SHA-256 is {found}, expected {sha256}. Delete {wheels} and build again; if "
                f"the wheel's version was changed on purpose, check the weights' origin and update WEIGHTS."
            )
        weights[name] = content
    return weights


def _read(wheels: Path, name: str) -> bytes:
    archive, zipped, member = name.partition(".zip/")
    if not zipped:
        return (wheels / name).read_bytes()
    with ZipFile(wheels / f"{archive}.zip") as file:
        return file.read(member)


def _unpack_wheels() -> Path:
    """The folder with the wheels' files, unpacked unless they already are."""
    target = BUILD / "wheels"
    key = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if _fresh(target, key):
        return target
    _say("wheels", "downloading and unpacking the weights (about 100 MB the first time)")
    # --no-deps: magika and the other wheel are taken for their files, and would bring torch along.
    install = ["uv", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    with _replacing(target, key) as folder:
        command = [sys.executable, "-m", *install, "--python", sys.executable, "--target", str(folder)]
        done = subprocess.run([*command, "--requirements", str(REQUIREMENTS)], check=False)
        if done.returncode != 0:
            raise BuildError(
                f"uv could not unpack {REQUIREMENTS}: see its message above. The package index must be "
                f"reachable until the wheels are in uv's cache."
            )
    return target


def _key(spec: ModelSpec, source: Path) -> str:
    """A hash of all that the artifact is made from."""
    inputs = [source / "build.py", *(source / file for file in CARRIED), REQUIREMENTS]
    code = [Path(__file__), Path(manifest.__file__)]
    digest = hashlib.sha256(f"{spec.name} {spec.version}".encode())
    for path in [*inputs, *code]:
        content = path.read_bytes() if path.exists() else b""
        digest.update(f"\n{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _fresh(target: Path, key: str) -> bool:
    stamp = _stamp(target)
    return target.is_dir() and stamp.is_file() and stamp.read_text() == key


def _intact(artifact: Path) -> bool:
    try:
        manifest.verify(artifact)
    except ArtifactError as error:
        _say(artifact.name, f"damaged, so built again: {error}")
        return False
    return True


@contextmanager
def _replacing(target: Path, key: str) -> Iterator[Path]:
    """An empty folder to fill, which then takes the place of `target`; an error changes nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        yield fresh
        _stamp(target).unlink(missing_ok=True)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        _stamp(target).write_text(key)


def _stamp(target: Path) -> Path:
    # Beside the folder, not in it: an artifact is exactly the files of its manifest.
    return target.parent / f".{target.name}.key"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other build runs. The lock goes with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".models.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting", "another build is running")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _load(path: Path) -> Any:
    """A recipe's names. Run, not imported: an import cached within the same second may be of older text."""
    optional = {"WEIGHTS": {}, "build": lambda weights: {}}
    return SimpleNamespace(**optional | runpy.run_path(str(path)))


def _if_there(folder: Path, file: str) -> str | None:
    return file if (folder / file).exists() else None


def _say(what: str, message: str) -> None:
    print(f"{what:<16} {message}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python models/build.py",
        description="Build the artifacts of the models, each a folder with a manifest, from the pinned "
        "weights in models/requirements.txt. What is up to date is left alone.",
        epilog="A model's recipe is models/<name>/build.py; models/build.py says how to write one.",
    )
    parser.add_argument("names", nargs="*", metavar="name", help="a model to build (default: all)")
    parser.add_argument(
        "--output",
        type=Path,
        default=BUILD / "artifacts",
        metavar="FOLDER",
        help="where the artifacts go (default: build/artifacts)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
